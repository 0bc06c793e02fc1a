"""Loading a config and pointing it at files, with errors that name what is wrong."""

import difflib
import importlib
from pathlib import Path

import torch
from mmengine.config import Config

from mmbiformer.errors import UserError
from mmbiformer.stack import require

from .data import set_data_root

# What mmengine's Runner reads besides what the shipped configs set.
RUNNER_KEYS = {
    *('activation_checkpointing', 'auto_scale_lr', 'cfg', 'compile', 'custom_hooks'),
    *('custom_imports', 'efficient_conv_bn_eval', 'experiment_name', 'find_unused_parameters'),
    *('load_from', 'max_skipped', 'model_wrapper_cfg', 'randomness', 'resume', 'sync_bn'),
    'work_dir',
}


def load_config(
    path: str,
    *,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
) -> Config:
    """Read a config file and merge what the command line says of it.

    Args:
        path (str): The config file.
        work_dir (str, optional): Where logs and checkpoints go. Defaults to what the config says,
            else ``work_dirs/<name of the config>``.
        data_root (str, optional): Folder that replaces every data root of the config.
        cfg_options (dict, optional): Dotted names and values that override the config's.

    Returns:
        Config: The merged config.

    Raises:
        UserError: If the file is missing or cannot be read, or an option names no key of it.
    """
    if not Path(path).is_file():
        known = {config.name: str(config) for config in Path(path).parent.glob('*.py')}
        raise UserError(f"config '{path}' not found{_did_you_mean(Path(path).name, known)}")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is Python: anything may go wrong in it
        raise UserError(f"config '{path}' cannot be read: {error!r}") from error
    require(*{'mmdet', 'mmseg', 'mmpretrain'} & {cfg.get('default_scope')})
    _check_torchvision()
    for name in cfg_options or {}:
        _check_option(cfg, name)
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options cannot be merged into the config: {error}') from error
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def _check_torchvision() -> None:
    """Refuse a torchvision that does not import: mmpretrain and mmengine's log fail on it."""
    try:
        importlib.import_module('torchvision')
    except ModuleNotFoundError:
        return
    except Exception as error:  # of whatever kind: torchvision loads compiled code
        raise UserError(
            f'torchvision does not import beside torch {torch.__version__} ({error}): install the '
            'one that fits, or run "python requirements/repair_torchvision.py", by which it '
            'imports without its operators'
        ) from error


def _check_option(cfg: Config, name: str) -> None:
    """Refuse what mmengine would take as a new key in silence, where it looks like a mistake."""
    node: object = cfg
    for depth, key in enumerate(name.split('.')):
        if isinstance(node, (list, tuple)) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif not isinstance(node, (Config, dict)) or (depth == 0 and key in RUNNER_KEYS):
            return  # where it does not fit, merging says so
        elif key in node:
            node = node[key]
        else:
            known = {other: other for other in (*node, *(() if depth else RUNNER_KEYS))}
            # Below the top level new keys are common: only one much like another is refused.
            if depth == 0 or difflib.get_close_matches(key, known, n=1, cutoff=0.85):
                hint = _did_you_mean(key, known)
                raise UserError(f"--cfg-options {name}: the config has no '{key}'{hint}")
            return


def _did_you_mean(name: str, known: dict[str, str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean '{known[close[0]]}'?" if close else ': check the name'

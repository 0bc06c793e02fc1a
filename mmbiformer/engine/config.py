"""Loading a config and pointing it at files, with errors that name what is wrong."""

import difflib
from pathlib import Path

from mmengine.config import Config

from mmbiformer.errors import UserError
from mmbiformer.stack import require

from .data import set_data_root

# What mmengine's Runner reads besides what the shipped configs set.
RUNNER_KEYS = {
    'activation_checkpointing',
    'auto_scale_lr',
    'cfg',
    'compile',
    'custom_hooks',
    'custom_imports',
    'efficient_conv_bn_eval',
    'experiment_name',
    'find_unused_parameters',
    'load_from',
    'model_wrapper_cfg',
    'randomness',
    'resume',
    'sync_bn',
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
    require(*{'mmdet', 'mmseg'} & {cfg.get('default_scope')})
    for name in cfg_options or {}:
        key = name.split('.')[0]
        if key not in cfg and key not in RUNNER_KEYS:
            known = {candidate: candidate for candidate in (*cfg, *RUNNER_KEYS)}
            raise UserError(
                f"--cfg-options {name}: the config has no '{key}'{_did_you_mean(key, known)}"
            )
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options cannot be merged into the config: {error}') from error
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def _did_you_mean(name: str, known: dict[str, str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean '{known[close[0]]}'?" if close else ': check the name'

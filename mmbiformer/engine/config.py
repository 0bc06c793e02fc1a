"""Loading a config and pointing it at files, with errors that name what is wrong."""

import contextlib
import importlib
import io
from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.config import Config

from mmbiformer.errors import UserError
from mmbiformer.stack import require

from .config_checks.keys import check_config
from .config_checks.lookup import nearest, suggest
from .config_checks.places import RUNNER_KEYS
from .data import set_data_root


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
        UserError: If the file is missing or cannot be read, or has a key or name, or an option
            does, that nothing knows.
    """
    if not Path(path).is_file():
        known = {config.name: str(config) for config in Path(path).parent.glob('*.py')}
        close = nearest(Path(path).name, known)
        hint = f"did you mean '{known[close[0]]}'?" if close else 'check the path'
        raise UserError(f"config '{path}' not found: {hint}")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is Python: anything may go wrong in it
        raise UserError(f"config '{path}' cannot be read: {error!r}") from error
    packages = {'mmdet', 'mmseg', 'mmpretrain'} & {cfg.get('default_scope')}
    require(*packages)
    _check_torchvision()
    for package in packages:
        _import_quietly(package)
    _check_options(cfg, cfg_options or {})
    for name, value in (cfg_options or {}).items():
        try:
            cfg.merge_from_dict({name: value})
        except (KeyError, TypeError, IndexError) as error:
            reason = str(error.args[0] if error.args else error)[:200]
            raise UserError(
                f'--cfg-options {name}={value!r} cannot be merged: {reason}'
            ) from error
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    check_config(cfg)
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


def _import_quietly(package: str) -> None:
    """Import what registers, without what mmdet and mmseg say of an optional package of theirs.

    They log "Could not import OneDL" for debugging, and mmengine's `print_log` prints it whatever
    its level is.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for module in ('datasets', 'models'):
            importlib.import_module(f'{package}.{module}')
    for line in out.getvalue().splitlines():
        if not line.startswith('Could not import OneDL'):
            print(line)


def _check_options(cfg: Config, names: Iterable[str]) -> None:
    """Refuse options whose first key is none: a file may have keys of its own, which it reads."""
    for name in names:
        key = name.partition('.')[0]
        if key not in cfg and key not in RUNNER_KEYS:
            hint = suggest(key, {*cfg, *RUNNER_KEYS})
            raise UserError(f"--cfg-options {name}: the config has no '{key}': {hint}")

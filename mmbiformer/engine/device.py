"""Fitting a config to the device at hand, and saying what was changed."""

import os

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmbiformer.cpu import bf16_units
from mmbiformer.errors import UserError

from .parts import type_name


def runs_on_cpu_with_bf16_units() -> bool:
    """Whether this run is on a CPU that computes in bfloat16 in hardware."""
    return get_device() == 'cpu' and bool(bf16_units())


def set_amp(cfg: Config) -> None:
    """Switch on automatic mixed precision; :func:`fit_to_device` says what becomes of it.

    Raises:
        UserError: If it would only make the run slower.
    """
    if get_device() == 'cpu' and not bf16_units():
        raise UserError(
            '--amp needs an accelerator, or a CPU with units for bfloat16, and this run is on a '
            'CPU without: leave --amp out'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def fit_to_device(cfg: Config, launcher: str) -> list[str]:
    """Take out of a config what cannot run here, and start a process group on CPUs.

    Args:
        cfg (Config): Changed in place.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        list[str]: One line for each thing that was changed.

    Raises:
        UserError: If the launcher cannot work here.
    """
    notices = []
    on_cpu = get_device() == 'cpu'
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError('--launcher pytorch needs torchrun: start by tools/dist_*.sh')
    if on_cpu and launcher in ('slurm', 'mpi'):
        raise UserError(f'--launcher {launcher} needs GPUs: on CPUs start by tools/dist_*.sh')
    optim_wrapper = cfg.get('optim_wrapper') or {}
    if on_cpu and type_name(optim_wrapper) == 'AmpOptimWrapper':
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            optim_wrapper.pop(key, None)
        if units := bf16_units():
            optim_wrapper['type'] = 'mmbiformer.CPUAmpOptimWrapper'
            notices.append(f'AMP is in bfloat16 on this CPU, which has {", ".join(units)}')
        else:
            optim_wrapper['type'] = 'OptimWrapper'
            notices.append(
                'AMP needs an accelerator, or a CPU with units for bfloat16: this run on the CPU '
                'is in float32'
            )
    if cfg.get('sync_bn') and (on_cpu or launcher == 'none'):
        cfg.sync_bn = None
        notices.append(
            'SyncBN becomes BN, with the statistics of each process alone: '
            + ('it needs GPUs' if on_cpu else 'this run has one process')
        )
    if on_cpu and launcher == 'pytorch':
        # mmengine's own way to start would select a GPU and hand its number to DDP.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    return notices

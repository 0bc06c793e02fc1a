"""Two processes on the CPU train as one process does with the same global batch."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from toolbox import CONFIGS, IN_PROCESS, ROOT, TTA, metrics_of, run_command, save_untrained

from mmbiformer.checkpoints import find_damage
from mmbiformer.datasets.shapes import make_shapes

ITERATIONS = 3
# Nothing random in the pipeline or the model: the two runs draw their random numbers differently.
COMMON = """
custom_imports = dict(imports=['recorder'])
custom_hooks = [dict(type='Recorder')]
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
param_scheduler = None
randomness = dict(seed=0)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={iterations})
optim_wrapper = dict(_delete_=True, optimizer=dict(type='SGD', lr=1e-3))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=2, save_best=None))
train_dataloader = dict(
    batch_size={batch_size},
    num_workers=0,
    persistent_workers=False,
    batch_sampler=None,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        {load},
        dict(type='Resize', scale=(64, 64), keep_ratio=False),
        {pack},
    ]{more}),
)
"""
SEGMENTATION = dict(
    load="dict(type='LoadAnnotations', reduce_zero_label=True)",
    pack="dict(type='PackSegInputs')",
    more='',
)
# mmdet's RetinaNet divides its losses by the number of positive anchors of each process alone, so
# that the two runs agree only where both processes see the same image: this tests the launch, the
# segmentation case the averaging of gradients.
DETECTION = dict(
    load="dict(type='LoadAnnotations', with_bbox=True)",
    pack="dict(type='PackDetInputs')",
    more=', indices=1',
)


def environment() -> dict[str, str]:
    """Python of this environment, the recorder, one thread a process and a free port."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    return {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers',
        'OMP_NUM_THREADS': '1',
        'PORT': str(port),
    }


def train(config, folder, data_root, processes: int) -> list[dict]:
    """Train by the tool in so many processes; returns what the recorder wrote."""
    start = ['python', 'tools/train.py', config]
    if processes > 1:
        start = ['bash', 'tools/dist_train.sh', config, processes]
    run_command(*start, '--work-dir', folder, '--data-root', data_root, env=environment())
    return [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(processes)]


@pytest.mark.parametrize(
    ('name', 'task', 'model'),
    [
        ('fpn_biformer_quickstart_shapes', SEGMENTATION, 'decode_head=dict(dropout_ratio=0.0)'),
        ('retinanet_biformer_quickstart_shapes', DETECTION, ''),
    ],
    ids=['segmentation', 'detection'],
)
def test_two_processes_equal_one(tmp_path, name, task, model) -> None:
    data_root = make_shapes(tmp_path / 'shapes', num_train=8, num_val=1)
    records = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        config = folder / 'config.py'
        text = COMMON.format(iterations=ITERATIONS, batch_size=2 // processes, **task)
        config.write_text(
            f"_base_ = '{CONFIGS / name}.py'\n{text}\n"
            f'model = dict(backbone=dict(drop_path_rate=0.0), {model})\n'
        )
        records[processes] = train(config, folder, data_root, processes)

        written = sorted(path.name for path in folder.iterdir() if '.pth' in path.name)
        names = [f'iter_{ITERATIONS - 1}.pth', f'iter_{ITERATIONS}.pth']
        assert written == sorted([*names, *(f'{name}.sha256' for name in names)])
        assert all(find_damage(folder / name) is None for name in names)

    (one,), two = records[1], records[2]
    assert [record['world_size'] for record in two] == [2, 2]
    losses = [sum(pair) / 2 for pair in zip(*(record['losses'] for record in two), strict=True)]
    assert len(losses) == ITERATIONS
    assert losses == pytest.approx(one['losses'], rel=1e-5)
    assert one['losses'][0] != pytest.approx(one['losses'][-1], rel=1e-4), 'nothing was learned'
    for record in two:
        assert record['weights'] == pytest.approx(one['weights'], rel=1e-5)


def test_distributed_test_with_tta_equals_one_process(tmp_path) -> None:
    data_root = make_shapes(tmp_path / 'shapes', num_train=1, num_val=4)
    config, checkpoint = tmp_path / 'tta.py', tmp_path / 'untrained.pth'
    config.write_text(f"_base_ = '{CONFIGS / 'fpn_biformer_quickstart_shapes'}.py'\n{TTA}")
    save_untrained(config, checkpoint)
    found = []
    for name, start in (
        ('one', ['python', 'tools/test.py', config, checkpoint]),
        ('two', ['bash', 'tools/dist_test.sh', config, checkpoint, 2]),
    ):
        options = ['--tta', '--data-root', data_root, '--work-dir', tmp_path / name]
        run_command(*start, *options, '--cfg-options', *IN_PROCESS, env=environment())
        found.append(metrics_of(tmp_path / name)['aAcc'])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize(
    ('script', 'arguments', 'tool'),
    [
        ('slurm_train.sh', ['config.py', '--amp'], 'train.py config.py --launcher slurm --amp'),
        ('slurm_test.sh', ['c.py', 'w.pth', '--tta'], 'test.py c.py w.pth --launcher slurm --tta'),
    ],
)
def test_slurm_scripts_start_one_task_per_gpu(tmp_path, script, arguments, tool) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16'}
    done = run_command('bash', f'tools/{script}', 'part', 'job', *arguments, env=env)
    assert '-p part --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8' in done.stdout
    assert done.stdout.strip().endswith(tool)

"""Two processes on the CPU train as one process does with the same global batch."""

import json
import os
import socket
import sys

import pytest
from toolbox import CONFIGS, ROOT, run_command

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
default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False))
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
# that the two runs agree only where both processes see the same image.
DETECTION = dict(
    load="dict(type='LoadAnnotations', with_bbox=True)",
    pack="dict(type='PackDetInputs')",
    more=', indices=1',
)


def train(config, folder, data_root, processes: int) -> list[dict]:
    """Train by the tool in so many processes; returns what the recorder wrote."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = ['-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}']
    run_command(
        sys.executable,
        *(launch if processes > 1 else []),
        *('tools/train.py', config, '--work-dir', folder, '--data-root', data_root),
        *(['--launcher', 'pytorch'] if processes > 1 else []),
        env={**os.environ, 'PYTHONPATH': f'{ROOT}/tests/tools', 'OMP_NUM_THREADS': '1'},
    )
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

    (one,), two = records[1], records[2]
    assert [record['world_size'] for record in two] == [2, 2]
    losses = [sum(pair) / 2 for pair in zip(*(record['losses'] for record in two), strict=True)]
    assert len(losses) == ITERATIONS
    assert losses == pytest.approx(one['losses'], rel=1e-5)
    assert one['losses'][0] != pytest.approx(one['losses'][-1], rel=1e-4), 'nothing was learned'
    for record in two:
        assert record['weights'] == pytest.approx(one['weights'], rel=1e-5)

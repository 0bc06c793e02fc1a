"""What ``compile`` of a config does: the backbone's blocks are compiled, and nothing else."""

import logging
import math
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from toolbox import CONFIGS, IN_PROCESS, SAMPLES
from torch import nn
from torch._dynamo.utils import counters

from mmbiformer.datasets.shapes import make_shapes
from mmbiformer.engine import build_trainer, load_config
from mmbiformer.engine.compiling import compile_backbone
from mmbiformer.errors import UserError


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


class Backbone(nn.Module):
    options = None

    def compile_blocks(self, **options) -> None:
        if options.get('mode') == 'fastest':
            raise RuntimeError('Unrecognized mode=fastest\nshould be another')
        self.options = options


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def make_runner(value: object, model: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(
        cfg=Config(dict(compile=value)), model=model, logger=logging.getLogger('mmbiformer')
    )


@pytest.mark.parametrize(
    ('value', 'options'),
    [(True, {}), (dict(mode='default', dynamic=None), dict(mode='default', dynamic=None))],
)
@pytest.mark.parametrize('wrapped', [lambda x: x, Wrapper, lambda x: Wrapper(Wrapper(x))])
def test_options_reach_the_backbone(value, options, wrapped) -> None:
    backbone = Backbone()
    runner = make_runner(value, wrapped(Model(backbone)))
    compile_backbone(runner)
    assert backbone.options == options
    assert 'compile' not in runner.cfg


@pytest.mark.parametrize('value', [False, None])
def test_nothing_is_compiled_unasked(value) -> None:
    backbone = Backbone()
    compile_backbone(make_runner(value, Model(backbone)))
    assert backbone.options is None


@pytest.mark.parametrize(
    ('value', 'model', 'message'),
    [
        ('yes', Model(Backbone()), r"^compile='yes' must be True, False or a dict of options of "),
        (True, Model(nn.ReLU()), r"^compile=True: the backbone, a ReLU, is none of mmbiformer's"),
        (True, nn.ReLU(), r'^compile=True: the backbone, a NoneType, is none of'),
        (
            dict(mode='fastest'),
            Model(Backbone()),
            r"^compile={'mode': 'fastest'} cannot be done: Unrecognized mode=fastest should be an",
        ),
    ],
    ids=['no option', 'another backbone', 'no backbone', 'a mode that is none'],
)
def test_what_cannot_be_compiled_is_refused_in_a_line(value, model, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compile_backbone(make_runner(value, model))
    assert '\n' not in str(caught.value)


# As wide as the neck of the config for COCO wants, and otherwise small.
SMALL = dict(embed_dims=(64, 128, 256, 512), depths=(1, 1, 2, 1))
COCO = {
    'train_dataloader.dataset.indices': 20,
    'train_dataloader.batch_size': 2,
    'model.data_preprocessor.pad_size_divisor': 1,
    'val_dataloader.dataset.indices': 1,
    'val_dataloader.dataset.pipeline.1.scale': (192, 128),
    'model.bbox_head.stacked_convs': 1,
}
SHAPES = {'train_dataloader.dataset.indices': 20, 'train_dataloader.batch_size': 2}


@pytest.mark.parametrize(
    ('config', 'data'),
    [
        ('retinanet_biformer-t_fpn_1x_coco.py', 'coco_tiny'),
        ('retinanet_biformer_quickstart_shapes.py', 'shapes'),
    ],
)
def test_a_detector_trains_for_ten_iterations(tmp_path, config, data) -> None:
    """On images of COCO with the losses of a run that compiles nothing; a validation follows."""
    data_root, options = SAMPLES / data, COCO
    if data == 'shapes':
        data_root, options = make_shapes(tmp_path / 'shapes', num_train=20, num_val=1), SHAPES
    elif not data_root.is_dir():
        pytest.skip(f'{data_root} is not there: set MMBIFORMER_SAMPLES')
    options = options | {
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 9,
        'default_hooks.logger.interval': 1,
        'randomness.seed': 0,
        **{option.partition('=')[0]: 0 for option in IN_PROCESS},
    }
    sizes, losses = set(), {}
    torch._dynamo.reset()
    counters.clear()
    for compiled in (False, True) if data != 'shapes' else (True,):
        work_dir = tmp_path / f'compiled {compiled}'
        cfg = load_config(
            str(CONFIGS / config),
            work_dir=str(work_dir),
            data_root=str(data_root),
            cfg_options=options | ({'compile': dict(backend='eager')} if compiled else {}),
        )
        if data != 'shapes':
            cfg.model.backbone.arch = SMALL
            scales = [(192, 128), (224, 160), (256, 192)]
            cfg.train_dataloader.dataset.pipeline[2] = dict(
                type='RandomChoiceResize', scales=scales, keep_ratio=True
            )
        runner = build_trainer(cfg)
        runner.model.backbone.register_forward_pre_hook(
            lambda _, args: sizes.add(args[0].shape[2:])
        )
        runner.train()
        (log,) = work_dir.glob('*/*.log')
        losses[compiled] = [float(x) for x in re.findall(r' loss: (\S+)', log.read_text())]
    assert len(losses[True]) == 10
    assert all(math.isfinite(loss) for loss in losses[True])
    if data != 'shapes':
        assert losses[True] == pytest.approx(losses[False], rel=1e-3)
        assert len(sizes) > 5
    # Once in training and once in inference. COCO's images, small as they are here, give maps of a
    # single row for each region: at most once more.
    stages = len(runner.model.backbone.stages)
    graphs = counters['stats']['unique_graphs']
    assert graphs == 2 * stages if data == 'shapes' else 2 * stages <= graphs <= 4 * stages

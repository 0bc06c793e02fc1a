"""Checkpoints as people have them: what loads, what is dropped or stays new, what is an error."""

import argparse

import pytest
import torch
from golden import golden_cases, official_state_dict
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import nn

from mmbiformer import BiFormer, CloFormer
from mmbiformer.checkpoints import BIFORMER, CheckpointError
from mmbiformer.errors import UserError

SMALL = dict(embed_dims=(32, 32, 64, 64), depths=(1, 1, 2, 1), topks=(1, 2, 4, None))
CASES = golden_cases()


def build(**kwargs) -> BiFormer:
    torch.manual_seed(1)
    return BiFormer(SMALL, partition_factor=3, **kwargs)


@pytest.fixture(scope='module')
def trained() -> BiFormer:
    """A backbone no tensor of which has its initial value."""
    torch.manual_seed(0)
    backbone = build()
    for tensor in backbone.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) + 7)
    return backbone


def official_weights(backbone: BiFormer) -> dict[str, torch.Tensor]:
    return {BIFORMER.official(name): value for name, value in backbone.state_dict().items()}


def classification_file(backbone: BiFormer) -> dict:
    """As the official training script writes it: no output norms, a classifier, its arguments."""
    weights = official_weights(backbone)
    model = {name: value for name, value in weights.items() if 'extra_norms' not in name}
    norm, head = nn.BatchNorm2d(64), nn.Linear(64, 10)
    for prefix, module in (('norm', norm), ('head', head)):
        model.update({f'{prefix}.{name}': x for name, x in module.state_dict().items()})
    return dict(model=model, optimizer={}, epoch=299, args=argparse.Namespace(lr=5e-4))


def detector_file(backbone: BiFormer, named=official_weights) -> dict:
    state_dict = {f'backbone.{name}': value for name, value in named(backbone).items()}
    state_dict.update({'neck.0.weight': torch.ones(1, 1), 'bbox_head.norm.weight': torch.ones(2)})
    return dict(meta=dict(epoch=12), state_dict=state_dict)


# What the file holds, and how many tensors are matched, dropped and new.
ALL, NORMS = 122, 8
FILES = {
    'classification': (classification_file, f'{ALL - NORMS} tensors matched, 7 (norm, head) drop'),
    'official detector': (detector_file, f'{ALL} tensors matched, 0 dropped, 0 new'),
    'own detector': (
        lambda x: detector_file(x, BiFormer.state_dict),
        f'{ALL} tensors matched, 0 dropped, 0 new',
    ),
    'bare': (official_weights, f'{ALL} tensors matched, 0 dropped, 0 new'),
    'own': (BiFormer.state_dict, f'{ALL} tensors matched, 0 dropped, 0 new'),
    'data parallel': (
        lambda x: {f'module.{name}': value for name, value in official_weights(x).items()},
        f'{ALL} tensors matched, 0 dropped, 0 new',
    ),
    'data parallel detector': (
        lambda x: {f'module.{n}': v for n, v in detector_file(x)['state_dict'].items()},
        f'{ALL} tensors matched, 0 dropped, 0 new',
    ),
}


def load_by_init_cfg(path, backbone):
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone.init_weights()


def load_by_mmengine(path, backbone):
    load_checkpoint(backbone, str(path), map_location='cpu')


def load_by_torch(path, backbone):
    backbone.load_state_dict(torch.load(path, weights_only=False))


LOADERS = {'init_cfg': load_by_init_cfg, 'mmengine': load_by_mmengine, 'torch': load_by_torch}


@pytest.fixture
def log():
    """What mmengine's logger is told, as a list of lines."""
    import logging

    class Recorder(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines: list[str] = []
    logger = MMLogger.get_current_instance()
    handler = Recorder()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture
def save(tmp_path):
    def write(content) -> str:
        path = tmp_path / 'checkpoint.pth'
        torch.save(content, path)
        return str(path)

    return write


def assert_loaded(backbone: BiFormer, trained: BiFormer, new: tuple[str, ...] = ()) -> None:
    """Everything is the trained backbone's, except what begins with a name of ``new``."""
    initial = build().state_dict()
    for name, value in backbone.state_dict().items():
        expected = initial[name] if name.startswith(new) else trained.state_dict()[name]
        assert torch.equal(value, expected), name


def test_every_official_name_of_the_classifier_is_matched_dropped_or_new(log):
    case = CASES['tiny_224_classification']
    backbone = BiFormer('t')
    backbone.load_state_dict({name: torch.zeros(shape) for name, shape in case['params'].items()})
    assert log == [
        'BiFormer checkpoint: 257 tensors matched, 7 (norm, head) dropped, '
        '8 (norm0, norm1, norm2, norm3) new (keep their initial values)'
    ]
    assert len(case['params']) == 257 + 7


@pytest.mark.parametrize('loader', LOADERS)
@pytest.mark.parametrize('kind', FILES)
def test_loads(kind, loader, trained, save, log):
    make, counts = FILES[kind]
    path = save(make(trained))
    backbone = build()
    log.clear()
    LOADERS[loader](path, backbone)
    assert_loaded(backbone, trained, ('norm',) if kind == 'classification' else ())
    told = [line for line in log if 'BiFormer checkpoint: ' in line]
    assert len(told) == 1
    assert told[0].startswith(f'BiFormer checkpoint: {counts}')
    assert not [line for line in log if 'do not match' in line], 'accounted for, and yet a warning'


def test_loads_into_a_detector(trained, save):
    class Detector(BaseModule):
        def __init__(self):
            super().__init__()
            self.backbone = build()
            self.neck = nn.Sequential(nn.Linear(1, 1, bias=False))

    detector = Detector()
    load_checkpoint(detector, save(detector_file(trained)), map_location='cpu')
    assert_loaded(detector.backbone, trained)
    assert detector.neck[0].weight.item() == 1

    detector = Detector()
    whole = {
        name: x for name, x in detector_file(trained)['state_dict'].items() if 'bbox' not in name
    }
    whole['neck.0.weight'] = torch.full((1, 1), 3.0)
    detector.load_state_dict(whole)
    assert_loaded(detector.backbone, trained)
    assert detector.neck[0].weight.item() == 3


def test_own_checkpoint_goes_round(trained, save):
    backbone = build()
    backbone.load_state_dict(torch.load(save(trained.state_dict()), weights_only=True))
    assert_loaded(backbone, trained)
    assert backbone.state_dict().keys() == trained.state_dict().keys()


def test_stages_and_norms_that_are_not_built_are_dropped(trained, save, log):
    backbone = build(out_indices=(1, 2))
    log.clear()
    load_by_mmengine(save(official_weights(trained)), backbone)
    own = trained.state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, own[name]), name
    behind = [name for name in own if name.startswith(('stages.3', 'downsample_layers.3'))]
    matched = len(backbone.state_dict())
    assert matched + len(behind) + 4 == ALL
    assert f'{matched} tensors matched, {len(behind) + 4} (' in log[-1]


def test_counters_of_batch_norm_may_be_absent(trained):
    weights = official_weights(trained)
    counters = [name for name in weights if name.endswith('num_batches_tracked')]
    assert len(counters) == 5
    backbone = build()
    backbone.load_state_dict({n: x for n, x in weights.items() if n not in counters})
    assert_loaded(backbone, trained, tuple(counters))


def without(weights, *names):
    return {name: value for name, value in weights.items() if name not in names}


MISFITS = {
    'missing': (
        lambda x: without(x, 'stages.0.0.attn.wo.bias', 'downsample_layers.2.0.weight'),
        '2 missing: downsample_layers.2.0.weight, stages.0.0.attn.proj.bias '
        '(official name: stages.0.0.attn.wo.bias)',
    ),
    'unexpected': (
        lambda x: {**x, 'stages.1.0.attn.router.weight': torch.ones(1)},
        '1 unexpected: stages.1.0.attn.router.weight',
    ),
    'of another shape': (
        lambda x: {**x, 'stages.2.1.mlp.3.weight': torch.ones(64, 256)},
        '1 of another shape: stages.2.1.mlp.fc2.weight (in the file: stages.2.1.mlp.3.weight) '
        '(64, 256), not (64, 192)',
    ),
    'names of an earlier version': (
        lambda x: {
            n.replace('.mlp.3.', '.mlp.2.'): v
            for n, v in x.items()
            if n not in ('stages.0.0.pos_embed.bias', 'stages.0.0.mlp.3.bias')
        },
        '2 missing: stages.0.0.conv_position.bias (official name: stages.0.0.pos_embed.bias), '
        'stages.0.0.mlp.fc2.bias (official name: stages.0.0.mlp.3.bias)',
    ),
    'names of ours': (
        lambda x: without({BIFORMER.ours(n): v for n, v in x.items()}, 'stages.0.0.mlp.fc2.bias'),
        '1 missing: stages.0.0.mlp.fc2.bias',
    ),
    'one block less': (
        lambda x: {n: v for n, v in x.items() if not n.startswith('stages.2.1.')},
        '16 missing: stages.2.1.conv_position.weight (official name: '
        'stages.2.1.pos_embed.weight), ',
    ),
    'another width': (
        lambda x: BiFormer(dict(SMALL, embed_dims=(32, 32, 64, 96))).state_dict(),
        'of another shape: downsample_layers.3.0.weight (96, 64, 3, 3), not (64, 64, 3, 3), ',
    ),
    'another model': (
        lambda x: nn.ModuleDict(dict(layer1=nn.Linear(2, 2))).state_dict(),
        '2 unexpected: layer1.weight, layer1.bias',
    ),
    'no tensors': (
        lambda x: dict(epoch=3, net=dict(x)),
        '2 that are no tensors: epoch, net; 109 missing: downsample_layers.0.0.weight, ',
    ),
    'no tensor under a known name': (
        lambda x: {**x, 'stages.0.0.mlp.0.bias': 3},
        'than the backbone: 1 that are no tensors: stages.0.0.mlp.fc1.bias (in the file: '
        'stages.0.0.mlp.0.bias)',
    ),
    'two names of a tensor': (
        lambda x: {**x, 'stages.0.0.mlp.fc1.bias': torch.ones(96)},
        'the checkpoint has stages.0.0.mlp.0.bias and stages.0.0.mlp.fc1.bias, which are the same '
        'tensor: delete one',
    ),
    'empty': (lambda x: {}, 'missing: downsample_layers.0.0.weight, '),
    'empty model': (lambda x: dict(model={}), 'missing: downsample_layers.0.0.weight, '),
}


@pytest.mark.parametrize('loader', LOADERS)
@pytest.mark.parametrize(('spoil', 'message'), MISFITS.values(), ids=MISFITS)
def test_misfits_are_errors_that_list_the_names(spoil, message, loader, trained, save):
    path = save(spoil(official_weights(trained)))
    backbone = build()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        LOADERS[loader](path, backbone)
    assert isinstance(error.value, UserError)
    assert message in str(error.value)
    assert '\n' not in str(error.value)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), f'{name} changed although loading failed'


def test_missing_of_a_whole_backbone_in_a_detector_is_an_error(trained, save):
    detector = nn.ModuleDict(dict(backbone=build()))
    with pytest.raises(CheckpointError, match=r'\d+ missing: downsample_layers\.0\.0\.weight, '):
        load_checkpoint(detector, save(official_weights(trained)), map_location='cpu')


def test_torchs_lenient_loading_stays_lenient(trained, log):
    weights = without(official_weights(trained), 'stages.0.0.attn.wo.bias')
    weights['stages.0.0.attn.other'] = torch.ones(1)
    weights['head.bias'] = torch.ones(10)
    backbone = build()
    log.clear()
    result = backbone.load_state_dict(weights, strict=False)
    assert log == [
        f'BiFormer checkpoint: {ALL - 1} tensors matched, 1 (head) dropped, 0 new (keep their '
        'initial values)'
    ]
    assert result.missing_keys == ['stages.0.0.attn.proj.bias']
    assert result.unexpected_keys == ['stages.0.0.attn.other']
    assert_loaded(backbone, trained, ('stages.0.0.attn.proj.bias',))
    assert backbone.load_state_dict({'epoch': 3}, strict=False).unexpected_keys == ['epoch']
    with pytest.raises(CheckpointError, match='which are the same tensor'):
        backbone.load_state_dict(weights | backbone.state_dict(), strict=False)
    weights['stages.0.0.attn.wo.weight'] = torch.ones(1)
    with pytest.raises(RuntimeError, match=r'size mismatch for stages\.0\.0\.attn\.proj\.weight'):
        backbone.load_state_dict(weights, strict=False)
    with pytest.raises(CheckpointError):
        backbone.load_state_dict(weights)


def test_a_loaded_state_dict_is_not_changed(trained):
    weights = classification_file(trained)['model']
    names = list(weights)
    build().load_state_dict(weights)
    assert list(weights) == names


def test_weights_of_1x1_convolutions_load_as_linear_ones(log):
    # CloFormer's official files have them with two axes of length 1 at the end.
    case = golden_cases('official_cloformer.json')['xxs_224']
    weights = official_state_dict(case)
    assert weights['layers.0.blocks.0.mlp.fc1.weight'].shape == (128, 32, 1, 1)
    backbone = CloFormer('xxs').double()
    log.clear()
    backbone.load_state_dict(weights)
    assert torch.equal(
        backbone.stages[0][0].mlp.fc1.weight,
        weights['layers.0.blocks.0.mlp.fc1.weight'][..., 0, 0],
    )
    assert log == [
        'CloFormer checkpoint: 347 tensors matched, 4 (norm, head) dropped, '
        '8 (norm0, norm1, norm2, norm3) new (keep their initial values)'
    ]
    weights['layers.0.blocks.0.mlp.fc1.weight'] = torch.ones(128, 16, 1, 1)
    with pytest.raises(
        CheckpointError,
        match=r'stages\.0\.0\.mlp\.fc1\.weight \(in the file: .* \(128, 16\), not \(128, 32\)',
    ):
        backbone.load_state_dict(weights)

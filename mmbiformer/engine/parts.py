"""Where the parts are: datasets and evaluators of a config, the backbone of a model."""

from collections.abc import Iterator

from mmengine.config import Config, ConfigDict
from torch import nn


def iter_datasets(cfg: Config, split: str) -> Iterator[ConfigDict]:
    """The dataset configs of a split's dataloader, those within wrappers included."""
    loader = cfg.get(f'{split}_dataloader')
    pending = [loader['dataset']] if loader else []
    while pending:
        dataset = pending.pop()
        inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
        pending += inner
        if not inner:
            yield dataset


def list_evaluators(cfg: Config, split: str) -> list[ConfigDict]:
    """The evaluator configs of a split, of which a config may name none, one or a list."""
    evaluators = cfg.get(f'{split}_evaluator') or []
    return evaluators if isinstance(evaluators, list) else [evaluators]


def type_name(part: dict) -> str:
    """The class that a part of a config is built from, without the scope it is looked up in.

    A config names the class; a pure Python config has the class itself.
    """
    kind = part.get('type', '')
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def find_backbone(model: nn.Module) -> nn.Module | None:
    """The backbone of a model, which may be within DDP, test-time augmentation or both."""
    while not hasattr(model, 'backbone') and hasattr(model, 'module'):
        model = model.module
    return getattr(model, 'backbone', None)

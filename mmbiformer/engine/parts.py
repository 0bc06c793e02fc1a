"""Walking a config: where its datasets and evaluators are, and which class a part names."""

from collections.abc import Iterator

from mmengine.config import Config, ConfigDict


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

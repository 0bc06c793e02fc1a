"""Having a config's pipelines check what they load."""

from mmengine.config import Config, ConfigDict

from mmbiformer.errors import UserError

from .data_checks.classes import classes_of
from .parts import iter_datasets, type_name

STEPS = ('LoadImageFromFile', 'LoadAnnotations')


def check_loading(cfg: Config, splits: tuple[str, ...]) -> None:
    """Put the loading steps of these splits within ``LoadChecked``.

    ``max_skipped`` of the config says how many images training may leave out. A checkpoint keeps
    the config, and mm's inferencers look for the loading step of its test pipeline by name: a
    training run leaves that one as it is.

    Args:
        cfg (Config): Changed in place.
        splits (tuple[str, ...]): 'train', 'val' or 'test'.

    Raises:
        UserError: If ``max_skipped`` is no number of images.
    """
    max_skipped = read_max_skipped(cfg)
    scope = cfg.get('default_scope')
    for split in splits:
        for dataset in iter_datasets(cfg, split):
            classes = classes_of(dataset, scope) if scope == 'mmseg' else None
            options = dict(
                num_classes=len(classes or ()), max_skipped=max_skipped if split == 'train' else 0
            )
            if 'pipeline' in dataset:
                dataset['pipeline'] = [_checked(x, options) for x in dataset['pipeline']]
    if 'train' in splits:
        for hook in cfg.get('custom_hooks') or ():
            if 'switch_pipeline' in hook:  # mmdet's, for the last epochs
                options = dict(num_classes=0, max_skipped=max_skipped)
                hook['switch_pipeline'] = [_checked(x, options) for x in hook['switch_pipeline']]


def without_checks(pipeline: list[ConfigDict]) -> list[ConfigDict]:
    """A pipeline as it was before :func:`check_loading`."""
    return [x.step if type_name(x) == 'LoadChecked' else x for x in pipeline]


def read_max_skipped(cfg: Config) -> int:
    """How many images the config lets training leave out.

    Raises:
        UserError: If ``max_skipped`` is no number of images.
    """
    value = cfg.get('max_skipped', 0)
    if type(value) is not int or value < 0:
        raise UserError(f'max_skipped={value!r} must be a number of images, 0 for none')
    return value


def _checked(step: ConfigDict, options: dict) -> ConfigDict:
    if type_name(step) not in STEPS:
        return step
    return ConfigDict(type='mmbiformer.LoadChecked', step=step, **options)

"""Checks of classes: of datasets, of annotation files, and how many a model's heads have."""

import inspect
from collections import Counter
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmbiformer.errors import UserError

from ..class_folders import read_lines
from .findings import Finding, did_you_mean, find, short_list

# Heads whose classes are the dataset's. A proposal head tells objects from background alone.
HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')


def dataset_class(dataset: ConfigDict, scope: str) -> type | None:
    """The class that a config's dataset is built from; None where its name is unknown."""
    return _class_of(dataset, DATASETS, scope)


def classes_of(dataset: ConfigDict, scope: str) -> list[str] | None:
    """The names of a dataset's classes, or None where its class and config name none.

    Raises:
        UserError: If they are a string that names no file.
    """
    own = getattr(dataset_class(dataset, scope), 'METAINFO', {})
    classes = {**own, **(dataset.get('metainfo') or {})}.get('classes')
    if isinstance(classes, str):
        try:
            return read_lines(classes)
        except UserError as error:
            raise UserError(
                f"{error}; for a single class write metainfo.classes=('{classes}',), with a comma"
            ) from error
    return None if classes is None else list(classes)


def check_categories(content: dict[str, list], classes: list[str], path: str) -> list[Finding]:
    """A COCO file has the classes of the config, in their order; what else it has is said.

    mmdet drops unknown names in silence, and gives labels in the order of the file.
    """
    categories = content['categories']
    names = [x.get('name') for x in categories]
    nameless = [i for i, x in enumerate(names) if type(x) is not str or not x]
    findings = find(
        path,
        'categories without a name',
        nameless,
        'name them',
        lambda i: f'record {i} (name {names[i]!r})',
    )
    if findings:
        return findings
    for which, listed in (('categories', names), ('classes of the config', classes)):
        twice = [name for name, count in Counter(listed).items() if count > 1]
        remedy = 'give each a name of its own: labels would shift'
        findings += find(path, f'{which} of the same name', twice, remedy)
    if findings:
        return findings
    findings = find(
        path,
        'classes of the config that it lacks',
        [name for name in classes if name not in set(names)],
        f'it has {short_list(names) or "none"}: set metainfo.classes of the datasets',
        lambda name: name + did_you_mean(name, names),
    )
    in_order = [name for name in names if name in set(classes)]
    if not findings and in_order != classes:
        pairs = zip(classes, in_order, strict=True)
        moved = [(i, ours, its) for i, (ours, its) in enumerate(pairs) if ours != its]
        findings = find(
            path,
            "categories in another order than the config's classes, and labels follow the file",
            moved,
            f'set metainfo.classes of the datasets to {short_list(in_order)}',
            lambda x: f"label {x[0]} is '{x[2]}' and not '{x[1]}'",
        )
    numbers = [x.get('category_id') for x in content['annotations']]
    extra = [x for x in categories if x['name'] not in set(classes)]
    return findings + find(
        path,
        'categories that the config leaves out',
        extra,
        'add them to metainfo.classes of the datasets if they shall be learnt',
        lambda x: f'{x["name"]} ({numbers.count(x.get("id")):,} annotations)',
        is_error=False,
    )


def check_heads(cfg: Config, classes: list[str], place: str) -> list[Finding]:
    """Every head of the model has as many classes as the dataset."""
    wrong = [
        (name, count)
        for name, count in _head_counts(cfg.get('model') or {}, 'model', cfg.get('default_scope'))
        if count != len(classes)
    ]
    if not wrong:
        return []
    options = ' '.join(f'{name}={len(classes)}' for name, _ in wrong)
    return find(
        place,
        f'heads that have not the {len(classes)} classes of the dataset, {short_list(classes)}',
        wrong,
        f'set them, as --cfg-options {options}, or metainfo.classes of the datasets',
        lambda x: f'{x[0]}={x[1]}',
    )


def _head_counts(model: ConfigDict, prefix: str, scope: str) -> Iterator[tuple[str, int]]:
    """The dotted name and value of ``num_classes`` of each head, those of cascades included."""
    for key in HEADS:
        heads = model.get(key)
        several = isinstance(heads, (list, tuple))
        for i, head in enumerate(heads if several else [heads] if heads else []):
            name = f'{prefix}.{key}' + (f'.{i}' if several else '')
            count = _num_classes(head, scope)
            if isinstance(count, int):
                yield f'{name}.num_classes', count
    for key in ('roi_head', 'panoptic_head'):
        part = model.get(key)
        if not isinstance(part, dict):
            continue
        yield from _head_counts(part, f'{prefix}.{key}', scope)
        if 'num_things_classes' in part:
            count = part['num_things_classes'] + part.get('num_stuff_classes', 0)
            yield f'{prefix}.{key}.num_things_classes', count


def _num_classes(head: ConfigDict, scope: str) -> int | None:
    if 'num_classes' in head:
        return head['num_classes']
    for base in inspect.getmro(_class_of(head, MODELS, scope) or object):
        parameter = inspect.signature(base.__init__).parameters.get('num_classes')
        if parameter is not None:
            return None if parameter.default is parameter.empty else parameter.default
    return None


def _class_of(part: ConfigDict, registry: object, scope: str) -> type | None:
    """The class that a part of a config names, looked up as building it would."""
    kind = part.get('type')
    if not isinstance(kind, str):
        return kind
    with (
        DefaultScope.overwrite_default_scope(scope),
        registry.switch_scope_and_registry(scope) as own,
    ):
        return own.get(kind)

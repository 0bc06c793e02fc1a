"""Which keys a class takes, through its bases as well."""

import pytest
from mmengine.model import BaseModule
from mmengine.utils import deprecated_api_warning
from torch import nn

from mmbiformer.engine.config_checks.signatures import keys_of


class Base:
    def __init__(self, width, depth=1, *, mode='a'):
        pass


class ToBase(Base):
    def __init__(self, height, **kwargs):
        super().__init__(2, **kwargs)


class ToNext(ToBase):
    def __init__(self, *args, side, **options):
        self.shown = options.pop('shown', True)
        if 'old' in options:
            options['depth'] = 1
        super().__init__(*args, **options)


class Other(ToBase):
    def __init__(self, other, **kwargs):
        super(ToBase, self).__init__(1, **kwargs)


class ByName(ToBase):
    def __init__(self, own, **kwargs):
        kwargs = {'mode': 'b', **kwargs}
        Base.__init__(self, 1, **kwargs)


class ToBaseOfItsName:
    class Base(Base):
        def __init__(self, own, **kwargs):
            super(Base, self).__init__(1, **kwargs)


class Elsewhere(Base):
    def __init__(self, height, **kwargs):
        super().__init__(2, **kwargs)
        self.kwargs = kwargs


class Nowhere:
    def __init__(self, height, **kwargs):
        pass


class Inherits(ToBase):
    pass


@pytest.mark.parametrize(
    ('target', 'names'),
    [
        (Base, {'width', 'depth', 'mode'}),
        (ToBase, {'height', 'width', 'depth', 'mode'}),
        (Inherits, {'height', 'width', 'depth', 'mode'}),
        (ToNext, {'side', 'shown', 'old', 'height', 'width', 'depth', 'mode'}),
        (Other, {'other', 'width', 'depth', 'mode'}),
        (ByName, {'own', 'width', 'depth', 'mode'}),
        (ToBaseOfItsName.Base, {'own', 'width', 'depth', 'mode'}),
        (deprecated_api_warning({'old': 'new'})(lambda new: None), {'old', 'new'}),
        (BaseModule, {'init_cfg'}),
        (lambda a, b=1: None, {'a', 'b'}),
    ],
)
def test_keys_of_bases_are_taken(target, names) -> None:
    keys = keys_of(target)
    assert not keys.is_open
    assert keys.names == names


@pytest.mark.parametrize('target', [Elsewhere, Nowhere, lambda **kwargs: None])
def test_any_key_is_taken_where_it_cannot_be_seen(target) -> None:
    assert keys_of(target).is_open


def test_a_class_of_torch() -> None:
    keys = keys_of(nn.BatchNorm2d)
    assert not keys.is_open and {'eps', 'momentum'} < keys.names

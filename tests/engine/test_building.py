"""What is said where a part of a config cannot be built."""

import re

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_runs import TinyModel

from mmbiformer.engine.building import explain
from mmbiformer.errors import UserError


@MODELS.register_module(force=True)
class Around(TinyModel):
    """A model around another part."""

    def __init__(self, part: dict) -> None:
        super().__init__()
        self.part = MODELS.build(dict(part, added=1))


@MODELS.register_module(force=True)
class Picky(TinyModel):
    """A part that raises what it is given."""

    def __init__(self, kind: str, added: int) -> None:
        super().__init__()
        if kind == 'assert':
            raise AssertionError  # as a bare assert does
        if kind == 'key':
            {}['missing']
        if kind == 'user':
            raise UserError('mend it')
        raise ValueError('no\nsuch kind')


def fail(tmp_path, kind: str) -> Exception:
    model = dict(type='Around', part=dict(type='Picky', kind=kind))
    cfg = Config(dict(model=model, work_dir=str(tmp_path), experiment_name=kind))
    with pytest.raises(Exception) as raised:
        Runner.from_cfg(cfg)
    return raised.value


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('other', 'no such kind (ValueError in '),
        ('assert', 'raise AssertionError  # as a bare assert does (AssertionError in '),
        ('key', "it lacks the key 'missing' (KeyError in "),
    ],
)
def test_the_part_and_the_reason_are_named(tmp_path, kind, reason) -> None:
    line = str(explain(fail(tmp_path, kind)))
    assert line.startswith(f'model.part (Picky) cannot be built: {reason}')
    assert re.search(r'test_building\.py, line \d+\)$', line)


def test_what_a_user_can_mend_stays_as_it_is(tmp_path) -> None:
    assert explain(fail(tmp_path, 'user')) is None


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        print(1 / 0)
    assert explain(raised.value) is None

"""What --cfg-options makes of values."""

import argparse

import pytest

from mmbiformer.engine.options import OptionsAction
from mmbiformer.errors import UserError


def parse(*options: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1', 1),
        ('1e-3', 1e-3),
        ('True', True),
        ('None', None),
        ('1, 2 ,3', [1, 2, 3]),
        ('[(1, 2), [a, b c], d]', [(1, 2), ['a', 'b c'], 'd']),
        ('my  data/a (copy)/x', 'my  data/a (copy)/x'),
        ('"my data"', 'my data'),
    ],
)
def test_values(text, value) -> None:
    assert parse(f'key={text}') == {'key': value}


@pytest.mark.parametrize('option', ['key', 'key=[1,(2]'])
def test_what_is_no_option(option) -> None:
    with pytest.raises(UserError, match='--cfg-options'):
        parse(option)

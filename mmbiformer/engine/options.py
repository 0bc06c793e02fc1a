"""Reading ``--cfg-options``."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from mmengine.config import DictAction

from mmbiformer.errors import UserError

# Spaces between the items of a list.
_BETWEEN = re.compile(r'(?<=[\[(,]) +| +(?=[\]),])')
_SPACE = '\0'  # no option of a command line can have it


class OptionsAction(DictAction):
    """mmengine's, which drops the spaces within values: paths may have some."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Sequence, *rest
    ) -> None:
        for option in values:
            if '=' not in option:
                raise UserError(f"--cfg-options '{option}': write it as key=value, without spaces")
        try:
            super().__call__(parser, namespace, values, *rest)
        except AssertionError as error:
            raise UserError(f'--cfg-options: {error}: close each of them') from error

    @staticmethod
    def _parse_iterable(val: str) -> object:
        """Values of an option; mmengine's own goes on within brackets."""
        val = val.strip()
        if ',' in val or val.startswith(('[', '(')):
            val = _BETWEEN.sub('', val)
        return _restored(DictAction._parse_iterable(val.replace(' ', _SPACE)))


def _restored(value: object) -> object:
    if isinstance(value, str):
        return value.replace(_SPACE, ' ')
    if isinstance(value, list | tuple):
        return type(value)(map(_restored, value))
    return value

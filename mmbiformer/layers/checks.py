"""Checks of arguments: ValueErrors that name the argument, its value and what would fit."""

from collections.abc import Sequence


def check_int(name: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Raise where an argument is no integer within bounds."""
    if not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = 'on' if high is None else f'to {high}'
        raise ValueError(f'{name}={value!r} must be an integer from {low} {bound}')


def check_list(name: str, value: object) -> None:
    """Raise where an argument is no sequence."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f'{name}={value!r} must be a list')


def check_ints(name: str, values: object) -> None:
    """Raise where an argument is no sequence of integers from 1 on."""
    check_list(name, values)
    for value in values:
        check_int(name, value)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise where an argument is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name}='{value}' is unknown: choose from {', '.join(choices)}")


def check_divides(name: str, value: object, dim: int, dim_name: str = 'dim') -> None:
    """Raise where a number of heads or groups does not divide a width."""
    if not isinstance(value, int) or value < 1 or dim % value:
        raise ValueError(f'{name}={value!r} does not divide {dim_name}={dim}: choose a divisor')

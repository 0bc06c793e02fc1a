"""The official implementation's outputs in float64, and the functions that make its inputs.

Files in ``data`` hold, per case, the official arguments, the official names and shapes, and probes
of outputs and gradients. Weights and inputs are functions of names and seeds.
"""

import functools
import json
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch

TOLERANCE = 1e-9  # of the largest absolute value


@functools.cache
def golden_cases(file: str = 'official_biformer.json') -> dict:
    return json.loads((Path(__file__).parents[1] / 'data' / file).read_text())


def normal(seed: int, shape: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape))


def fill(name: str, shape: list[int]) -> torch.Tensor:
    """The value of an official parameter or buffer."""
    if name.endswith('num_batches_tracked'):
        return torch.zeros((), dtype=torch.long)
    z = normal(zlib.crc32(name.encode()), shape)
    if name.endswith('running_var'):
        return 1 + 0.1 * z.abs()
    if len(shape) >= 2:
        return z / prod(shape[1:]) ** 0.5
    return 1 + 0.1 * z if name.endswith('weight') else 0.1 * z


def official_state_dict(case: dict) -> dict[str, torch.Tensor]:
    return {name: fill(name, shape) for name, shape in case['params'].items()}


def assert_probe(tensor: torch.Tensor, probe: dict, tolerance: float = TOLERANCE) -> None:
    """Shape, moments and the probed values agree to a part of the largest absolute value."""
    assert list(tensor.shape) == probe['shape']
    bound = tolerance * probe['abs_max']
    values = tensor.flatten()[probe['index']]
    expected = torch.tensor(probe['value'], dtype=torch.float64)
    assert (values - expected).abs().max() <= bound
    assert abs(tensor.mean().item() - probe['mean']) <= bound
    assert abs(tensor.std().item() - probe['std']) <= bound
    assert abs(tensor.abs().max().item() - probe['abs_max']) <= bound


def assert_grads(
    named_grads: dict[str, torch.Tensor], probes: dict, tolerance: float = TOLERANCE
) -> None:
    """Every parameter gradient that the file holds agrees in its l2 norm and its sum."""
    assert probes
    for name, probe in probes.items():
        grad = named_grads[name]
        size = max(probe['l2'], 1e-3)
        assert abs(grad.norm().item() - probe['l2']) <= tolerance * size, name
        sum_bound = tolerance * size * grad.numel() ** 0.5
        assert abs(grad.sum().item() - probe['sum']) <= sum_bound, name

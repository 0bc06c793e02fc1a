"""Is a loss or a gradient not finite? And if so: which, when, and of which images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.dist import all_gather_object
from torch import Tensor, nn

from mmbiformer.checkpoints import first_of, kind_of, list_nonfinite

SHOWN = 5


@dataclass
class Batch:
    """What is known of a batch until the optimizer steps.

    Attributes:
        iteration (int): Its number, from 1, as the log has it.
        images (list[str]): Paths of its images, as far as the data samples have them.
        losses (dict[str, list[Tensor]]): Those that are summed and minimised, by name.
    """

    iteration: int
    images: list[str]
    losses: dict[str, list[Tensor]] = field(default_factory=dict)

    def note(self, outputs: Any) -> None:
        """Take in what a model's forward gave, if that was losses.

        As mmengine does: a loss has 'loss' in its name, and is a tensor or a list of tensors.
        """
        if not isinstance(outputs, Mapping):
            return
        for name, value in outputs.items():
            values = [value] if isinstance(value, Tensor) else value
            if 'loss' in str(name) and isinstance(values, list | tuple):
                tensors = [x.detach() for x in values if isinstance(x, Tensor) and x.numel()]
                self.losses.setdefault(str(name), []).extend(tensors)


@dataclass
class Fault:
    """What is not finite, as one process sees it.

    Attributes:
        rank (int): How near to the cause it is: 0 a loss, 1 a gradient, 2 another process knows.
        what (str): 'loss_cls is nan'.
        iteration (int): The number of the batch, from 1.
        images (list[str]): Paths of its images.
    """

    rank: int
    what: str
    iteration: int
    images: list[str]

    def __str__(self) -> str:
        names = ', '.join(f"'{x}'" for x in self.images[:SHOWN]) or 'images without paths'
        more = f' and {len(self.images) - SHOWN} more' if len(self.images) > SHOWN else ''
        return f'{self.what} in iteration {self.iteration}, of {names}{more}'


def paths_in(batch: Any) -> list[str]:
    """The ``img_path`` of all data samples in a batch, however it is nested."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return [path for part in batch for path in paths_in(part)]
    path = getattr(batch, 'img_path', None)
    return [path] if isinstance(path, str) else []


def any_nonfinite(
    batches: Iterable[Batch], gradients: list[Tensor], device: torch.device, order: float
) -> Tensor:
    """Whether anything is not finite, as a float of 0 or 1 on the device: it waits for nothing.

    Args:
        batches (Iterable[Batch]): With their losses.
        gradients (list[Tensor]): Each is read once.
        device (torch.device): Of the model.
        order (float): Of the gradients' norms: 2 is fast, and large gradients alone overflow it;
            by ``math.inf``, the largest magnitude, the answer is exact.
    """
    losses = [x for batch in batches for values in batch.losses.values() for x in values]
    flags = []
    if losses:
        flags.append(torch.cat([x.to(device).flatten() for x in losses]).isfinite().all())
    if gradients:
        norms = torch._foreach_norm(gradients, order)
        flags.append(torch.stack([x.to(device) for x in norms]).isfinite().all())
    if not flags:
        return torch.zeros((), device=device)
    return torch.stack(flags).all().logical_not().float()


def find_nonfinite(batches: list[Batch], model: nn.Module) -> Fault:
    """Say what is not finite; all processes must ask at a time, and get the same answer."""
    found = all_gather_object(_find_here(batches, model))
    nearest = min(found, key=lambda x: x.rank)
    alike = [x for x in found if (x.rank, x.what) == (nearest.rank, nearest.what)]
    nearest.images = [path for x in alike for path in x.images]
    return nearest


def _find_here(batches: list[Batch], model: nn.Module) -> Fault:
    for batch in batches:
        for name, values in batch.losses.items():
            if bad := [x for x in values if not x.isfinite().all()]:
                what = f'{name} is {kind_of(torch.cat([x.flatten() for x in bad]))}'
                return Fault(0, what, batch.iteration, batch.images)
    iteration = batches[-1].iteration if batches else 0
    images = [path for batch in batches for path in batch.images]
    named = [(name, x.grad) for name, x in model.named_parameters() if x.grad is not None]
    if found := list_nonfinite(named):
        what = f'the gradient of {first_of(found)} is not finite'
        return Fault(1, what, iteration, images)
    return Fault(2, 'something is not finite', iteration, images)

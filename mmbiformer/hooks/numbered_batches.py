"""Batches that know which step takes them, so that a run can go on with any of them."""

from collections.abc import Iterator
from functools import partial
from itertools import count

from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from .step_seeds import seed_sample


class NumberedBatch(list):
    """Indices of the images of a batch, and the number of the step that takes it."""

    def __init__(self, indices: list[int], step: int) -> None:
        super().__init__(indices)
        self.step = step


class NumberedBatches:
    """The batch sampler of a training, of which the first batches can be left out.

    Leaving out costs no loading: only the indices are drawn. Other attributes are those of the
    batch sampler within.

    Args:
        batches: A batch sampler with the sampler it draws from.
        endless (bool): Whether there are no epochs: behind its end the sampler begins again.
    """

    def __init__(self, batches: object, *, endless: bool) -> None:
        self._batches, self._endless = batches, endless
        self._first_step, self._done = 0, 0

    def begin(self, first_step: int, done: int) -> None:
        """Set where the next pass begins.

        Args:
            first_step (int): The step that takes the first batch.
            done (int): How many batches are left out.
        """
        self._first_step, self._done = first_step, done

    def __iter__(self) -> Iterator[NumberedBatch]:
        for number, indices in enumerate(self._draw()):
            if number >= self._done:
                yield NumberedBatch(indices, self._first_step + number)

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> object:
        return getattr(self._batches, name)

    def _draw(self) -> Iterator[list[int]]:
        if not self._endless:
            yield from self._batches
            return
        for epoch in count():
            if hasattr(self._batches.sampler, 'set_epoch'):
                self._batches.sampler.set_epoch(epoch)
            yield from self._batches


def number_batches(loader: DataLoader, seed: int, rank: int, *, endless: bool) -> NumberedBatches:
    """Have a loader draw numbered batches, and what is random in an image depend on its step.

    What a worker has loaded before, and how many workers there are, no longer matters.

    Args:
        loader (DataLoader): With a batch sampler. Changed in place, before its first batch.
        seed (int): The same in all processes; the sampler's order follows it.
        rank (int): Of this process.
        endless (bool): As of :class:`NumberedBatches`.
    """
    sampler = loader.batch_sampler.sampler
    if isinstance(sampler, InfiniteSampler):
        # Its order may have begun, with another seed: older mmengine draws ahead.
        InfiniteSampler.__init__(sampler, sampler.dataset, sampler.shuffle, seed)
    elif hasattr(sampler, 'seed'):
        sampler.seed = seed
    batches = NumberedBatches(loader.batch_sampler, endless=endless)
    # DataLoader refuses another batch sampler, as it could contradict its batch size.
    vars(loader)['batch_sampler'] = batches
    # What PyTorch calls with the indices of a batch, where a data set has it.
    loader.dataset.__getitems__ = partial(_load, loader.dataset, seed, rank)
    return batches


class EndlessLoader:
    """The iterator of a training without epochs, in the place of mmengine's.

    Args:
        loader (DataLoader): Its batches begin where the run goes on.
        idle (int): How many times the loop asks before it takes a batch.
    """

    def __init__(self, loader: DataLoader, idle: int) -> None:
        self._loader, self._idle = loader, idle
        self._iterator = None

    def skip_iter(self, num_iters: int) -> None:
        """Leave nothing out, when mmengine's loop says so: the batches begin there already."""

    def __next__(self) -> object:
        if self._idle:
            self._idle -= 1
            return None
        if self._iterator is None:
            self._iterator = iter(self._loader)
        return next(self._iterator)


def _load(dataset: Dataset, seed: int, rank: int, batch: NumberedBatch) -> list:
    samples = []
    for position, index in enumerate(batch):
        seed_sample(seed, rank, batch.step, position)
        samples.append(dataset[index])
    return samples

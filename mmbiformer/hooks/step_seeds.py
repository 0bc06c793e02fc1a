"""Randomness that depends on the seed of a run and on the number of a step alone."""

import random

import numpy as np
import torch

# So that no step has the numbers of a sample.
OF_STEP, OF_SAMPLE = 1, 2


def seed_step(seed: int, step: int) -> None:
    """Seed the generators of this process with what a training step shall draw."""
    _seed_generators(OF_STEP, seed, step)


def seed_sample(seed: int, rank: int, step: int, position: int) -> None:
    """Seed the generators of this process with what an image of a step's batch shall draw."""
    _seed_generators(OF_SAMPLE, seed, rank, step, position)


def _seed_generators(*key: int) -> None:
    """Those of Python, NumPy and PyTorch; SeedSequence makes near keys give unlike numbers."""
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    torch.manual_seed(int(words[2]))

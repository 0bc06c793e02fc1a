"""Resamples of the images, and the intervals that come of them.

Letters: I images, W resamples.
"""

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples of the images are drawn, and from which seed."""

    num_resamples: int = 1000
    seed: int = 0


def draw_weights(num_images: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each resample: int32, (I, W)."""
    rng = np.random.default_rng(seed)
    chances = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, chances, num_resamples).T.astype(np.int32, order='C')


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval over the last axis; resamples without a value are left out."""
    tail = (1 - CONFIDENCE) / 2
    bounds = np.full((2, *values.shape[:-1]), np.nan)
    for index in np.ndindex(values.shape[:-1]):
        known = values[index][~np.isnan(values[index])]
        if known.size:
            bounds[(slice(None), *index)] = np.quantile(known, (tail, 1 - tail))
    return bounds[0], bounds[1]

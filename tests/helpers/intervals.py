"""Intervals around an estimate, without regard to the number of images."""

import numpy as np

from mmbiformer.evaluation.resampling import MIN_IMAGES, intervals


def interval(
    values: np.ndarray, estimate: np.ndarray, is_difference: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high, (...) each, of resamples (..., W) around estimates (...)."""
    both = np.concatenate([np.asarray(estimate)[..., None], values], axis=-1)
    ends = intervals(both, np.array(MIN_IMAGES), is_difference)
    return ends[..., 0], ends[..., 1]

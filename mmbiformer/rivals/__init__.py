"""The attentions that bi-level routing attention is compared with, on channels-last maps.

Each maps (B, H, W, C) to the same shape, for any H, W >= 1. What mmdet or mmcv has is composed and
imported when it is built; the rest is written from the papers that the classes name.
"""

from .axial import AxialAttention
from .criss_cross import CrissCrossAttention
from .cross_shaped import CrossShapedWindowAttention
from .deformable import DeformableAttention
from .separable import LocallyGroupedAttention, SubsampledAttention
from .shifted_window import ShiftedWindowAttention
from .sliding_window import SlidingWindowAttention

__all__ = [
    'AxialAttention',
    'CrissCrossAttention',
    'CrossShapedWindowAttention',
    'DeformableAttention',
    'LocallyGroupedAttention',
    'ShiftedWindowAttention',
    'SlidingWindowAttention',
    'SubsampledAttention',
]

"""Registers the metrics that build with what is installed: of detection, segmentation or both."""

from importlib.util import find_spec

if find_spec('mmdet'):
    from .detection.size_metric import SizeCocoMetric  # noqa: F401
if find_spec('mmseg'):
    from .segmentation.segment_metric import SegmentSizeMetric  # noqa: F401

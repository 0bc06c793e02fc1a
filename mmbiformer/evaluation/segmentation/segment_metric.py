"""mmseg's IoU metric, and beside it the recall of pixels by size of ground-truth segments."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric

from mmbiformer.errors import UserError
from mmbiformer.registry import METRICS

from . import segment_sizes
from .segment_report import summarise
from .segment_tables import format_summary


@METRICS.register_module()
class SegmentSizeMetric(IoUMetric):
    """IoU as mmseg's, and recall by size of the connected segments of the ground truth.

    Keys and values are those of IoUMetric, but summed in integers and not rounded; and for each
    size range and for all sizes, in percent, ``pixel_recall_0-8`` (share of its pixels that are
    right), ``class_recall_0-8`` (mean of that share over classes) and ``segments_found_0-8``
    (share of its segments of which at least half of the pixels are right), nan where it has no
    segment. There is no IoU of a size, as a false pixel has no segment: see
    :mod:`mmbiformer.evaluation.segmentation.segment_sizes`::

        val_evaluator = dict(
            type='mmbiformer.SegmentSizeMetric',
            iou_metrics=['mIoU'],
            size_bins=dict(measure='side'),
        )

    Args:
        size_bins (dict, optional): ``measure`` and ``ranges`` of :func:`size_ranges`. Defaults to
            octaves of side lengths in pixels.
        **kwargs: Of IoUMetric.
    """

    def __init__(self, size_bins: dict | None = None, **kwargs) -> None:
        # IoUMetric takes any argument, and a misspelt one without a word.
        unknown = kwargs.keys() - inspect.signature(IoUMetric).parameters.keys()
        if unknown:
            raise TypeError(f'SegmentSizeMetric has no argument {", ".join(sorted(unknown))}')
        super().__init__(**kwargs)
        self.ranges = segment_sizes.segment_ranges(**(size_bins or {}))

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count each image of a batch.

        Raises:
            UserError: If a prediction has another size than its ground truth, or a label is
                neither a class nor ignored; names the image.
        """
        for sample in data_samples:
            try:
                super().process(data_batch, [sample])
            except ValueError as error:
                raise UserError(f"'{sample.get('img_path', 'image')}': {error}") from error

    def intersect_and_union(
        self, pred_label: torch.Tensor, label: torch.Tensor, num_classes: int, ignore_index: int
    ) -> segment_sizes.SegmentCounts:
        """The result of one image, from its maps (H, W); what IoUMetric keeps of it."""
        # IoUMetric squeezes a map that is one pixel wide or high to one axis.
        prediction, labels = (np.atleast_2d(x.cpu().numpy()) for x in (pred_label, label))
        segments = segment_sizes.find_segments(labels, num_classes, ignore_index)
        return segment_sizes.count_segments(prediction, segments, self.ranges)

    def compute_metrics(self, results: list[segment_sizes.SegmentCounts]) -> dict[str, float]:
        """Log the tables and return all values, in percent."""
        if self.format_only:
            return super().compute_metrics(results)
        counts = segment_sizes.SegmentCounts.stack(results)
        total = counts.total()
        labelled, intersection = total.pixels[:, 0], total.correct[:, 0]
        union = labelled + total.predicted - intersection
        areas = [
            torch.from_numpy(x.astype(np.float64))
            for x in (intersection, union, total.predicted, labelled)
        ]
        rounded = super().compute_metrics([areas])
        exact = self.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
        metrics = {key: np.nanmean(exact[key.removeprefix('m')]) for key in rounded}
        values = segment_sizes.scores(total)
        for name in segment_sizes.BY_SIZE:
            for size, value in zip(self.ranges, values[name], strict=True):
                metrics[f'{name}_{size.name}'] = value
        summary = summarise(counts, self.ranges, self.dataset_meta['classes'])
        logger = MMLogger.get_current_instance()
        print_log('results by size of ground-truth segments, in percent:', logger)
        print_log('\n' + format_summary(summary), logger)
        return {key: 100 * float(value) for key, value in metrics.items()}

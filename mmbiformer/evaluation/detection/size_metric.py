"""The metric of configs: COCO's numbers, and AP in any size ranges."""

import os.path as osp
import tempfile

from faster_coco_eval.core import mask as mask_api
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger

from mmbiformer.errors import UserError
from mmbiformer.registry import METRICS
from mmbiformer.tables import format_table

from ..formatting import points
from ..report_data import known
from ..sizes import size_ranges
from .coco_eval import SizeEvaluation, evaluate
from .coco_files import GroundTruth, check_iou_type, check_masks, detections_of, ground_truth_of
from .coco_summary import coco_summary, detection_notices, range_notices

# mmdet's names of COCO's numbers, where it has others.
NAMES = {
    'AP': 'mAP',
    **{f'AP{x}': f'mAP_{x}' for x in ('50', '75', 's', 'm', 'l')},
    **{f'AR{x}@100': f'AR_{x}@100' for x in 'sml'},
}


@METRICS.register_module()
class SizeCocoMetric(CocoMetric):
    """mmdet's CocoMetric with AP by object size, in place of it.

    Values are those of pycocotools at COCO's own 1, 10 and 100 detections (mmdet's metric takes
    up to 1000 for all but mAP itself), and are not rounded. Per size range there are
    ``bbox_mAP_<range>`` and ``bbox_num_objects_<range>``, likewise for ``segm``. What has no
    object has no AP: nan in the dict, n/a in the log.

    Args:
        size_bins (dict, optional): measure and ranges of
            :func:`mmbiformer.evaluation.sizes.size_ranges`. Defaults to octaves of the side.
        classwise (bool): Also ``bbox_<class>_precision`` and ``bbox_<class>_precision_<range>``.
        ann_file (str, optional): COCO annotation file. Defaults to the data samples.
        **kwargs: Of CocoMetric: metric ('bbox', 'segm' or both), format_only, outfile_prefix,
            backend_args, collect_device, prefix, ... Without effect is use_mp_eval: the engine
            is faster than several processes of pycocotools.

    Raises:
        ValueError: If an argument is one whose meaning COCO fixes (proposal_nums, iou_thrs,
            metric_items), a metric is neither 'bbox' nor 'segm', or a size range has the name of
            one of COCO's values.
        UserError: If ``ann_file`` is not what COCO's format wants, or lacks what metric or ranges
            need.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        *args,
        size_bins: dict | None = None,
        classwise: bool = False,
        **kwargs,
    ) -> None:
        for name in ('proposal_nums', 'iou_thrs', 'metric_items'):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f'SizeCocoMetric follows COCO and takes no {name}: leave it out, or use '
                    'CocoMetric'
                )
        super().__init__(ann_file, *args, classwise=classwise, **kwargs)
        unknown = set(self.metrics) - {'bbox', 'segm'}
        if unknown:
            raise ValueError(
                f'SizeCocoMetric judges bbox and segm, not {", ".join(sorted(unknown))}: '
                'use CocoMetric'
            )
        self.size_ranges = size_ranges(**(size_bins or {}))
        for size in self.size_ranges:
            if f'mAP_{size.name}' in NAMES.values():
                raise ValueError(
                    f"size range '{size.name}' would give mAP_{size.name}, which is COCO's own: "
                    'rename it'
                )
        self._name = ann_file or 'the annotations'
        self._ground_truth = None
        if ann_file and not self.format_only:
            # What is wrong with them is said before a training, not at its first validation.
            ground_truth = ground_truth_of(self._coco_api.dataset, self._name)
            if 'segm' in self.metrics:
                check_iou_type(ground_truth, 'segm')
                check_masks(ground_truth, ground_truth)
            if any(size.relative for size in self.size_ranges):
                _ = ground_truth.image_areas

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Judge (ground truth, prediction) of every image, in the process that has all of them."""
        gts, predictions = zip(*results, strict=True)
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or osp.join(folder, 'results')
            if self._coco_api is None:
                self._coco_api = COCO(self.gt_to_coco_json(gts, prefix))  # from data samples
                self._coco_api.dataset = _complete(self._coco_api.dataset)
            if self.cat_ids is None:
                self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
            files = self.results2json(predictions, prefix)
            if self.format_only:
                MMLogger.get_current_instance().info(f'results are saved as {prefix}.*.json')
                return {}
            if 'segm' in self.metrics and 'segm' not in files:
                raise UserError(
                    "the metric's 'segm' needs masks, and the detector predicts none: leave it out"
                )
            records = {metric: load(files[metric]) for metric in self.metrics}
        if self._ground_truth is None:
            content, classes = self._coco_api.dataset, self.dataset_meta['classes']
            self._ground_truth = ground_truth_of(content, self._name, classes)
        metrics = {}
        for metric in self.metrics:
            metrics.update(self._judge(self._ground_truth, records[metric], metric))
        return metrics

    def _judge(self, ground_truth: GroundTruth, records: list[dict], metric: str) -> dict:
        """The metrics of boxes or of masks."""
        if metric == 'segm':
            # COCO's evaluation would take the area of the box for that of the mask.
            records = [{k: v for k, v in x.items() if k != 'bbox'} for x in records]
        # At the beginning of a training a detector may find nothing.
        name = f'the {metric} results'
        detections = detections_of(records, name, ground_truth, may_be_empty=True)
        evaluation = evaluate(ground_truth, detections, self.size_ranges, metric)
        info = MMLogger.get_current_instance().info
        notices = ground_truth.notices + range_notices(evaluation) + detection_notices(evaluation)
        for notice in notices:
            info(notice)
        info(f'{metric} AP by size:\n{_table(evaluation)}')
        return {f'{metric}_{key}': value for key, value in self._metrics(evaluation).items()}

    def _metrics(self, evaluation: SizeEvaluation) -> dict[str, float]:
        ap, num_objects = evaluation.average_precision, evaluation.num_objects
        metrics = {NAMES.get(key, key): x for key, x in coco_summary(evaluation).items()}
        for a, size in enumerate(evaluation.ranges):
            if not size.is_coco:
                metrics[f'mAP_{size.name}'] = ap(a)
            metrics[f'num_objects_{size.name}'] = int(num_objects[:, a].sum())
        if self.classwise:
            for k, category in enumerate(evaluation.ground_truth.category_names):
                metrics[f'{category}_precision'] = ap(category=k)
                for a, size in enumerate(evaluation.ranges[1:], 1):
                    metrics[f'{category}_precision_{size.name}'] = ap(a, category=k)
        return metrics


def _complete(content: dict) -> dict:
    """What mmdet leaves out where it makes annotations from data samples.

    Without objects there is no list of them, and of objects with masks it gives the area of boxes.
    """
    sizes = {x['id']: (x['width'], x['height']) for x in content['images']}
    annotations = []
    for record in content.get('annotations', ()):
        if record.get('segmentation'):
            mask = mask_api.segmToRle(record['segmentation'], *sizes[record['image_id']])
            record = dict(record, area=float(mask_api.area(mask)))
        annotations.append(record)
    return dict(content, annotations=annotations)


def _table(evaluation: SizeEvaluation) -> str:
    """For the log, in points."""
    ap = evaluation.average_precision
    rows = []
    for a, size in enumerate(evaluation.ranges):
        values = ap(a), ap(a, 0.5), ap(a, 0.75), evaluation.average_recall(a)
        cells = [points(known(x)) for x in values]
        rows.append([size.name, f'{evaluation.num_objects[:, a].sum():,}', *cells])
    return format_table(['range', 'objects', 'AP', 'AP50', 'AP75', 'AR'], rows)

"""Small reports of AP by size, for the tests of what is written and drawn of them."""

from collections.abc import Sequence

import numpy as np
from coco_samples import random_coco, with_masks

from mmbiformer.evaluation.detection.coco_files import detections_of, ground_truth_of
from mmbiformer.evaluation.detection.size_report import size_report
from mmbiformer.evaluation.report_data import DetectionReport
from mmbiformer.evaluation.resampling import Bootstrap
from mmbiformer.evaluation.sizes import SizeRange, size_ranges

HOSTILE = '<script>alert("x")</script> & $x_$'


def make_report(
    names: Sequence[str] = ('plain', 'better'),
    ranges: Sequence[SizeRange] = (),
    iou_type: str = 'bbox',
    bootstrap: Bootstrap | None = None,
    hostile: bool = False,
    num_images: int = 10,
    seed: int = 3,
) -> DetectionReport:
    """Of models that find the same; each further one leaves out more of the low scores.

    Octaves by default, of which the last two are empty. ``hostile`` names are those of the first
    category, of the images and of the file. ``seed`` is that of the detections left out.
    """
    rng = np.random.default_rng(3)
    content, results = random_coco(rng, num_images, detections_per_image=12)
    if iou_type == 'segm':
        content, results = with_masks(content, results)
    if hostile:
        content['categories'][0]['name'] = HOSTILE
        for image in content['images']:
            image['file_name'] = f'{image["id"]}{HOSTILE}.jpg'
    ground_truth = ground_truth_of(content, HOSTILE if hostile else 'folder/gt.json')
    models, rng = {}, np.random.default_rng(seed)
    for i, name in enumerate(names):
        kept = [x for x in results if not i or x['score'] > 0.3 * i or rng.random() < 0.4]
        models[name] = detections_of(kept, f'{name}.json', ground_truth)
    return size_report(ground_truth, models, ranges or size_ranges(), iou_type, bootstrap)

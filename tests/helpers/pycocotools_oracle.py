"""pycocotools, which our evaluation is held to."""

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmbiformer.evaluation.sizes import COCO_RANGES


def run_pycocotools(content, results, ranges, iou_type='bbox'):
    """Its evaluation in the given size ranges; summarised where they are COCO's own."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = content
        api.createIndex()
        oracle = COCOeval(api, api.loadRes([dict(x) for x in results]), iou_type)
        oracle.params.areaRng = [list(x.closed) for x in ranges]
        oracle.params.areaRngLbl = [x.name for x in ranges]
        oracle.evaluate()
        oracle.accumulate()
        if ranges == COCO_RANGES:
            oracle.summarize()
    return oracle

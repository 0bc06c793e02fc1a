"""The size report against the plain evaluation of pycocotools, on the same files."""

import contextlib
import io
import json
import time

import numpy as np
from coco_samples import random_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmbiformer.evaluation.judge_files import judge_files
from mmbiformer.evaluation.sizes import size_ranges


def test_the_report_takes_no_longer_than_pycocotools(tmp_path):
    """12 ranges, errors and worst images against 4 ranges; docs/size_ap.md has COCO's size."""
    sample = dict(num_categories=40, objects_per_image=7, detections_per_image=100)
    content, results = random_coco(np.random.default_rng(0), 300, **sample)
    ann, found = tmp_path / 'gt.json', tmp_path / 'found.json'
    ann.write_text(json.dumps(content))
    found.write_text(json.dumps(results))

    def plain():
        api = COCO(ann)
        evaluation = COCOeval(api, api.loadRes(str(found)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats[0]

    def ours():
        return judge_files(ann, dict(x=found), size_ranges()).models[0].overall['AP'].value

    times, values = {plain: [], ours: []}, []
    with contextlib.redirect_stdout(io.StringIO()):
        for run in (ours, plain, ours, plain):
            start = time.perf_counter()
            values.append(run())
            times[run].append(time.perf_counter() - start)
    np.testing.assert_allclose(values, values[0], rtol=0, atol=1e-12)
    assert min(times[ours]) < min(times[plain]), times

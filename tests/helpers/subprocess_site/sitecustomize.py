"""Stands in for torchvision's operators where it cannot load its own, so that Ultralytics runs.

The torchvision of the package index is built for CUDA and does not import beside a torch for CPUs.
Python runs a file of this name as it starts if its folder is on PYTHONPATH, which reaches the
processes that Ultralytics starts itself.
"""

import torch
from torch import Tensor

try:
    import torchvision
except RuntimeError as error:
    assert 'operator torchvision::nms does not exist' in str(error)
    library = torch.library.Library('torchvision', 'DEF')  # the names live as long as this does
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import torchvision

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        """What torchvision.ops.nms is documented to do."""
        order, kept = scores.argsort(descending=True), []
        while len(order):
            first, order = order[0], order[1:]
            kept.append(first)
            overlaps = torchvision.ops.box_iou(boxes[first, None], boxes[order])[0]
            order = order[overlaps <= iou_threshold]
        return torch.stack(kept) if kept else order

    torchvision.ops.nms = nms

"""Counted operations against loops, PyTorch's counter and the paper."""

from math import prod

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer import BiFormer
from mmbiformer.benchmark import official_style
from mmbiformer.benchmark.cases import Case
from mmbiformer.benchmark.cost import (
    backbone_flops,
    counted_flops,
    detector_flops,
    routed_flops,
    routing_flops,
    step_flops,
)
from mmbiformer.benchmark.steps import build_step


def test_routed_attention_against_a_loop() -> None:
    height, width, dim, topk, s = 6, 9, 4, 2, 3
    multiply_adds = 0
    for _query in range(height * width):
        for _region in range(topk):
            for _key in range((height // s) * (width // s)):
                multiply_adds += dim  # query times key
                multiply_adds += dim  # weight times value
    assert routed_flops(height * width, dim, topk, s) == 2 * multiply_adds
    assert routing_flops(dim, s) == 2 * sum(dim for _ in range(s**2) for _ in range(s**2))


@pytest.mark.parametrize(
    ('size', 'factor', 'padded'),
    [((128, 64), 4, False), ((80, 160), 5, False), ((64, 72), 4, True)],
)
def test_backbone_counts_real_tokens(size, factor, padded) -> None:
    arch = dict(embed_dims=(32, 64, 96, 128), depths=(1, 2, 1, 1), topks=(1, 2, 4, None))
    backbone = BiFormer(arch, partition_factor=factor).eval()
    # The twin is all plain operations, which the counter knows; it computes padding too.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        official_style(backbone)(torch.rand(1, 3, *size))
    if padded:
        assert backbone_flops(backbone, size) < counter.get_total_flops()
    else:
        assert backbone_flops(backbone, size) == counter.get_total_flops()


def test_published_cost() -> None:
    with torch.device('meta'):
        backbone = BiFormer('s', partition_factor=7, out_indices=(3,))
    assert backbone_flops(backbone, (224, 224)) / 2e9 == pytest.approx(4.46, abs=0.01)


def test_counted_flops_of_a_convolution() -> None:
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    assert counted_flops(conv, torch.empty(1, 3, 16, 20, device='meta')) == 2 * (8 * 10) * (
        3 * 8 * 9
    )


def test_a_step_counts_its_batch_and_its_backward() -> None:
    def flops(level: str, mode: str, batch_size: int) -> float:
        stage = 1 if level == 'op' else None
        case = Case(
            *(level, 'reference', mode, 't', (64, 64), 4, batch_size, 'cpu', 'fp32'), stage=stage
        )
        return step_flops(build_step(case))

    for level in ('op', 'backbone'):
        assert flops(level, 'training', 2) == 6 * flops(level, 'inference', 1)
    assert flops('op', 'inference', 1) == routed_flops(8 * 8, 128, 4, 4)


def test_detector_counts_backbone_neck_and_head() -> None:
    size = (64, 96)
    step = build_step(Case('detector', 'resnet-50', 'inference', 't', size, 4, 1, 'cpu', 'fp32'))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        step.module(torch.rand(1, 3, *size), mode='tensor')
    assert prod(size) < detector_flops(step.module, size) == counter.get_total_flops()

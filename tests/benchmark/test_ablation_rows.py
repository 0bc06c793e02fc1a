"""Rows of level ablation: their sizes and what they cost."""

import pytest
import torch

from mmbiformer.benchmark.ablation_rows import ROWS, build_row
from mmbiformer.benchmark.cost import backbone_flops

# Millions of parameters and G multiply-adds at 224 x 224. The last step is BiFormer-S, whose
# classifier has 25.5 M and 4.5 G in the paper; here are backbones with four norms.
COST = {
    'sliding_window': (19.7, 3.24),
    'shifted_window': (27.5, 4.49),
    'spatially_separable': (30.4, 4.39),
    'sequential_axial': (27.5, 4.45),
    'criss_cross': (21.6, 4.05),
    'cross_shaped_window': (27.5, 4.56),
    'deformable': (27.6, 4.56),
    'routing': (27.6, 4.57),
    'overlapped': (29.6, 4.92),
    'deeper': (24.9, 4.44),
    'conv-position': (25.0, 4.46),
}


@pytest.mark.parametrize('name', ROWS)
def test_row(name) -> None:
    with torch.device('meta'):
        backbone = build_row(name, partition_factor=7)
    parameters = sum(p.numel() for p in backbone.parameters()) / 1e6
    multiply_adds = backbone_flops(backbone, (224, 224)) / 2e9
    assert (round(parameters, 1), round(multiply_adds, 2)) == COST[name]

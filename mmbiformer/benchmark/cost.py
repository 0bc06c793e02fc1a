"""Operations that a step needs: those of real tokens, whatever a backend computes besides.

A multiply-add counts as two. Norms, activations, softmax and the choice of regions are left out,
as in the paper.
"""

from math import ceil, prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmbiformer.layers import BiLevelRoutingAttention

from .cases import Size, map_size
from .families import FAMILIES
from .steps import Step

# A product of the forward pass has two in the backward pass: one for each factor's gradient.
TRAINING_FACTOR = 3


def routed_flops(tokens: int, dim: int, topk: int, partition_factor: int) -> float:
    """Routed attention without projections: queries times keys, weights times values."""
    return 4 * tokens * topk * (tokens / partition_factor**2) * dim


def routing_flops(dim: int, partition_factor: int) -> float:
    """Region-to-region affinity: the S * S mean queries times as many mean keys."""
    return 2 * partition_factor**4 * dim


def attention_flops(attention: nn.Module, tokens: int) -> float:
    """One attention of either kind, projections and convolution left out."""
    dim = attention.proj.out_features
    if not isinstance(attention, BiLevelRoutingAttention):
        return 4 * tokens**2 * dim
    s = attention.partition_factor
    return routed_flops(tokens, dim, attention.topk, s) + routing_flops(dim, s)


def weight_flops(module: nn.Module, positions: int) -> float:
    """Convolutions and linear layers: each weight counts once per position of the output."""
    return 2 * positions * sum(p.numel() for p in module.parameters() if p.ndim >= 2)


def counted_flops(module: nn.Module, inputs: torch.Tensor | list[torch.Tensor]) -> float:
    """Products of a forward pass, counted by PyTorch on tensors without data, as the inputs."""
    weights = {name: x.to('meta') for name, x in module.state_dict().items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(module, weights, (inputs,))
    return float(counter.get_total_flops())


def step_flops(step: Step) -> float:
    """Operations of one step of a case: the whole batch, the backward pass where it has one."""
    case = step.case
    if case.level == 'op':
        layer, tokens = step.module, prod(map_size(case.size, case.stage))
        forward = routed_flops(tokens, layer.proj.out_features, layer.topk, layer.partition_factor)
    elif case.level in ('backbone', 'ablation'):
        forward = backbone_flops(step.module, case.size)
    else:
        forward = detector_flops(step.module, case.size)
    return forward * case.batch_size * (TRAINING_FACTOR if case.mode == 'training' else 1)


def backbone_flops(backbone: nn.Module, size: Size) -> float:
    """Forward pass of one image."""
    if not isinstance(backbone, tuple(family.backbone for family in FAMILIES)):
        return counted_flops(backbone, torch.empty(1, 3, *size, device='meta'))
    total = 0.0
    for downsample, stage in zip(backbone.downsample_layers, backbone.stages, strict=True):
        for layer in downsample:
            if isinstance(layer, nn.Conv2d):
                size = tuple(ceil(length / layer.stride[0]) for length in size)
                total += weight_flops(layer, prod(size))
        for block in stage:
            total += weight_flops(block, prod(size)) + attention_flops(block.attn, prod(size))
    return total


def detector_flops(detector: nn.Module, size: Size) -> float:
    """Forward pass of one image, without the choice of boxes."""
    # An AttentionNeck takes what the neck within it takes.
    in_channels = getattr(detector.neck, 'neck', detector.neck).in_channels
    stages = range(4 - len(in_channels), 4)
    maps = [
        torch.empty(1, channels, *map_size(size, stage), device='meta')
        for stage, channels in zip(stages, in_channels, strict=True)
    ]
    neck_and_head = nn.Sequential(detector.neck, detector.bbox_head)
    return backbone_flops(detector.backbone, size) + counted_flops(neck_and_head, maps)

"""Layers in plain loops and numpy, and parameters that show every term."""

import numpy as np
import torch
from torch import nn


def randomise(module: nn.Module) -> nn.Module:
    """Double precision, and every parameter drawn from a normal distribution, biases too."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=parameter.shape[1:].numel() ** -0.5)
    return module


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return x @ weight.T + bias


def local_context(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """A depthwise convolution of a map (H, W, C) with zeros around it."""
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    height, width, _ = x.shape
    reach = weight.shape[-1] // 2
    offsets = range(-reach, reach + 1)
    out = np.empty_like(x)
    for y in range(height):
        for column in range(width):
            out[y, column] = bias
            for dy in offsets:
                for dx in offsets:
                    if 0 <= y + dy < height and 0 <= column + dx < width:
                        out[y, column] += (
                            weight[:, 0, dy + reach, dx + reach] * x[y + dy, column + dx]
                        )
    return out

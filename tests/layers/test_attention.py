"""The attention modules against the paper's sentences and plain loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import SIZES, attend, pad, route
from torch import nn

from mmbiformer.layers import BiLevelRoutingAttention, FullAttention

each_size = pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)
each_backend = pytest.mark.parametrize('backend', ['reference', 'chunked'])


def randomise(module: nn.Module) -> nn.Module:
    """Double precision, and every parameter drawn from a normal distribution, biases too."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return module


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return x @ weight.T + bias


def local_context(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """A 5 x 5 depthwise convolution of a map (H, W, C) with zeros around it."""
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    height, width, _ = x.shape
    out = np.empty_like(x)
    for y in range(height):
        for column in range(width):
            out[y, column] = bias
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    if 0 <= y + dy < height and 0 <= column + dx < width:
                        out[y, column] += weight[:, 0, dy + 2, dx + 2] * x[y + dy, column + dx]
    return out


@each_backend
@pytest.mark.parametrize('padding', ['official', 'masked'])
@each_size
def test_routed_attention_equals_loops(height, width, s, padding, backend):
    dim, num_heads, topk = 8, 2, min(2, s * s)
    module = randomise(BiLevelRoutingAttention(dim, num_heads, s, topk, padding, backend))
    x = torch.randn(2, height, width, dim, dtype=torch.float64)
    with torch.no_grad():
        out = module(x)
    assert out.shape == x.shape
    for image, result in zip(x.numpy(), out.numpy(), strict=True):
        if padding == 'official':
            # Zeros before the projection; after it, padding is like any other token.
            image = pad(image, s, 0)
        real = image.shape[:2]
        q, k, v = np.split(linear(module.qkv, image), 3, axis=-1)
        context = local_context(module.lce, v)
        q, k, v = (pad(part, s, 7) for part in (q, k, v))
        chosen = route(q, k, s, topk, real)
        attended = attend(q, k, v, chosen, s, num_heads, dim**-0.5, real)
        expected = linear(module.proj, attended[: real[0], : real[1]] + context)
        np.testing.assert_allclose(result, expected[:height, :width], rtol=0, atol=1e-12)


@each_backend
@each_size
def test_official_padding_is_a_zero_padded_input(height, width, s, backend):
    module = randomise(BiLevelRoutingAttention(8, 2, s, min(2, s * s), backend=backend))
    x = torch.randn(2, height, width, 8, dtype=torch.float64, requires_grad=True)
    padded = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
    grad_out = torch.randn_like(x)

    out = module(x)
    expected = module(padded)[:, :height, :width]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    variables = [x, *module.parameters()]
    for grad, truth in zip(
        torch.autograd.grad(out, variables, grad_out),
        torch.autograd.grad(expected, variables, grad_out),
        strict=True,
    ):
        torch.testing.assert_close(grad, truth, rtol=0, atol=1e-11)


def test_the_two_paddings_differ_only_where_there_is_padding():
    official = randomise(BiLevelRoutingAttention(8, 2, 4, 2, 'official'))
    masked = randomise(BiLevelRoutingAttention(8, 2, 4, 2, 'masked'))
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(official(x), masked(x), rtol=0, atol=1e-13)
    assert not torch.allclose(official(x[:, :7]), masked(x[:, :7]))


def test_qkv_bias_moves_masked_attention_as_padding_would_not():
    # A constant added to all keys changes no softmax, so only real padding would show it.
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 9, 'masked'))
    x = torch.randn(1, 4, 4, 8, dtype=torch.float64)
    out = module(x)
    with torch.no_grad():
        module.qkv.bias[8:16] += 1
    torch.testing.assert_close(module(x), out, rtol=0, atol=1e-12)
    module.padding = 'official'
    assert not torch.allclose(module(x), out)


def test_full_attention_equals_loops():
    dim, num_heads = 32, 8
    module = randomise(FullAttention(dim))
    assert module.qkv.bias is None
    x = torch.randn(2, 3, 4, dim, dtype=torch.float64)
    with torch.no_grad():
        out = module(x)
    for image, result in zip(x.numpy(), out.numpy(), strict=True):
        q, k, v = np.split(image @ module.qkv.weight.detach().numpy().T, 3, axis=-1)
        scale = (dim // num_heads) ** -0.5
        attended = attend(q, k, v, [{0}], 1, num_heads, scale, (3, 4))
        expected = linear(module.proj, attended + local_context(module.lce, image))
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_softmax_scale_is_over_the_whole_width():
    assert BiLevelRoutingAttention(64, 2, 7, 1).scale == 64**-0.5


@pytest.mark.parametrize('padding', ['official', 'masked'])
def test_other_sizes_compile_without_a_break(padding):
    module = randomise(BiLevelRoutingAttention(8, 2, 3, 2, padding, 'chunked'))
    torch._dynamo.reset()
    compiled = torch.compile(module, backend='aot_eager', fullgraph=True)
    for height, width in [(6, 9), (7, 8), (4, 13)]:
        x = torch.randn(2, height, width, 8, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=1e-11)

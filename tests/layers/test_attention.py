"""Full attention against plain loops."""

import numpy as np
import pytest
import torch
from layer_loops import linear, local_context, randomise
from loops import attend

from mmbiformer.layers import FullAttention


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


def test_width_that_heads_do_not_divide_is_named():
    with pytest.raises(ValueError, match=r'dim=20 must be a multiple of 8, the heads it has$'):
        FullAttention(20)

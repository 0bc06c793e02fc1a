"""Attentions within rows, columns, windows and stripes, and to sub-sampled maps, against dense."""

import pytest
import torch
import torch.nn.functional as F
from dense_attention import (
    SIZES,
    assert_equals_dense,
    from_heads,
    masked_attention,
    pairs,
    places,
    same,
    to_heads,
)
from layer_loops import randomise
from torch import Tensor, nn

from mmbiformer.rivals import (
    AxialAttention,
    CrossShapedWindowAttention,
    LocallyGroupedAttention,
    ShiftedWindowAttention,
    SubsampledAttention,
)

DIM, HEADS = 16, 4
SCALE = (DIM // HEADS) ** -0.5
each_size = pytest.mark.parametrize(('height', 'width'), SIZES)


def maps(height: int, width: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, height, width, DIM, dtype=torch.float64)


def dense(attention: nn.Module, mask: Tensor, x: Tensor) -> Tensor:
    """What the mask alone makes of a map."""
    parts = (to_heads(p, HEADS) for p in attention.qkv(x.flatten(1, 2)).chunk(3, dim=-1))
    out = from_heads(masked_attention(*parts, mask, scale=SCALE))
    return attention.proj(out).view_as(x)


@each_size
@pytest.mark.parametrize('axis', ['row', 'column'])
def test_axial(axis, height, width):
    attention = randomise(AxialAttention(DIM, HEADS, axis))
    mask = same(places(height, width)[0 if axis == 'row' else 1])
    assert_equals_dense(attention, maps(height, width), lambda x: dense(attention, mask, x))


@each_size
def test_locally_grouped(height, width):
    attention = randomise(LocallyGroupedAttention(DIM, HEADS))
    mask = same(*(place // 7 for place in places(height, width)))
    assert_equals_dense(attention, maps(height, width), lambda x: dense(attention, mask, x))


def test_locally_grouped_is_mmsegs_where_windows_divide():
    from mmseg.models.backbones.twins import LocallyGroupedSelfAttention

    attention = randomise(LocallyGroupedAttention(DIM, HEADS))
    theirs = LocallyGroupedSelfAttention(DIM, HEADS, qkv_bias=True, window_size=7).double()
    theirs.load_state_dict(attention.state_dict())
    x = maps(14, 21)
    expected = theirs(x.flatten(1, 2), (14, 21)).view_as(x)
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


@each_size
@pytest.mark.parametrize('ratio', [1, 2, 8])
def test_subsampled(ratio, height, width):
    attention = randomise(SubsampledAttention(DIM, HEADS, ratio))

    def expected(x: Tensor) -> Tensor:
        source = x
        if ratio > 1:
            padded = F.pad(x, (0, 0, 0, -width % ratio, 0, -height % ratio))
            patches = padded.unflatten(2, (-1, ratio)).unflatten(1, (-1, ratio))
            conv = attention.subsample
            source = torch.einsum('biyjxc,dcyx->bijd', patches, conv.weight) + conv.bias
            source = F.layer_norm(source, (DIM,), attention.norm.weight, attention.norm.bias)
        k, v = attention.kv(source.flatten(1, 2)).chunk(2, dim=-1)
        q, k, v = (to_heads(p, HEADS) for p in (attention.q(x.flatten(1, 2)), k, v))
        everything = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        out = from_heads(masked_attention(q, k, v, everything, scale=SCALE))
        return attention.proj(out).view_as(x)

    assert_equals_dense(attention, maps(height, width), expected)


def test_subsampled_is_mmsegs_where_patches_divide():
    from mmseg.models.backbones.twins import GlobalSubsampledAttention

    attention = randomise(SubsampledAttention(DIM, HEADS, 4))
    theirs = GlobalSubsampledAttention(DIM, HEADS, sr_ratio=4, batch_first=True).double()
    own = attention.state_dict()
    theirs.load_state_dict(
        {
            'attn.in_proj_weight': torch.cat([own['q.weight'], own['kv.weight']]),
            'attn.in_proj_bias': torch.cat([own['q.bias'], own['kv.bias']]),
            'attn.out_proj.weight': own['proj.weight'],
            'attn.out_proj.bias': own['proj.bias'],
            **{f'sr.{name}': own[f'subsample.{name}'] for name in ('weight', 'bias')},
            **{f'norm.{name}': own[f'norm.{name}'] for name in ('weight', 'bias')},
        }
    )
    x = maps(8, 12)
    # Their LayerNorm's eps is torch's, too.
    expected = theirs(x.flatten(1, 2), (8, 12), identity=0.0).view_as(x)
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


@each_size
@pytest.mark.parametrize('is_shifted', [False, True], ids=['windows', 'shifted windows'])
def test_shifted_window(is_shifted, height, width):
    attention = randomise(ShiftedWindowAttention(DIM, HEADS, is_shifted))
    inner = attention.windows.w_msa
    # Zeros fill up the last windows and take part, in Swin's dense form as here.
    padded_height, padded_width = height + -height % 7, width + -width % 7
    rows, columns = places(padded_height, padded_width)
    numbers = [rows // 7, columns // 7]
    if is_shifted:  # what the shift brings round from the other edge is apart
        numbers = [(rows - 3) % padded_height // 7, (columns - 3) % padded_width // 7]
        numbers += [rows < 3, columns < 3]
    mask = same(*numbers)
    down, right = (torch.sub(*pairs(place)) for place in (rows, columns))
    index = torch.where(mask, (down + 6) * 13 + right + 6, 0)

    def expected(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, 0, -width % 7, 0, -height % 7))
        parts = inner.qkv(padded.flatten(1, 2)).chunk(3, dim=-1)
        bias = inner.relative_position_bias_table[index].permute(2, 0, 1)
        out = masked_attention(*(to_heads(p, HEADS) for p in parts), mask, bias, SCALE)
        out = attention.proj(from_heads(out)).view_as(padded)
        return out[:, :height, :width]

    assert_equals_dense(attention, maps(height, width), expected)


@each_size
@pytest.mark.parametrize('stripe', [1, 2, 7])
def test_cross_shaped_window(stripe, height, width):
    attention = randomise(CrossShapedWindowAttention(DIM, HEADS, stripe))
    rows, columns = places(height, width)
    halves = [
        (same(rows // stripe), attention.row_lepe),
        (same(columns // stripe), attention.column_lepe),
    ]
    offsets = [torch.sub(*reversed(pairs(place))) for place in (rows, columns)]

    def local_context(v: Tensor, mask: Tensor, conv: nn.Conv2d) -> Tensor:
        """A 3x3 depthwise convolution of values (B, T, C) that sees what the mask lets it."""
        out = conv.bias.expand(v.shape)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                is_there = (offsets[0] == down) & (offsets[1] == right) & mask
                out = out + (is_there.double() @ v) * conv.weight[:, 0, down + 1, right + 1]
        return out

    def expected(x: Tensor) -> Tensor:
        parts = attention.qkv(x.flatten(1, 2)).chunk(3, dim=-1)
        outs = []
        for half, (mask, conv) in enumerate(halves):
            q, k, v = (p.chunk(2, dim=-1)[half] for p in parts)
            attended = masked_attention(
                *(to_heads(p, HEADS // 2) for p in (q, k, v)), mask, scale=SCALE
            )
            outs.append(from_heads(attended) + local_context(v, mask, conv))
        return attention.proj(torch.cat(outs, dim=-1)).view_as(x)

    assert_equals_dense(attention, maps(height, width), expected)

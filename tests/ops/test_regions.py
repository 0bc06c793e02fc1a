"""Cutting maps into regions, against loops."""

import pytest
import torch
from loops import SIZES, pad, tokens_of_regions

from mmbiformer.ops import regions as regions_module
from mmbiformer.ops.regions import (
    crop,
    from_regions,
    pad_bottom_right,
    pad_to_regions,
    real_tokens,
    region_size,
    to_regions,
)

each_size = pytest.mark.parametrize(('height', 'width', 's'), SIZES.values(), ids=SIZES)


@each_size
def test_regions_are_cut_row_by_row(height, width, s):
    x, fill = torch.randn(2, height, width, 3, dtype=torch.float64), torch.randn(3).double()
    regions = to_regions(pad_to_regions(x, s, fill), s)
    tokens = tokens_of_regions(height, width, s)
    assert regions.shape == (2, s * s, len(tokens[0]), 3)
    for image, cut in zip(x, regions, strict=True):
        padded = pad(image.numpy(), s, fill.numpy())
        for region, places in zip(cut, tokens, strict=True):
            assert region.tolist() == [padded[place].tolist() for place in places]


@each_size
def test_from_regions_undoes_to_regions_and_crops(height, width, s):
    x = torch.randn(2, height, width, 3)
    regions = to_regions(pad_to_regions(x, s), s)
    assert torch.equal(from_regions(regions, height, width, s), x)


@each_size
def test_real_tokens_are_those_inside_the_map(height, width, s):
    expected = [
        [y < height and x < width for y, x in places]
        for places in tokens_of_regions(height, width, s)
    ]
    assert real_tokens(height, width, s).tolist() == expected


def test_region_size_rounds_up():
    assert region_size(8, 9, 8) == (1, 2)
    assert region_size(1, 16, 8) == (1, 2)


def test_nothing_to_pad_copies_nothing():
    x = torch.randn(1, 4, 6, 2)
    assert pad_bottom_right(x, 0, 0, torch.ones(2)) is x
    assert pad_to_regions(x, 2, torch.ones(2)) is x


@pytest.mark.parametrize('fill', [None, torch.tensor([1.0, 2.0])], ids=['zeros', 'token'])
@pytest.mark.parametrize(('bottom', 'right'), [(2, 0), (0, 1), (2, 1)])
def test_pad_bottom_right(bottom, right, fill):
    x = torch.randn(2, 3, 4, 2)
    padded = pad_bottom_right(x, bottom, right, fill)
    assert padded.shape == (2, 3 + bottom, 4 + right, 2)
    assert torch.equal(padded[:, :3, :4], x)
    token = torch.zeros(2) if fill is None else fill
    assert (padded[:, 3:] == token).all()
    assert (padded[:, :, 4:] == token).all()


def test_padding_takes_the_dtype_of_the_map():
    x, fill = torch.randn(1, 3, 3, 2, dtype=torch.bfloat16), torch.ones(2)
    assert pad_to_regions(x, 2, fill).dtype == torch.bfloat16


@pytest.mark.parametrize('fill', [None, torch.tensor([1.0, 2.0])], ids=['zeros', 'token'])
@pytest.mark.parametrize(('bottom', 'right'), [(0, 0), (2, 0), (0, 1), (2, 1)])
def test_exporters_get_the_same_by_other_operators(monkeypatch, bottom, right, fill):
    x = torch.randn(2, 3, 4, 2)
    expected = pad_bottom_right(x, bottom, right, fill)
    monkeypatch.setattr(regions_module, 'is_exporting', lambda: True)
    padded = pad_bottom_right(x, bottom, right, fill)
    assert padded is not x
    assert torch.equal(padded, expected)
    assert torch.equal(crop(padded, 3, 4), x)
    assert crop(padded, 3, 4).is_contiguous()

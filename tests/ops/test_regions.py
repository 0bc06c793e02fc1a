"""Cutting maps into regions, against loops."""

import pytest
import torch
from loops import SIZES, pad, tokens_of_regions

from mmbiformer.ops.any_size import from_regions, pad_to_regions
from mmbiformer.ops.regions import real_tokens, region_size, to_regions

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

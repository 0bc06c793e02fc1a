"""Padding and cropping of maps, in the form for a known size and in the form for any size."""

import pytest
import torch

from mmbiformer.ops import any_size
from mmbiformer.ops.any_size import crop, pad_to_regions, region_averages


def test_nothing_to_pad_copies_nothing():
    x = torch.randn(1, 4, 6, 2)
    assert pad_to_regions(x, 2, torch.ones(2)) is x


@pytest.mark.parametrize('fill', [None, torch.tensor([1.0, 2.0])], ids=['zeros', 'token'])
@pytest.mark.parametrize(('height', 'width'), [(3, 5), (5, 4), (3, 4)])
def test_padding_goes_to_the_bottom_and_the_right(height, width, fill):
    x = torch.randn(2, height, width, 2)
    padded = pad_to_regions(x, 5, fill)
    assert padded.shape == (2, 5, 5, 2)
    assert torch.equal(padded[:, :height, :width], x)
    token = torch.zeros(2) if fill is None else fill
    assert (padded[:, height:] == token).all()
    assert (padded[:, :, width:] == token).all()


def test_padding_takes_the_dtype_of_the_map():
    x, fill = torch.randn(1, 3, 3, 2, dtype=torch.bfloat16), torch.ones(2)
    assert pad_to_regions(x, 2, fill).dtype == torch.bfloat16


@pytest.mark.parametrize('fill', [None, torch.tensor([1.0, 2.0])], ids=['zeros', 'token'])
@pytest.mark.parametrize(('height', 'width'), [(5, 5), (3, 5), (5, 4), (3, 4)])
def test_exporters_get_the_same_by_other_operators(monkeypatch, height, width, fill):
    x = torch.randn(2, height, width, 2)
    expected = pad_to_regions(x, 5, fill)
    monkeypatch.setattr(any_size, 'is_exporting', lambda: True)
    padded = pad_to_regions(x, 5, fill)
    assert padded is not x
    assert torch.equal(padded, expected)
    assert torch.equal(crop(padded, height, width), x)
    assert crop(padded, height, width).is_contiguous()


@pytest.mark.parametrize('recorded', [False, True], ids=['known size', 'any size'])
def test_as_much_padding_as_a_convolution_reaches(monkeypatch, recorded):
    monkeypatch.setattr(any_size, 'is_exporting', lambda: recorded)
    x = torch.randn(1, 9, 5, 2)  # to 16 x 8
    padded = pad_to_regions(x, 8, torch.ones(2), reach=2)
    assert padded.shape[1:3] == ((16, 8) if recorded else (11, 7))
    assert torch.equal(padded[:, :9, :5], x)
    assert (padded[:, 9:] == 1).all() and (padded[:, :, 5:] == 1).all()


@pytest.mark.parametrize('size', [(8, 6), (9, 5), (2, 3)], ids=str)
def test_region_averages_of_any_size_are_those_of_a_known_size(monkeypatch, size):
    x = torch.randn(2, *size, 3, dtype=torch.float64)
    expected = region_averages(x, 4, torch.float64)
    monkeypatch.setattr(any_size, 'is_exporting', lambda: True)
    torch.testing.assert_close(region_averages(x, 4, torch.float64), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize('fill', [None, torch.tensor([1.0, 2.0])], ids=['zeros', 'token'])
@pytest.mark.parametrize('reach', [None, 1, 2])
@pytest.mark.parametrize(('height', 'width'), [(6, 6), (4, 6), (6, 5), (4, 5)])
def test_compilers_get_the_same_without_a_branch(monkeypatch, height, width, reach, fill):
    x = torch.randn(2, height, width, 2)
    expected = pad_to_regions(x, 3, fill, reach)
    monkeypatch.setattr(any_size, 'is_recorded', lambda: True)
    padded = pad_to_regions(x, 3, fill, reach)
    # With a reach there may be more: zeros, as a convolution puts behind the map.
    same = crop(padded, *expected.shape[1:3])
    assert torch.equal(same, expected)
    if reach is None:
        assert padded.shape == expected.shape
    whole = pad_to_regions(x, 3, fill)
    beyond = padded.clone()
    beyond[:, : whole.shape[1], : whole.shape[2]] = 0
    assert not beyond.any()
    back = crop(padded, height, width)
    assert torch.equal(back, x)

"""Routing statistics of maps whose routing is known."""

import json
import math

import cv2
import pytest
import torch

from mmbiformer.errors import UserError
from mmbiformer.visualization import (
    PlacedMap,
    RoutedMap,
    read_objects,
    statistics_text,
    write_statistics,
)
from mmbiformer.visualization.placement import Placement
from mmbiformer.visualization.statistics import BINS, ModuleStatistics

# 4 x 4 regions of 2 x 2 tokens, which are 10 pixels wide each.
S, SIDE = 4, 80


def placed_map(choices: list[list[int]], size: tuple[int, int] = (8, 8)) -> PlacedMap:
    indices = torch.tensor(choices)[None]
    affinity = torch.zeros(1, S * S, S * S)
    token = torch.zeros(1, *size, 1)
    routed = RoutedMap('block', size, S, 1, indices, affinity, token, token, 1.0, None, None)
    image_size = 10 * size[0], 10 * size[1]
    return PlacedMap(routed, Placement((1, 1), (0, 0)), (10, 10), image_size)


def statistics_of(placed: PlacedMap, objects=None) -> ModuleStatistics:
    statistics = ModuleStatistics('block')
    statistics.add(placed, objects)
    return statistics


def test_all_route_to_themselves():
    summary = statistics_of(placed_map([[i] for i in range(S * S)])).summary()
    assert summary['routes_to_itself'] == 1
    assert summary['entropy'] == pytest.approx(4)
    assert summary['entropy_at_most'] == 4
    assert summary['distances'] == [S * S] + (BINS - 1) * [0]


def test_all_route_to_one():
    statistics = statistics_of(placed_map([[0] for _ in range(S * S)]))
    assert statistics.summary()['entropy'] == pytest.approx(0)
    assert statistics.to_itself == [1 / 16]
    # Regions are a fourth of a side apart.
    distances = [math.hypot(i, j) / 4 / math.sqrt(2) for i in range(S) for j in range(S)]
    mean = sum(distances) / len(distances)
    assert statistics.summary()['distance'] == pytest.approx(mean, abs=0.5 / BINS)
    assert statistics.distances.sum() == S * S


def test_pairs_at_random_are_all_pairs():
    statistics = statistics_of(placed_map([[0] for _ in range(S * S)]))
    assert statistics.any_distances.sum() == S**4
    assert statistics.any_distances[0] == S * S


def test_regions_of_padding_alone_do_not_count():
    """Of a map of 5 x 8 tokens three rows of regions are real, of which the last is half full."""
    choices = [[i] for i in range(12)] + [[0] for _ in range(4)]
    statistics = statistics_of(placed_map(choices, (5, 8)))
    assert statistics.distances.sum() == 12
    assert statistics.entropies == [pytest.approx(math.log2(12))]


def test_what_small_objects_choose():
    """A small object in region 0, a large one over regions 10, 11, 14 and 15."""
    choices = [[1, 2] for _ in range(S * S)]
    choices[0] = [10, 5]
    choices[3] = [0, 15]
    objects = [(2.0, 2.0, 12.0, 12.0), (45.0, 45.0, 79.0, 79.0)]
    statistics = statistics_of(placed_map(choices), objects)
    assert statistics.from_small == [1, 2]
    # 11 regions have nothing; region 3 routes to two objects.
    assert statistics.from_background == [2, 22]


def test_without_objects_nothing_is_said_of_them():
    statistics = statistics_of(placed_map([[0] for _ in range(S * S)]))
    assert statistics.summary()['objects_chosen_from_small_objects'] is None
    assert 'objects' not in statistics_text([statistics])


def test_files(tmp_path):
    statistics = statistics_of(placed_map([[1, 2] for _ in range(S * S)]), [(2.0, 2.0, 9.0, 9.0)])
    assert 'from background' in statistics_text([statistics])
    paths = write_statistics([statistics], tmp_path / 'out')
    assert [path.suffix for path in paths] == ['.png', '.pdf', '.json']
    assert cv2.imread(str(paths[0])) is not None
    assert json.loads(paths[2].read_text()) == [statistics.summary()]


class TestObjects:
    @pytest.fixture
    def annotations(self, tmp_path):
        box = dict(image_id=1, category_id=1, area=20, iscrowd=0)
        content = dict(
            images=[dict(id=1, file_name='train/a.jpg'), dict(id=2, file_name='b.jpg')],
            categories=[dict(id=1, name='thing')],
            annotations=[
                dict(id=1, bbox=[1, 2, 4, 5], **box),
                dict(id=2, bbox=[0, 0, 9, 9], **{**box, 'iscrowd': 1}),
            ],
        )
        path = tmp_path / 'instances.json'
        path.write_text(json.dumps(content))
        return str(path)

    def test_boxes_without_crowds(self, annotations, tmp_path):
        objects = read_objects(annotations, [tmp_path / 'a.jpg', tmp_path / 'b.jpg'])
        assert objects == {'a.jpg': [(1, 2, 5, 7)], 'b.jpg': []}

    def test_an_image_without_a_record(self, annotations, tmp_path):
        with pytest.raises(UserError, match='no record of 1 of 1 images'):
            read_objects(annotations, [tmp_path / 'c.jpg'])

"""Advice for S at sizes where the answer is known."""

import pytest
from mmengine.config import Config
from text_tables import tables_of
from toolbox import CONFIGS

from mmbiformer.benchmark.advice import (
    candidates,
    factor_advice,
    format_advice,
    recommend,
    stage_advice,
)
from mmbiformer.benchmark.cases import SHIPPED_FACTORS, default_factor
from mmbiformer.ops.regions import real_tokens


def test_detection_size() -> None:
    advice = factor_advice('s', (800, 1344), 16)
    assert [stage.region for stage in advice.stages] == [(13, 21), (7, 11), (4, 6)]
    assert [round(stage.waste, 2) for stage in advice.stages] == [1.04, 1.17, 1.46]
    assert [stage.keys for stage in advice.stages] == [273, 4 * 77, 16 * 24]
    assert advice.waste == advice.stages[2].waste
    assert advice.padded_flops > advice.needed_flops
    # 18 blocks of stage 3: queries times keys and weights times values of 256 channels.
    needed = 18 * (4 * 50 * 84 * 16 * (50 * 84 / 256) * 256 + 2 * 256**2 * 256)
    assert advice.stages[2].needed_flops == pytest.approx(needed)


@pytest.mark.parametrize(('height', 'width', 'factor'), [(50, 84, 16), (7, 9, 4), (16, 16, 4)])
def test_padding_is_counted_as_the_op_pads(height, width, factor) -> None:
    advice = stage_advice((height, width), 32, 1, 1, factor)
    real = real_tokens(height, width, factor)
    assert advice.waste == pytest.approx(real.numel() / real.sum().item())
    assert advice.empty_regions == (~real.any(1)).sum()


def test_no_padding_costs_what_is_needed() -> None:
    advice = factor_advice('s', (512, 512), 8)
    assert advice.waste == 1
    assert advice.padded_flops == advice.needed_flops
    assert not any(stage.empty_regions for stage in advice.stages)


def test_candidates_lie_around_the_paper_s_rule() -> None:
    assert list(candidates('s', (512, 512))) == [*range(6, 13)]
    assert 16 in candidates('s', (800, 1344))
    assert min(candidates('s', (64, 64))) == 4  # the regions that the third stage's top-k needs


def test_recommended_is_cheap_among_those_that_pad_little() -> None:
    advices = [factor_advice('s', (800, 1344), s) for s in candidates('s', (800, 1344))]
    best = recommend(advices)
    assert best == 17  # 3 x 5 regions of 51 x 85 tokens; S = 16 pads 4 x 6 of 64 x 96
    # None pads little enough: then the one that pads least.
    wasteful = [advice for advice in advices if advice.waste > 1.2]
    assert recommend(wasteful) == min(wasteful, key=lambda a: a.waste).partition_factor
    text = format_advice('s', (800, 1344), advices, {})
    (marked,) = [row for row in tables_of(text)[0] if row[0] == '17 *']
    assert 'x1.03' in marked
    assert 'at this size S=16' in text
    timed = format_advice('s', (800, 1344), advices[:1], {advices[0].partition_factor: 0.25})
    assert tables_of(timed)[0][1][-1] == '250'


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        ('retinanet_biformer-s_fpn_1x_coco.py', (800, 1344)),
        ('fpn_biformer-s_8xb4-80k_ade20k-512x512.py', (512, 512)),
    ],
)
def test_shipped_factors_are_those_of_the_configs(config, size) -> None:
    shipped = Config.fromfile(CONFIGS / config).model.backbone.partition_factor
    assert SHIPPED_FACTORS[size] == default_factor('s', size) == shipped

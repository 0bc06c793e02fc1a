"""Necks of mmdet with an attention on some of their levels."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

WIDTHS = [8, 16, 32]
PAFPN = dict(type='YOLOXPAFPN', in_channels=WIDTHS, out_channels=8, num_csp_blocks=1)
FPN = dict(type='FPN', in_channels=WIDTHS, out_channels=8, num_outs=5)
ATTENTION = dict(
    type='mmbiformer.BiLevelRoutingAttention', num_heads=2, partition_factor=3, topk=2
)


def build(config: dict) -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        neck = MODELS.build(config)
    neck.init_weights()
    return neck.eval()


def attended(neck: dict, levels: tuple[int, ...], **options) -> dict:
    return dict(
        type='mmbiformer.AttentionNeck', neck=neck, levels=levels, attention=ATTENTION, **options
    )


def make_inputs(height: int = 20, width: int = 12) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(2, channels, -(-height // 2**i), -(-width // 2**i), generator=generator)
        for i, channels in enumerate(WIDTHS)
    )


def by_hand(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize('config', [PAFPN, FPN], ids=['PAFPN', 'FPN'])
@pytest.mark.parametrize('levels', [(0,), (2, 0)])
def test_outputs_are_attended(config, levels):
    neck, inputs = build(attended(config, levels)), make_inputs()
    plain = neck.neck(inputs)
    for level, (out, expected) in enumerate(zip(neck(inputs), plain, strict=True)):
        if level in levels:
            expected = by_hand(neck.attentions[levels.index(level)], expected)
        assert out.is_contiguous()
        torch.testing.assert_close(out, expected)


def test_takes_necks_in_a_row():
    necks = [FPN, dict(type='BFP', in_channels=8, num_levels=5)]
    with pytest.raises(ValueError, match=r'Sequential does not say how wide .*: give widths='):
        build(attended(necks, (1,)))
    neck, inputs = build(attended(necks, (1,), widths=(8,) * 5)), make_inputs()
    plain, outs = neck.neck(inputs), neck(inputs)
    assert len(outs) == 5
    torch.testing.assert_close(outs[1], by_hand(neck.attentions[0], plain[1]))
    assert torch.equal(outs[0], plain[0])


def test_takes_the_attention_of_cloformer():
    attention = dict(type='mmbiformer.CloAttention', pool_size=4)
    config = dict(attended(PAFPN, (0, 1)), attention=attention)
    neck, inputs = build(config), make_inputs()
    plain = neck.neck(inputs)
    outs = neck(inputs)
    for level in (0, 1):
        torch.testing.assert_close(outs[level], by_hand(neck.attentions[level], plain[level]))
    assert torch.equal(outs[2], plain[2])
    with pytest.raises(ValueError, match=r'dim=8 does not divide into 3 heads'):
        build(dict(config, attention=dict(attention, global_heads=0)))


def test_widths_of_a_neck_that_does_not_say_them():
    mapper = dict(
        type='ChannelMapper',
        in_channels=WIDTHS,
        out_channels=8,
        num_outs=3,
        norm_cfg=dict(type='BN'),
    )
    with pytest.raises(ValueError, match=r'ChannelMapper does not say how wide .*: give widths='):
        build(attended(mapper, (1,)))
    neck, inputs = build(attended(mapper, (1,), widths=(8, 8, 8))), make_inputs()
    plain = neck.neck(inputs)
    torch.testing.assert_close(neck(inputs)[1], by_hand(neck.attentions[0], plain[1]))


class Recorder(nn.Module):
    """Notes what a block returns, and gives on what an attention makes of it."""

    def __init__(self, block: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return by_hand(self.attention, self.block(x))


@pytest.mark.parametrize('kind', ['YOLOXPAFPN', 'CSPNeXtPAFPN'])
def test_inside_the_next_level_is_made_from_the_attended_map(kind):
    inputs, levels = make_inputs(), (0, 1, 2)
    neck = build(attended(dict(PAFPN, type=kind), levels, inside=True))
    assert [x.qkv.in_features for x in neck.attentions] == WIDTHS
    outs = neck(inputs)
    plain = build(dict(PAFPN, type=kind))
    plain.load_state_dict(neck.neck.state_dict())
    assert not torch.allclose(outs[0], plain(inputs)[0])
    first, second, third = neck.attentions
    plain.top_down_blocks[-1] = Recorder(plain.top_down_blocks[-1], first)
    assert not torch.allclose(plain(inputs)[2], outs[2])
    plain.bottom_up_blocks[0] = Recorder(plain.bottom_up_blocks[0], second)
    plain.bottom_up_blocks[1] = Recorder(plain.bottom_up_blocks[1], third)
    for out, expected in zip(outs, plain(inputs), strict=True):
        torch.testing.assert_close(out, expected)


def test_a_copy_attends_with_its_own_weights():
    """As EMA copies a model."""
    neck, inputs = build(attended(PAFPN, (0,), inside=True)), make_inputs()
    twin, before = copy.deepcopy(neck), neck(inputs)[0]
    nn.init.zeros_(twin.attentions[0].proj.weight)
    torch.testing.assert_close(neck(inputs)[0], before, rtol=0, atol=0)
    assert not torch.allclose(twin(inputs)[0], before)


@pytest.mark.parametrize('inside', [False, True])
def test_checkpoints_of_the_plain_neck_load(inside):
    neck, source = build(attended(PAFPN, (0,), inside=inside)), build(PAFPN)
    nn.init.uniform_(source.out_convs[0].conv.weight)
    result = neck.load_state_dict(source.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(name.startswith('attentions.0.') for name in result.missing_keys)
    torch.testing.assert_close(neck.neck.out_convs[0].conv.weight, source.out_convs[0].conv.weight)
    again = build(attended(PAFPN, (0,), inside=inside))
    again.load_state_dict(neck.state_dict())


@pytest.mark.parametrize('inside', [False, True])
def test_small_images_and_gradients(inside):
    neck = build(attended(PAFPN, (0, 1, 2), inside=inside)).train()
    outs = neck(make_inputs(8, 4))  # down to 2 x 1, of which S = 3 leaves regions empty
    sum(out.square().sum() for out in outs).backward()
    for attention in neck.attentions:
        assert attention.qkv.weight.grad.abs().sum() > 0


WRONG = {
    'level': (
        attended(PAFPN, (3,)),
        r'levels=\(3,\) of YOLOXPAFPN: .* from 0 to 2',
    ),
    'twice': (attended(FPN, (1, 1)), r'levels=\(1, 1\) of FPN: give different ones from 0 to 4'),
    'none': (attended(FPN, ()), r'levels=\(\) of FPN: give different ones'),
    'inside': (
        attended(FPN, (0,), inside=True),
        r'inside=True does not fit FPN, which has',
    ),
    'heads': (
        {**attended(FPN, (0,)), 'attention': dict(ATTENTION, num_heads=3)},
        r'num_heads=3 does not divide dim=8: choose a divisor',
    ),
}


@pytest.mark.parametrize(('config', 'message'), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(config, message):
    with pytest.raises(ValueError, match=message) as error:
        build(config)
    assert '\n' not in str(error.value)

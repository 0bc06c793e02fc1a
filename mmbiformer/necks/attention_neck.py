"""Any neck of mmdet with an attention on some of its levels."""

from collections.abc import Sequence
from functools import partial

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbiformer.layers import BiLevelRoutingAttention, CloAttention, FullAttention
from mmbiformer.layers.maps import to_channels_first, to_channels_last
from mmbiformer.registry import MODELS, NECKS

# Those of this package's own, which layers, that know no registry, cannot register themselves.
for _attention in (BiLevelRoutingAttention, CloAttention, FullAttention):
    MODELS.register_module(module=_attention)


@NECKS.register_module()
class AttentionNeck(BaseModule):
    """A neck whose maps pass an attention at the levels named, which takes their place.

    Checkpoints of the detector with the plain neck load too: names of the neck's parameters gain
    the prefix ``neck.``, and the attentions stay new.

    Args:
        neck (dict | list[dict]): Config of the neck, or of several in a row.
        levels (Sequence[int]): Which outputs, 0 is the first, in most necks the finest (YOLO: P3).
        attention (dict): Config of an attention on channels-last maps, without its ``dim``.
        widths (Sequence[int], optional): Channels of the outputs, for a neck that does not say
            them by ``out_channels``.
        inside (bool): Whether the attention follows the block that makes a level within the neck,
            so that the next coarser level is made from the attended map, too, as tutorials on
            YOLO have it. It needs a path aggregation neck: YOLOXPAFPN, CSPNeXtPAFPN or one with
            ``top_down_blocks`` and ``bottom_up_blocks`` as these. Defaults to False: the outputs
            of the neck are attended.
        init_cfg (dict | list[dict], optional): As in mmengine.

    Raises:
        ValueError: If a level is none of the neck's, or the neck does not have what is needed;
            names it, its value and what would fit.
    """

    def __init__(
        self,
        neck: dict | list[dict],
        levels: Sequence[int],
        attention: dict,
        widths: Sequence[int] | None = None,
        inside: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.neck = MODELS.build(neck)
        self.levels, self.inside = tuple(levels), inside
        if inside:
            widths = _inner_widths(self.neck)
        elif widths is None:
            widths = _output_widths(self.neck)
        unknown = [level for level in self.levels if level not in range(len(widths))]
        if unknown or not self.levels or len(set(self.levels)) < len(self.levels):
            raise ValueError(
                f'levels={self.levels} of {type(self.neck).__name__}: give different ones from 0 '
                f'to {len(widths) - 1}'
            )
        self.attentions = nn.ModuleList(
            MODELS.build(dict(attention, dim=widths[level])) for level in self.levels
        )
        if inside:
            blocks = _blocks(self.neck)
            for level, module in zip(self.levels, self.attentions, strict=True):
                # A partial is copied with the module that it holds, unlike a closure: the copy of
                # a model, as EMA makes it, must attend with its own weights.
                blocks[level].register_forward_hook(partial(_attend_output, module))

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the neck's maps (B, C, H, W), attended at the levels named."""
        outs = self.neck(inputs)
        if self.inside:
            return outs
        outs = list(outs)
        for level, attention in zip(self.levels, self.attentions, strict=True):
            outs[level] = _attend(attention, outs[level])
        return tuple(outs)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        own = f'{prefix}neck.', f'{prefix}attentions.'
        plain = [x for x in state_dict if x.startswith(prefix) and not x.startswith(own)]
        for name in plain:
            state_dict[own[0] + name.removeprefix(prefix)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _attend(attention: nn.Module, x: Tensor) -> Tensor:
    return to_channels_first(attention(to_channels_last(x))).contiguous()


def _attend_output(attention: nn.Module, block: nn.Module, args: tuple, out: Tensor) -> Tensor:
    """A forward hook: what the block returns, attended."""
    return _attend(attention, out)


def _blocks(neck: nn.Module) -> list[nn.Module]:
    """The blocks that make the levels, the finest first."""
    try:
        return [neck.top_down_blocks[-1], *neck.bottom_up_blocks]
    except AttributeError:
        raise ValueError(
            f'inside=True does not fit {type(neck).__name__}, which has no top_down_blocks and '
            'bottom_up_blocks: leave inside out, and its outputs are attended'
        ) from None


def _inner_widths(neck: nn.Module) -> list[int]:
    return list(neck.in_channels)[: len(_blocks(neck))]


def _output_widths(neck: nn.Module) -> list[int]:
    widths, number = getattr(neck, 'out_channels', None), getattr(neck, 'num_outs', None)
    if isinstance(widths, Sequence):
        return list(widths)
    if number is None and isinstance(inputs := getattr(neck, 'in_channels', None), Sequence):
        number = len(inputs)
    if widths is None or number is None:
        raise ValueError(
            f'{type(neck).__name__} does not say how wide its outputs are: give widths=(...), one '
            'for each'
        )
    return [widths] * number

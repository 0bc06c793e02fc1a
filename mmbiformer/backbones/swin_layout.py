"""Swin-T's layout with the attention as a slot, and BiFormer-STL in it (paper, section 4.4)."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from mmbiformer.checkpoints import BIFORMER_STL, CheckpointError, Names
from mmbiformer.layers import LAYER_NORM_EPS, BiFormerBlock
from mmbiformer.layers.checks import check_choice, check_int
from mmbiformer.registry import MODELS

from .base import (
    NUM_STAGES,
    TRANSFORMER_INIT,
    StagedBackbone,
    check_drop_path_rate,
    parse_arch,
    tensors_of_blocks,
)
from .downsampling import (
    overlapped_downsampling,
    overlapped_stem,
    patch_downsampling,
    patch_stem,
)
from .slots import SLOTS, TOPKS, Entry, routing

MLP_RATIOS = (4, 4, 4, 4)
# Name -> how the first stage opens, and how the others do.
DOWNSAMPLINGS = {
    'patches': (patch_stem, patch_downsampling),
    'overlapped': (overlapped_stem, overlapped_downsampling),
}


@MODELS.register_module()
class SwinLayout(StagedBackbone):
    """The layout of Swin-T, in which attentions are compared; any of them fits.

    A 4x4 patch embedding with LayerNorm; between stages a LayerNorm and a convolution of 2x2
    patches, which zeros fill up where a map is odd; blocks of attention and MLP, each behind a
    LayerNorm. ``downsampling``, ``conv_position`` and ``arch`` lead from here to BiFormer, as the
    paper's table 6 does.

    Args:
        arch (str | dict): 't' ('tiny'), or a dict with ``embed_dims`` and ``depths`` (four ints
            each) and optionally ``mlp_ratios``. Defaults to 't'.
        attention (str | Sequence): A name of :data:`mmbiformer.backbones.slots.SLOTS`, or an entry
            for each stage: the config of an attention on channels-last maps without its ``dim``,
            or several that the blocks of the stage take in turn. ``head_dim`` in a config stands
            for ``num_heads``, as many as the width has room for. Defaults to 'shifted_window'.
        downsampling (str): 'patches', or 'overlapped' as in BiFormer. Defaults to 'patches'.
        conv_position (bool): Whether blocks begin with BiFormer's position encoding.
            Defaults to False.
        out_indices, drop_path_rate, frozen_stages, norm_eval, with_cp, init_cfg: As in
            :class:`mmbiformer.BiFormer`.
        output_norm (str): As there; the norm of classifiers is a LayerNorm.

    Raises:
        ValueError: If an argument is out of range; names it, its value and what would fit.
    """

    arch_settings = {'tiny': dict(embed_dims=(96, 192, 384, 768), depths=(2, 2, 6, 2))}
    checkpoint_names = Names(to_ours=(), to_official=(), classifier=r'^(norm|head)\.')

    def __init__(
        self,
        arch: str | Mapping = 't',
        attention: str | Sequence[Entry] = 'shifted_window',
        downsampling: str = 'patches',
        conv_position: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        output_norm: str = 'dense',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        init_cfg = TRANSFORMER_INIT if init_cfg is None else init_cfg
        super().__init__(out_indices, frozen_stages, norm_eval, with_cp, output_norm, init_cfg)
        settings = parse_arch(arch, self.arch_settings, mlp_ratios=MLP_RATIOS)
        embed_dims, depths = settings['embed_dims'], settings['depths']
        entries = _parse_attention(attention)
        check_choice('downsampling', downsampling, tuple(DOWNSAMPLINGS))
        check_drop_path_rate(drop_path_rate)
        build_stem, build_downsampling = DOWNSAMPLINGS[downsampling]

        self.embed_dims = embed_dims
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist())
        for stage in range(self.out_indices[-1] + 1):
            dim = embed_dims[stage]
            self.downsample_layers.append(
                build_stem(dim) if stage == 0 else build_downsampling(embed_dims[stage - 1], dim)
            )
            blocks = (
                BiFormerBlock(
                    dim,
                    _build_attention(config, dim),
                    next(rates),
                    mlp_ratio=settings['mlp_ratios'][stage],
                    conv_position=conv_position,
                )
                for config in islice(cycle(entries[stage]), depths[stage])
            )
            self.stages.append(nn.Sequential(*blocks))
        self._add_output_norms()

    @staticmethod
    def build_classifier_norm(dim: int) -> nn.Module:
        return nn.LayerNorm(dim, eps=LAYER_NORM_EPS)

    @classmethod
    def infer_arch(cls, state_dict: Mapping[str, Tensor]) -> str | dict:
        """A name, or the dict of an own architecture; tensors do not tell the attention."""
        first_layers = tensors_of_blocks(state_dict, 'mlp.fc1.weight')
        if 'downsample_layers.0.1.weight' not in state_dict or not first_layers:
            raise CheckpointError(
                f'the checkpoint is of no {cls.__name__}: it lacks '
                'downsample_layers.0.1.weight or stages.0.0.mlp.fc1.weight'
            )
        shapes = [stage[0].shape for stage in first_layers]
        arch = dict(
            embed_dims=tuple(dim for _, dim in shapes),
            depths=tuple(len(stage) for stage in first_layers),
            mlp_ratios=tuple(hidden_dim // dim for hidden_dim, dim in shapes),
        )
        if arch['mlp_ratios'] == MLP_RATIOS:
            del arch['mlp_ratios']
        for name, known in cls.arch_settings.items():
            if arch == known:
                return name
        try:
            parse_arch(arch, cls.arch_settings, mlp_ratios=MLP_RATIOS)
        except ValueError as error:
            raise CheckpointError(
                f'the checkpoint is of no known {cls.__name__}: {error}'
            ) from error
        return arch


@MODELS.register_module()
class BiFormerSTL(SwinLayout):
    """BiFormer-STL: bi-level routing attention in Swin-T's layout (paper, section 4.4).

    Args:
        arch (str | dict): As in :class:`SwinLayout`; a dict may have ``topks``, as in
            :class:`mmbiformer.BiFormer`. Widths of routed stages are multiples of 32.
        partition_factor, padding, attention_backend: As in :class:`mmbiformer.BiFormer`.
        options: The arguments of :class:`SwinLayout` besides its attention.

    Raises:
        ValueError: If an argument is out of range; names it, its value and what would fit.
    """

    checkpoint_names = BIFORMER_STL

    def __init__(
        self,
        arch: str | Mapping = 't',
        partition_factor: int = 7,
        padding: str = 'official',
        attention_backend: str = 'auto',
        **options: object,
    ) -> None:
        settings = parse_arch(arch, self.arch_settings, mlp_ratios=MLP_RATIOS, topks=TOPKS)
        attention = routing(
            settings.pop('topks'),
            partition_factor=partition_factor,
            padding=padding,
            backend=attention_backend,
        )
        super().__init__(settings, attention, **options)

    @classmethod
    def infer_arch(cls, state_dict: Mapping[str, Tensor]) -> str | dict:
        """A name, or the dict of an own architecture, whose ``topks`` are 1 where unknown."""
        arch = super().infer_arch(state_dict)
        # Full attention has no bias in qkv.
        routes = [f'stages.{i}.0.attn.qkv.bias' in state_dict for i in range(NUM_STAGES)]
        if routes == [topk is not None for topk in TOPKS]:
            return arch if isinstance(arch, str) else dict(arch, topks=TOPKS)
        arch = cls.arch_settings[arch] if isinstance(arch, str) else arch
        return dict(arch, topks=tuple(1 if is_routed else None for is_routed in routes))


def _parse_attention(attention: str | Sequence[Entry]) -> list[Sequence[Mapping]]:
    """For each stage the configs that its blocks take in turn."""
    if isinstance(attention, str):
        check_choice('attention', attention, tuple(SLOTS))
        attention = SLOTS[attention]
    if not isinstance(attention, Sequence) or len(attention) != NUM_STAGES:
        raise ValueError(
            f'attention={attention!r} must be a name or a list of {NUM_STAGES} entries, one for '
            'each stage'
        )
    entries = [(entry,) if isinstance(entry, Mapping) else entry for entry in attention]
    for stage, entry in enumerate(entries):
        configs = entry if isinstance(entry, Sequence) else ()
        if not configs or not all(isinstance(x, Mapping) and 'type' in x for x in configs):
            raise ValueError(
                f'attention[{stage}]={entry!r} must be the config of an attention, or several, '
                'with a type each'
            )
    return entries


def _build_attention(config: Mapping, dim: int) -> nn.Module:
    """The attention of a block of this width."""
    config = dict(config, dim=dim)
    if 'head_dim' in config:
        head_dim = config.pop('head_dim')
        check_int('head_dim', head_dim)
        if dim % head_dim:
            raise ValueError(
                f'arch.embed_dims has {dim}: it must be a multiple of head_dim={head_dim} of '
                f'{config["type"]}'
            )
        config['num_heads'] = dim // head_dim
    return MODELS.build(config)

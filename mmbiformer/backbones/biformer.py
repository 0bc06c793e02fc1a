"""BiFormer: vision transformer with bi-level routing attention (CVPR 2023, arXiv 2303.08810)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmbiformer.checkpoints import BIFORMER, CheckpointError
from mmbiformer.layers import (
    Attention,
    BiFormerBlock,
    BiLevelRoutingAttention,
    FullAttention,
)
from mmbiformer.layers.checks import check_choice, check_int
from mmbiformer.ops.backends import CHOICES
from mmbiformer.registry import MODELS

from .base import (
    NUM_STAGES,
    TRANSFORMER_INIT,
    StagedBackbone,
    check_drop_path_rate,
    parse_arch,
    tensors_of_blocks,
)
from .downsampling import overlapped_downsampling, overlapped_stem
from .slots import HEAD_DIM, TOPKS


@MODELS.register_module()
class BiFormer(StagedBackbone):
    """BiFormer as a backbone for dense prediction.

    Four stages at strides 4, 8, 16 and 32. The output of each stage in ``out_indices`` passes a
    LayerNorm of its own; the next stage is fed the map before that norm. Stages behind the last
    of ``out_indices`` are not built, so that no parameter is left without a gradient.

    Args:
        arch (str | dict): 't', 's' or 'b' ('tiny', 'small', 'base'), or a dict with ``embed_dims``
            and ``depths`` (four ints each; widths are multiples of 32) and optionally ``topks``
            (the number of regions attended to in each stage, None for full attention).
            Defaults to 's'.
        partition_factor (int): The paper's S: maps are cut into S x S regions. 7 for
            classification at 224, 8 for segmentation at 512, 16 for detection at 800 x 1333.
            Defaults to 7.
        out_indices (Sequence[int]): Stages to return, ascending, 0 to 3. Defaults to all.
        drop_path_rate (float): Stochastic depth rate of the last block; grows linearly from 0 over
            the blocks. Defaults to 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages.
            Defaults to -1.
        norm_eval (bool): Keep BatchNorm in eval mode when training. Defaults to False.
        with_cp (bool): Recompute each block in the backward pass to save memory.
            Defaults to False.
        padding (str): What padding tokens do where S does not divide a map. 'official': they take
            part, as the released weights need. 'masked': they take no part.
            Defaults to 'official'.
        attention_backend (str): Backend of :func:`mmbiformer.ops.routed_attention`.
            Defaults to 'auto'.
        output_norm (str): Which norms outputs pass. 'dense': a LayerNorm each. 'classification':
            the official classifier's BatchNorm over the last map, where ``out_indices`` is (3,).
            Defaults to 'dense'.
        init_cfg (dict | list[dict], optional): As in mmengine. Official checkpoints load as they
            are: ``dict(type='Pretrained', checkpoint='official.pth')``.

    Raises:
        ValueError: If an argument is out of range; names it, its value and what would fit.

    Example:
        >>> import torch
        >>> from mmbiformer import BiFormer
        >>> maps = BiFormer('t', partition_factor=8)(torch.rand(1, 3, 64, 96))
        >>> [tuple(x.shape) for x in maps]
        [(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """

    arch_settings = {
        'tiny': dict(embed_dims=(64, 128, 256, 512), depths=(2, 2, 8, 2)),
        'small': dict(embed_dims=(64, 128, 256, 512), depths=(4, 4, 18, 4)),
        'base': dict(embed_dims=(96, 192, 384, 768), depths=(4, 4, 18, 4)),
    }
    checkpoint_names = BIFORMER

    def __init__(
        self,
        arch: str | Mapping = 's',
        partition_factor: int = 7,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        padding: str = 'official',
        attention_backend: str = 'auto',
        output_norm: str = 'dense',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        init_cfg = TRANSFORMER_INIT if init_cfg is None else init_cfg
        super().__init__(out_indices, frozen_stages, norm_eval, with_cp, output_norm, init_cfg)
        embed_dims, depths, topks = self._parse_arch(arch)
        check_int('partition_factor', partition_factor)
        check_choice('padding', padding, ('official', 'masked'))
        check_choice('attention_backend', attention_backend, CHOICES)
        check_drop_path_rate(drop_path_rate)
        for stage, topk in enumerate(topks):
            if topk is not None and topk > partition_factor**2:
                raise ValueError(
                    f'topks[{stage}]={topk} exceeds the {partition_factor**2} regions of '
                    f'partition_factor={partition_factor}: lower topks in arch or raise '
                    'partition_factor'
                )

        def build_attention(dim: int, topk: int | None) -> Attention:
            if topk is None:
                return FullAttention(dim)
            return BiLevelRoutingAttention(
                dim,
                num_heads=dim // HEAD_DIM,
                partition_factor=partition_factor,
                topk=topk,
                padding=padding,
                backend=attention_backend,
            )

        self.embed_dims = embed_dims
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist())
        for stage in range(self.out_indices[-1] + 1):
            dim = embed_dims[stage]
            self.downsample_layers.append(
                overlapped_stem(dim)
                if stage == 0
                else overlapped_downsampling(embed_dims[stage - 1], dim)
            )
            blocks = (
                BiFormerBlock(dim, build_attention(dim, topks[stage]), next(rates))
                for _ in range(depths[stage])
            )
            self.stages.append(nn.Sequential(*blocks))
        self._add_output_norms()

    @staticmethod
    def build_classifier_norm(dim: int) -> nn.Module:
        return nn.BatchNorm2d(dim)

    @classmethod
    def infer_arch(cls, state_dict: Mapping[str, Tensor]) -> str | dict:
        """A name, or the dict of an own architecture.

        The tensors tell which stages route, not to how many regions: ``topks`` of an own
        architecture has the paper's numbers where these stages are the paper's, else 1 for each.
        """
        # The position encoding tells a BiFormer from other layouts with the same blocks.
        convolutions = tensors_of_blocks(state_dict, 'conv_position.weight')
        if not convolutions:
            raise CheckpointError(
                'the checkpoint is of no BiFormer: none of its names is '
                'stages.0.0.conv_position.weight'
            )
        arch = dict(
            embed_dims=tuple(len(x[0]) for x in convolutions),
            depths=tuple(len(x) for x in convolutions),
        )
        # Full attention has no bias in qkv.
        routes = [f'stages.{i}.0.attn.qkv.bias' in state_dict for i in range(NUM_STAGES)]
        topks = TOPKS
        if routes != [topk is not None for topk in TOPKS]:
            topks = tuple(1 if is_routed else None for is_routed in routes)
        elif arch in cls.arch_settings.values():
            return next(name for name, known in cls.arch_settings.items() if known == arch)
        try:
            cls._parse_arch(arch)
        except ValueError as error:
            raise CheckpointError(f'the checkpoint is of no known BiFormer: {error}') from error
        return dict(arch, topks=topks)

    @classmethod
    def _parse_arch(cls, arch: str | Mapping) -> tuple[Sequence, Sequence, Sequence]:
        """Embed dims, depths and topks of a name or a dict, checked."""
        settings = parse_arch(arch, cls.arch_settings, topks=TOPKS)
        for dim in settings['embed_dims']:
            if dim % HEAD_DIM:
                raise ValueError(f'arch.embed_dims has {dim}: it must be a multiple of {HEAD_DIM}')
        return settings['embed_dims'], settings['depths'], settings['topks']

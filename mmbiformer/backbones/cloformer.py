"""CloFormer: Rethinking Local Perception in Lightweight Vision Transformer (arXiv 2303.17803)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmbiformer.checkpoints import CLOFORMER, CheckpointError
from mmbiformer.layers import CloAttention, CloBlock, StridedCloBlock
from mmbiformer.layers.checks import check_int
from mmbiformer.layers.clo_block import MLP_RATIO
from mmbiformer.registry import MODELS

from .base import (
    NUM_STAGES,
    StagedBackbone,
    check_drop_path_rate,
    parse_arch,
    tensors_of_blocks,
)

KERNEL_SIZES = (3, 5, 7, 9)  # of AttnConv in each stage
POOL_SIZES = (8, 4, 2, 1)  # of the keys of global heads in each stage


@MODELS.register_module()
class CloFormer(StagedBackbone):
    """CloFormer as a backbone for dense prediction.

    Four stages at strides 4, 8, 16 and 32. Its authors published the classifier; the dense form is
    this package's: the output of a stage is the map that enters the strided block behind it, of
    the last stage the map that leaves it. The output of each stage in ``out_indices`` passes a
    LayerNorm of its own, as in BiFormer. Stages behind the last of ``out_indices`` are not built.

    Args:
        arch (str | dict): 'xxs', 'xs' or 's', or a dict with ``embed_dims``, ``depths``,
            ``conv_heads`` and ``global_heads`` (four ints each). ``depths`` counts the strided
            blocks behind stages 1 to 3, and is 2 or more there. Defaults to 'xxs'.
        out_indices (Sequence[int]): Stages to return, ascending, 0 to 3. Defaults to all.
        drop_path_rate (float): Stochastic depth rate of the last block; grows linearly from 0 over
            the blocks. The authors trained 'xxs' with 0, the others with 0.06. Defaults to 0.
        frozen_stages, norm_eval, init_cfg: As in :class:`mmbiformer.BiFormer`. The strided block
            behind a stage belongs to what opens the next one, and is frozen with that.
        with_cp (bool): Recompute each block in the backward pass to save memory, of strided blocks
            the attention. Defaults to False.
        output_norm (str): Which norms outputs pass. 'dense': a LayerNorm each. 'classification':
            the official classifier's GroupNorm over the last map, where ``out_indices`` is (3,).
            Defaults to 'dense'.

    Raises:
        ValueError: If an argument is out of range; names it, its value and what would fit.

    Example:
        >>> import torch
        >>> from mmbiformer import CloFormer
        >>> maps = CloFormer('xxs')(torch.rand(1, 3, 64, 96))
        >>> [tuple(x.shape) for x in maps]
        [(1, 32, 16, 24), (1, 64, 8, 12), (1, 128, 4, 6), (1, 256, 2, 3)]
    """

    arch_settings = {
        'xxs': dict(
            embed_dims=(32, 64, 128, 256),
            depths=(2, 2, 6, 2),
            conv_heads=(3, 2, 4, 4),
            global_heads=(1, 2, 4, 12),
        ),
        'xs': dict(
            embed_dims=(48, 96, 160, 352),
            depths=(2, 2, 6, 2),
            conv_heads=(2, 3, 5, 7),
            global_heads=(1, 3, 5, 15),
        ),
        's': dict(
            embed_dims=(64, 128, 224, 448),
            depths=(2, 2, 6, 2),
            conv_heads=(3, 4, 7, 7),
            global_heads=(1, 4, 7, 21),
        ),
    }
    checkpoint_names = CLOFORMER

    def __init__(
        self,
        arch: str | Mapping = 'xxs',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        output_norm: str = 'dense',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, with_cp, output_norm, init_cfg)
        settings = parse_arch(arch, self.arch_settings)
        for depth in settings['depths'][:-1]:
            check_int('arch.depths', depth, 2)
        check_drop_path_rate(drop_path_rate)
        self.embed_dims = dims = settings['embed_dims']
        depths = settings['depths']
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist())

        def build_attention(stage: int) -> CloAttention:
            return CloAttention(
                dims[stage],
                conv_heads=(settings['conv_heads'][stage],),
                kernel_sizes=(KERNEL_SIZES[stage],),
                global_heads=settings['global_heads'][stage],
                pool_size=POOL_SIZES[stage],
            )

        for stage in range(self.out_indices[-1] + 1):
            if stage == 0:
                self.downsample_layers.append(_stem(dims[0]))
            else:
                strided = StridedCloBlock(
                    *dims[stage - 1 : stage + 1], build_attention(stage - 1), next(rates), with_cp
                )
                self.downsample_layers.append(strided)
            depth = depths[stage] - (stage < NUM_STAGES - 1)
            blocks = (
                CloBlock(dims[stage], build_attention(stage), next(rates)) for _ in range(depth)
            )
            self.stages.append(nn.Sequential(*blocks))
        self._add_output_norms()

    @staticmethod
    def build_classifier_norm(dim: int) -> nn.Module:
        return nn.GroupNorm(1, dim)

    @classmethod
    def infer_arch(cls, state_dict: Mapping[str, Tensor]) -> str:
        """A name: tensors do not tell how many heads an own architecture has."""
        convolutions = tensors_of_blocks(state_dict, 'mlp.conv.bias')
        if not convolutions:
            raise CheckpointError(
                'the checkpoint is of no CloFormer: none of its names is stages.0.0.mlp.conv.bias'
            )
        dims = tuple(len(blocks[0]) // MLP_RATIO for blocks in convolutions)
        depths = tuple(
            len(blocks) + (stage < NUM_STAGES - 1) for stage, blocks in enumerate(convolutions)
        )
        for name, known in cls.arch_settings.items():
            if (known['embed_dims'], known['depths']) == (dims, depths):
                return name
        raise CheckpointError(
            f'the checkpoint is of no known CloFormer: its stages are {dims} channels wide and '
            f'{depths} blocks deep'
        )


def _stem(dim: int) -> nn.Sequential:
    """Four 3x3 convolutions, the first two of stride 2: (B, 3, H, W) to (B, dim, H / 4, W / 4)."""
    layers: list[nn.Module] = []
    in_dim = 3
    for out_dim, stride in ((dim // 2, 2), (dim, 2), (dim, 1), (dim, 1)):
        conv = nn.Conv2d(in_dim, out_dim, 3, stride, padding=1)
        layers += [conv, nn.BatchNorm2d(out_dim), nn.ReLU()]
        in_dim = out_dim
    return nn.Sequential(*layers, nn.Conv2d(dim, dim, 1), nn.GroupNorm(1, dim))

"""BiFormer: vision transformer with bi-level routing attention (CVPR 2023, arXiv 2303.08810)."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmbiformer.checkpoint import adapt_state_dict
from mmbiformer.layers import (
    LAYER_NORM_EPS,
    BiFormerBlock,
    BiLevelRoutingAttention,
    FullAttention,
)
from mmbiformer.ops import BACKENDS
from mmbiformer.registry import MODELS

HEAD_DIM = 32  # of the routed stages
NUM_STAGES = 4
TOPKS = (1, 4, 16, None)  # None: full attention


@MODELS.register_module()
class BiFormer(BaseModule):
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
    _is_lenient = False  # while load_state_dict(strict=False) runs

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
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
                dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
            ]
        super().__init__(init_cfg)
        embed_dims, depths, topks = self._parse_arch(arch)
        out_indices = tuple(out_indices)
        _check_int('partition_factor', partition_factor, 1)
        _check_int('frozen_stages', frozen_stages, -1, NUM_STAGES)
        _check_choice('padding', padding, ('official', 'masked'))
        _check_choice('attention_backend', attention_backend, tuple(BACKENDS))
        if not 0.0 <= drop_path_rate < 1.0:
            raise ValueError(f'drop_path_rate={drop_path_rate} must be in [0, 1)')
        if not out_indices or out_indices != tuple(
            i for i in range(NUM_STAGES) if i in out_indices
        ):
            raise ValueError(
                f'out_indices={out_indices} must be ascending stage numbers from 0 to 3'
            )
        for stage, topk in enumerate(topks):
            if topk is not None and topk > partition_factor**2:
                raise ValueError(
                    f'topks[{stage}]={topk} exceeds the {partition_factor**2} regions of '
                    f'partition_factor={partition_factor}: lower topks in arch or raise '
                    'partition_factor'
                )

        self.embed_dims = embed_dims
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        drop_path_rates = torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist()
        starts = [0, *accumulate(depths)]
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage in range(out_indices[-1] + 1):
            dim, topk = embed_dims[stage], topks[stage]
            self.downsample_layers.append(
                _stem(dim) if stage == 0 else _downsample(embed_dims[stage - 1], dim)
            )
            blocks = []
            for drop_path in drop_path_rates[starts[stage] : starts[stage + 1]]:
                if topk is None:
                    attention = FullAttention(dim)
                else:
                    attention = BiLevelRoutingAttention(
                        dim,
                        num_heads=dim // HEAD_DIM,
                        partition_factor=partition_factor,
                        topk=topk,
                        padding=padding,
                        backend=attention_backend,
                    )
                blocks.append(BiFormerBlock(dim, attention, drop_path=drop_path))
            self.stages.append(nn.Sequential(*blocks))
        for stage in out_indices:
            self.add_module(f'norm{stage}', nn.LayerNorm(embed_dims[stage], eps=LAYER_NORM_EPS))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the stages in ``out_indices``.

        Args:
            x (Tensor): Images, (B, 3, H, W), any H, W >= 1, contiguous or channels_last.

        Returns:
            tuple[Tensor]: One (B, C, H_i, W_i) per stage, with H_i = ceil(H / stride). Always
            contiguous: mmcv's RoIAlign reads memory in that order without asking.
        """
        # Channels-last maps make the permutes between convolutions and blocks free.
        x = x.contiguous(memory_format=torch.channels_last)
        outs = []
        for i, (downsample, stage) in enumerate(
            zip(self.downsample_layers, self.stages, strict=True)
        ):
            x = downsample(x).permute(0, 2, 3, 1)
            for block in stage:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if i in self.out_indices:
                out = getattr(self, f'norm{i}')(x)
                outs.append(out.permute(0, 3, 1, 2).contiguous())
            x = x.permute(0, 3, 1, 2)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'BiFormer':
        """Set the mode; frozen stages and, with ``norm_eval``, BatchNorm stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen.append(self.downsample_layers[0])
        for i in range(min(self.frozen_stages, len(self.stages))):
            frozen += [self.downsample_layers[i], self.stages[i]]
            if i in self.out_indices:
                frozen.append(getattr(self, f'norm{i}'))
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> object:
        """As torch's; official names load too, and output norms may be absent."""
        # Torch tells _load_from_state_dict to be strict whatever it was told itself.
        self._is_lenient = not strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            self._is_lenient = False

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, *messages) -> None:
        # Official names become ours before anything is matched. mmengine's loader passes strict
        # here and then only warns of what does not fit, so the check must be our own.
        must_fit = strict and not self._is_lenient
        new = adapt_state_dict(self, state_dict, prefix, must_fit)
        if must_fit:  # the new are accounted for: nothing shall report them as missing
            state_dict.update((prefix + name, self.get_parameter(name)) for name in new)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *messages)

    @classmethod
    def _parse_arch(cls, arch: str | Mapping) -> tuple[Sequence, Sequence, Sequence]:
        """Embed dims, depths and topks of a name or a dict, checked."""
        if isinstance(arch, str):
            short = {name[0]: name for name in cls.arch_settings}
            name = short.get(arch.lower(), arch.lower())
            _check_choice('arch', name, tuple(cls.arch_settings))
            arch = cls.arch_settings[name]
        elif not isinstance(arch, Mapping):
            raise ValueError(f'arch={arch!r} must be a name or a dict')
        settings = {'topks': TOPKS, **arch}
        if set(settings) != {'embed_dims', 'depths', 'topks'}:
            raise ValueError(
                f'arch has the keys {sorted(arch)}: it takes embed_dims, depths and, optionally, '
                'topks'
            )
        for key, values in settings.items():
            if len(values) != NUM_STAGES:
                raise ValueError(f'arch.{key}={values} must have {NUM_STAGES} entries')
            for value in values:
                if not (key == 'topks' and value is None):
                    _check_int(f'arch.{key}', value, 1)
        for dim in settings['embed_dims']:
            if dim % HEAD_DIM:
                raise ValueError(f'arch.embed_dims has {dim}: it must be a multiple of {HEAD_DIM}')
        return settings['embed_dims'], settings['depths'], settings['topks']


def _stem(dim: int) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2: (B, 3, H, W) to (B, dim, H / 4, W / 4)."""
    return nn.Sequential(
        nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(dim // 2),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        nn.BatchNorm2d(dim),
    )


def _downsample(in_dim: int, dim: int) -> nn.Sequential:
    """One 3x3 convolution of stride 2: (B, in_dim, H, W) to (B, dim, H / 2, W / 2)."""
    return nn.Sequential(nn.Conv2d(in_dim, dim, 3, stride=2, padding=1), nn.BatchNorm2d(dim))


def _check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    if not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f'at least {low}' if high is None else f'from {low} to {high}'
        raise ValueError(f'{name}={value!r} must be an integer {bound}')


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}='{value}' is unknown: choose from {', '.join(choices)}")

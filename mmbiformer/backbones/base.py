"""What every staged backbone of this package shares."""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmbiformer.checkpoints import Names, adapt_state_dict
from mmbiformer.layers import LAYER_NORM_EPS
from mmbiformer.layers.casting import call_with_casts
from mmbiformer.layers.checks import check_choice, check_int, check_list
from mmbiformer.layers.maps import to_channels_first, to_channels_last

NUM_STAGES = 4
OUTPUT_NORMS = ('dense', 'classification')
# Of Inductor on CPUs, where most of compiling is the C++ compiler's reading of headers: fewer and
# shorter files. Widths here are multiples of a vector's length, and have no tails.
FEWER_FILES = {'cpp.enable_loop_tail_vec': False, 'cpp.max_horizontal_fusion_size': 32}
# How BiFormer and Swin's layout begin where no init_cfg is given.
TRANSFORMER_INIT = [
    dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
]


class StagedBackbone(BaseModule, ABC):
    """Four stages at strides 4, 8, 16 and 32, of which some are returned.

    A subclass sets ``embed_dims`` and builds ``downsample_layers`` and ``stages``, module lists
    with an entry for each stage up to the last of ``out_indices``; then it calls
    ``_add_output_norms``. A downsampling layer takes and gives (B, C, H, W); a stage is a sequence
    of blocks on channels-last maps (B, H, W, C).

    ``output_norm`` says which norms the outputs pass. 'dense': a LayerNorm of its own each,
    ``norm<i>``. 'classification': the norm that the family's classifiers have over their last map,
    ``norm`` as in the official files, and that map is the only output.

    Arguments are those of :class:`mmbiformer.BiFormer` that bear the same names; one out of range
    is a ValueError that names it, its value and what would fit. A subclass can be built from an
    architecture alone, as its first argument.
    """

    _is_lenient = False  # while load_state_dict(strict=False) runs

    def __init__(
        self,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        output_norm: str,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        super().__init__(init_cfg)
        init_cfgs = init_cfg if isinstance(init_cfg, list) else [init_cfg]
        if init_cfg and not all(isinstance(x, Mapping) and 'type' in x for x in init_cfgs):
            raise ValueError(
                f"init_cfg={init_cfg!r} must be like dict(type='Pretrained', checkpoint='x.pth')"
            )
        check_list('out_indices', out_indices)
        out_indices = tuple(out_indices)
        check_choice('output_norm', output_norm, OUTPUT_NORMS)
        check_int('frozen_stages', frozen_stages, -1, NUM_STAGES)
        ascending = tuple(i for i in range(NUM_STAGES) if i in out_indices)
        if not out_indices or out_indices != ascending:
            raise ValueError(
                f'out_indices={out_indices} must be ascending stage numbers from 0 to 3'
            )
        if output_norm == 'classification' and out_indices != (NUM_STAGES - 1,):
            raise ValueError(
                f"out_indices={out_indices} must be (3,) where output_norm='classification': "
                'classifiers have a norm over the last map alone'
            )
        self.embed_dims: Sequence[int] = ()
        self.out_indices = out_indices
        self.output_norm = output_norm
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        self._runs_block: list[Callable] = []  # one compiled function for each stage

    @property
    @abstractmethod
    def checkpoint_names(self) -> Names:
        """Names of the family in checkpoint files."""

    @staticmethod
    @abstractmethod
    def build_classifier_norm(dim: int) -> nn.Module:
        """The norm that the family's classifiers have over their last map, of this width."""

    @classmethod
    @abstractmethod
    def infer_arch(cls, state_dict: Mapping[str, Tensor]) -> str | dict:
        """The architecture that the tensors of all stages, under names of ours, belong to.

        Raises:
            CheckpointError: If they are of no backbone of this family.
        """

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
        for i, stage in enumerate(self.stages):
            x = to_channels_last(self.downsample_layers[i](x))
            run = call_with_casts
            if self._runs_block:
                run = self._runs_block[i]
                # A compiler would have a program for a view, and one for all maps behind it.
                x = torch.ops.aten._unsafe_view(x, x.shape)
                # Else it would take a height that is as large by chance for the same number.
                torch._dynamo.mark_static(x, 3)
            for block in stage:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(run, block, x, use_reentrant=False)
                else:
                    x = run(block, x)
            if i in self.out_indices:
                outs.append(self._normalise_output(i, x))
            x = to_channels_first(x)
        return tuple(outs)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Which layer a parameter belongs to, and how many there are: as mmpretrain's backbones.

        Layer 0 is what opens the first stage. Each block is a layer, with what opens its stage if
        it is the first one there. The last layer are the norms of the outputs, and parameters
        whose name does not begin with ``prefix``.
        """
        depths = [len(stage) for stage in self.stages]
        layer, num_layers = sum(depths) + 1, sum(depths) + 2
        if param_name.startswith(prefix):
            kind, *numbers = param_name.removeprefix(prefix).split('.')
            if kind in ('downsample_layers', 'stages'):
                stage = int(numbers[0])
                block = int(numbers[1]) if kind == 'stages' else 0
                is_stem = kind == 'downsample_layers' and stage == 0
                layer = 0 if is_stem else 1 + sum(depths[:stage]) + block
        return layer, num_layers

    def compile_blocks(self, dynamic: bool | None = True, **options: object) -> None:
        """Compile the blocks, by ``torch.compile``: once for all of a stage, for any size.

        What opens the stages, and the norms of outputs, run as they are, as Inductor would compile
        the gradients of convolutions again for each size. Copies and pickles of the backbone are
        not compiled.

        Args:
            dynamic (bool, optional): As of ``torch.compile``; None and False compile again for
                other sizes. Defaults to True.
            options: Others of ``torch.compile``: backend, mode, options, fullgraph, disable. Those
                of Inductor come on top of ones that shorten compiling on CPUs.

        Raises:
            ValueError: If PyTorch is too old, or knows no such option.
        """
        known = inspect.signature(torch.compile).parameters
        if 'isolate_recompiles' not in known:
            raise ValueError(
                f'torch {torch.__version__} cannot keep what is compiled of one stage apart from '
                'that of others: install torch 2.13 or newer, or compile nothing'
            )
        taken = sorted({*known} - {'model', 'isolate_recompiles'})
        for name in options:
            check_choice('option of torch.compile', name, taken)
        if not options.keys() & {'backend', 'mode'}:
            options['options'] = {**FEWER_FILES, **options.get('options', {})}
        # Stages differ in widths and more. Were they not isolated, all of them in training and in
        # inference would pass PyTorch's limit of programs for one function.
        self._runs_block = [
            torch.compile(call_with_casts, dynamic=dynamic, isolate_recompiles=True, **options)
            for _ in self.stages
        ]

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), '_runs_block': []}

    def _add_output_norms(self) -> None:
        """Build the norms that outputs pass, when the stages are there; freeze what shall be."""
        if self.output_norm == 'classification':
            self.norm = self.build_classifier_norm(self.embed_dims[-1])
        else:
            for stage in self.out_indices:
                dim = self.embed_dims[stage]
                self.add_module(f'norm{stage}', nn.LayerNorm(dim, eps=LAYER_NORM_EPS))
        self._freeze_stages()

    def _output_norm(self, stage: int) -> nn.Module:
        return getattr(self, 'norm' if self.output_norm == 'classification' else f'norm{stage}')

    def _normalise_output(self, stage: int, x: Tensor) -> Tensor:
        """The output (B, C, H, W) of a stage from its channels-last map."""
        norm = self._output_norm(stage)
        # BatchNorm and GroupNorm, of classifiers, take their channels first.
        if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm | nn.GroupNorm):
            return norm(to_channels_first(x)).contiguous()
        return to_channels_first(norm(x)).contiguous()

    def train(self, mode: bool = True) -> 'StagedBackbone':
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
                frozen.append(self._output_norm(i))
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


def parse_arch(
    arch: str | Mapping, named: Mapping[str, Mapping], **optional: Sequence
) -> dict[str, Sequence]:
    """Four values for each key of an architecture: the keys of the named ones and the optional.

    Args:
        arch (str | Mapping): A name in ``named``, or the first letter of one alone, or the values
            themselves.
        named (Mapping): Name -> values.
        optional (Sequence): Values of the keys that an architecture need not have. None may stand
            in for a value where the default has it.

    Raises:
        ValueError: If a name or a key is unknown, or a value is no integer from 1 on.
    """
    if isinstance(arch, str):
        initials = [name for name in named if name[0] == arch.lower()]
        name = initials[0] if len(initials) == 1 else arch.lower()
        check_choice('arch', name, tuple(named))
        arch = named[name]
    elif not isinstance(arch, Mapping):
        raise ValueError(f'arch={arch!r} must be a name or a dict')
    required = next(iter(named.values()))
    settings = {**arch, **{key: x for key, x in optional.items() if key not in arch}}
    if set(settings) != {*required, *optional}:
        may_have = f' and, optionally, {", ".join(optional)}' if optional else ''
        raise ValueError(
            f'arch has the keys {sorted(arch)}: it takes {", ".join(required)}{may_have}'
        )
    for key, values in settings.items():
        check_list(f'arch.{key}', values)
        if len(values) != NUM_STAGES:
            raise ValueError(f'arch.{key}={values} must have {NUM_STAGES} entries')
        for value in values:
            if value is not None or None not in optional.get(key, ()):
                check_int(f'arch.{key}', value)
    return settings


def tensors_of_blocks(state_dict: Mapping[str, Tensor], name: str) -> list[list[Tensor]]:
    """The tensor of this name in each block: one list for each stage, empty where none has it."""
    found: dict[int, dict[int, Tensor]] = {}  # stage -> block -> tensor
    for key, value in state_dict.items():
        if match := re.match(rf'stages\.(\d)\.(\d+)\.{re.escape(name)}$', key):
            found.setdefault(int(match[1]), {})[int(match[2])] = value
    return [[blocks[i] for i in sorted(blocks)] for _, blocks in sorted(found.items())]


def check_drop_path_rate(rate: object) -> None:
    """Raise ValueError where a rate of stochastic depth is no probability below 1."""
    if not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
        raise ValueError(f'drop_path_rate={rate!r} must be in [0, 1)')

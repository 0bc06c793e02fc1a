"""What is timed: one step of inference or of training, ready to be called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmbiformer.ops import routed_attention, routing_indices
from mmbiformer.ops.any_size import from_regions, pad_to_regions
from mmbiformer.ops.backends import choose
from mmbiformer.ops.inputs import Inputs
from mmbiformer.ops.regions import to_regions

from .cases import OFFICIAL, Case, map_size
from .device import DTYPES
from .families import FAMILY_OF
from .gpu import record
from .models import build_backbone, build_detector, build_plugged_in
from .official_style import official_style_attention

NUM_BOXES = 10  # per image, in the training of a detector


@dataclass
class Step:
    """One step; call it to run it.

    Attributes:
        case (Case): What it is a step of.
        forward (Callable): The forward pass; returns the loss in training.
        trained (Sequence[Tensor]): Tensors that get gradients.
        module (nn.Module): The model; of an attention alone the layer, without data.
        recorded (Callable, optional): Repeats the step, where it is recorded as a CUDA graph.
    """

    case: Case
    forward: Callable[[], Tensor | object]
    trained: Sequence[Tensor]
    module: nn.Module
    recorded: Callable[[], None] | None = None

    def __call__(self) -> None:
        if not self.case.graph:
            self._run()
            return
        if self.recorded is None:
            self.recorded = record(self._run)
        self.recorded()

    def _run(self) -> None:
        if self.case.mode == 'inference':
            with torch.no_grad():
                self.autocast_forward()
            return
        self.autocast_forward().backward()
        for tensor in self.trained:
            tensor.grad = None

    def autocast_forward(self) -> Tensor | object:
        """The forward pass in the case's precision."""
        enabled = self.case.precision != 'fp32'
        dtype = DTYPES[self.case.precision] if enabled else None
        with torch.autocast(self.case.device, dtype, enabled=enabled):
            return self.forward()


def build_step(case: Case) -> Step:
    """The step of a case, with inputs that depend on the case alone."""
    torch.use_deterministic_algorithms(case.deterministic)
    return _BUILDERS[case.level](case)


def _loss(outs: Sequence[Tensor]) -> Tensor:
    return sum(out.float().mean() for out in outs)


def _backbone_step(case: Case) -> Step:
    backbone = build_backbone(case).to(case.device)
    backbone.train(case.mode == 'training')
    if case.compiled:
        # Others have no blocks that ``torch.compile`` could compile one for all.
        getattr(backbone, 'compile_blocks', backbone.compile)()
    torch.manual_seed(1)
    images = torch.randn(case.batch_size, 3, *case.size, device=case.device)
    parameters = list(backbone.parameters())
    return Step(case, lambda: _loss(backbone(images)), parameters, backbone)


def _detector_step(case: Case) -> Step:
    """A detector on random images with random boxes."""
    from mmdet.testing import demo_mm_inputs

    build = build_plugged_in if case.level == 'plugin' else build_detector
    detector = build(case).to(case.device)
    training = case.mode == 'training'
    detector.train(training)
    batch_size, shape = case.batch_size, (3, *case.size)
    batch = demo_mm_inputs(batch_size, shape, [NUM_BOXES] * batch_size, num_classes=80)
    data = detector.data_preprocessor(batch, training)

    def forward() -> Tensor | list:
        if not training:
            return detector(**data, mode='predict')
        return detector.parse_losses(detector(**data, mode='loss'))[0]

    return Step(case, forward, list(detector.parameters()), detector)


def _op_step(case: Case) -> Step:
    """Routed attention alone: maps of a stage's shape, chosen regions, pads where S leaves some.

    The official-style row begins with maps that are padded already, as its layer does.
    """
    layer, inputs, pad_query = prepare_attention(case, case.stage)
    training, s = case.mode == 'training', case.partition_factor

    if case.model == OFFICIAL:
        height, width = inputs.q.shape[1:3]
        pads = pad_query, inputs.pad_key, inputs.pad_value
        q, k, v = (pad_to_regions(x, s, pad) for x, pad in zip(inputs[:3], pads, strict=True))
        trained = [q.requires_grad_(training), torch.cat([k, v], -1).requires_grad_(training)]

        def forward() -> Tensor:
            q, kv = (to_regions(x, s) for x in trained)
            out = official_style_attention(q, kv, inputs.indices, layer.num_heads, layer.scale)
            return _loss([from_regions(out, height, width, s)])
    else:
        arguments = inputs._asdict()
        floats = (*inputs[:3], inputs.pad_key, inputs.pad_value)
        trained = [x.requires_grad_(training) for x in floats]

        def forward() -> Tensor:
            return _loss([routed_attention(**arguments, backend=case.model)])

    return Step(case, forward, trained, layer)


_BUILDERS = {
    'op': _op_step,
    'backbone': _backbone_step,
    'ablation': _backbone_step,
    'detector': _detector_step,
    'plugin': _detector_step,
}


def prepare_attention(case: Case, stage: int) -> tuple[nn.Module, Inputs, Tensor]:
    """Routed attention without its projections: the layer of a stage, and inputs for it.

    Returns:
        tuple: The layer, for its options alone: it has no data; random inputs with the regions
        that the layer chooses; the query of a padding token, (C, ), which the choice depends on.
    """
    family = FAMILY_OF[case.arch]
    with torch.device('meta'):
        backbone = family.backbone(family.archs[case.arch], partition_factor=case.partition_factor)
    layer = family.attention(backbone, stage)
    channels, s = layer.proj.out_features, layer.partition_factor
    torch.manual_seed(1)
    maps = torch.randn(3, case.batch_size, *map_size(case.size, stage), channels)
    pads = torch.randn(3, channels)
    dtype = DTYPES[case.precision]  # as a projection gives them under autocast
    q, k, v = maps.to(case.device, dtype)
    pad_query, pad_key, pad_value = pads.to(case.device, dtype)
    indices = routing_indices(q, k, layer.topk, s, pad_query, pad_key)
    inputs = Inputs(q, k, v, indices, pad_key, pad_value, s, layer.num_heads, layer.scale)
    return layer, inputs, pad_query


def default_backend(case: Case) -> str:
    """What the backbone takes when no backend is named, and so do levels growth and advice."""
    _, inputs, _ = prepare_attention(case, FAMILY_OF[case.arch].main_stage)
    return choose('auto', inputs).name

"""The backbone as an exported program: one for every size of picture, and of batch."""

from copy import deepcopy

import onnxruntime
import pytest
import torch
from backbones import build
from torch import Tensor

from mmbiformer import BiFormer

ANY = torch.export.Dim.AUTO


def random_backbone(**options) -> BiFormer:
    torch.manual_seed(0)
    backbone = BiFormer(**options).eval()
    for parameter in backbone.parameters():  # biases too, which padding carries
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone


def relative_error(results: list[Tensor], exact: list[Tensor]) -> float:
    pairs = zip(results, exact, strict=True)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in pairs)


# Which S divides at every stage, and not; with regions of padding alone; as narrow as may be.
SIZES = (96, 192), (75, 94), (50, 64), (150, 49)


@pytest.mark.parametrize('padding', ['official', 'masked'])
def test_exported_program_takes_any_size(padding):
    arch = dict(embed_dims=(32, 64, 96, 128), depths=(1, 1, 1, 1), topks=(1, 2, 4, None))
    backbone = random_backbone(arch=arch, partition_factor=3, padding=padding).double()
    shapes = {0: torch.export.Dim('batch'), 2: ANY, 3: ANY}
    example = torch.randn(2, 3, 70, 100, dtype=torch.float64)
    program = torch.export.export(backbone, (example,), dynamic_shapes=[shapes])
    assert not [node for node in program.graph.nodes if 'mmbiformer' in str(node.target)]
    for size in SIZES:
        image = torch.randn(3, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            for result, expected in zip(program.module()(image), backbone(image), strict=True):
                torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


# Without regions, from 33 pixels a side on.
SIZES_OF_CLOFORMER = (*SIZES, (33, 33), (33, 200), (64, 33))


# BiFormer-STL routes as BiFormer does, so that one stage of its own patches shall do.
ONE_ROUTED = dict(embed_dims=(32,) * 4, depths=(1,) * 4, topks=(2, None, None, None))


@pytest.mark.parametrize(
    ('family', 'options', 'sizes'),
    [('BiFormerSTL', dict(arch=ONE_ROUTED), SIZES), ('CloFormer', {}, SIZES_OF_CLOFORMER)],
    ids=['BiFormerSTL', 'CloFormer'],
)
def test_exported_program_of_another_family_takes_any_size(family, options, sizes):
    backbone = build(family, **options).double().eval()
    shapes = {0: torch.export.Dim('batch'), 2: ANY, 3: ANY}
    example = torch.randn(2, 3, 70, 100, dtype=torch.float64)
    program = torch.export.export(backbone, (example,), dynamic_shapes=[shapes])
    for size in sizes:
        image = torch.randn(3, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            for result, expected in zip(program.module()(image), backbone(image), strict=True):
                torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


def test_onnx_program_of_cloformer_takes_any_size():
    backbone = build('CloFormer').eval()
    session = onnx_session(backbone)
    for size in SIZES_OF_CLOFORMER:
        image = torch.randn(3, 3, *size)
        with torch.no_grad():
            exact = deepcopy(backbone).double()(image.double())
        results = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        error = relative_error([torch.from_numpy(result) for result in results], exact)
        assert error < 1e-5, size


def onnx_session(backbone: torch.nn.Module) -> onnxruntime.InferenceSession:
    """The backbone as an ONNX program for any size."""
    program = torch.onnx.export(
        backbone,
        (torch.randn(2, 3, 100, 140),),
        dynamo=True,
        dynamic_shapes=[{0: ANY, 2: ANY, 3: ANY}],
        verbose=False,
    )
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString())


# One routed stage and one of full attention, with the S of segmentation and of detection. S cuts
# a map of a quarter of the image: evenly, with partial regions, with regions of padding alone, and
# with regions of one token.
ONNX_SIZES = {
    8: ((96, 128), (75, 94), (50, 64), (150, 49), (17, 5)),
    16: ((128, 192), (70, 205), (150, 67), (121, 128), (17, 5)),
}


@pytest.mark.parametrize('padding', ['official', 'masked'])
@pytest.mark.parametrize('partition_factor', ONNX_SIZES)
def test_onnx_program_takes_any_size(partition_factor, padding):
    arch = dict(embed_dims=(32, 64, 64, 64), depths=(1, 1, 1, 1), topks=(4, None, None, None))
    backbone = random_backbone(
        arch=arch, partition_factor=partition_factor, padding=padding, out_indices=(0, 1)
    )
    session = onnx_session(backbone)
    (argument,) = session.get_inputs()

    # onnxruntime has no convolution in float64, so float32 is held to PyTorch's float64. That is
    # fair where no routing is near a tie, which a noise above the rounding would tip over.
    backbone = deepcopy(backbone).double()
    torch.manual_seed(2)
    for size in ONNX_SIZES[partition_factor]:
        for batch in (1, 3):
            image = torch.randn(batch, 3, *size)
            noise = 1e-5 * torch.randn_like(image, dtype=torch.float64)
            with torch.no_grad():
                exact, *nearby = (backbone(image.double() + x) for x in (0, noise, -noise))
            assert max(relative_error(maps, exact) for maps in nearby) < 1e-4, 'take another seed'
            results = session.run(None, {argument.name: image.numpy()})
            error = relative_error([torch.from_numpy(result) for result in results], exact)
            assert error < 1e-5, (size, batch)

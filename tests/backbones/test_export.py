"""The backbone as an exported program: one for every size of picture."""

import pytest
import torch

from mmbiformer import BiFormer

S = 3
ARCH = dict(embed_dims=(32, 64, 96, 128), depths=(1, 1, 1, 1), topks=(1, 2, 4, None))
# Which S divides at every stage, and not; with regions of padding alone; as narrow as may be.
SIZES = (96, 192), (75, 94), (50, 64), (150, 49)


@pytest.mark.parametrize('padding', ['official', 'masked'])
def test_exported_program_takes_any_size(padding):
    torch.manual_seed(0)
    backbone = BiFormer(arch=ARCH, partition_factor=S, padding=padding).double().eval()
    for parameter in backbone.parameters():  # biases too, which padding carries
        torch.nn.init.normal_(parameter, std=0.2)
    any_size = torch.export.Dim.AUTO
    shapes = {0: torch.export.Dim('batch'), 2: any_size, 3: any_size}
    example = torch.randn(2, 3, 70, 100, dtype=torch.float64)
    program = torch.export.export(backbone, (example,), dynamic_shapes=[shapes])
    assert not [node for node in program.graph.nodes if 'mmbiformer' in str(node.target)]
    for size in SIZES:
        image = torch.randn(3, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            for result, expected in zip(program.module()(image), backbone(image), strict=True):
                torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)

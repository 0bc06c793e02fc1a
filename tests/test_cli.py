"""What the command-line tools share."""

import torch.distributed as dist

from mmbiformer.cli import run_tool


def test_a_tool_leaves_its_process_group(tmp_path) -> None:
    def main() -> None:
        dist.init_process_group(
            'gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1
        )

    run_tool(main)
    assert not dist.is_initialized()

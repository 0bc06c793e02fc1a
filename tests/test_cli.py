"""What the command-line tools share."""

import pytest
import torch.distributed as dist

from mmbiformer.cli import run_tool


def test_a_tool_leaves_its_process_group(tmp_path) -> None:
    def main() -> None:
        dist.init_process_group(
            'gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1
        )

    run_tool(main)
    assert not dist.is_initialized()


def test_that_another_process_has_ended_is_one_line(capsys):
    def main() -> None:
        raise RuntimeError('[gloo/transport/tcp/pair.cc:553] Connection closed by peer [1.2.3.4]')

    with pytest.raises(SystemExit) as stop:
        run_tool(main, ())
    assert stop.value.code == 2
    line = 'error: another process of this run has ended: what it printed says why\n'
    assert capsys.readouterr().err == line


@pytest.mark.parametrize('needs', [(), ('mmengine',)], ids=['files', 'models'])
def test_a_missing_package_of_the_extra_is_named_with_its_remedy(needs, capsys):
    def main() -> None:
        raise ModuleNotFoundError("No module named 'prettytable'", name='prettytable')

    with pytest.raises(SystemExit) as stop:
        run_tool(main, needs)
    assert stop.value.code == 2
    remedy = 'pip install -e ".[evaluation]"'
    assert capsys.readouterr().err == f'error: prettytable is not installed: {remedy}\n'


def test_any_other_missing_package_is_a_fault_of_the_program():
    def main() -> None:
        raise ModuleNotFoundError("No module named 'nothing'", name='nothing')

    with pytest.raises(ModuleNotFoundError):
        run_tool(main)

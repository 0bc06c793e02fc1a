"""docs/own_data.md runs as written, with fewer images and epochs."""

import re
import shlex
from pathlib import Path

import pytest
from toolbox import IN_PROCESS, ROOT, run_tool

PAGE = (ROOT / 'docs/own_data.md').read_text()
DRAW, CONFIG = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r'```shell\n(.*?)```', PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def at_home(tmp_path, monkeypatch) -> Path:
    """A folder with the images and the config of the page."""
    monkeypatch.chdir(tmp_path)
    assert 'num_train=320, num_val=80' in DRAW
    exec(DRAW.replace('num_train=320, num_val=80', 'num_train=8, num_val=6'), {})
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    few = '\ntrain_cfg = dict(max_epochs=1, val_interval=1)\n'
    (tmp_path / 'mine.py').write_text(CONFIG + few)
    return tmp_path


def test_the_page_runs(at_home, capsys) -> None:
    assert [command[1] for command in COMMANDS] == [
        f'tools/{name}.py' for name in ('check_data', 'train', 'size_ap')
    ]
    check, train, judge = [command[2:] for command in COMMANDS]
    run_tool('check_data', *check)
    assert 'wrote work_dirs/mine/data_check.json' in capsys.readouterr().out
    run_tool('train', *train, '--cfg-options', *IN_PROCESS)
    assert judge[-1] == 'work_dirs/mine/epoch_12.pth'
    run_tool('size_ap', *judge[:-1], 'work_dirs/mine/epoch_1.pth')
    assert (at_home / 'work_dirs/size_ap/size_ap.html').is_file()
    assert 'circle' in (at_home / 'work_dirs/size_ap/size_ap.html').read_text()


def test_the_commonest_mistake_is_one_line(at_home, capsys) -> None:
    config = CONFIG.replace('num_classes=2', 'num_classes=80')
    assert config != CONFIG
    (at_home / 'mine.py').write_text(config)
    with pytest.raises(SystemExit) as stop:
        run_tool('train', 'mine.py')
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'num_classes=80' in line

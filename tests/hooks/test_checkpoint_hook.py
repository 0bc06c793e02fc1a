"""Checkpoints that survive kills: order of operations, pruning, the best, full disks, resuming."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from crash_points import CrashPoints
from tiny_runs import Growing, tiny_run

from mmbiformer import files
from mmbiformer.checkpoints import find_damage, find_newest, manifests
from mmbiformer.errors import UserError
from mmbiformer.hooks import CrashSafeCheckpointHook, disk_space

BEST = 'best_acc_epoch_{}.pth'


@pytest.fixture
def work_dir(tmp_path) -> Path:
    Growing.count = 0
    return tmp_path / 'run'


def checkpoints(folder: Path) -> list[str]:
    return sorted(x.name for x in folder.iterdir() if x.suffix == '.pth')


def load(path: Path) -> dict:
    return torch.load(path, weights_only=False)


def with_manifests(*names: str) -> list[str]:
    return sorted([*names, *(f'{name}.sha256' for name in names)])


def test_old_ones_go_and_take_their_manifests_along(work_dir):
    tiny_run(work_dir, epochs=4).train()
    names = [x.name for x in work_dir.iterdir() if '.pth' in x.name or x.name[0] == '.']
    assert sorted(names) == with_manifests('epoch_3.pth', 'epoch_4.pth', BEST.format(4))
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_4.pth')
    manifest = ['sha256sum', '--strict', '-c', *(x for x in names if x.endswith('.sha256'))]
    assert subprocess.run(manifest, cwd=work_dir, capture_output=True).returncode == 0
    for name in ('epoch_3.pth', 'epoch_4.pth'):
        assert find_damage(work_dir / name) is None


@pytest.mark.parametrize('keep', [1, 2, 3, -1])
def test_never_less_than_two_are_kept(work_dir, keep):
    tiny_run(work_dir, epochs=4, max_keep_ckpts=keep, save_best=None).train()
    kept = range(4 - (4 if keep < 0 else max(keep, 2)), 4)
    assert checkpoints(work_dir) == [f'epoch_{i + 1}.pth' for i in kept]


@pytest.mark.parametrize(('best', 'every'), [('acc', 3), (['acc', 'miou'], 7)], ids=['one', 'two'])
def test_a_kill_before_any_operation_leaves_whole_checkpoints(work_dir, best, every):
    """In the epoch that prunes, and replaces the best and its own checkpoint for its sake."""

    def check(kill: int) -> None:
        paths = [work_dir / name for name in checkpoints(work_dir)]
        assert all(find_damage(path) is None for path in paths), kill
        assert sum(path.name.startswith('epoch') for path in paths) >= 2, kill
        newest, passed_over = find_newest(work_dir)
        assert newest.name in ('epoch_2.pth', 'epoch_3.pth'), kill
        assert not passed_over, kill
        last = Path((work_dir / 'last_checkpoint').read_text())
        assert last in paths, kill
        for path in (newest, last):
            info = load(path)['message_hub']['runtime_info']
            names = [Path(info[key]) for key in info if key.startswith('best_ckpt')]
            assert len(names) == (1 if best == 'acc' else 2)
            assert set(names) <= {*paths}, kill
        if kill % 8 == 2:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Growing, 'count', 10)
                tiny_run(work_dir, epochs=4, save_best=best, resume=True).train()
            assert not [x for x in work_dir.iterdir() if x.name.startswith('.')]
            epochs = [x for x in checkpoints(work_dir) if x.startswith('epoch')]
            assert epochs == ['epoch_3.pth', 'epoch_4.pth'], kill

    points = CrashPoints(work_dir, 3, check, every)
    tiny_run(work_dir, epochs=3, save_best=best, hooks=[points]).train()
    assert points.kills * every > 60


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT], ids=['disk', 'quota'])
@pytest.mark.parametrize('name', ['epoch_3.pth', BEST.format(3)])
def test_a_full_disk_leaves_the_old_ones_and_nothing_else(work_dir, monkeypatch, name, number):
    """The disk says so when it is to write the content, half of which is there by then."""

    def half(path: Path, content: bytes) -> int:
        with open(path, 'wb') as file:
            file.write(content[: len(content) // 2] if path.name == name else content)
        if path.name == name:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, 'write_bytes', half)
    line = rf"checkpoint '.*{name}' is not written, the disk is full: it needs 0\.0 MB, .* MB are"
    with pytest.raises(UserError, match=line):
        tiny_run(work_dir).train()
    left = [x.name for x in work_dir.iterdir() if '.pth' in x.name or x.name[0] == '.']
    expected = ['epoch_1.pth', 'epoch_2.pth', BEST.format(2)]
    if name != 'epoch_3.pth':
        expected = ['epoch_2.pth', 'epoch_3.pth', BEST.format(2)]
    assert sorted(left) == with_manifests(*expected)
    assert all(find_damage(work_dir / x) is None for x in expected)
    last = (work_dir / 'last_checkpoint').read_text()
    assert last.endswith('epoch_3.pth' if 'epoch_3.pth' in expected else 'epoch_2.pth')


def test_on_the_disk_before_it_takes_its_name(work_dir, monkeypatch):
    """Content, then manifest, then the name, then the folder, and only then last_checkpoint."""
    events = []
    sync, replace = files.sync, os.replace

    def note_sync(path):
        events.append(('sync', path.name))
        sync(path)

    def note_replace(source, target):
        events.append(('name', Path(target).name))
        replace(source, target)

    monkeypatch.setattr(files, 'sync', note_sync)
    monkeypatch.setattr(manifests, 'sync', note_sync)
    monkeypatch.setattr(os, 'replace', note_replace)
    tiny_run(work_dir, epochs=1, save_best=None).train()
    names = [f'{kind} {name}' for kind, name in events]
    order = [
        *('sync epoch_1.pth', 'sync epoch_1.pth.sha256', 'name epoch_1.pth.sha256', 'sync run'),
        *('sync epoch_1.pth', 'name epoch_1.pth', 'sync run'),
        *('sync last_checkpoint', 'name last_checkpoint', 'sync run'),
    ]
    assert names == order


@pytest.mark.parametrize(
    'changes',
    [
        dict(out_dir='s3://bucket'),
        dict(backend_args=dict(backend='petrel')),
        dict(file_client_args=dict(backend='petrel')),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_places_than_local_folders_are_refused(changes):
    with pytest.raises(UserError, match=f'not by {next(iter(changes))}'):
        CrashSafeCheckpointHook(**changes)


def test_a_folder_of_its_own(work_dir, tmp_path):
    for epochs in (2, 3):
        tiny_run(work_dir, epochs=epochs, out_dir=str(tmp_path / 'out'), resume=epochs > 2).train()
    folder = tmp_path / 'out/run'
    assert checkpoints(folder) == [BEST.format(3), 'epoch_2.pth', 'epoch_3.pth']
    assert (work_dir / 'last_checkpoint').read_text() == str(folder / 'epoch_3.pth')


def test_any_launcher_resumes_the_newest_that_verifies(work_dir, monkeypatch):
    tiny_run(work_dir, epochs=2).train()
    newest = work_dir / 'epoch_2.pth'
    newest.write_bytes(newest.read_bytes()[:-100])
    said = []
    run = tiny_run(work_dir, epochs=3, resume=True)
    monkeypatch.setattr(run.logger, 'warning', said.append)
    run.train()
    (line,) = [text for text in said if 'passed over' in text]
    assert 'epoch_2.pth' in line and 'is truncated' in line and 'SHA-256' in line
    assert checkpoints(work_dir) == [BEST.format(3), 'epoch_2.pth', 'epoch_3.pth']
    assert find_damage(newest) is None  # written again


def test_resuming_nothing_is_an_error(work_dir):
    with pytest.raises(UserError, match='nothing to resume in'):
        tiny_run(work_dir, resume=True).train()


def test_a_run_that_does_not_fit_on_the_disk_is_refused(work_dir, monkeypatch):
    monkeypatch.setattr(disk_space.shutil, 'disk_usage', lambda _: os.terminal_size((0, 0)))
    monkeypatch.setattr(os.terminal_size, 'free', 5_000_000, raising=False)
    # 4 MB of weights, 12 with AdamW's averages: three of these at a time, and the best.
    run = tiny_run(work_dir, width=1000)
    line = r'3 of 12\.0 MB and 1 best of 4\.0 MB are there at a time, 40\.0 MB, and 5\.0 MB are'
    with pytest.raises(UserError, match=line):
        run.train()
    assert run.iter == 0 and not checkpoints(work_dir)

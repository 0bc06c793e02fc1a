"""Writes that are whole or not there; JSON that may be missing."""

import errno
import os
import shutil
import stat
from contextlib import nullcontext

import pytest

from mmbiformer.files import read_json, remove_unfinished, whole_or_absent


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'new/report.json'
    with whole_or_absent(path) as unfinished:
        unfinished.write_text('whole')
        assert not path.exists()
    assert path.read_text() == 'whole'
    assert [x.name for x in path.parent.iterdir()] == ['report.json']


def test_a_folder_appears_when_it_is_complete(tmp_path):
    (tmp_path / 'shapes').mkdir()  # an empty one is replaced
    with whole_or_absent(tmp_path / 'shapes') as unfinished:
        (unfinished / 'images').mkdir(parents=True)
        assert not any((tmp_path / 'shapes').iterdir())
    assert (tmp_path / 'shapes/images').is_dir()


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'report.json'
    path.write_text('old')
    with pytest.raises(RuntimeError), whole_or_absent(path) as unfinished:
        unfinished.write_text('ha')
        raise RuntimeError('disk full')
    assert path.read_text() == 'old'
    assert [x.name for x in tmp_path.iterdir()] == ['report.json']


def test_a_name_keeps_its_suffix(tmp_path):
    with whole_or_absent(tmp_path / 'plot.png') as unfinished:
        assert unfinished.name == 'plot.png'  # by which writers of pictures choose the format
        unfinished.touch()


def test_a_link_stays_one(tmp_path):
    (tmp_path / 'target.json').write_text('old')
    (tmp_path / 'link.json').symlink_to('target.json')
    with whole_or_absent(tmp_path / 'link.json') as unfinished:
        unfinished.write_text('new')
    assert (tmp_path / 'link.json').is_symlink()
    assert (tmp_path / 'target.json').read_text() == 'new'


def test_json_that_cannot_be_read_is_none(tmp_path):
    path = tmp_path / 'recipe.json'
    assert read_json(path) is None
    path.write_text('{"seed": 1')
    assert read_json(path) is None
    path.write_text('{"seed": 1}')
    assert read_json(path) == {'seed': 1}


def test_what_a_kill_left_is_removed(tmp_path):
    for name in ('epoch_1.pth', 'report.json'):
        with pytest.raises(KeyboardInterrupt), whole_or_absent(tmp_path / name) as unfinished:
            unfinished.write_text('half')
            shutil.copytree(unfinished.parent, tmp_path / f'.{name}-k1ll_d__')
            raise KeyboardInterrupt
    (tmp_path / '.other.pth-12345678').mkdir()
    (tmp_path / '.other.pth-12345678/mine').touch()
    remove_unfinished(tmp_path, '*.pth')
    left = {x.name for x in tmp_path.iterdir()}
    assert left == {'.report.json-k1ll_d__', '.other.pth-12345678'}


@pytest.mark.parametrize('error', [errno.EINVAL, errno.EIO])
def test_folders_that_cannot_be_synced_are_left_but_errors_are_not(tmp_path, monkeypatch, error):
    fsync = os.fsync

    def failing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', failing)
    expected = pytest.raises(OSError) if error == errno.EIO else nullcontext()
    with expected, whole_or_absent(tmp_path / 'report.json') as unfinished:
        unfinished.write_text('whole')
    assert (tmp_path / 'report.json').read_text() == 'whole'

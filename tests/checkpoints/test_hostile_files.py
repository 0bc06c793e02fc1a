"""Files made to do harm, by every way in: nothing is run, and each is refused by name.

MMBIFORMER_HOSTILE_FILES=1000 takes as many of them.
"""

import os
import resource
import shutil
from contextlib import suppress

import pytest
import torch
from hostile_files import Name, gadgets, hostile_files, save
from ways_in import save_toy, ways_in

from mmbiformer.checkpoints import CheckpointError, read_checkpoint

COUNT = int(os.environ.get('MMBIFORMER_HOSTILE_FILES', '40'))
MEMORY = 2**20  # KiB, of the process at its peak above what it had


@pytest.fixture(scope='module')
def ordinary(tmp_path_factory):
    """A checkpoint of mmengine's, and the ways in."""
    folder = tmp_path_factory.mktemp('ways')
    return save_toy(folder / 'toy'), ways_in(folder)


def test_ordinary_files_get_in(ordinary, tmp_path):
    path, ways = ordinary
    content = torch.load(path, weights_only=False)
    for old in (False, True):
        torch.save(content, tmp_path / 'file.pth', _use_new_zipfile_serialization=not old)
        for name in ways.keys() - {'inferencer', 'converter'}:  # they take no toys
            ways[name](tmp_path / 'file.pth')


def test_nothing_in_a_file_runs(ordinary, tmp_path):
    path, ways = ordinary
    content = torch.load(path, weights_only=False)
    harm = tmp_path / 'harm'
    harm.mkdir()
    refused = 0
    for what, file in hostile_files(content, tmp_path, harm, COUNT):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, way in ways.items():
            try:
                way(file)
            except Exception as error:
                message = str(error)
                assert isinstance(error, CheckpointError) or 'is not run: name a config' in message
                assert 'hostile.pth' in message or name == 'converter', (what, name)
                assert not {'weights_only', 'safe_globals'} & set(message.split('`')), message
                refused += 1
            else:  # what its text would run was taken away
                assert what.startswith('config text'), (what, name)
            assert not any(harm.iterdir()), (what, name)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MEMORY, (what, grown)
    assert refused > COUNT * len(ways) * 0.7


def test_the_files_do_harm_where_they_are_unpickled(tmp_path, monkeypatch):
    harm = tmp_path / 'harm'
    done = 0
    monkeypatch.setenv('MMBIFORMER_UNPICKLE', '1')
    modules = ('os', 'posix', 'builtins', 'subprocess', 'shutil', 'io')
    for call in gadgets(harm):
        if isinstance(call.function, Name) and call.function.path.partition('.')[0] in modules:
            harm.mkdir()
            save(call, tmp_path / 'file.pth')
            with suppress(CheckpointError):
                read_checkpoint(tmp_path / 'file.pth')
            done += any(harm.iterdir())
            shutil.rmtree(harm)
    assert done > 20

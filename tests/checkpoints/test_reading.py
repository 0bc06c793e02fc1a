"""Reading checkpoint files: nothing in them runs, and what is none is named."""

import argparse
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmbiformer.checkpoints import CheckpointError, load_file


class Dangerous:
    """An object that does harm when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, 'w'))


def test_reads_what_training_scripts_write(tmp_path):
    history = HistoryBuffer()
    history.update(0.5)
    content = dict(
        model=dict(weight=torch.arange(3)),
        args=argparse.Namespace(lr=5e-4),
        message_hub=dict(loss=history),
        harm=Dangerous(str(tmp_path / 'harm')),
    )
    torch.save(content, tmp_path / 'file.pth')
    assert load_file(tmp_path / 'file.pth')['model']['weight'].tolist() == [0, 1, 2]
    assert not (tmp_path / 'harm').exists()
    torch.save(content, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r'old\.pth. cannot be read as a checkpoint: .*'):
        load_file(tmp_path / 'old.pth')
    assert not (tmp_path / 'harm').exists()


def test_reads_the_old_format(tmp_path):
    weights = dict(weight=torch.arange(3))
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert load_file(tmp_path / 'old.pth')['weight'].tolist() == [0, 1, 2]


NO_CHECKPOINTS = {
    'text': b'hello world',
    'nothing': b'',
    'cut archive': b'PK\x03\x04',
    'another pickle': pickle.dumps([1, 2]),
}


@pytest.mark.parametrize('content', NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_names_a_file_that_is_no_checkpoint(content, tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"notes\.pth' cannot be read as a checkpoint: ."):
        load_file(path)


@pytest.mark.parametrize('content', [torch.ones(3), [1], {1: torch.ones(1)}], ids=str)
def test_wants_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / 'checkpoint.pth')
    with pytest.raises(CheckpointError, match=r"pth' holds no state dict: give a file of a model"):
        load_file(tmp_path / 'checkpoint.pth')


def test_names_a_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / 'none.pth'):
        with pytest.raises(CheckpointError, match=r"^checkpoint '.*' not found: check the path$"):
            load_file(path)

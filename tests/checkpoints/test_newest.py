"""Which checkpoint a run goes on from, and what is said of the newer ones."""

import os

import damages
import pytest
import torch

from mmbiformer.checkpoints import find_newest, list_checkpoints, write_checkpoint
from mmbiformer.errors import UserError

OF_A_RUN = dict(message_hub={}, meta={}, optimizer={}, state_dict={'x': torch.zeros(3)})


@pytest.fixture
def folder(tmp_path):
    """Epochs 8 to 10, one second apart, a best and the plain weights of something else."""
    for i, name in enumerate(['epoch_8.pth', 'epoch_9.pth', 'epoch_10.pth', 'best_acc_9.pth']):
        save(tmp_path / name, time=i + 1)
    torch.save({}, tmp_path / 'weights.pth')
    (tmp_path / 'last_checkpoint').write_text('moved/run/epoch_10.pth')
    return tmp_path


def save(path, time: int) -> None:
    torch.save(OF_A_RUN, path)
    write_checkpoint(path.read_bytes(), path)
    os.utime(path, (time, time))


def names(folder) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


def test_the_newest_comes_first(folder):
    assert names(folder) == ['epoch_10.pth', 'epoch_9.pth', 'epoch_8.pth']
    assert find_newest(folder) == (folder / 'epoch_10.pth', [])
    (folder / 'last_checkpoint').unlink()
    assert names(folder) == ['epoch_10.pth', 'epoch_9.pth', 'epoch_8.pth']


def test_killed_before_last_checkpoint_names_it(folder):
    save(folder / 'epoch_11.pth', time=9)
    assert names(folder)[:2] == ['epoch_11.pth', 'epoch_10.pth']


def test_of_an_earlier_run_in_the_same_folder(folder):
    save(folder / 'epoch_12.pth', time=0)
    assert names(folder)[:2] == ['epoch_10.pth', 'epoch_9.pth']


def test_a_copied_folder_without_its_times(folder):
    os.utime(folder / 'epoch_8.pth', (9, 9))
    assert names(folder)[0] == 'epoch_10.pth'


def test_each_that_is_passed_over_is_named(folder):
    save(folder / 'epoch_11.pth', time=9)
    content = (folder / 'epoch_11.pth').read_bytes()
    (folder / 'epoch_11.pth').write_bytes(content[:100])
    os.utime(folder / 'epoch_11.pth', (9, 9))
    torch.save({'state_dict': {}}, folder / 'epoch_10.pth')
    (folder / 'epoch_10.pth.sha256').unlink()
    (folder / 'last_checkpoint').write_text('epoch_12.pth')
    newest, (gone, *passed_over) = find_newest(folder)
    assert newest.name == 'epoch_9.pth'
    assert gone == 'epoch_12.pth, which last_checkpoint names, is not there'
    reasons = dict(zip(['epoch_10.pth', 'epoch_11.pth'], passed_over, strict=True))
    assert 'is truncated' in reasons['epoch_11.pth']
    assert 'no message_hub, meta, optimizer' in reasons['epoch_10.pth']
    assert all(name in reason for name, reason in reasons.items())


def test_weights_that_are_not_finite_are_passed_over(folder):
    path = folder / 'epoch_10.pth'
    torch.save({**OF_A_RUN, 'state_dict': {'x': torch.tensor([1.0, float('nan')])}}, path)
    write_checkpoint(path.read_bytes(), path)
    newest, (reason,) = find_newest(folder)
    assert newest.name == 'epoch_9.pth'
    assert 'weights that are not finite: x (nan)' in reason


def test_none_that_verifies_is_an_error(folder):
    for path in list_checkpoints(folder):
        path.write_bytes(b'')
    with pytest.raises(UserError, match=r'nothing to resume in .*epoch_10\.pth is trunc') as error:
        find_newest(folder)
    assert 'epoch_9.pth is' in str(error.value) and 'epoch_8.pth is' in str(error.value)
    with pytest.raises(UserError, match='holds no checkpoint of a training run'):
        find_newest(folder / 'none')


@pytest.mark.parametrize('content', ['', '  \n'])
def test_an_empty_last_checkpoint_hinders_nothing(folder, content):
    (folder / 'last_checkpoint').write_text(content)
    assert find_newest(folder)[0].name == 'epoch_10.pth'


def test_the_newest_is_passed_over_wherever_it_is_damaged(tmp_path):
    """A sample of tests/helpers/damages.py."""
    assert damages.torture(tmp_path / 'run', damages=20, seed=1) < 20

"""Reading checkpoint files: nothing in them runs, and what is none is named."""

import argparse
import logging
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import Bytes, Call, Name, save
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmbiformer.checkpoints import CheckpointError, load_file, read_checkpoint, reading

OLD = pytest.mark.parametrize('old', [False, True], ids=['archive', 'old format'])


class Dangerous:
    """An object that does harm when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, 'w'))


@pytest.fixture
def logged(monkeypatch):
    """What is logged, in a list."""
    lines = []
    monkeypatch.setattr(reading, 'print_log', lambda text, *_, **__: lines.append(text))
    return lines


@OLD
def test_reads_what_training_scripts_write(old, tmp_path, logged):
    path = tmp_path / 'file.pth'
    content = dict(
        model=dict(weight=torch.arange(3)),
        args=argparse.Namespace(lr=5e-4, out=Path('out')),
        cfg=ConfigDict(x=dict(y=1)),
        epoch=299,
    )
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found = load_file(path)
    assert found['model']['weight'].tolist() == [0, 1, 2]
    assert found['cfg'] == dict(x=dict(y=1)) and found['epoch'] == 299
    (line,) = logged
    assert line.startswith(f"left out of '{path}': argparse.Namespace, pathlib.")


def history(numbers, **options):
    buffer = HistoryBuffer(**options)
    for number in numbers:
        buffer.update(number, 2)
    return buffer


@OLD
def test_reads_all_that_mmengine_writes(old, tmp_path, logged):
    loss = history([0.5, 0.25])
    content = dict(
        message_hub=dict(
            log_scalars=dict(
                loss=loss, again=loss, new=HistoryBuffer(), short=history([1], max_length=3)
            ),
            runtime_info=dict(best=np.float64(0.5), ids=np.int64(3), on=np.bool_(True)),
        ),
        milestones=Counter([1, 1, 4]),
        arrays=[
            np.arange(6, dtype='>i4').reshape(2, 3),
            np.ones((2, 3), order='F'),
            np.ones((0, 2)),
        ],
        names=np.array(['a', 'bcd']),
        plain=({1, 2}, (1, (None, True)), b'bytes', b'', 'text', 2**80, 1j, torch.float16),
        parameter=torch.nn.Parameter(torch.ones(2)),
        rng=torch.get_rng_state(),
        numpy_rng=np.random.RandomState(0).get_state(),
    )
    path = tmp_path / 'file.pth'
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found = read_checkpoint(path)
    assert not logged
    scalars = found['message_hub']['log_scalars']
    assert scalars['loss'] is scalars['again'] and type(scalars['loss']) is HistoryBuffer
    for name, buffer in content['message_hub']['log_scalars'].items():
        for mine, theirs in zip(scalars[name].data, buffer.data, strict=True):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
        assert scalars[name].max_length == buffer.max_length
    assert scalars['loss'].statistics('mean') == 0.1875
    assert found['message_hub']['runtime_info'] == content['message_hub']['runtime_info']
    assert type(found['message_hub']['runtime_info']['best']) is np.float64
    for mine, theirs in zip(found['arrays'], content['arrays'], strict=True):
        assert mine.dtype == theirs.dtype and mine.flags.f_contiguous == theirs.flags.f_contiguous
        assert np.array_equal(mine, theirs) and mine.flags.writeable
    assert found['names'].tolist() == ['a', 'bcd']
    assert found['plain'] == content['plain'] and found['milestones'] == content['milestones']
    assert torch.equal(found['parameter'], content['parameter'])
    assert torch.equal(found['rng'], content['rng'])
    assert np.array_equal(found['numpy_rng'][1], content['numpy_rng'][1])


@OLD
def test_what_could_run_code_is_refused_by_name(old, tmp_path):
    path = tmp_path / 'file.pth'
    content = dict(model=dict(weight=torch.ones(1)), harm=Dangerous(str(tmp_path / 'harm')))
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError) as error:
        load_file(path)
    assert str(error.value) == (
        f"'{path}' is not read, since it asks for io.open: no weights need that, and it could run "
        'code; get weights alone (see SECURITY.md)'
    )
    assert not (tmp_path / 'harm').exists()


def test_many_names_are_counted(tmp_path):
    save([Name(f'x.y{i}') for i in range(8)], tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=r'for x\.y0, x\.y1, x\.y2, x\.y3, x\.y4 and 3 more'):
        read_checkpoint(tmp_path / 'file.pth')


METHOD = Call(
    Name('builtins.getattr'), (Name('mmengine.logging.history_buffer.HistoryBuffer'), 'update')
)
FLOATS = Call(Name('numpy.dtype'), ('f8', False, True))
UNSOUND = {
    'getattr of others': Call(Name('builtins.getattr'), (torch.ones(1), 'numpy')),
    'call of a method': Call(METHOD, ()),
    'array of objects': Call(Name('numpy.dtype'), ('O', False, True)),
    'array without numbers': Call(
        Name('numpy.core.multiarray._reconstruct'), (Name('numpy.ndarray'), (0,), 'b')
    ),
    'number without bytes': Call(Name('numpy.core.multiarray.scalar'), (FLOATS, 'x')),
    'history without numbers': Call(
        Name('mmengine.logging.history_buffer.HistoryBuffer'), (), 'newobj'
    ),
    'lists in lists': Bytes(b']' + b']' * 100_000 + b'a' * 100_000),
    'another protocol': b'bytes of protocol 4',
}


@pytest.mark.parametrize('value', UNSOUND.values(), ids=UNSOUND)
def test_what_numpy_and_mmengine_would_not_write(value, tmp_path):
    path = tmp_path / 'file.pth'
    save([value], path, protocol=4 if isinstance(value, bytes) else 2)
    with pytest.raises(CheckpointError, match=r"file\.pth' cannot be read as a checkpoint: ."):
        read_checkpoint(path)


def test_attributes_of_dicts_do_not_hide_their_methods(tmp_path):
    state_dict = torch.nn.Linear(1, 1).state_dict()
    state_dict.copy = 'hidden'
    torch.save(state_dict, tmp_path / 'file.pth')
    found = load_file(tmp_path / 'file.pth')
    assert vars(found) == dict(_metadata=state_dict._metadata) and len(found.copy()) == 2


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


def test_names_a_program(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / 'program.pt'))
    with pytest.raises(CheckpointError, match='is a TorchScript program: give a file of weights'):
        load_file(tmp_path / 'program.pt')


@pytest.mark.parametrize('content', [torch.ones(3), [1], {1: torch.ones(1)}], ids=str)
def test_wants_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / 'checkpoint.pth')
    with pytest.raises(CheckpointError, match=r"pth' holds no state dict: give a file of a model"):
        load_file(tmp_path / 'checkpoint.pth')


def test_names_a_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / 'none.pth'):
        with pytest.raises(CheckpointError, match=r"^checkpoint '.*' not found: check the path$"):
            load_file(path)


def test_torchs_advice_to_unpickle_is_not_repeated(tmp_path, monkeypatch):
    """Whatever torch refuses: here as if it knew no stand-ins."""
    torch.save(dict(args=argparse.Namespace()), tmp_path / 'file.pth')
    monkeypatch.setattr(reading, 'stand_ins_for', lambda *_: {})
    with pytest.raises(CheckpointError) as error:
        load_file(tmp_path / 'file.pth')
    assert str(error.value).endswith('cannot be read as a checkpoint: UnpicklingError')
    assert error.value.__suppress_context__


def test_the_opt_out_is_loud_each_time(tmp_path, monkeypatch):
    torch.save(dict(harm=Dangerous(str(tmp_path / 'harm'))), tmp_path / 'file.pth')
    monkeypatch.setenv('MMBIFORMER_UNPICKLE', '1')
    said = []
    monkeypatch.setattr(reading, 'print_log', lambda text, level, **_: said.append((text, level)))
    for count in (1, 2):
        load_file(tmp_path / 'file.pth')
        assert (tmp_path / 'harm').exists() and len(said) == count
        text, level = said[-1]
        assert "file.pth' is unpickled and can run any code" in text and level == logging.WARNING
    monkeypatch.setenv('MMBIFORMER_UNPICKLE', 'yes')
    with pytest.raises(CheckpointError, match="MMBIFORMER_UNPICKLE='yes' must be 1 or 0"):
        load_file(tmp_path / 'file.pth')


@pytest.mark.parametrize(('version', 'warns'), [('2.6.0', 1), ('2.10.0', 0), ('2.13.0+cpu', 0)])
def test_an_old_torch_is_said_once(version, warns, tmp_path, monkeypatch, logged):
    torch.save(dict(x=1), tmp_path / 'file.pth')
    monkeypatch.setattr(torch, '__version__', version)
    reading._warn_of_old_torch.cache_clear()
    load_file(tmp_path / 'file.pth'), load_file(tmp_path / 'file.pth')
    reading._warn_of_old_torch.cache_clear()
    assert [f'torch {version} has known holes' in x for x in logged] == [True] * warns


def test_a_torch_that_cannot_take_stand_ins_is_named(tmp_path, monkeypatch):
    torch.save(dict(x=history([1])), tmp_path / 'file.pth')
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    with pytest.raises(CheckpointError, match=r'HistoryBuffer.* torch 2\.5\.1 .* to 2\.10'):
        load_file(tmp_path / 'file.pth')

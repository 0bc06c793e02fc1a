"""Checkpoint files that do harm where they are unpickled, or where their config text is run.

The harm of each is one file or folder that it makes in a folder of its own.
"""

import io
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch


@dataclass
class Name:
    """A class or function that a pickle asks for by its name."""

    path: str


@dataclass
class Call:
    """A call that a pickle asks for, by one of its opcodes."""

    function: 'Name | Call'
    args: tuple
    form: str = 'reduce'


class _Pickler(pickle._Pickler):
    """Python's own, which writes what it is told and need not import it."""

    def save(self, obj: object, **options: object) -> None:
        if isinstance(obj, Name):
            module, _, name = obj.path.rpartition('.')
            if self.proto >= 4:
                super().save(module)
                super().save(name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(b'c' + f'{module}\n{name}\n'.encode())
        elif isinstance(obj, Call):
            self._save_call(obj)
        elif isinstance(obj, Bytes):
            self.write(obj.opcodes)
        else:
            super().save(obj, **options)

    def _save_call(self, call: Call) -> None:
        if call.form == 'inst':
            module, _, name = call.function.path.rpartition('.')
            self.write(pickle.MARK)
            for arg in call.args:
                self.save(arg)
            self.write(b'i' + f'{module}\n{name}\n'.encode())
        elif call.form == 'obj':
            self.write(pickle.MARK)
            for arg in (call.function, *call.args):
                self.save(arg)
            self.write(pickle.OBJ)
        elif call.form == 'build':  # an object whose __setstate__ or attributes are given
            self.save(Call(call.function, ()))
            self.save({'__setstate__': call.function, 'args': call.args})
            self.write(pickle.BUILD)
        else:
            self.save(call.function)
            self.save(call.args)
            self.write(pickle.NEWOBJ if call.form == 'newobj' else pickle.REDUCE)


@dataclass
class Bytes:
    """Opcodes as they are."""

    opcodes: bytes


def _dump(content: object, file: io.BufferedIOBase, protocol: int) -> None:
    _Pickler(file, protocol).dump(content)


def save(content: object, path: Path, old: bool = False, protocol: int = 2) -> None:
    """As torch.save, for content with calls in it; ``old`` is the format of before torch 1.6."""
    torch.save(
        content,
        path,
        pickle_module=SimpleNamespace(__name__='ours', Pickler=_Pickler, dump=_dump),
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not old,
    )


def gadgets(harm: Path) -> list[Call]:
    """Calls that each make a file or a folder in the folder ``harm``, and touch nothing else."""
    source = harm.parent / 'source'
    source.touch()
    path = str(harm / 'done')
    shell, code, touch = f'touch {path}', f'open({path!r}, "w").close()', ('touch', path)
    calls = [
        (
            (shell,),
            [
                *('os.system', 'posix.system', 'os.popen', 'subprocess.getoutput'),
                *('subprocess.getstatusoutput', 'torch.utils.collect_env.run'),
            ],
        ),
        (
            (touch,),
            [
                *(
                    'subprocess.Popen',
                    'subprocess.run',
                    'subprocess.call',
                    'subprocess.check_call',
                ),
                *('subprocess.check_output', 'pty.spawn'),
            ],
        ),
        (
            (code,),
            [
                *(
                    'builtins.eval',
                    'builtins.exec',
                    '__builtin__.eval',
                    'cProfile.run',
                    'profile.run',
                ),
                *('timeit.timeit', 'trace.Trace', 'bdb.Bdb', 'code.compile_command'),
            ],
        ),
        ((code, {}), ['numpy.testing._private.utils.runstring', 'numpy.testing.runstring']),
        ((code, {}, {}), ['torch.jit.unsupported_tensor_ops.execWrapper']),
        (
            (path,),
            [
                *('os.mkdir', 'posix.mkdir', 'os.makedirs', 'os.mkfifo', 'posix.mkfifo'),
                *('logging.FileHandler', 'sqlite3.connect', '_sqlite3.connect'),
                *('mmengine.utils.mkdir_or_exist', 'mmengine.utils.path.mkdir_or_exist'),
                *('mmengine.fileio.isfile', 'shelve.open', 'dbm.dumb.open'),
                *(
                    'numpy.load',
                    'torch.load',
                    'torch.jit.load',
                    'mmengine.fileio.load',
                    'ctypes.CDLL',
                ),
                *(
                    'mmengine.config.config.Config.fromfile',
                    'importlib.import_module',
                    'runpy.run_path',
                ),
            ],
        ),
        (
            (path, 'w'),
            [
                *(
                    'builtins.open',
                    'io.open',
                    '_io.open',
                    'io.FileIO',
                    '_io.FileIO',
                    'codecs.open',
                ),
                *('gzip.open', 'bz2.open', 'lzma.open', 'gzip.GzipFile', 'bz2.BZ2File'),
                *('zipfile.ZipFile', 'tarfile.open', 'os.fdopen', 'torch.PyTorchFileWriter'),
            ],
        ),
        ((path, 65), ['os.open', 'posix.open']),
        # The last one, since it takes the source away.
        (
            (str(source), path),
            [
                *('os.symlink', 'posix.symlink', 'os.link', 'shutil.copyfile', 'shutil.copy'),
                *('shutil.copy2', 'shutil.move'),
            ],
        ),
        ((source.as_uri(), path), ['urllib.request.urlretrieve']),
        (((1,), path), ['torch.save', 'torch.serialization.save', 'mmengine.fileio.dump']),
        ((path, (1,)), ['numpy.savetxt', 'numpy.save', 'numpy.savez']),
        ((path, 'uint8', 'w+', 0, (1,)), ['numpy.memmap']),
        (('x', path), ['mmengine.fileio.put_text', 'mmengine.fileio.io.put_text']),
        ((f'!!python/object/apply:os.system ["{shell}"]',), ['yaml.unsafe_load', 'yaml.load']),
        ((pickle.dumps(0),), ['pickle.loads', '_pickle.loads', 'marshal.loads', 'dill.loads']),
    ]
    simple = [Call(Name(name), args) for args, names in calls for name in names]
    history = Name('mmengine.logging.history_buffer.HistoryBuffer')
    get = Name('builtins.getattr')
    function = Call(get, (Call(get, (history, 'update')), '__globals__'))
    return [
        *simple,
        Call(Call(get, (Name('os'), 'system')), (shell,)),
        Call(Call(get, (function, 'get')), ('__builtins__',)),
        Call(Call(Name('functools.partial'), (Name('os.system'), shell)), ()),
        Call(Call(Name('operator.methodcaller'), ('system', shell)), (Name('os.path'),)),
        Call(Name('builtins.map'), (Name('os.system'), [shell])),
        Call(Name('torch._tensor._rebuild_from_type_v2'), (Name('os.mkdir'), int, (path,), {})),
        Call(Name('collections.Counter'), (Call(Name('os.mkdir'), (path,)),)),
        Call(Name('types.FunctionType'), (Name('builtins.print'), {})),
    ]


def config_texts(harm: Path) -> list[str]:
    """Config files that make a file or a folder in the folder ``harm``."""
    path = str(harm / 'done')
    script = harm.parent / 'config_of_hostile_file.py'
    script.write_text(f'open({path!r}, "w").close()\n')
    model = f'model = dict(type="os.mkdir", path={path!r})\n'
    return [
        f'open({path!r}, "w").close()\n',
        f'import os\nos.system("touch {path}")\n',
        f'gpu_ids = range(0, __import__("os").mkdir({path!r}) or 1)\n',
        f'gpu_ids = [0]\n__import__("os").mkdir({path!r})\n',
        f'gpu_ids = [0] + [open({path!r}, "w")]\n',
        f'_base_ = {str(script)!r}\n',
        f'_base_ = [{str(script)!r}]\ngpu_ids = range(0, 1)\n',
        f'custom_imports = dict(imports=["{script.stem}"])\n',
        f'x = [y for y in [open({path!r}, "w")]]\n',
        f'class X:\n    y = open({path!r}, "w")\n',
        f'def f(x=open({path!r}, "w")): pass\n',
        model,
        f'model = dict(type="builtins.open", file={path!r}, mode="w")\n',
        '{{' + f'$NO_SUCH:open({path!r}, "w")' + '}}\n',
        f'from mmengine.config import read_base\nwith read_base():\n    open({path!r}, "w")\n',
    ]


def _repeated_storage() -> Call:
    """A tensor of 80 GB that one stored number is said to fill."""
    one = torch.ones(1)._typed_storage()
    name = Name('torch._utils._rebuild_tensor_v2')
    return Call(name, (one, 0, (20_000, 1_000_000), (0, 0), False, {}))


def _beyond(size: int) -> Call:
    name = Name('torch._utils._rebuild_tensor_v2')
    return Call(name, (torch.ones(2)._typed_storage(), 0, (size,), (1,), False, {}))


def _missing_storage(numel: int, old: bool) -> Bytes:
    """Asks for numbers that the file does not have."""
    head = b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n'
    number = pickle.dumps(numel, 2)[2:-1]
    key = b'X\x03\x00\x00\x00777X\x03\x00\x00\x00cpu' + number + (b'N' if old else b'')
    return Bytes(head + key + b'tQK\x00' + number + b'\x85K\x01\x85\x89}tR')


def oversizes(number: int, old: bool) -> list[object]:
    """Values that claim memory which the file does not hold; ``number`` is how much of it."""
    array = Call(Name('numpy.core.multiarray._reconstruct'), (Name('numpy.ndarray'), (0,), 'b'))
    kind = Call(Name('numpy.dtype'), ('f8', False, True))
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    return [
        _repeated_storage(),
        _beyond(number),
        _missing_storage(number, old),
        Call(Name('builtins.bytearray'), (number,)),
        Call(Name('torch.Tensor'), (number,)),
        Call(Name('torch.FloatTensor'), (number,)),
        Call(Name('numpy.ndarray'), ((number,),)),
        Call(Name('numpy.zeros'), (number,)),
        Call(Name('numpy.core.multiarray._reconstruct'), (Name('numpy.ndarray'), (number,), 'd')),
        Call(Name('builtins.range'), (number,)),
        Call(Name('torch._utils._rebuild_sparse_tensor'), (Name('torch.sparse_coo'), (number,))),
        Call(
            Name('numpy.core.multiarray.scalar'), (kind, Call(Name('builtins.bytes'), (number,)))
        ),
        Call(array, ()),
        Bytes(b']' + b']' * 100_000 + b'a' * 100_000),
    ]


def zip_bombs(path: Path, kind: int) -> None:
    """Change a checkpoint's archive so that it expands, in one of four ways."""
    with zipfile.ZipFile(path) as archive:
        members = {x.filename: archive.read(x) for x in archive.infolist()}
    folder = next(iter(members)).partition('/')[0]
    if kind % 4 == 0:  # a pickle of zeros
        members[f'{folder}/data.pkl'] = bytes(2**27)
    elif kind % 4 == 1:  # another storage
        members[f'{folder}/data/999'] = bytes(2**27)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            stored = zipfile.ZIP_STORED if kind % 4 > 1 else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, stored)
        if kind % 4 == 2:  # a member that is many at once
            info = next(x for x in archive.filelist if x.filename.endswith('data.pkl'))
            for i in range(2000):
                archive.filelist.append(_copy(info, f'{folder}/data/{1000 + i}'))
        elif kind % 4 == 3:  # two of a name
            archive.writestr(f'{folder}/DATA.pkl', pickle.dumps({}, 2))


def _copy(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    other = zipfile.ZipInfo(name)
    for key in ('header_offset', 'compress_size', 'file_size', 'CRC', 'compress_type'):
        setattr(other, key, getattr(info, key))
    return other


PLACES = ('state_dict', 'meta', 'message_hub', 'optimizer', 'param_schedulers', 'anything')


def _put(content: dict, value: object, place: str) -> object:
    """The content with the value in it, or the value in its place."""
    content = {key: dict(x) if isinstance(x, dict) else x for key, x in content.items()}
    if place == 'whole':
        return value
    if place == 'anything':
        content['anything'] = [(value,)]
    elif place == 'param_schedulers':
        content[place] = [{'step': value}]
    else:
        content[place] = {**content[place], 'first': value}
    return content


def hostile_files(
    content: dict, folder: Path, harm: Path, count: int, seed: int = 0
) -> Iterator[tuple[str, Path]]:
    """Write ``count`` files one after the other: what each is, and its path, the same for all.

    Args:
        content (dict): A checkpoint that could be resumed, which the harm is put into.
        folder (Path): Where the file goes.
        harm (Path): A folder, empty as long as nothing is run.
        count (int): How many; three in five are gadgets.
        seed (int): Of the choice.
    """
    rng = random.Random(seed)
    calls, texts = gadgets(harm), config_texts(harm)
    kinds: list[Callable[[int], str]] = []
    path = folder / 'hostile.pth'

    def gadget(i: int) -> str:
        call, place = calls[i % len(calls)], rng.choice((*PLACES, 'whole'))
        old, protocol = rng.random() < 0.3, rng.choice((2, 2, 2, 3, 4))
        form = rng.choice(('reduce', 'reduce', 'newobj', 'inst', 'obj', 'build'))
        if isinstance(call.function, Call):
            form = 'reduce'
        save(_put(content, Call(call.function, call.args, form), place), path, old, protocol)
        return f'{call.function} by {form} in {place}, old={old}, protocol {protocol}'

    def text(i: int) -> str:
        text = texts[i % len(texts)]
        changed = _put(content, text, 'anything')
        for key in ('cfg', 'config'):
            changed['meta'][key] = text
        if isinstance(changed['message_hub'].get('runtime_info'), dict):
            hub = changed['message_hub']
            hub['runtime_info'] = {**hub['runtime_info'], 'cfg': text}
            if i % 2:
                changed['message_hub'] = {**hub, 'runtime_info': {}}
        save(changed, path, old=i % 3 == 0)
        return f'config text {text!r}'

    def oversize(i: int) -> str:
        old = rng.random() < 0.3
        values = oversizes(rng.choice((10**10, 10**12, 10**15, 2**62)), old)
        value, place = values[i % len(values)], rng.choice(PLACES)
        save(_put(content, value, place), path, old)
        return f'{str(value)[:80]} in {place}, old={old}'

    def bomb(i: int) -> str:
        save(content, path)
        zip_bombs(path, i)
        return f'zip bomb {i % 4}'

    kinds = [gadget, gadget, gadget, text, (oversize, bomb)]
    for i in range(count):
        kind = kinds[i % len(kinds)]
        if isinstance(kind, tuple):
            kind = kind[(i // len(kinds)) % len(kind)]
        path.unlink(missing_ok=True)
        yield kind(i // len(kinds)), path

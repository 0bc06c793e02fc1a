"""What a part of a config said when it could not be built, with the part's path, in one line."""

import linecache
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from mmengine.config import Config
from mmengine.registry import build_functions
from mmengine.runner import Runner, runner

from mmbiformer.errors import UserError

_OWN = Path(__file__).parents[1]
_SHOWN = 300  # characters of a reason: mmengine prints whole parts of the config


def explain(error: BaseException) -> UserError | None:
    """The error that a user can mend, if this one came of building a part of a config.

    mmengine's functions that build are in the traceback then, with the part that they build and,
    further out, the Runner with its config.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, UserError) or not any(map(_builds, frames)):
        return None
    part = next((x for x in map(_part, reversed(frames)) if x is not None), {})
    cfg = next((x for x in map(_config, frames) if x is not None), {})
    path = next(_paths(cfg, part), '')
    kind = part.get('type', '')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    place = f'{path} ({name})' if path and name else path or name or 'the config'
    return UserError(f'{place} cannot be built: {_reason(error)}')


def _builds(frame: FrameType) -> bool:
    """Whether a frame of a traceback is of mmengine's functions that build."""
    code = frame.f_code
    if code.co_filename == build_functions.__file__:
        return True
    names = ('__init__', 'from_cfg', '_init_model_weights')
    return code.co_filename == runner.__file__ and (
        code.co_name in names or code.co_name.startswith('build_')
    )


def _part(frame: FrameType) -> Mapping | None:
    """The part of a config that a frame builds: the first dict among its arguments."""
    code = frame.f_code
    if not _builds(frame) or code.co_name in ('__init__', 'from_cfg'):
        return None
    arguments = [frame.f_locals.get(x) for x in code.co_varnames[: code.co_argcount]]
    return next((x for x in arguments if isinstance(x, Mapping)), None)


def _config(frame: FrameType) -> Mapping | None:
    """The whole config, where a frame is of the Runner."""
    own = frame.f_locals.get('self')
    cfg = getattr(own, 'cfg', None) if isinstance(own, Runner) else None
    return cfg if isinstance(cfg, Config) else None


def _paths(node: object, part: Mapping, path: str = '') -> Iterator[str]:
    """Where a config has a part, to which what builds it may have added keys."""
    if isinstance(node, Mapping | Config):
        own = dict(node.items())
        if path and own and all(key in part and part[key] == x for key, x in own.items()):
            yield path
        items = own.items()
    elif isinstance(node, Sequence) and not isinstance(node, str):
        items = enumerate(node)
    else:
        return
    for key, child in items:
        yield from _paths(child, part, f'{path}.{key}' if path else str(key))


def _reason(error: BaseException) -> str:
    """What an error says, and where; of one that says nothing, the line of source."""
    *_, (frame, number) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    text = str(error).strip() or linecache.getline(file, number).strip() or 'it says nothing'
    if isinstance(error, KeyError):
        text = f'it lacks the key {text}'
    text = re.sub(r'\s*\n\s*| {3,}', ' ', text)  # two spaces may be a path's
    text = text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'
    if isinstance(error, ValueError) and _OWN in Path(file).parents:
        return text  # ours say all that there is to know
    return f'{text} ({type(error).__name__} in {file}, line {number})'

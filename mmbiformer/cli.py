"""What the command-line tools share. Imports no mm package, so that a missing one can be named."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from .errors import UserError
from .files import NO_SPACE
from .stack import require
from .stopping import Stopped, listening, requested

if TYPE_CHECKING:
    from mmengine.config import Config


# What the extra ``evaluation`` brings.
JUDGING = {
    *('matplotlib', 'prettytable', 'tqdm', 'jinja2', 'scipy', 'PIL', 'pycocotools', 'cv2'),
    *('faster_coco_eval', 'yaml'),
}

# What gloo says, by which processes on CPUs talk, when one of them is no more.
PEER_IS_GONE = re.compile(r'gloo/transport.*Connection \w+ by peer')


def run_tool(main: Callable[[], None], needs: Sequence[str] = ('mmengine', 'mmcv')) -> None:
    """Run a tool's main function; an error that a user can mend is one line and exit code 2.

    So is a signal, with 128 and its number: SIGTERM 143, SIGINT 130.

    Args:
        main (Callable): The function. It imports itself what needs more than this file, so that
            a missing package can be named.
        needs (Sequence[str]): Packages of the stack without which it cannot start; none of a tool
            that judges result files.
    """
    try:
        with listening():
            if needs:
                require(*needs)
            main()
    except Stopped as stop:
        if not stop.is_said:
            print(f'stopped by {stop.name}', file=sys.stderr)
        _leave(stop.code)
    except UserError as error:
        _stop(_one_line(error))
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        _stop(f'the disk is full: {error}: free space; a training run goes on with --resume')
    except ModuleNotFoundError as error:
        if error.name not in JUDGING:
            raise
        _stop(f'{error.name} is not installed: pip install -e ".[evaluation]"')
    except Exception as error:  # of any kind, where another process has ended before
        is_lost = PEER_IS_GONE.search(str(error))
        if requested():
            stop, reason = Stopped(requested()), f'{type(error).__name__}: {error}'
            reason = ' '.join(reason.split())[:200]
            if not is_lost:  # else the other process has said what it saved
                print(f'stopped by {stop.name}, with no checkpoint: {reason}', file=sys.stderr)
            _leave(stop.code)
        if is_lost:
            _stop('another process of this run has ended: what it printed says why')
        # The Runner builds data, optimizer and more when a run starts.
        if 'mmengine' not in sys.modules or (explained := _explain(error)) is None:
            raise
        _stop(_one_line(explained))
    import torch.distributed as dist

    # A thread of gloo's that still has to drop the tensor of the last collective when the
    # interpreter ends aborts the process, and the launcher reports a run that went well as failed.
    # Destroying the group joins these threads, except where DistributedDataParallel was used: its
    # reducer never lets go of the group. The pause then lets them drop it.
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(0.2)


def _explain(error: Exception) -> UserError | None:
    from .engine.building import explain

    return explain(error)


def _stop(message: str) -> NoReturn:
    print(f'error: {message}', file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """End with an exit code, whatever threads and processes of a group are at."""
    dist = sys.modules.get('torch.distributed')
    if dist and dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _one_line(error: UserError) -> str:
    """The message; torch puts a traceback before that of a process that loads data."""
    text = str(error)
    if text.startswith('Caught UserError in DataLoader worker'):
        text = text.rpartition(f'{UserError.__module__}.{UserError.__qualname__}: ')[2]
    # Within a line spaces stay, which paths may have.
    return ' '.join(line.strip() for line in text.splitlines() if line.strip())


def tool_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the config and the options that training and testing share."""
    from .engine.options import OptionsAction

    parser = tool_parser(description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument('--data-root', help="folder of the data, instead of the config's")
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, help='override the config: key=value'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def parse_run(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, 'Config']:
    """The options of a parser made by :func:`run_parser`, and the config that they describe."""
    args = parser.parse_args()
    # Launchers may pass the local rank as an option, and mmengine reads the variable.
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from .engine import load_config

    options = dict(work_dir=args.work_dir, data_root=args.data_root, cfg_options=args.cfg_options)
    return args, load_config(args.config, **options)

"""The newest checkpoint of a run cut off at random, or with a bit flipped, again and again.

python tests/helpers/damages.py --damages 1000

Each time the newest must be passed over by name and the one before it taken.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tiny_runs import tiny_run

from mmbiformer.checkpoints import find_newest
from mmbiformer.checkpoints.manifests import manifest_of


def cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flip_a_bit(content: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(content)
    flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def torture(folder: Path, damages: int, seed: int) -> int:
    """Damage the newest of two checkpoints so many times in either way.

    Args:
        folder (Path): Where a small run is trained.
        damages (int): How many times it is cut off, and how many times a bit is flipped.
        seed (int): Of the places.

    Returns:
        int: How often a flipped bit was not seen where the checkpoint had no manifest.
    """
    rng = random.Random(seed)
    tiny_run(folder, epochs=2, save_best=None).train()
    newest = folder / 'epoch_2.pth'
    content = newest.read_bytes()
    assert find_newest(folder) == (newest, [])
    for damage in (cut_off, flip_a_bit):
        for number in range(damages):
            newest.write_bytes(damage(content, rng))
            taken, passed_over = find_newest(folder)
            what = f'{damage.__name__}, number {number} of seed {seed}: {taken}, {passed_over}'
            assert taken.name == 'epoch_1.pth', what
            assert [x.split()[0] for x in passed_over] == ['epoch_2.pth'], what
    newest.write_bytes(content)
    assert find_newest(folder) == (newest, [])
    # Without a manifest not every bit is watched over, but nothing may come to a traceback.
    manifest_of(newest).unlink()
    outcomes = Counter()
    for number in range(damages):
        newest.write_bytes(flip_a_bit(content, rng))
        taken, passed_over = find_newest(folder)
        assert len(passed_over) == (taken != newest), (number, passed_over)
        outcomes[taken.name] += 1
    assert outcomes['epoch_1.pth'] > damages / 2, outcomes
    return outcomes['epoch_2.pth']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--damages', type=int, default=1000, help='of either kind')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unseen = torture(Path(folder) / 'run', args.damages, args.seed)
    print(
        f'{args.damages} cut off and {args.damages} with a flipped bit: all were passed over; '
        f'of as many without a manifest {unseen} were not seen'
    )


if __name__ == '__main__':
    sys.exit(main())

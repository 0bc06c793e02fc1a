"""mmengine reads checkpoints by this package, whichever of the two is imported first."""

import subprocess
import sys

import pytest

SCHEMES = """
import sys
from mmengine.runner import CheckpointLoader
loaders = {x.__module__ for x in CheckpointLoader._schemes.values()}
assert loaders == {'mmbiformer.loading'}, loaders
assert not any(type(x).__module__ == 'mmbiformer.loading' for x in sys.meta_path)
"""


@pytest.mark.parametrize(
    'first',
    [
        'import sys, mmbiformer; assert "mmengine" not in sys.modules',
        'import mmengine.runner, mmbiformer',
    ],
)
def test_the_loader_is_placed_with_the_package(first):
    subprocess.run([sys.executable, '-W', 'ignore', '-c', first + SCHEMES], check=True)

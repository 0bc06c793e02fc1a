"""Settings shared by all tests."""

import os
from collections.abc import Callable

import torch
from mmengine.config import utils as config_utils
from yapf.yapflib import yapf_api

# Triton's kernels run in its interpreter where there is no GPU; read when Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')


def remember(function: Callable) -> Callable:
    """The function, which computes each result once a process."""
    results = {}

    def remembering(*args, **options):
        key = repr((args, options))
        if key not in results:
            results[key] = function(*args, **options)
        return results[key]

    return remembering


# Half of the time of a run of few steps goes here: mmengine formats the config of a run five
# times, and reads all metafiles of a package for each config that it takes from there.
yapf_api.FormatCode = remember(yapf_api.FormatCode)
config_utils._get_cfg_metainfo = remember(config_utils._get_cfg_metainfo)


def pytest_configure(config) -> None:
    # Two workers on two cores: more threads would only get in each other's way.
    torch.set_num_threads(1)

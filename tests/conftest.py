"""Settings shared by all tests."""

import os

import torch

# Triton's kernels run in its interpreter where there is no GPU; read when Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')


def pytest_configure(config) -> None:
    # Two workers on two cores: more threads would only get in each other's way.
    torch.set_num_threads(1)

"""Settings shared by all tests."""

import torch


def pytest_configure(config) -> None:
    # Two workers on two cores: more threads would only get in each other's way.
    torch.set_num_threads(1)

"""What every test shares."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two cores are shared by many runs: more threads only make the tests slower."""
    torch.set_num_threads(1)

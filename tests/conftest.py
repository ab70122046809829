"""What every test shares."""

import os
from pathlib import Path

# First: whoever first writes Optional[Union[float, int]] decides, for the whole process, how typing orders the same
# union in Trainer's arguments, and so whether `--trainer.limit_train_batches 1` is one batch or all of them.
import lightning.pytorch  # noqa: F401
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two cores are shared by many runs: more threads only make the tests slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets (UMD_SHARED_DATA, else ../shared/data beside the repository)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UMD_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found: no folder {folder} (set UMD_SHARED_DATA)")
    return folder

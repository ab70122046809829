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


def trained(folder: Path, *configs: str, size: int = 24) -> Path:
    """The run folder of a training of one step with tiny encoders, on phantom data of so many studies."""
    from tests.configs.test_configs import fit  # the command line: not for tests that do without

    last = fit(folder / "runs", list(configs), f"--data.root={folder / 'data'}", f"--data.size={size}")
    return last.parents[1]


@pytest.fixture(scope="session")
def classifier_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `VQAClassifier`; as with all of these, its data lie in `data/` beside `runs/`."""
    return trained(tmp_path_factory.mktemp("classifier"), "vqa.yaml")


@pytest.fixture(scope="session")
def generator_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `VQAGenerator`."""
    return trained(tmp_path_factory.mktemp("generator"), "vqa_generation.yaml")


@pytest.fixture(scope="session")
def classification_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `Classification`."""
    return trained(tmp_path_factory.mktemp("classification"), "classification.yaml")


@pytest.fixture(scope="session")
def retrieval_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `Retrieval`."""
    return trained(tmp_path_factory.mktemp("retrieval"), "retrieval.yaml", size=60)


@pytest.fixture(scope="session")
def contrastive_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `ContrastivePretrain`."""
    return trained(tmp_path_factory.mktemp("contrastive"), "contrastive_pretrain.yaml")

"""Two processes that train together: they end with the same bits, and do what one process does with all the data."""

from __future__ import annotations

import os
import pickle
import socket
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, multiprocessing
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from callbacks import FiniteGuard, ModalityCoordination, PredictionWriter, WeightPerturbation
from callbacks.finite_guard import NumericalFaultError
from datamodules import PhantomCaptions, PhantomClassification, PhantomRetrieval, PhantomVQA
from datamodules.questions import VQARecord
from datamodules.records import Split
from tests.callbacks.test_callbacks_everywhere import LABELLED, STAGES
from tests.synthetic import quiet_trainer
from umd.batch import ImageTextBatch
from umd.encoders import EncoderConfig
from umd.modules.base import Stage
from umd.protocols import HasModalities

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RANKS, SIZE, STEPS = 2, 8, 20
# What of two halves is not the mean of the losses of both: each rank draws masks and negatives of its own, and
# masked tokens, real tokens and answers are averaged within a rank, which has more or fewer of them than the other.
NOT_ADDITIVE = {
    "MRPretrain umd": "masks; tokens; matching swaps images within a rank's batch",
    "MRPretrain m3ae": "masks; tokens; matching swaps images within a rank's batch",
    "MRPretrain mae": "masks",
    "MRPretrain flip": "masks",
    "TDCalib": "masks; tokens",
    "ContrastivePretrain": "masks; tokens; negatives (with equal ones it is: test_contrastive_pretrain.py)",
}
ADDITIVE = [name for name in STAGES if name not in NOT_ADDITIVE]


class OddVQA(PhantomVQA):
    """Without the last test question."""

    def records(self, split: Split) -> list[VQARecord]:
        records = super().records(split)
        return records[:-1] if split == "test" else records


def data_modules(root: Path) -> dict[str, Callable[..., LightningDataModule]]:
    settings: dict[str, Any] = {"image_size": 32, "batch_size": SIZE // RANKS}
    return {
        "captions": partial(PhantomCaptions, str(root / "captions"), size=54, **settings),
        "vqa": partial(OddVQA, str(root / "vqa"), size=54, **settings),
        "classification": partial(PhantomClassification, str(root / "classification"), size=54, **settings),
        "retrieval": partial(PhantomRetrieval, str(root / "captions"), size=54, negatives=3, **settings),
    }


def trainer_of(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:  # noqa: ANN401 - Trainer's own
    return Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy=DDPStrategy(timeout=timedelta(seconds=60)),
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "log_every_n_steps": 1,
            **settings,
        },
    )


class Watch(Callback):
    """What each rank has by itself, what it works with, and what it says; stands behind coordination."""

    def __init__(self) -> None:
        self.own: list[dict[str, float]] = []
        self.logged: list[dict[str, float]] = []
        self.gradients: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        contributions = pl_module.modality_contributions() if isinstance(pl_module, HasModalities) else {}
        self.own.append({name: float(value) for name, value in contributions.items()})
        self.gradients = [p.grad.clone() for p in pl_module.parameters() if p.grad is not None]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        ours = ("coordination/", "perturbation/")
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(ours)})


def make(name: str) -> Stage[Any]:
    torch.manual_seed(0)
    # Without dropout, which would draw otherwise for two halves than for the whole.
    build: Any = STAGES[name][0]
    encoder, *rest = build.args
    still = replace(encoder, fusion_dropout=0.0) if isinstance(encoder, EncoderConfig) else encoder
    module = build.func(still, *rest)
    assert isinstance(module, Stage)
    return module


def both_papers(name: str) -> list[Callback]:
    return [WeightPerturbation(), *([ModalityCoordination()] if name in LABELLED else [])]


def trained(
    name: str,
    trainer: Callable[..., Trainer],
    folder: Path,
    data: LightningDataModule,
    **settings: Any,  # noqa: ANN401
) -> dict[str, Any]:
    module, watch = make(name), Watch()
    fitting = trainer(folder, *both_papers(name), watch, FiniteGuard(), **settings)
    fitting.fit(module, datamodule=data)
    return {
        "weights": module.state_dict(),
        "optimizer": fitting.optimizers[0].state_dict()["state"],
        "without": [key for key, p in module.named_parameters() if p.requires_grad and p.grad is None],
        **vars(watch),
    }


class Rows(LightningDataModule):
    """Ready-made training batches, of which each rank takes its share of the rows."""

    def __init__(self, source: LightningDataModule, batches: list[ImageTextBatch]) -> None:
        super().__init__()
        self.source, self.batches = source, batches

    def setup(self, stage: str) -> None:
        self.source.setup(stage)
        # Protocols look at the object itself: from Python 3.12 on, isinstance does not ask __getattr__.
        for name in ("answers", "answer_tokens", "answer_text", "classes", "description", "tokenizer_size"):
            if hasattr(self.source, name):
                setattr(self, name, getattr(self.source, name))

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        share = [rows_of(batch, slice(rank * SIZE // ranks, (rank + 1) * SIZE // ranks)) for batch in self.batches]
        return DataLoader(share, batch_size=None)  # type: ignore[arg-type] # a list does for a Dataset


def rows_of(batch: ImageTextBatch, rows: slice) -> ImageTextBatch:
    per_row = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "mask_token_id"}
    return replace(batch, **{name: value[rows] for name, value in per_row.items() if value is not None})


class Poisoned(Rows):
    """A sample of the last rank's second batch is nan."""

    def train_dataloader(self) -> DataLoader[Any]:
        loader = super().train_dataloader()
        batches: Any = loader.dataset
        if self.trainer is not None and self.trainer.global_rank == RANKS - 1:
            image = batches[1].image.float() / 255
            image[2] = float("nan")
            batches[1] = replace(batches[1], image=image)
        return loader


def report_of(name: str, trainer: Callable[..., Trainer], folder: Path, data: LightningDataModule) -> Any:  # noqa: ANN401
    module: Any = make(name)
    trainer(folder, PredictionWriter()).test(module, datamodule=data, verbose=False)
    return module.test_report()


def faults(folder: Path, data: LightningDataModule, batches: list[ImageTextBatch]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    settings: dict[str, Any] = {"max_epochs": 1, "use_distributed_sampler": False}
    try:
        trainer_of(folder, FiniteGuard(), **settings).fit(make("TDCalib"), datamodule=Poisoned(data, batches))
    except NumericalFaultError as error:
        found["message"] = str(error)
    module, guard = make("VQAClassifier"), FiniteGuard("skip")
    fitting = trainer_of(folder, *both_papers("VQAClassifier"), guard, **settings)
    fitting.fit(module, datamodule=Poisoned(data, batches))
    return found | {"skipped": guard.skipped, "steps": fitting.global_step, "weights": module.state_dict()}


def on_rank(rank: int, root: str, port: int) -> None:
    """All that two processes have to do; starting them takes longer than any of it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    folder, results = Path(root), dict[str, Any]()
    data = data_modules(folder)
    batches: dict[str, list[ImageTextBatch]] = pickle.loads((folder / "batches.pickle").read_bytes())
    for name, (_, kind) in STAGES.items():
        results[name] = trained(name, trainer_of, folder, data[kind](), max_steps=STEPS)
    for name in ADDITIVE:
        kind = STAGES[name][1]
        given = Rows(data[kind](), batches[kind])
        results[f"joint {name}"] = trained(
            name, trainer_of, folder, given, max_steps=3, use_distributed_sampler=False, gradient_clip_val=1.0
        )
    for name, (_, kind) in LABELLED.items():
        results[f"test {name}"] = report_of(name, trainer_of, folder / "two" / name, data[kind]())
    results["faults"] = faults(folder, data["vqa"](), batches["vqa"])
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


Results = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The folder, and what each rank found."""
    folder = tmp_path_factory.mktemp("ddp")
    batches = {}
    for kind, build in data_modules(folder).items():
        data = build(batch_size=SIZE)
        data.prepare_data()
        data.setup("fit")
        batches[kind] = [batch for batch, _ in zip(data.train_dataloader(), range(3), strict=False)]
    (folder / "batches.pickle").write_bytes(pickle.dumps(batches))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(on_rank, (str(folder), port), nprocs=RANKS)  # type: ignore[attr-defined, no-untyped-call]
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.mark.parametrize("name", STAGES)
def test_after_twenty_steps_all_ranks_hold_the_same_bits(name: str, ranks: Results) -> None:
    one, two = (result[name] for result in ranks[1])
    assert one["without"] == two["without"] == [], "every trained parameter has a gradient"
    assert len(one["logged"]) == STEPS
    # The teacher, the momentum encoders and the queue are among the weights.
    for key, value in one["weights"].items():
        assert torch.equal(value, two["weights"][key]), key
    for number, state in one["optimizer"].items():
        assert all(torch.equal(value, two["optimizer"][number][key]) for key, value in state.items())
    # Behind coordination: the factors and the noise are the same.
    assert all(torch.equal(*pair) for pair in zip(one["gradients"], two["gradients"], strict=True))
    assert one["logged"] == two["logged"]
    assert "perturbation/norm_ratio" in one["logged"][-1]
    if name in LABELLED:
        assert one["own"] != two["own"], "each rank sees samples of its own"
        for first, second, logged in zip(one["own"], two["own"], one["logged"], strict=True):
            for modality in ("vision", "language"):
                total = first[modality] + second[modality]
                assert logged[f"coordination/contribution_{modality}"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", ADDITIVE)
def test_two_ranks_do_what_one_process_does_with_both_halves(name: str, ranks: Results, tmp_path: Path) -> None:
    folder, (two, _) = ranks
    kind = STAGES[name][1]
    batches = pickle.loads((folder / "batches.pickle").read_bytes())[kind]
    given = Rows(data_modules(folder)[kind](), batches)
    one = trained(name, quiet_trainer, tmp_path, given, max_steps=3, gradient_clip_val=1.0)
    found = two[f"joint {name}"]
    for step, logged in zip(found["logged"], one["logged"], strict=True):
        assert step == pytest.approx(logged, rel=1e-3)
    for key, value in one["weights"].items():
        # A softmax does not see its keys' biases, and Adam makes steps of their gradients' rounding.
        if not key.endswith(("key.bias", "k_proj.bias")):
            assert torch.allclose(found["weights"][key], value, rtol=1e-4, atol=2e-5), key


@pytest.mark.parametrize("name", LABELLED)
def test_metrics_and_predictions_count_each_sample_of_an_odd_split_once(
    name: str, ranks: Results, tmp_path: Path
) -> None:
    folder, results = ranks
    report = report_of(name, quiet_trainer, tmp_path, data_modules(folder)[STAGES[name][1]]())
    questions = {row.get("questions") or row.get("samples") or row.get("queries") for row in report["rows"]}
    assert max(questions) % RANKS == 1, "the split is odd, and a sampler repeats one sample"
    for result in results:
        found = result[f"test {name}"]
        assert found["notes"] == report["notes"]
        pd.testing.assert_frame_equal(pd.DataFrame(found["rows"]), pd.DataFrame(report["rows"]))
    written, alone = folder / "two" / name / "predictions.csv", tmp_path / "predictions.csv"
    assert written.exists() == alone.exists() == (name != "Retrieval")
    if alone.exists():
        found, wanted = (pd.read_csv(path, keep_default_na=False) for path in (written, alone))
        pd.testing.assert_frame_equal(found, wanted, atol=2e-4)


def test_a_fault_on_one_rank_stops_or_skips_on_both(ranks: Results) -> None:
    folder, results = ranks
    one, two = (result["faults"] for result in results)
    assert one["message"] == two["message"]
    batch = pickle.loads((folder / "batches.pickle").read_bytes())["vqa"][1]
    samples = ", ".join(batch.sample_ids[SIZE // RANKS :])
    assert one["message"].startswith("step 1: on rank 1, the loss terms mim, ")
    assert f"; samples: {samples}. " in one["message"] and "on rank 0" not in one["message"]
    assert one["skipped"] == two["skipped"] == 1 and one["steps"] == two["steps"] == 3
    for key, value in one["weights"].items():
        assert torch.equal(value, two["weights"][key]) and bool(value.isfinite().all())

"""What Lightning offers and this project does not do: refused in a line, so that nothing is half done in silence."""

from __future__ import annotations

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, StochasticWeightAveraging

from umd.files import UserError


def check_trainer(trainer: Trainer) -> None:
    """Look at a trainer before it does anything.

    Raises:
        UserError: it is to do what does not work here, or would do less than it was asked for.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BatchSizeFinder):
            raise UserError(
                "BatchSizeFinder does not work here: what it finds reaches neither the schedule nor the checkpoint. "
                "Set --data.batch_size to what fits, and --trainer.accumulate_grad_batches to make up for the rest"
            )
        if isinstance(callback, StochasticWeightAveraging):
            _check_averaging(callback, trainer.max_epochs)
    if getattr(trainer.strategy, "_start_method", None) == "spawn":
        raise UserError(
            "--trainer.strategy ddp_spawn does not work here: what a run holds (its folder's lock, open logs) cannot "
            "be sent to a spawned process. Take ddp, or in a notebook ddp_notebook"
        )
    environment = trainer._accelerator_connector.cluster_environment
    wanted = trainer.num_devices * trainer.num_nodes
    if isinstance(environment, SLURMEnvironment) and environment.world_size() != wanted:
        raise UserError(
            f"Slurm runs {environment.world_size()} task(s), but {trainer.num_devices} device(s) on "
            f"{trainer.num_nodes} node(s) need one each, else the batch would be smaller than it was asked for: "
            f"srun --nodes={trainer.num_nodes} --ntasks-per-node={trainer.num_devices}"
        )


def _check_averaging(callback: StochasticWeightAveraging, epochs: int | None) -> None:
    start = callback._swa_epoch_start
    if isinstance(start, int) and epochs is not None and 0 <= epochs < start:
        raise UserError(
            f"StochasticWeightAveraging: swa_epoch_start is {start}, but the training has {epochs} epochs: the average "
            "would be of nothing"
        )

"""The learning rate in the logs: one number, as all groups of an optimizer here are constant multiples of one."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class LearningRate(Callback):
    """Logs `learning_rate`: that of the first optimizer's first group, the encoders', with which a step is made.

    Lightning's `LearningRateMonitor` has a column for each group, eight for three parts and a head, which differ by
    factors that stand in the config (`optimizer.fusion_multiplier`, `optimizer.head_multiplier`).
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Hand it to the loggers, where the training logs: `LightningModule.log` would round it to float32."""
        if not trainer.optimizers or not trainer._logger_connector.should_update_logs:
            return
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        for logger in trainer.loggers:
            logger.log_metrics({"learning_rate": rate}, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

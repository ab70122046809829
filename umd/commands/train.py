"""LightningCLI with this project's habits: run folders, links, and checkpoints that explain themselves."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

import umd.modules  # noqa: F401 - makes the short class names known to the parser
from datamodules.base import ImageTextDataModule
from umd.commands.added import ConfigFile, with_added_callbacks, with_added_loggers, with_atomic_writing
from umd.commands.arguments import add_options, add_predict_options, add_test_options, prepare
from umd.commands.callback_options import with_options
from umd.commands.early import without_checkpoint
from umd.commands.failures import explained, explained_start, interruption, misfit_of
from umd.commands.messages import hide_useless_warnings, show_messages
from umd.commands.parser_errors import parser_for
from umd.commands.refusals import check_trainer
from umd.commands.resolve import (
    find_data_from_anywhere,
    follow_the_processor,
    follow_the_seed,
    write_into_run_folder,
)
from umd.commands.short_names import learn_short_names
from umd.commands.trainer_types import read_whole_numbers_as_such
from umd.files import UserError
from umd.modules.base import Stage
from umd.protocols import HasReport, HasTemperature
from umd.run.folder import RunFolder
from umd.run.paths import check_free, run_folder
from umd.run.results_folder import PlannedTest, results_folder
from umd.run.settings import check_same_data, check_same_stage, differences

logger = logging.getLogger("umd")

_DESCRIPTIONS = {
    "fit": "Train a stage; a stage with a result table ends with a test of its best checkpoint.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split: a table on the terminal, as JSON and as CSV, and each answer.",
    "predict": "Write a checkpoint's answers on a split, the test split unless told, to a CSV file.",
}


class UMDCLI(LightningCLI):
    """`umd fit|validate|test|predict`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this project's own options."""
        add_options(parser)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401
        """Add what one command alone takes."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            add_predict_options(parser)
        elif subcommand == "test":
            add_test_options(parser)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, with the settings of a given checkpoint first, so that whatever the user gives wins."""
        self.given = prepare(args)
        self.restored, self.beside = self.given.restored, self.given.folder
        self.config = parser.parse_args(self.given.typed)

    def _parse_ckpt_path(self) -> None:
        """Lightning's own merging of a checkpoint's settings would overrule the user: `prepare` does it."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, settle what follows from the rest, and say what was taken from a checkpoint."""
        config = self.config[self.subcommand]
        task = str(self.subcommand)
        had_checkpoints = bool(_checkpoints_of(config.trainer.callbacks))
        if config.callback:
            config.trainer.callbacks = with_options(config.trainer.callbacks or [], config.callback)
            try:
                self._parser(self.subcommand).validate(config)
            except TypeError as error:
                options = " ".join(config.callback)
                raise UserError(f"--callback {options}: a value is of another type than its argument") from error
            config.callback = []  # what it asked for stands in the list now, which is what is saved
        self.without_checkpoints = had_checkpoints and not _checkpoints_of(config.trainer.callbacks)
        self.folder = run_folder(config.runs, config.model.class_path, config.name, task)
        if self.beside is not None:
            self.folder = self.beside if task == "fit" else self.beside / task
        if task != "fit" and not config.ckpt_path:
            raise without_checkpoint(task)
        if task in ("test", "predict") and Path(config.ckpt_path).is_file():
            self.folder = results_folder(self.folder, self._planned(task))
        self.goes_on = self.beside is not None or _requeued(self.folder, config)
        if self.restored:
            check_same_stage(self.restored, config.ckpt_path, config.model.class_path)
        if task == "fit" and self.restored:
            check_same_data(self.restored, config.ckpt_path, config.data.class_path)
        if task == "fit":
            rank_zero_only(self._check_free)()
            _replace_own_files(config.trainer.callbacks)
        config.trainer.default_root_dir = str(self.folder)
        if not self.given.own_data_seed:
            follow_the_seed(config)
        if not self.given.own_precision:
            follow_the_processor(config.trainer)
        find_data_from_anywhere(config.data)
        write_into_run_folder(config.trainer.logger, self.folder)
        self._say_what_was_restored()

    def _planned(self, task: str) -> PlannedTest:
        config = self.config[self.subcommand]
        limit = config.trainer[f"limit_{task}_batches"]
        plan = PlannedTest(
            checkpoint=Path(config.ckpt_path),
            data_class=config.data.class_path.rpartition(".")[2] if config.data else "",
            protocol=config.data.init_args.get("protocol") if config.data else None,
            # Of Lightning's two ways to say it, 1.0 is the whole split and 1 a single batch.
            partial=limit is not None and not (isinstance(limit, float) and limit == 1),
        )
        if task == "test":
            return replace(plan, controls=config.controls)
        root = config.data.init_args.get("root") if config.data else None
        root = None if root is None else Path(root).expanduser().absolute()
        return replace(plan, split=config.split, root=root, file="predictions.json")

    def _say_what_was_restored(self) -> None:
        if not self.restored:
            return
        now = self._plain_config()
        kept = ", ".join(
            f"{part} {settings['class_path']}" if part in ("model", "data") else part
            for part, settings in self.restored.items()
        )
        logger.info("from the checkpoint: %s, with their settings, tokenizer and answers", kept)
        for line in differences(self.restored, now):
            logger.info("given instead: %s", line)

    def _plain_config(self) -> dict[str, Any]:
        parser = self._parser(self.subcommand)
        # With what was set to null: a training that goes on would take the default instead.
        plain: dict[str, Any] = yaml.safe_load(parser.dump(self.config[self.subcommand], skip_none=False))
        return plain

    def _check_free(self) -> None:
        config = self.config["fit"]
        if not (self.goes_on or config.trainer.fast_dev_run):
            init_from = config.model.init_args.get("init_from")
            if init_from and not Path(init_from).is_file():
                raise UserError(f"--model.init_from: there is no file '{init_from}'")
            check_free(self.folder, overwrite=config.overwrite, init_from=init_from)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; what fails before the training has begun leaves nothing behind."""
        self.held: RunFolder | None = None
        try:
            super()._run_subcommand(subcommand)
            if self.held is not None:
                self.held.finish()
        except BaseException as error:
            if self.held is not None:
                self.held.abandon()
            if isinstance(error, SystemExit) and self.trainer.interrupted and self.trainer.training:
                logger.info("%s", interruption(self.folder))  # Ctrl-C, of which Lightning makes an exit
            path = self.config[subcommand].ckpt_path
            clear = explained(error, self.folder) or misfit_of(path, self.model, error)
            if clear is None:
                raise
            raise clear from error
        finally:
            if self.held is not None:
                self.held.release()

    def before_fit(self) -> None:
        """Refuse weights to start from that do not fit, and take hold of the run folder."""
        if isinstance(self.model, Stage) and not self.config["fit"].ckpt_path:
            self.model.check_start()
        rank_zero_only(self._hold_folder)()

    def _hold_folder(self) -> None:
        config = self.config["fit"]
        if config.trainer.fast_dev_run:
            return  # writes nothing
        replace = bool(config.overwrite) and not self.goes_on and self.folder.exists()
        self.held = RunFolder(self.folder, replace=replace, check=self._check_free)
        self.trainer.callbacks.insert(0, self.held)  # type: ignore[attr-defined]

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; what Lightning refuses then, and a missing package, is a line."""
        try:
            super().instantiate_classes()
            if self.subcommand == "predict" and isinstance(self.datamodule, ImageTextDataModule):
                self.datamodule.predict_split = self.config["predict"].split
        except (ValueError, ImportError, MisconfigurationException) as error:
            clear = explained_start(error)
            if clear is None:
                raise
            raise clear from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Make the trainer that the configs ask for, with what every run has (`umd.commands.added`)."""
        settings, command = self._get(self.config_init, "trainer"), str(self.subcommand)
        if settings.get("enable_progress_bar") is None and not sys.stderr.isatty():
            kwargs["enable_progress_bar"] = False  # a log file wants lines, not a bar
        kwargs["logger"] = with_added_loggers(command, settings.get("logger"), self.folder)
        kwargs["enable_model_summary"] = False  # ours stands among the callbacks
        given = settings.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        if command == "fit":
            kwargs["plugins"] = with_atomic_writing(settings.get("plugins"), settings.get("strategy"))
        if self.without_checkpoints or (command != "fit" and not given):
            kwargs["enable_checkpointing"] = False
        callbacks = with_added_callbacks(command, self.model, given, self._plain_config())
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        check_trainer(trainer)
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Checkpoints are read as data, never as code."""
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        kwargs["weights_only"] = True
        stage = type(self.model).__name__
        if subcommand == "test" and not is_overridden("test_step", self.model):
            raise UserError(f"{stage} has no test: fine-tune from it first (--model.init_from), and test that")
        if subcommand == "predict" and not is_overridden("predict_step", self.model):
            raise UserError(f"{stage} answers nothing: fine-tune from it first (--model.init_from)")
        if subcommand == "test" and isinstance(self.model, HasReport):
            kwargs["verbose"] = False  # the module's own table says it all
        return kwargs

    def after_fit(self) -> None:
        """Test the best checkpoint, once, where the module has a result table and the data a test split."""
        config = self.config["fit"]
        logger.info("the run's settings, logs and checkpoints are in %s", self.folder)
        model: LightningModule = self.model
        if not (config.test_after_fit and isinstance(model, HasReport)) or config.trainer.fast_dev_run:
            return
        if self.trainer.interrupted:
            return
        if not getattr(self.datamodule, "has_test_split", True):
            logger.info("the data has no test split: no test")
            return
        checkpoint = self.trainer.checkpoint_callback
        best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
        averaged = self.folder / "checkpoints" / "averaged.ckpt"
        if any(_has_averaged(callback) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            if isinstance(model, HasTemperature):
                model.temperature = 1.0  # the average was not validated
            self.trainer.save_checkpoint(averaged)  # Lightning leaves the average in memory alone
            best = str(averaged)
            logger.info("the test is of the averaged weights, which are in %s", averaged)
        if not self.trainer.global_step:
            logger.warning("not one step was trained: the test is of the weights as they were at the start")
        elif not best:
            logger.warning("no validation has chosen a best checkpoint: the test is of the weights at the end")
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False, weights_only=True
        )


def _has_averaged(callback: Callback) -> bool:
    """Whether the weights are now those that stochastic weight averaging has found."""
    return isinstance(callback, StochasticWeightAveraging) and callback.n_averaged is not None


def _requeued(folder: Path, config: Any) -> bool:  # noqa: ANN401 - a namespace
    """Whether Slurm started this training again: Lightning then goes on from the checkpoint that it left."""
    return not config.get("ckpt_path") and SLURMEnvironment.detect() and any(folder.glob("hpc_ckpt_*.ckpt"))


def _replace_own_files(callbacks: Any) -> None:  # noqa: ANN401 - namespaces, as the parser leaves them
    """Let a training that goes on replace what it wrote after the checkpoint: no `best-v1.ckpt` beside `best.ckpt`."""
    for callback in _checkpoints_of(callbacks):
        settings = callback.get("init_args") or {}
        if settings.get("save_top_k") == 1:
            settings["enable_version_counter"] = False


def _checkpoints_of(callbacks: Any) -> list[Any]:  # noqa: ANN401
    return [callback for callback in callbacks or [] if callback.class_path.endswith(".ModelCheckpoint")]


def cli_for(command: str) -> type[UMDCLI]:
    """The command line of `umd <command>`: making the parsers of the others too takes half a second."""
    only = {command: UMDCLI.subcommands()[command]}
    return type("CLI", (UMDCLI,), {"subcommands": staticmethod(lambda: only)})


def run(arguments: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    show_messages()
    learn_short_names()
    hide_useless_warnings()
    read_whole_numbers_as_such()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    command = arguments[0]
    cli_for(command)(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_callback=ConfigFile,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={
            command: {
                "usage": f"umd {command} --config FILE [--config FILE ...] [--KEY VALUE ...]",
                "description": _DESCRIPTIONS[command],
            }
        },
        parser_class=parser_for(command),
        trainer_defaults={"log_every_n_steps": 10},
        args=arguments,
    )

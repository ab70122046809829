"""LightningCLI with this project's habits: run folders, links, and checkpoints that explain themselves."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

import datamodules  # noqa: F401 - makes the short class names known to the parser
import umd.modules  # noqa: F401 - the same
from callbacks import FiniteGuard, PredictionWriter, ProgressFile, ResultsTable
from umd.checkpoints import SETTINGS_KEY
from umd.commands.callback_options import with_options
from umd.commands.failures import explained, interruption
from umd.commands.messages import show_messages
from umd.commands.parser_errors import parser_for
from umd.encoders import tokenizer_for
from umd.files import UserError
from umd.protocols import HasReport
from umd.run.checkpoint_io import AtomicCheckpointIO
from umd.run.folder import RunFolder
from umd.run.paths import check_free, folder_of, run_folder
from umd.run.requeue import RequeueBetweenSteps
from umd.run.resume import ExactResume
from umd.run.settings import check_classes, check_same_stage, differences, misfit, recipe

logger = logging.getLogger("umd")

# Set from the model's settings, never by hand.
_LINKED = ("tokenizer", "image_size")
_SAY_WHICH_MODEL = ("--ckpt_path", "--config", "-c", "--model", "--model.help", "--data.help", "--help", "-h")


_USELESS_WARNINGS = (
    r".*LeafSpec.*is deprecated",  # between lightning and torch
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the teacher, always
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # none is needed to test
    r"It is recommended to use `self.log\(.*sync_dist=True",  # the metrics' values are of all ranks already
    r"Checkpoint directory .* exists and is not empty",  # a training that goes on
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",  # `after_fit` says what follows from it
)


_DESCRIPTIONS = {
    "fit": "Train a stage; a stage with a result table ends with a test of its best checkpoint.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split: a table on the terminal, as JSON and as CSV, and each answer.",
    "predict": "Write a checkpoint's answers on the test split to a CSV file.",
}


class _TrainingNote(Callback):
    """Writes the trainer's settings into each checkpoint, so that a training can go on from it alone."""

    def __init__(self, config: dict[str, Any]) -> None:
        # The folder is where the checkpoint lies; loggers follow it.
        trainer = {key: value for key, value in config["trainer"].items() if key not in ("default_root_dir", "logger")}
        self.note = {"trainer": trainer, "seed_everything": config["seed_everything"]}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the note."""
        checkpoint.setdefault(SETTINGS_KEY, {}).update(self.note)


class UMDCLI(LightningCLI):
    """`umd fit|validate|test|predict`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name and folder, and the links that spare typing things twice."""
        parser.add_argument("--name", default="default", help="name of the run; its folder is RUNS/STAGE/NAME")
        parser.add_argument("--runs", default="runs", help="folder of all runs")
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="let a training replace an earlier one of that name"
        )
        parser.add_argument(
            "--callback",
            nargs="+",
            type=str,
            default=[],
            metavar="NAME=off|NAME.ARGUMENT=VALUE",
            help="change one of the configs' callbacks: leave it out, or set an argument",
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="end a training with a test of its best checkpoint",
        )
        parser.link_arguments(
            tuple(f"model.init_args.encoder.text{part}" for part in ("", "_weights", "_options")),
            "data.init_args.tokenizer",
            compute_fn=tokenizer_for,
        )
        parser.link_arguments("model.init_args.encoder.image_size", "data.init_args.image_size")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, with the settings of a given checkpoint first, so that whatever the user gives wins."""
        self.restored: dict[str, Any] = {}
        if args[0] != "fit" and all(argument.partition("=")[0] not in _SAY_WHICH_MODEL for argument in args[1:]):
            raise _without_checkpoint(args[0])
        for key in _LINKED:
            if any(_value_of(f"--data.{part}{key}", args) is not None for part in ("", "init_args.")):
                raise UserError(f"--data.{key} follows from the model's encoder: set --model.encoder instead")
        args = [args[0], *_nulls_as_config(args[1:])]
        path = _value_of("--ckpt_path", args)
        if path is not None and path not in ("best", "last", "hpc", "registry"):
            self.restored = recipe(path, training=args[0] == "fit")
            check_classes(self.restored, path, _typed(args))
            given = dict(self.restored)
            if "data" in given:
                settings = given["data"]["init_args"]
                own = {key: value for key, value in settings.items() if key not in _LINKED}
                given["data"] = given["data"] | {"init_args": own}
            args = [args[0], f"--config={json.dumps(given)}", *args[1:]]
        moved = any(_value_of(option, args) is not None for option in ("--name", "--runs"))
        self.beside = folder_of(path) if self.restored and path is not None and not moved else None
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Lightning's own merging of a checkpoint's settings would overrule the user: `parse_arguments` does it."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder and say what was taken from a checkpoint."""
        config = self.config[self.subcommand]
        task = str(self.subcommand)
        if config.callback:
            config.trainer.callbacks = with_options(config.trainer.callbacks or [], config.callback)
            try:
                self._parser(self.subcommand).validate(config)
            except TypeError as error:
                options = " ".join(config.callback)
                raise UserError(f"--callback {options}: a value is of another type than its argument") from error
            config.callback = []  # what it asked for stands in the list now, which is what is saved
        self.folder = run_folder(config.runs, config.model.class_path, config.name, task)
        if self.beside is not None:
            self.folder = self.beside if task == "fit" else self.beside / task
        if task != "fit" and not config.ckpt_path:
            raise _without_checkpoint(task)
        self.goes_on = self.beside is not None or _requeued(self.folder, config)
        if self.restored:
            check_same_stage(self.restored, config.ckpt_path, config.model.class_path)
        if task == "fit":
            rank_zero_only(self._check_free)()
            _replace_own_files(config.trainer.callbacks)
        config.trainer.default_root_dir = str(self.folder)
        self._say_what_was_restored()

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
        plain: dict[str, Any] = yaml.safe_load(parser.dump(self.config[self.subcommand]))
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
            clear = explained(error, self.folder) or self._misfit(error)
            if clear is None:
                raise
            raise clear from error
        finally:
            if self.held is not None:
                self.held.release()

    def _misfit(self, error: BaseException) -> UserError | None:
        """What of a checkpoint does not fit, where that is what torch or Lightning complained of."""
        path = self.config[self.subcommand].ckpt_path
        if path is None or not Path(path).is_file():
            return None
        if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
            found = misfit(path, self.model.state_dict())
            return UserError(f"the weights in '{path}' do not fit the model's settings: {found}")
        if isinstance(error, ValueError) and "loaded state dict" in str(error):
            return UserError(
                f"the optimizer state in '{path}' does not fit: what is trained, or in which groups, has changed. "
                f"To start from its weights: --model.init_from {path}"
            )
        return None

    def before_fit(self) -> None:
        """Take hold of the run folder."""
        rank_zero_only(self._hold_folder)()

    def _hold_folder(self) -> None:
        config = self.config["fit"]
        if config.trainer.fast_dev_run:
            return  # writes nothing
        replace = bool(config.overwrite) and not self.goes_on and self.folder.exists()
        self.held = RunFolder(self.folder, replace=replace, check=self._check_free)
        self.trainer.callbacks.insert(0, self.held)  # type: ignore[attr-defined]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Add what every run has: both loggers, the result table where the module has one, the CSV of answers."""
        settings = self._get(self.config_init, "trainer")
        if settings.get("enable_progress_bar") is None and not sys.stderr.isatty():
            kwargs["enable_progress_bar"] = False  # a log file wants lines, not a bar
        if settings.get("logger") in (None, True) and self.subcommand != "fit":
            kwargs["logger"] = False
        elif settings.get("logger") in (None, True):
            folder = str(self.folder)
            kwargs["logger"] = [
                TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
                CSVLogger(folder, name="csv"),
            ]
        always: list[Callback] = []
        if self.subcommand == "fit":
            always = [_TrainingNote(self._plain_config()), ExactResume(), RequeueBetweenSteps(), ProgressFile()]
            kwargs["plugins"] = _with_atomic_writing(settings.get("plugins"), settings.get("strategy"))
        if self.subcommand != "fit" and not settings.get("callbacks"):
            kwargs["enable_checkpointing"] = False
        if isinstance(self.model, HasReport):
            always.append(ResultsTable())
        given = settings.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        if self.subcommand == "fit" and not any(isinstance(callback, FiniteGuard) for callback in given):
            always.append(FiniteGuard())
        answers = self.subcommand == "predict" or isinstance(self.model, HasReport)
        if answers and not any(isinstance(callback, PredictionWriter) for callback in given):
            always.append(PredictionWriter())
        return super().instantiate_trainer(callbacks=[*given, *always], **kwargs)

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
        if not self.trainer.global_step:
            logger.warning("not one step was trained: the test is of the weights as they were at the start")
        elif not best:
            logger.warning("no validation has chosen a best checkpoint: the test is of the weights at the end")
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False, weights_only=True
        )


def _without_checkpoint(command: str) -> UserError:
    return UserError(f"umd {command} needs a trained model: --ckpt_path FILE")


def _requeued(folder: Path, config: Any) -> bool:  # noqa: ANN401 - a namespace
    """Whether Slurm started this training again: Lightning then goes on from the checkpoint that it left."""
    return not config.get("ckpt_path") and SLURMEnvironment.detect() and any(folder.glob("hpc_ckpt_*.ckpt"))


def _replace_own_files(callbacks: Any) -> None:  # noqa: ANN401 - namespaces, as the parser leaves them
    """Let a training that goes on replace what it wrote after the checkpoint: no `best-v1.ckpt` beside `best.ckpt`."""
    for callback in callbacks or []:
        settings = callback.get("init_args") or {}
        if callback.class_path.endswith(".ModelCheckpoint") and settings.get("save_top_k") == 1:
            settings["enable_version_counter"] = False


def _with_atomic_writing(plugins: Any, strategy: Any) -> list[Any]:  # noqa: ANN401 - Lightning's own are unions
    """The plugins, and one that writes checkpoints atomically where the user has none that writes them."""
    given = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    writes = [*given, getattr(strategy, "_checkpoint_io", None)]
    return given if any(isinstance(plugin, CheckpointIO) for plugin in writes) else [*given, AtomicCheckpointIO()]


def _nulls_as_config(arguments: list[str]) -> list[str]:
    """Rewrite `--model.encoder.text_weights null` as a config, where null means null.

    On the command line, jsonargparse turns null two levels below a class into the text "None".
    """
    rewritten: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        part, *path = key.removeprefix("--").split(".")
        nested = key.startswith("--") and part in ("model", "data") and len(path) > 1
        if nested and not equals:
            value = next(rest, "")
        if nested and value == "null":
            content: Any = None
            for name in reversed(path[1:] if path[0] == "init_args" else path):
                content = {name: content}
            rewritten.append(f"--config={json.dumps({part: {'init_args': content}})}")
        else:
            rewritten += [argument] if equals or not nested else [argument, value]
    return rewritten


def _typed(arguments: list[str]) -> str:
    """All that the user gave: the command line, and the files that it names as configs."""
    paths = [value for option, value in pairwise(arguments) if option in ("--config", "-c")]
    paths += [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]
    files = [Path(path).read_text() for path in paths if not path.startswith("{") and Path(path).is_file()]
    return "\n".join([*arguments, *files])


def _value_of(option: str, arguments: list[str]) -> str | None:
    for place, argument in enumerate(arguments):
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return None


def run(arguments: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    show_messages()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    for message in _USELESS_WARNINGS:
        warnings.filterwarnings("ignore", message)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    UMDCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            name: {"usage": f"umd {name} --config FILE [--config FILE ...] [--KEY VALUE ...]", "description": text}
            for name, text in _DESCRIPTIONS.items()
        },
        parser_class=parser_for(arguments[0]),
        trainer_defaults={"log_every_n_steps": 10},
        args=arguments,
    )

"""What follows from all that was given, before anything is made of it. A config's values are changed in place."""

from __future__ import annotations

import inspect
import logging
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger("umd")


def follow_the_seed(config: Any) -> None:  # noqa: ANN401 - the parser's namespace
    """Draw the data's order and augmentation by the training's seed; for data that have no seed of their own."""
    arguments = config.data.init_args
    if "seed" in arguments and isinstance(config.seed_everything, int):
        arguments["seed"] = int(config.seed_everything)


def find_data_from_anywhere(data: Any) -> None:  # noqa: ANN401
    """Make the folders of a data module absolute, so that its checkpoints find them from another working directory."""
    above = Path(data.init_args.get("root") or "")  # which folders of its parts are relative to
    for name, value in data.init_args.items():
        if value is not None and name in ("root", "cache"):
            data.init_args[name] = _absolute(value)
        elif value is not None and name.endswith("_root"):
            data.init_args[name] = _absolute(str(above / Path(value).expanduser()))
        elif name == "exclude_images_of" and value:
            parts = [given.partition("=") for given in value]
            data.init_args[name] = [f"{kind}={_absolute(folder)}" if equals else kind for kind, equals, folder in parts]


def _absolute(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def write_into_run_folder(loggers: Any, folder: Path) -> None:  # noqa: ANN401
    """Have loggers that were not told where to write do so in the run folder, not in the working directory."""
    for settings in loggers if isinstance(loggers, list) else [loggers]:
        path = getattr(settings, "class_path", None)
        if path is None:
            continue
        module, _, name = path.rpartition(".")
        place = inspect.signature(getattr(import_module(module), name)).parameters.get("save_dir")
        if place is None or place.default is inspect.Parameter.empty:
            continue  # it writes nowhere, or has to be told where
        arguments = settings.init_args  # there, since `save_dir` has a default
        if arguments.get("save_dir") == place.default:
            arguments["save_dir"] = str(folder / (place.default or ""))


def follow_the_processor(trainer: Any) -> None:  # noqa: ANN401
    """Take 32 bits where a config asks for bf16-mixed and the processor has no units for it: it would take ages."""
    if trainer.precision != "bf16-mixed":
        return
    why = _no_bfloat16(str(trainer.accelerator))
    if why is not None:
        trainer.precision = "32-true"
        logger.info("precision 32-true in the place of bf16-mixed: %s (--trainer.precision bf16-mixed insists)", why)


def _no_bfloat16(accelerator: str) -> str | None:
    """Why the device that Lightning will take computes no bfloat16; None where it does, or where that is not known."""
    on_gpu = accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    if on_gpu:
        slow = not torch.cuda.is_bf16_supported(including_emulation=False)
        return f"{torch.cuda.get_device_name()} has no bfloat16 units" if slow else None
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    if on_cpu and not _cpu_has_bfloat16():
        return f"this processor ({torch.backends.cpu.get_cpu_capability()}) has no bfloat16 units"
    return None


def _cpu_has_bfloat16() -> bool:
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # On x86 that one also says yes where AVX512 imitates bfloat16.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

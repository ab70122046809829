"""How a command speaks to its user: this project's own messages, and warnings without their place in the code."""

from __future__ import annotations

import logging
import warnings

from rich.logging import RichHandler

_USELESS_WARNINGS = (
    r".*LeafSpec.*is deprecated",  # between lightning and torch
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the teacher, always
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # none is needed to test
    r"It is recommended to use `self.log\(.*sync_dist=True",  # the metrics' values are of all ranks already
    r"Checkpoint directory .* exists and is not empty",  # a training that goes on
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"`ModelCheckpoint\(monitor=.*could not find the monitored key",  # the test at the end says what follows from it
)


def show_messages() -> None:
    """Show what umd, callbacks and datamodules have to say, and the warnings of all others."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_time=False, show_path=False)]
    )
    for package in ("umd", "callbacks", "datamodules"):
        logging.getLogger(package).setLevel(logging.INFO)
    # What is said to the user is the message; where it is said from is not.
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"


def hide_useless_warnings() -> None:
    """Leave out what Lightning and torch say of a sound training, and Lightning's tips."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    for message in _USELESS_WARNINGS:
        warnings.filterwarnings("ignore", message)

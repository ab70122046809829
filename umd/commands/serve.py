"""`umd serve`: a page on this machine where a model is asked about images."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from umd import NOTICE
from umd.commands.configs import with_found_configs
from umd.commands.questions import data_arguments, without_data_options
from umd.commands.tool_parser import ToolParser
from umd.files import UserError

if TYPE_CHECKING:
    from umd.inference import Model
    from umd.web.browsing import TestQuestions

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
USUAL_PORT = 7860

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Open the page and serve it until it is interrupted."""
    given, data = check(arguments)
    with bound(given.host, given.port) as listening, tempfile.TemporaryDirectory(prefix="umd-serve-") as folder:
        keep_to_itself(Path(folder))
        from umd.commands.messages import show_messages  # only now: what follows imports torch, which takes seconds
        from umd.inference import load
        from umd.web.server import application, run

        show_messages()
        logging.getLogger("umd.inference").setLevel(logging.ERROR)  # a log is no place for what others ask
        if given.host not in LOCAL:
            logger.warning("--host %s: whoever reaches this machine can ask the model, without a password", given.host)
        model = load(given.ckpt_path, device=given.device)
        if model.settings.task == "pretraining":
            raise UserError(f"'{given.ckpt_path}' ({model.settings.stage}) has no answers yet: fine-tuning gives them")
        tests = test_questions(model, data) if data else None
        page = application(model, tests, LOCAL if given.host in LOCAL else None)
        if tests is not None:
            threading.Thread(target=tests.answer_all, daemon=True).start()
        console = Console(highlight=False)
        console.print(f"the page is at {address(listening)}  (Ctrl-C ends it)", soft_wrap=True, markup=False)
        console.print(NOTICE)
        run(page, listening)


def parser() -> ToolParser:
    """The command's options."""
    made = ToolParser(
        prog="umd serve",
        description="Open a page on this machine where a trained model is asked about images. With --data, a second "
        "tab shows the data set's test questions with the model's answers.",
        epilog=f"Options of the data set as elsewhere: --data.root FOLDER, --data.KEY VALUE. {NOTICE} Nothing is sent "
        "to anybody else; no image is kept.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--ckpt_path",
        "--model",
        required=True,
        metavar="FILE",
        help="a checkpoint, the folder of a run, or one that umd export wrote",
    )
    made.add_argument("--data", "--config", help="a data set: NAME of configs/data/NAME.yaml, a config, or a class")
    made.add_argument("--root", help="folder of the data set")
    made.add_argument(
        "--port", type=int, metavar="N", help="default: 7860 or, where that is taken, a free one; 0: a free one"
    )
    made.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone; 0.0.0.0: all that reach it"
    )
    made.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    return made


def check(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what `umd data` would be told of the data set; nothing where there is none.

    Raises:
        UserError: a file or a package is not there, the port is none, or nothing says which data set.
    """
    own, options = without_data_options(arguments)
    given = parser().parse_args(own)
    if not Path(given.ckpt_path).expanduser().exists():
        raise UserError(f"there is no checkpoint '{given.ckpt_path}'")
    if given.port is not None and not 0 <= given.port < 2**16:
        raise UserError(f"--port is {given.port}; it must be in 0..65535")
    if given.data is None and (options or given.root):
        raise UserError("the test questions of which data set? Say --data NAME, such as vqa_rad")
    data = data_arguments(given.data, given.root, options, None) if given.data is not None else []
    with_found_configs(data)
    if find_spec("gradio") is None:
        raise UserError("umd serve needs gradio: pip install 'umd[web]'")
    return given, data


def test_questions(model: Model, arguments: Sequence[str]) -> TestQuestions:
    """The test questions of the data set that these options describe.

    Raises:
        UserError: the model answers no questions, or the data set has none.
    """
    from datamodules.vqa import VQADataModule
    from umd.commands.data import parse
    from umd.web.browsing import TestQuestions

    data = parse(list(arguments)).data
    if model.settings.task != "answering" or not isinstance(data, VQADataModule):
        raise UserError(
            f"{data.title} with {model.settings.stage}: the test questions of a model that answers are shown alone"
        )
    records = data.records("test")
    files = data.find_images(record.image for record in records)
    return TestQuestions(model, data.title, records, files.__getitem__)


def bound(host: str, port: int | None) -> socket.socket:
    """A socket that listens; without a port on the usual one or, where that is taken, on a free one.

    Raises:
        UserError: the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in (USUAL_PORT, 0) if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, tried))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            why = error.strerror
    raise UserError(f"cannot serve at {host}{'' if port is None else f', port {port}'}: {why}")


def address(listening: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def keep_to_itself(folder: Path) -> None:
    """Tell gradio, before it is imported, to report to nobody and to keep its files in a folder that goes with it."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(folder)}

"""`umd export`: a trained model as a folder to take along."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from umd import NOTICE
from umd.commands.tool_parser import ToolParser
from umd.files import UserError
from umd.inference.folder import Weights, check_place


def main(arguments: list[str]) -> None:
    """Write the folder, and say what is in it."""
    given = parser().parse_args(arguments)
    if not Path(given.ckpt_path).expanduser().exists():
        raise UserError(f"there is no checkpoint '{given.ckpt_path}'")
    check_place(given.out.expanduser(), given.overwrite)
    lacking = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if given.format == "onnx" and lacking:
        raise UserError(f"--format onnx needs {', '.join(lacking)}, not installed here: pip install 'umd[onnx]'")
    from umd.commands.messages import show_messages  # only now: what follows imports torch, which takes seconds
    from umd.inference.exporting import export

    show_messages()
    folder = export(given.ckpt_path, given.out, weights=given.format, overwrite=given.overwrite)
    for file in sorted(folder.iterdir()):
        sys.stdout.write(f"  {file.name:<20} {_size(file.stat().st_size):>9}\n")
    sys.stdout.write(f"{folder}: umd.load opens it, and umd answer --model. README.md is its model card.\n{NOTICE}\n")


def parser() -> ToolParser:
    """The command's options."""
    made = ToolParser(
        prog="umd export",
        description="Write a trained model into a folder to take along: network, tokenizer, answers, settings, and a "
        "model card. umd.load and umd answer --model open it. What was written is compared with the checkpoint first.",
        epilog=NOTICE,
    )
    made.add_argument("--ckpt_path", required=True, metavar="FILE", help="a checkpoint, or the folder of a run")
    made.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder, new or empty")
    made.add_argument(
        "--format",
        choices=get_args(Weights),
        default="safetensors",
        help="the weights, for this package, which then answers as from the checkpoint, to the bit (safetensors, "
        "default); a program for onnxruntime, without torch (onnx, extra 'onnx'); or one of torch.export (torch)",
    )
    made.add_argument("--overwrite", action="store_true", help="take the place of an earlier export")
    return made


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"

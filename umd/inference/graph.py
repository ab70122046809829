"""A stage's scores as a program of its own: traced by torch.export, kept as it is or as ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from umd.batch import ImageTextBatch
from umd.files import UserError
from umd.inference.network import Inputs
from umd.inference.stage_network import StageNetwork
from umd.modules import VQAGenerator

MOST_PAIRS = 4096
"""Bound of a batch; torch.export wants one."""


class Graph(nn.Module):
    """(B, 3, S, S) uint8 images, (B, L) ids and (B, L) mask to the (B, A) scores of `StageNetwork.score`.

    Args:
        network: what is traced.
    """

    def __init__(self, network: StageNetwork) -> None:
        super().__init__()
        self.stage = network.stage
        self._score = network.score

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See the class."""
        batch = ImageTextBatch(
            image=image,
            input_ids=input_ids,
            attention_mask=attention_mask,
            special_tokens_mask=~attention_mask,
            word_ids=input_ids,
            mask_token_id=-1,
            index=input_ids[:, 0],
            sample_ids=(),
            texts=(),
            image_names=(),
        )
        if not isinstance(self.stage, VQAGenerator):
            return self._score(batch)
        states = self.stage(batch)
        return self.stage.decoder.scores(
            states.joint,
            states.mask,
            self.stage.candidates,
            self.stage.candidates_mask,
            self.stage.decoding.shortlist,
        )


def trace(network: StageNetwork, example: Inputs, text_length: int) -> ExportedProgram:
    """The program of a network, for any number of pairs and texts of any length up to `text_length`.

    Args:
        network: on the CPU.
        example: two pairs or more.
        text_length: most tokens of a text.

    Raises:
        UserError: an encoder computes in a way that cannot be traced.
    """
    batch = network.batch(example)
    pairs, length = Dim("pairs", min=1, max=MOST_PAIRS), Dim("length", min=1, max=text_length)
    texts = {0: pairs, 1: length}
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(
                Graph(network),
                (batch.image, batch.input_ids, batch.attention_mask),
                dynamic_shapes={"image": {0: pairs}, "input_ids": texts, "attention_mask": texts},
                strict=False,
            )
    except (RuntimeError, TypeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
        # Whatever torch stumbles upon where a computation depends on more than shapes.
        made = network.stage.hparams["encoder"]
        raise UserError(
            f"this model cannot be traced into a program, with vision encoder '{made['vision']}' and text encoder "
            f"'{made['text']}': {str(error).splitlines()[0]}; --format safetensors writes any model"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # with the folders of this machine
    return program


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write it as torch's own `.pt2`."""
    torch.export.save(program, path)


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write it as ONNX, its weights in a file beside it.

    Raises:
        UserError: onnx or onnxscript is not installed, or the program has an operator that ONNX lacks.
    """
    try:
        import onnx  # noqa: F401 - torch imports them, and says less where they lack
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}, which is not installed: pip install 'umd[onnx]'") from error
    try:
        with quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(
            f"this model cannot be written as ONNX: {str(error).splitlines()[0]} --format torch and safetensors may do"
        ) from error
    if made is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    for node in made.model.graph:
        node.metadata_props.clear()  # where in torch's code it comes from: a third of the file
    made.save(path, external_data=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the exporters say on the way, which is of use to their developers alone."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)

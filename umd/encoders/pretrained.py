"""Reading published weights: from the hub, a folder, a file or a package; errors say what to provide."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import logging as transformers_log

from umd.files import UserError


def interpolate_positions(table: Tensor, grid: int) -> Tensor:
    """Resize learned position embeddings to another patch grid (bicubic), the summary token's row kept.

    Args:
        table: (..., 1 + N * N, W); leading dimensions of size 1 only.
        grid: patches along a side wanted.

    Returns:
        (..., 1 + grid * grid, W); the table itself where it has that size already.
    """
    rows, width = table.shape[-2:]
    old = round((rows - 1) ** 0.5)
    if old * old != rows - 1:
        raise UserError(f"a position table of {rows} rows is not one summary token and a square grid")
    if old == grid:
        return table
    flat = table.reshape(rows, width)
    patches = flat[1:].T.reshape(1, width, old, old)
    patches = functional.interpolate(patches.float(), size=(grid, grid), mode="bicubic", align_corners=False)
    resized = torch.cat([flat[:1], patches.reshape(width, grid * grid).T.to(table.dtype)])
    return resized.reshape(*table.shape[:-2], 1 + grid * grid, width)


def load_transformers_weights(
    model: nn.Module, source: str, *, grid: int | None = None, position_table: str | None = None
) -> None:
    """Fill a `transformers` model from the hub or from a folder, in float32.

    Args:
        model: a `transformers.PreTrainedModel`, already of the wanted size.
        source: hub name or local folder.
        grid: for a vision model, patches along the side of its position table.
        position_table: name of that table in the state dict.

    Raises:
        UserError: nothing readable at `source`; or the weights do not fit the model.
    """
    config: Any = model.config
    depth = {"num_hidden_layers": config.num_hidden_layers}
    pretrained: Any = type(model)
    extra = {} if grid is not None else {"add_pooling_layer": False}
    verbosity = transformers_log.get_verbosity()
    transformers_log.set_verbosity(logging.ERROR)  # its report of names without a place reads like a fault; see below
    try:
        found, told = pretrained.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, **depth, **extra
        )
    except OSError as error:
        where = "folder" if Path(source).exists() else "folder or hub model"
        raise UserError(
            f"no weights could be read from the {where} '{source}'. Without network, download the model once "
            "(config.json and model.safetensors) and give its folder as the encoder's weights, or give null "
            f"for random weights. The reader said: {str(error).splitlines()[0]}"
        ) from error
    finally:
        transformers_log.set_verbosity(verbosity)
    if missing := sorted(told["missing_keys"]):  # the reader fills these at random
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"the weights in '{source}' are not of this encoder: without {', '.join(missing[:3])}{more}")
    state: dict[str, Tensor] = found.state_dict()
    if grid is not None and position_table is not None:
        state[position_table] = interpolate_positions(state[position_table], grid)
    # With fewer layers than published, the ones behind are left out on purpose.
    fill(model, state, source, unused=("",))


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str, unused: tuple[str, ...] = ()) -> None:
    """Put weights into a model, all of its own or an error.

    Args:
        model: what to fill.
        state: its weights by name; they take on the model's precision.
        source: where they come from, for messages.
        unused: prefixes of names that `state` may hold beside the model's own, such as a classifier's.

    Raises:
        UserError: a tensor is missing, of another shape, or without a place.
    """
    own = model.state_dict()
    wrong = [
        f"{name}: {tuple(state[name].shape)} in the weights, {tuple(own[name].shape)} in the model"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    wrong += [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} has no place" for name in state if name not in own and not name.startswith(unused)]
    if wrong:
        raise UserError(
            f"the weights in '{source}' are not of this encoder: "
            + "; ".join(wrong[:5])
            + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        )
    model.load_state_dict({name: state[name] for name in own})


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a file that holds a plain state dict, as data: nothing in it is executed.

    Args:
        path: a file of `torch.save`, or a `.safetensors` file.

    Raises:
        UserError: no such file; or a TorchScript archive, something else than tensors by name, or a damaged
            file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file '{path}' with the encoder's weights")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"'{path}' cannot be read as safetensors: {error}") from error
    if is_zipfile(path):
        with ZipFile(path) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if scripted:
            raise UserError(
                f"'{path}' is a TorchScript archive, which holds code beside its weights and is not read. If you "
                "trust it, save its weights alone: "
                "torch.save(torch.jit.load(PATH, map_location='cpu').state_dict(), NEW_PATH)"
            )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"'{path}' holds more than plain weights and is not read, since reading it could run code"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise UserError(f"'{path}' is damaged, or no file of weights") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"'{path}' does not hold a plain state dict (tensors by name)")
    return content


def package_path(package: str, relative: str, install: str) -> Path:
    """A file or folder of weights inside an installed package, found without importing the package.

    Args:
        package: its import name.
        relative: the place inside it.
        install: the command that installs it, for the message.

    Raises:
        UserError: the package is not installed, or lacks the file.
    """
    spec = find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    found = f"is installed in {folders[0]}, but lacks {relative}" if folders else "is not installed"
    raise UserError(
        f"weights 'default' are the ones that the package {package.replace('_', '-')} carries; it {found}: {install}. "
        "Or give a local path of the weights, or null for random ones"
    )

"""Reading published weights: from the hub or a local folder, with errors that say what to provide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        raise ValueError(f"a position table of {rows} rows is not one summary token and a square grid")
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
        FileNotFoundError: nothing readable at `source`.
        ValueError: the weights do not fit the model.
    """
    config: Any = model.config
    depth = {"num_hidden_layers": config.num_hidden_layers}
    pretrained: Any = type(model)
    extra = {} if grid is not None else {"add_pooling_layer": False}
    try:
        found = pretrained.from_pretrained(source, dtype=torch.float32, **depth, **extra)
    except OSError as error:
        where = "folder" if Path(source).exists() else "folder or hub model"
        raise FileNotFoundError(
            f"no weights could be read from the {where} '{source}'. Without network, download the model once "
            "(config.json and model.safetensors) and give its folder as the encoder's weights, or give null "
            f"for random weights. The reader said: {str(error).splitlines()[0]}"
        ) from error
    state: dict[str, Tensor] = found.state_dict()
    if grid is not None and position_table is not None:
        state[position_table] = interpolate_positions(state[position_table], grid)
    own = model.state_dict()
    wrong = [
        f"{name}: {tuple(state[name].shape)} in the weights, {tuple(own[name].shape)} in the model"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    missing = sorted(own.keys() - state.keys())
    if wrong or missing:
        raise ValueError(
            f"the weights in '{source}' are not of this encoder: "
            + "; ".join([*wrong[:5], *(f"{name} is missing" for name in missing[:5])])
        )
    model.load_state_dict({name: state[name] for name in own})

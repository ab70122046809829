"""`torch.compile` on parts of a module, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from callbacks.submodules import submodule
from umd.files import UserError

Command = Literal["fit", "validate", "test", "predict"]


class Compile(Callback):
    """Compiles the calls of the named submodules when a command starts, and takes that back when it ends.

    By `torch.nn.Module.compile`, which leaves the modules what they are: the same parameters under the same names, so
    that checkpoints, copies (a teacher, an average of weights) and other callbacks do not notice. What calls a
    module's methods other than `forward` runs as it is. Of a `ModuleList`, which is not called itself, each member is
    compiled.

    torch compiles at the first call, and again where a number changes in which it had seen nothing but one value (the
    length of the texts, the images of a batch, training or evaluation). With "inductor" other dropout is drawn.

    Args:
        modules: dotted names of the submodules.
        backend: of `torch.compile`: "inductor" for speed; "eager" and "aot_eager" for a look at what is the matter.
        dynamic: false: compile for each new shape; true: for any from the start; null: for any from the second on.
        mode: of `torch.compile`, such as "max-autotune-no-cudagraphs"; null: its default.
        commands: for which commands; validation within a training is a part of "fit".

    Raises:
        UserError: a command is not one.
    """

    def __init__(
        self,
        modules: Sequence[str] = ("encoder.vision", "encoder.text", "encoder.fusion"),
        backend: str = "inductor",
        dynamic: bool | None = None,
        mode: str | None = None,
        commands: Sequence[Command] = ("fit",),
    ) -> None:
        super().__init__()
        if isinstance(modules, str) or not modules:
            raise UserError(f"modules is {modules!r}: a list of dotted submodule names is needed, at least one")
        if unknown := [command for command in commands if command not in get_args(Command)]:
            raise UserError(f"commands has '{unknown[0]}'; allowed: {', '.join(get_args(Command))}")
        self.modules = tuple(modules)
        self.backend = backend
        self.dynamic = dynamic
        self.mode = mode
        self.commands = tuple(commands)
        self._compiled: list[nn.Module] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compile a trifle, so that a machine that cannot says so before any data are read.

        Raises:
            UserError: torch cannot compile with this backend and mode on this machine.
        """
        self._take_back()
        if stage in self.commands:
            device = trainer.strategy.root_device
            trial = nn.GELU()
            try:
                self._compile(trial)
                trial(torch.ones(8, device=device))
            except (RuntimeError, OSError) as error:
                reason = " ".join(str(error).partition("\n\n")[0].split())  # behind it are hints how to debug torch
                raise UserError(
                    f"torch cannot compile with backend '{self.backend}'"
                    + (f" and mode '{self.mode}'" if self.mode else "")
                    + f" on {device.type}: {reason}. Mend that, or leave callbacks.Compile out"
                ) from error

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile the submodules, which are all there now.

        Raises:
            MisconfigurationException: there is none of this name.
        """
        if trainer.state.fn in self.commands and not self._compiled:
            for name in self.modules:
                part = submodule(pl_module, name, type(self).__name__)
                self._compiled += part if isinstance(part, nn.ModuleList) else [part]
            for part in self._compiled:
                self._compile(part)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._take_back()

    def _compile(self, part: nn.Module) -> None:
        part.compile(backend=self.backend, dynamic=self.dynamic, mode=self.mode)

    def _take_back(self) -> None:
        for part in self._compiled:
            part._compiled_call_impl = None  # torch offers no other way
        self._compiled = []

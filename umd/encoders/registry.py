"""THE registry of encoders: every stage asks here, by the names that YAML files use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, Generic, TypeVar

from umd.encoders.interfaces import TextEncoder, VisionEncoder
from umd.files import UserError

Encoder = TypeVar("Encoder", VisionEncoder, TextEncoder)
_RESERVED = ("image_size", "weights")


@dataclass(frozen=True)
class _Entry(Generic[Encoder]):
    build: Callable[..., Encoder]
    tokenizer: str | Callable[[], str]


class Registry(Generic[Encoder]):
    """Names and the functions that build what they stand for.

    Args:
        kind: what it holds, for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, _Entry[Encoder]] = {}

    def register(
        self, name: str, *, tokenizer: str | Callable[[], str] = ""
    ) -> Callable[[Callable[..., Encoder]], Callable[..., Encoder]]:
        """Decorate a builder with its name.

        Args:
            name: the name that configs use. One that ends in "/" stands for a family: what a config writes behind
                it is the builder's first argument.
            tokenizer: for a text encoder, the tokenizer that goes with it ("embedded", a hub name or a folder), or
                a function that finds it.

        Raises:
            UserError: the name is taken.
        """

        def decorate(build: Callable[..., Encoder]) -> Callable[..., Encoder]:
            if name in self._entries:
                raise UserError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = _Entry(build, tokenizer)
            return build

        return decorate

    @property
    def names(self) -> list[str]:
        """All names, sorted; without the families'."""
        return sorted(name for name in self._entries if not name.endswith("/"))

    @property
    def families(self) -> list[str]:
        """All families, each with the slash that it ends in, sorted."""
        return sorted(name for name in self._entries if name.endswith("/"))

    def find(self, name: str) -> _Entry[Encoder]:
        """The entry of a name; ValueError with the known names and the nearest one where there is none."""
        if name in self.names:
            return self._entries[name]
        for family in self.families:
            member = name.removeprefix(family)
            if member not in ("", name):
                entry = self._entries[family]
                return _Entry(partial(entry.build, member), entry.tokenizer)
        nearest = get_close_matches(name, self.names, n=1, cutoff=0.4)
        known = [*self.names, *(f"{family}NAME" for family in self.families)]
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        raise UserError(f"unknown {self.kind} '{name}'.{hint} Known: {', '.join(known)}")

    def build(self, name: str, options: Mapping[str, Any], **given: object) -> Encoder:
        """Build an entry; ValueError where `options` holds one that its builder does not know."""
        build = self.find(name).build
        known = [key for key in inspect.signature(build).parameters if key not in _RESERVED]
        for key in options:
            if key not in known:
                raise UserError(f"{self.kind} '{name}' has no option '{key}'; it has: {', '.join(known) or 'none'}")
        return build(**given, **options)


VISION: Registry[VisionEncoder] = Registry("vision encoder")
TEXT: Registry[TextEncoder] = Registry("text encoder")


def build_vision(
    name: str, *, image_size: int, weights: str | None = None, options: Mapping[str, Any] | None = None
) -> VisionEncoder:
    """Build a vision encoder by name.

    Args:
        name: an entry of `VISION`.
        image_size: pixels along the side of the square input; learned positions are interpolated to it.
        weights: None (random), "default" (hub or package), or a local path.
        options: further arguments of the entry's builder.

    Raises:
        UserError: unknown name or option, or an image_size below one patch; or the weights are not where they
            should be; the message says what to provide.
    """
    return VISION.build(name, options or {}, image_size=image_size, weights=weights)


def build_text(name: str, *, weights: str | None = None, options: Mapping[str, Any] | None = None) -> TextEncoder:
    """Build a text encoder by name; arguments and errors as in `build_vision`."""
    return TEXT.build(name, options or {}, weights=weights)


def tokenizer_for(name: str | None, weights: str | None = None, options: Mapping[str, Any] | None = None) -> str:
    """The tokenizer that goes with a text encoder.

    Args:
        name: an entry of `TEXT`; None, where no text is read, gets the embedded tokenizer.
        weights: null, "default", or the folder of its weights, which holds the tokenizer too.
        options: the entry's options; "tokenizer", where the entry has such an option, goes before the entry's own.

    Returns:
        "embedded", a hub name or a folder.
    """
    if name is None:
        return "embedded"
    if options and "tokenizer" in options:
        return str(options["tokenizer"])
    tokenizer = TEXT.find(name).tokenizer
    if callable(tokenizer):
        tokenizer = tokenizer()
    return tokenizer if weights in (None, "default") or tokenizer == "embedded" else str(weights)

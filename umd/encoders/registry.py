"""THE registry of encoders: every stage asks here, by the names that YAML files use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from umd.encoders.interfaces import TextEncoder, VisionEncoder

Encoder = TypeVar("Encoder", VisionEncoder, TextEncoder)
_RESERVED = ("image_size", "weights")


@dataclass(frozen=True)
class _Entry(Generic[Encoder]):
    build: Callable[..., Encoder]
    tokenizer: str


class Registry(Generic[Encoder]):
    """Names and the functions that build what they stand for.

    Args:
        kind: what it holds, for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, _Entry[Encoder]] = {}

    def register(self, name: str, *, tokenizer: str = "") -> Callable[[Callable[..., Encoder]], Callable[..., Encoder]]:
        """Decorate a builder with its name.

        Args:
            name: the name that configs use.
            tokenizer: for a text encoder, the tokenizer that goes with it ("embedded" or a hub name).

        Raises:
            ValueError: the name is taken.
        """

        def decorate(build: Callable[..., Encoder]) -> Callable[..., Encoder]:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = _Entry(build, tokenizer)
            return build

        return decorate

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def find(self, name: str) -> _Entry[Encoder]:
        """The entry of a name; ValueError with the known names and the nearest one where there is none."""
        if name in self._entries:
            return self._entries[name]
        nearest = get_close_matches(name, self.names, n=1, cutoff=0.4)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        raise ValueError(f"unknown {self.kind} '{name}'.{hint} Known: {', '.join(self.names)}")

    def build(self, name: str, options: Mapping[str, Any], **given: object) -> Encoder:
        """Build an entry; ValueError where `options` holds one that its builder does not know."""
        build = self.find(name).build
        known = [key for key in inspect.signature(build).parameters if key not in _RESERVED]
        for key in options:
            if key not in known:
                raise ValueError(f"{self.kind} '{name}' has no option '{key}'; it has: {', '.join(known) or 'none'}")
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
        weights: None (random), "default" (hub or package), or a local folder.
        options: further arguments of the entry's builder.

    Raises:
        ValueError: unknown name or option, or an image_size below one patch.
        FileNotFoundError: the weights are not where they should be; the message says what to provide.
    """
    return VISION.build(name, options or {}, image_size=image_size, weights=weights)


def build_text(name: str, *, weights: str | None = None, options: Mapping[str, Any] | None = None) -> TextEncoder:
    """Build a text encoder by name; arguments and errors as in `build_vision`."""
    return TEXT.build(name, options or {}, weights=weights)


def tokenizer_for(name: str, weights: str | None = None) -> str:
    """The tokenizer that goes with a text encoder: the folder of its weights, else the entry's own."""
    tokenizer = TEXT.find(name).tokenizer
    return tokenizer if weights in (None, "default") or tokenizer == "embedded" else str(weights)

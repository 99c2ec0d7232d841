"""The scope in which names of definitions are looked up; only here are callers' frames read."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Scope:
    """Names from several places.

    Attributes
    ----------
    layers
        The places, in descending precedence.
    """

    layers: tuple[Mapping[str, object], ...]

    def found(self, path: str) -> Iterator[object]:
        """Yield the value of ``name`` or ``name.attribute`` in each of the places that have it."""
        first, *rest = path.split(".")
        for layer in self.layers:
            value = layer.get(first)
            for attribute in rest:
                value = getattr(value, attribute, None)
            if value is not None:
                yield value

    def names(self) -> set[str]:
        """Return all names."""
        return {name for layer in self.layers for name in layer}


def calling_names(*, live: bool = False) -> MutableMapping[str, Any]:
    """Return the local names where this package was called from.

    A definition in a function, a notebook or a console finds the classes beside it in this way.
    Frames of this package itself are passed over. For a module, the result is its own namespace, so
    that later names are seen too; for a function it is a copy.

    Parameters
    ----------
    live
        Whether names may be added. Names added to a function are visible in its `locals` only, not
        in its code.
    """
    frame = inspect.currentframe()
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    if frame is None:
        return {}
    if frame.f_code.co_flags & inspect.CO_OPTIMIZED and not live:
        return dict(frame.f_locals)
    return frame.f_locals


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line from which this package was called, such as a class's decorator.

    As with `warnings.warn`, Python's filters decide what is shown, and how often.
    """
    frame = inspect.currentframe()
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    if frame is not None:
        warnings.warn_explicit(
            message,
            category,
            frame.f_code.co_filename,
            frame.f_lineno,
            str(frame.f_globals.get("__name__")),
            frame.f_globals.setdefault("__warningregistry__", {}),
        )


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE

"""The caller of this package: names around the call, warnings at its line, and questions."""

from __future__ import annotations

import builtins
import inspect
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FrameType
from typing import Any

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.model.names import TableName

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


Confirm = Callable[[str], bool]
"""A function that takes a summary of an action and returns whether the action may proceed."""


def ask_on_terminal(summary: str) -> bool:
    """Print a summary of an action and ask whether to proceed.

    Raises
    ------
    DataJointError
        If there is neither a terminal nor a notebook to ask in.
    """
    nobody = DataJointError(
        f"{summary}\nThis was to be confirmed, but there is no terminal to ask on. "
        "Pass prompt=False, or set dj.config['safemode'] = False."
    )
    if not _can_ask():
        raise nobody
    print(summary)
    try:
        answer = _input()("Proceed? [yes, No]: ")
    except (EOFError, RuntimeError) as error:
        # A notebook that is executed without a user raises a RuntimeError of its own.
        raise nobody from error
    return answer.strip().lower() in ("y", "yes")


def question(prompt: bool | None, confirm: Confirm | None, safemode: bool) -> Confirm | None:
    """Return the function that asks, or None to proceed; `safemode` counts if `prompt` is None."""
    return (confirm or ask_on_terminal) if (safemode if prompt is None else prompt) else None


def refuse_arguments(method: str, *arguments: object) -> None:
    """Refuse a restriction that is given to a method such as `delete`, which takes only options.

    Raises
    ------
    QueryError
        If one of the arguments is neither a bool nor None.
    """
    for argument in arguments:
        if argument is not None and not isinstance(argument, bool):
            raise QueryError(
                f"{method}({reprlib.repr(argument)}): restrict the table first, as in "
                f"(table & restriction).{method}()."
            )


def _can_ask() -> bool:
    """Whether a terminal can answer, or a notebook or program that replaces `input`."""
    on_terminal = sys.stdin is not None and sys.stdin.isatty()  # pyright: ignore[reportUnnecessaryComparison]
    return on_terminal or not isinstance(_input(), BuiltinFunctionType)


def _input() -> Callable[[str], str]:
    """Return the function that reads an answer; programs can replace it in DataJoint's utils."""
    utils = sys.modules.get(f"{__name__.partition('.')[0]}.utils")
    return builtins.input if utils is None else vars(utils).get("input", builtins.input)


def listed(title: str, counts: Mapping[TableName, int], *, empty: bool = True) -> str:
    """Return a text with the number of rows of each table, those without rows only if `empty`."""
    lines = [f"{count:8d}  {name}" for name, count in counts.items() if count or empty]
    return "\n".join([title, *lines])

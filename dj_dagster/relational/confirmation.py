"""Questions to the user before data are lost: the text shown and the source of the answer."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import TableName

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

"""Asking before something is lost: what the user is shown, and who answers."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import TableName

Confirm = Callable[[str], bool]
"""Given a text of what would happen, says whether it may."""


def ask_on_terminal(summary: str) -> bool:
    """Show what would happen and ask.

    Raises
    ------
    DataJointError
        If nobody is there to be asked.
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
        # A notebook that runs by itself raises a RuntimeError of its own.
        raise nobody from error
    return answer.strip().lower() in ("y", "yes")


def question(prompt: bool | None, confirm: Confirm | None, safemode: bool) -> Confirm | None:
    """Return whom to ask, None to go ahead: `prompt` decides, and `safemode` where it is None."""
    return (confirm or ask_on_terminal) if (safemode if prompt is None else prompt) else None


def _can_ask() -> bool:
    """Whether there is a terminal, or a notebook, which has an `input` of its own."""
    on_terminal = sys.stdin is not None and sys.stdin.isatty()  # pyright: ignore[reportUnnecessaryComparison]
    return on_terminal or not isinstance(_input(), BuiltinFunctionType)


def _input() -> Callable[[str], str]:
    """Return what reads an answer; programs put one of their own into DataJoint's utils."""
    utils = sys.modules.get(f"{__name__.partition('.')[0]}.utils")
    return builtins.input if utils is None else vars(utils).get("input", builtins.input)


def listed(title: str, counts: Mapping[TableName, int], *, empty: bool = True) -> str:
    """Return a text with the number of rows of each table, those without rows only if `empty`."""
    lines = [f"{count:8d}  {name}" for name, count in counts.items() if count or empty]
    return "\n".join([title, *lines])

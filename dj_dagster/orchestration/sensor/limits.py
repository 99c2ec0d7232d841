"""Limits of a tick: the time that it spends, and errors that stop one table alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from dj_dagster.errors import ConnectionFailedError
from dj_dagster.relational.database.connection import Connection

SHARE = 20
"""How much longer than it took a slow look is not taken again: 5 % of the time is spent on it."""

SLOW = 0.05
"""Seconds from which a look is slow."""

ROW_SECONDS = 1e-5
"""What a look takes for each row, at most, on a machine that has nothing else to do."""


def idle_seconds(seconds: float, rows: float) -> float:
    """Return the seconds of a look at some rows, without those that the machine was busy."""
    return min(seconds, ROW_SECONDS * rows)


@dataclass
class Pause:
    """Keeps what is slow from being done all the time."""

    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() >= self.until

    def after(self, began: float, rows: float = inf) -> None:
        """Take note of what began then and has ended now; see `took`."""
        self.took(time.monotonic() - began, rows)

    def took(self, seconds: float, rows: float = inf) -> None:
        """Take note of what has ended now, after so many seconds.

        Parameters
        ----------
        rows
            How many there were to look at: of few the look is no slow one, however busy the
            machine was with other things.
        """
        seconds = idle_seconds(seconds, rows)
        if seconds > SLOW:
            self.until = time.monotonic() + SHARE * seconds


class Budget:
    """The time that a tick has.

    What is begun is done to its end, and one thing of a kind is done in any case: each tick gets
    on, however short its time.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def shorten(self, seconds: float) -> None:
        """Have no more than so many seconds from now."""
        self._until = min(self._until, time.monotonic() + seconds)

    @property
    def spent(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until


@dataclass
class Guard:
    """What went wrong in a tick.

    Attributes
    ----------
    errors
        By what was tried.
    """

    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    _unreachable: set[Connection] = field(default_factory=set[Connection])

    def attempt(
        self, what: str, connection: Connection, action: Callable[..., None], *args: Any
    ) -> bool:
        """Do one thing, and return whether that succeeded; its error is kept for the end.

        A database that cannot be reached is asked once.
        """
        if connection in self._unreachable:
            return False
        try:
            action(*args)
        except Exception as error:
            self.errors[what] = error
            if isinstance(error, ConnectionFailedError):
                self._unreachable.add(connection)
            return False
        return True

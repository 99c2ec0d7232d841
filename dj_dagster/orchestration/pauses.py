"""How much time is spent, and on what: a tick's, and that between two looks which take long."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

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

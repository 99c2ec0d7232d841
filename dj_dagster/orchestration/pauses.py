"""How much time is spent, and on what: a tick's, and that between two looks which take long."""

from __future__ import annotations

import time
from dataclasses import dataclass

SHARE = 20
"""How much longer than it took a slow look is not taken again: 5 % of the time is spent on it."""

SLOW = 0.05
"""Seconds from which a look is slow."""


@dataclass
class Pause:
    """Keeps what is slow from being done all the time."""

    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() >= self.until

    def after(self, began: float) -> None:
        """Take note of what began then and has ended now."""
        self.took(time.monotonic() - began)

    def took(self, seconds: float) -> None:
        """Take note of what has ended now, after so many seconds of work."""
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

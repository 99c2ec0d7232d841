"""How many keys to look up, or to claim, together."""

from __future__ import annotations

AHEAD = 0.5
"""Seconds of work that are prepared together."""

LARGEST = 500


class Pace:
    """Measures how long keys take, and says how many of them make half a second.

    Examples
    --------
    >>> pace = Pace()
    >>> pace.size
    1
    >>> pace.note(1, 0.001), pace.size
    (None, 8)
    >>> pace.note(8, 4.0), pace.size
    (None, 1)
    """

    def __init__(self) -> None:
        self.size = 1

    def note(self, keys: int, seconds: float) -> None:
        """Take note of how long some keys took; the size grows gradually."""
        fitting = int(AHEAD * keys / seconds) if seconds > 0 else LARGEST
        self.size = max(1, min(fitting, 8 * self.size, LARGEST))

"""A session that each thread keeps: taking one from the pool takes as long as a short query."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy.engine import Connection as SAConnection

IDLE_SECONDS = 5.0
"""After such a pause the pool is asked again, which tries a connection before it gives it."""


class KeptSessions:
    """One session a thread, given back to its pool when the thread ends.

    Parameters
    ----------
    connect
        Takes one from the pool, in autocommit mode.
    is_closed
        Whether it is known to lead nowhere any more.
    """

    def __init__(
        self, connect: Callable[[], SAConnection], is_closed: Callable[[SAConnection], bool]
    ) -> None:
        self._connect = connect
        self._is_closed = is_closed
        self._local = threading.local()
        self._generation = 0

    def get(self) -> SAConnection:
        """Return this thread's session."""
        local, now = self._local, time.monotonic()
        kept: SAConnection | None = getattr(local, "session", None)
        if kept is None or now - local.used > IDLE_SECONDS or self._is_stale(kept):
            self.drop()
            kept = local.session = self._connect()
            local.generation = self._generation
        local.used = now
        return kept

    def drop(self, *, broken: bool = False) -> None:
        """Give this thread's session back.

        Parameters
        ----------
        broken
            Whether it was left in the middle of something, so that nobody may use it again.
        """
        kept: SAConnection | None = getattr(self._local, "session", None)
        self._local.session = None
        if kept is not None:
            if broken and not kept.invalidated:
                kept.invalidate()
            kept.close()

    def drop_all(self) -> None:
        """Give this thread's session back, and each other thread's when it next asks for one."""
        self._generation += 1
        self.drop()

    def _is_stale(self, session: SAConnection) -> bool:
        return (
            self._local.generation != self._generation
            or session.invalidated
            or self._is_closed(session)
        )

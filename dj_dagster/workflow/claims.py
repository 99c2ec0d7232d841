"""Keys that this process has claimed ahead of their turn: held by leases, given back at its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence

import sqlalchemy as sa

from dj_dagster.errors import ConnectionFailedError, DataJointError
from dj_dagster.relational.database.sessions import retried
from dj_dagster.relational.provenance import job_version
from dj_dagster.workflow.job_rows import Row
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.liveness import renewal

TICK = 0.5
"""Seconds between two looks at whether a make takes long."""

PATIENCE = 2.0
"""Seconds after which a make lets go of the keys claimed behind it."""


class Claims:
    """The claims of one worker on the jobs of a queue; close it at the end.

    A few keys are claimed by one statement, in order to be quick where `make` is. While a make
    takes long, a thread gives back those that wait behind it, ends the jobs that are done, and
    renews the lease.

    Parameters
    ----------
    statuses
        In which a job may be claimed.
    """

    def __init__(self, queue: JobQueue, statuses: Sequence[str]) -> None:
        settings = queue.connection.job_settings
        self._queue = queue
        self._statuses = statuses
        self._version = job_version(settings)
        self._keep = settings.keep_completed
        self._lease = settings.lease
        self._lock = threading.Lock()
        self._letting_go = threading.Lock()
        self._waiting: deque[Row] = deque()
        self._done: dict[Row, float | None] = {}
        self._running: Row | None = None
        self._since = self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._returned: list[Row] = []

    def claim(self, rows: Sequence[Row]) -> list[Row]:
        """Claim those of some keys that are free, to be taken by `take`."""
        self._settle()
        got = self._queue.claim(rows, self._statuses, self._version)
        with self._lock:
            self._waiting.extend(got)
            self._renewed = time.monotonic()
        self._watch()
        return got

    def take(self) -> Row | None:
        """Return the next claimed key, to be made now; None when there is none."""
        with self._lock:
            self._running = self._waiting.popleft() if self._waiting else None
            self._since = time.monotonic()
            return self._running

    def finish(self, duration: float | None) -> None:
        """Note that the taken key is in the table."""
        with self._lock:
            if self._running is not None:
                self._done[self._running] = duration
            self._running = None

    def fail(self, message: str, stack: str) -> None:
        """Keep why the taken key failed."""
        if self._running is not None:
            self._queue.rows.fail(self._running, message, stack)
        self._forget()

    def drop(self) -> None:
        """Forget the job of the taken key: there is nothing to make."""
        if self._running is not None:
            self._queue.rows.delete([self._running], ("reserved",))
        self._forget()

    def _forget(self) -> None:
        # Only once the queue knows what became of it: until then it is for `close` to give back.
        with self._lock:
            self._running = None

    def given_back(self) -> list[Row]:
        """Return the keys that were let go, unmade, since this was asked for last."""
        with self._letting_go:
            returned, self._returned = self._returned, []
            return returned

    def close(self) -> None:
        """End the jobs that are done and give the others back.

        This process may live on, so that nobody else could tell that it has given up: a server that
        is being started again is waited for.
        """
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            left = [*self._waiting, *([self._running] if self._running is not None else [])]
            self._waiting.clear()
            self._running = None
        retried(self._settle, (ConnectionFailedError,))
        if left:
            retried(lambda: self._queue.rows.give_back(left), (ConnectionFailedError,))

    def _settle(self) -> None:
        with self._lock:
            done = dict(self._done)
        if done:
            self._queue.rows.complete(done, keep=self._keep)
        with self._lock:
            self._done = {row: at for row, at in self._done.items() if row not in done}

    def _watch(self) -> None:
        """Start the thread, unless the database is in memory, which no other worker can see."""
        in_memory = isinstance(self._queue.connection.engine.pool, sa.SingletonThreadPool)
        if self._thread is None and not in_memory:
            self._thread = threading.Thread(target=self._tend, daemon=True, name="dj_dagster lease")
            self._thread.start()

    def _tend(self) -> None:
        while not self._stop.wait(TICK):
            # What cannot be told to the database now is told at the next tick, or shows when the
            # lease runs out.
            with contextlib.suppress(DataJointError):
                self._let_go()
                self._renew()

    def _let_go(self) -> None:
        with self._letting_go:
            with self._lock:
                if self._running is None or time.monotonic() - self._since < PATIENCE:
                    return
                unmade = list(self._waiting)
                self._waiting.clear()
            if unmade:
                self._queue.rows.give_back(unmade)
            self._returned.extend(unmade)
        self._settle()

    def _renew(self) -> None:
        with self._lock:
            if time.monotonic() - self._renewed < renewal(self._lease):
                return
            held = [*self._waiting, *([self._running] if self._running is not None else [])]
        if held:
            self._queue.rows.renew(held, self._lease)
        self._renewed = time.monotonic()

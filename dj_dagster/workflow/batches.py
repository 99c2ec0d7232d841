"""Making many keys: looked up, and claimed, a few at a time, made one by one."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.attempt import Attempts, KeyOutcome
from dj_dagster.workflow.claims import Claims
from dj_dagster.workflow.job_rows import Row
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.notes import NoteTaker
from dj_dagster.workflow.pace import Pace
from dj_dagster.workflow.pending import Key, Why, why_not_pending

LOOKAHEAD = 1000
"""Keys whose jobs are looked at together when others have taken many."""

SPREAD = 50
"""Keys over which workers that meet spread."""

PAUSE = 0.005
"""Seconds, at most, that a worker waits which found all keys in use."""


@dataclass(frozen=True)
class Batches:
    """How keys of a table are made.

    Attributes
    ----------
    queue
        Where each key is claimed; None to make them without.
    given
        Whether the keys are a user's, of which nothing is known, instead of pending ones.
    statuses
        In which a job may be claimed.
    notes
        Takes notes on the keys that are made.
    """

    table: Makes
    attempts: Attempts
    notes: NoteTaker
    queue: JobQueue | None = None
    given: bool = False
    statuses: tuple[str, ...] = ("pending",)

    def run(self, keys: Iterable[Key], limit: int | None = None) -> Generator[KeyOutcome]:
        """Make keys, in their order as far as no other worker is at them.

        Parameters
        ----------
        limit
            How many times `make` is called, at most.

        Yields
        ------
        KeyOutcome
            One a key.
        """
        waiting, queue = deque(keys), self.queue
        outcomes = self._plain(waiting) if queue is None else self._claiming(queue, waiting)
        calls = 0
        with closing(self.notes), closing(outcomes):
            while limit is None or calls < limit:
                outcome = next(outcomes, None)
                if outcome is None:
                    return
                calls += outcome.status in ("made", "failed")
                yield outcome

    def _plain(self, waiting: deque[Key]) -> Generator[KeyOutcome]:
        pace = Pace()
        while waiting:
            batch = _taken(waiting, pace.size)
            idle = why_not_pending(self.table, batch, in_source=self.given)
            self._look(batch, idle)
            busy = 0.0
            for key in batch:
                outcome = self._outcome(key, idle)
                busy += outcome.seconds
                yield outcome
            self.notes.write_if_due()
            pace.note(len(batch), busy)

    def _claiming(self, queue: JobQueue, waiting: deque[Key]) -> Generator[KeyOutcome]:
        pace, claims = Pace(), Claims(queue, self.statuses)
        with closing(claims):
            while waiting:
                batch = {queue.row(key): key for key in _taken(waiting, pace.size)}
                yield from self._left_out(queue, batch)
                got = claims.claim(list(batch)) if batch else []
                yield from self._held(queue, batch, got, waiting)
                busy = 0.0
                for outcome in self._claimed(claims, [batch[row] for row in got], queue):
                    busy += outcome.seconds
                    yield outcome
                self.notes.write_if_due()
                waiting.extend(batch[row] for row in claims.given_back())
                if got:
                    pace.note(len(got), busy)

    def _left_out(self, queue: JobQueue, batch: dict[Row, Key]) -> Iterator[KeyOutcome]:
        """Take the keys that are not pending out of a user's, and give the others jobs."""
        if not self.given:
            return
        idle = why_not_pending(self.table, list(batch.values()))
        for row, key in list(batch.items()):
            if status := idle.get(tuple(key.values())):
                del batch[row]
                yield KeyOutcome(key, status)
        if batch:
            queue.rows.add(list(batch), priority=queue.connection.job_settings.default_priority)

    def _held(
        self, queue: JobQueue, batch: dict[Row, Key], got: list[Row], waiting: deque[Key]
    ) -> Iterator[KeyOutcome]:
        """Pass over the keys that others have, those soon to come too if they are many."""
        mine = set(got)
        others = {row: key for row, key in batch.items() if row not in mine}
        if not others:
            return
        if len(others) > len(got):
            others |= {queue.row(key): key for key in _taken(waiting, LOOKAHEAD)}
        names = [*queue.rows.key, "status", "scheduled_time"]
        jobs = fetch.rows(queue.connection, queue.rows.node(rows=others), names)
        known = {row[:-2]: row[-2:] for row in jobs}
        no_job = ("pending" if self.given else "done", None)
        # A job that is due later is for nobody now.
        now = queue.rows.now() if any(status == "pending" for status, _ in known.values()) else None
        free: list[Key] = []
        unheld = set(queue.rows.free(list(others), self.statuses))
        for row, key in others.items():
            status, due = known.get(row, no_job) if row in unheld else ("reserved", None)
            later = status == "pending" and due is not None and now is not None and due > now
            if status in self.statuses and not later:
                free.append(key)
            else:
                yield KeyOutcome(key, "reserved")
        waiting.extendleft(reversed(free))
        if not got and waiting:
            # All that came together would meet at the next key too.
            waiting.rotate(-random.randrange(min(SPREAD, len(waiting))))
            time.sleep(random.uniform(0, PAUSE))

    def _claimed(self, claims: Claims, keys: list[Key], queue: JobQueue) -> Iterator[KeyOutcome]:
        if not keys:
            return
        # From now on nobody else makes them.
        idle = why_not_pending(self.table, keys)
        self._look(keys, idle)
        by_row = {queue.row(key): key for key in keys}
        while (row := claims.take()) is not None:
            outcome = self._outcome(by_row[row], idle)
            if outcome.status == "failed":
                claims.fail(outcome.message, outcome.traceback)
            elif outcome.status == "missing":
                claims.drop()
            else:
                claims.finish(outcome.seconds if outcome.status == "made" else None)
            yield outcome

    def _outcome(self, key: Key, idle: dict[Row, Why]) -> KeyOutcome:
        status = idle.get(tuple(key.values()))
        if status:
            return KeyOutcome(key, status)
        outcome = self.attempts.make(key)
        if outcome.status == "made":
            self.notes.note(key)
        return outcome

    def _look(self, keys: list[Key], idle: dict[Row, Why]) -> None:
        """Look at the rows that keys refer to: one that changes later makes its key stale."""
        self.notes.look([key for key in keys if tuple(key.values()) not in idle])


def _taken(waiting: deque[Key], count: int) -> list[Key]:
    """Take keys from the left; one that comes twice is left for the next batch."""
    batch: dict[tuple[object, ...], Key] = {}
    while waiting and len(batch) < count and (row := tuple(waiting[0].values())) not in batch:
        batch[row] = waiting.popleft()
    return list(batch.values())

"""Which keys one call of `populate` makes, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dj_dagster.errors import PopulateError
from dj_dagster.relational.algebra.nodes import Matches, restrict
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import Key, given, source, typed, unmade_keys

Sequence = Literal["original", "reverse", "random"]
ORDERS = ("original", "reverse", "random")


@dataclass(frozen=True)
class Todo:
    """The keys to make; see `AutoPopulate.populate`."""

    table: Makes
    restrictions: tuple[Any, ...] = ()
    keys: Iterable[Mapping[str, Any]] | None = None
    order: str = "original"
    limit: int | None = None
    max_calls: int | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise PopulateError(f"order is {self.order!r}: write one of {', '.join(ORDERS)}.")
        for name, number in (("limit", self.limit), ("max_calls", self.max_calls)):
            if number is not None and number < 0:
                raise PopulateError(f"{name} is {number}: it is a number of keys, 0 or more.")

    def plain(self) -> list[Key]:
        """Return what is pending, whatever jobs there are."""
        if self.keys is not None:
            return self._chosen(self.keys)
        limit = self.limit
        if self.order == "original" and self.max_calls is not None:
            limit = min(self.max_calls, self.max_calls if limit is None else limit)
        return self._arranged(unmade_keys(self.table, *self.restrictions, limit=limit))

    def rounds(
        self, queue: JobQueue, *, refresh: bool, priority: int | None
    ) -> Iterator[list[Key]]:
        """Yield the jobs that are due; after that those of workers that were lost meanwhile."""
        queue.release_dead()
        if self.keys is not None:
            yield self._chosen(self.keys)
            return
        if refresh:
            # Due at once, whatever the clocks' digits.
            queue.refresh(*self.restrictions, priority=priority, delay=-1)
        while True:
            yield self._due(queue, priority)
            if not queue.release_dead():
                return

    def _chosen(self, keys: Iterable[Mapping[str, Any]]) -> list[Key]:
        found = typed(self.table, keys)
        if self.restrictions:
            known = given(self.table, found, *self.restrictions)
            found = [key for key in found if tuple(key.values()) in known]
        return self._arranged(found)

    def _due(self, queue: JobQueue, priority: int | None) -> list[Key]:
        jobs = queue.rows
        node = jobs.node("pending")
        if self.restrictions:
            keys = source(self.table, *self.restrictions)
            node = restrict(node, Matches(tuple(jobs.key), keys))
        order = ["priority", "scheduled_time", "KEY"]
        rows = fetch.rows(jobs.connection, node, [*jobs.key, "priority", "scheduled_time"], order)
        now, size = jobs.now(), len(jobs.key)
        due = [
            dict(zip(jobs.key, row, strict=False))
            for row in rows
            if row[size + 1] <= now and (priority is None or row[size] <= priority)
        ]
        return self._arranged(queue.free(due))

    def _arranged(self, keys: list[Key]) -> list[Key]:
        keys = keys[: self.limit]
        if self.order == "reverse":
            keys.reverse()
        elif self.order == "random":
            random.shuffle(keys)
        return keys

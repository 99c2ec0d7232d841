"""Making the pending keys of a computed table, each on its own."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dj_dagster.errors import DuplicateError, PopulateError
from dj_dagster.relational import algebra, fetch
from dj_dagster.relational.algebra import Base, Node
from dj_dagster.relational.condition import make_condition
from dj_dagster.relational.values import comparable
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.key_source import checked_key_source, without
from dj_dagster.workflow.make import Makes, run_make

CHUNK = 1000
"""Keys that are looked up together before they are made one by one."""

Key = dict[str, Any]
Status = Literal["made", "present", "missing", "reserved", "failed"]


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What became of one key.

    Attributes
    ----------
    status
        ``made`` now; ``present`` already; ``missing`` from the key source, for example because a
        parent's row is not there (yet); ``reserved`` by another worker, failed before or to be
        ignored; ``failed`` now.
    seconds
        Wall time of `make` and its commit.
    rows, bytes
        Rows written, parts included, and the size of their packed blobs.
    error, traceback
        Why it failed.
    """

    key: Key
    status: Status
    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    error: BaseException | None = None
    traceback: str = ""


def pending_keys(
    table: Makes,
    *restrictions: Any,
    limit: int | None = None,
    retry_errors: bool = False,
    ignore_jobs: bool = False,
) -> list[Key]:
    """Return the keys that a computed table has still to make, in their order.

    Parameters
    ----------
    *restrictions
        All must hold; anything that may stand after ``&``.
    limit
        At most so many keys.
    retry_errors
        Whether keys whose job failed before are pending again.
    ignore_jobs
        Whether the job queue is not asked at all.
    """
    node = pending(table, *restrictions)
    jobs = None if ignore_jobs else _queue(table)
    if jobs is not None:
        jobs.release_dead()
        held = ("reserved", "ignore") if retry_errors else ("reserved", "ignore", "error")
        node = without(node, jobs.node(*held))
    return fetch.dicts(table.connection, node, node.heading.primary_key, "KEY", limit)


def pending(table: Makes, *restrictions: Any) -> Node:
    """Return the query for the keys of the key source that are not in the table."""
    return without(source(table, *restrictions), _all_rows(table))


def source(table: Makes, *restrictions: Any) -> Node:
    """Return the query for all keys that a computed table is to make."""
    query = checked_key_source(table, table.key_source)
    for restriction in restrictions:
        query = query.restrict(restriction)
    return query.node


def progress(table: Makes, *restrictions: Any) -> tuple[int, int]:
    """Return how many keys remain to be made, and how many there are in all."""
    remaining = fetch.count(table.connection, pending(table, *restrictions))
    return remaining, fetch.count(table.connection, source(table, *restrictions))


def populate_keys(
    table: Makes,
    keys: Iterable[Mapping[str, Any]] | None = None,
    *,
    retry_errors: bool = False,
    reserve: bool = True,
    make_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[KeyOutcome]:
    """Make keys one by one, each in a short transaction of its own.

    A failing `make` does not end the loop; its outcome carries the error.

    Parameters
    ----------
    keys
        What to make; all pending keys by default. Whether each is pending is looked up first.
    retry_errors
        Whether keys whose job failed before are tried again.
    reserve
        Whether each key is claimed in the job queue, so that several workers can share the keys,
        and failures are kept there; not possible where a key source has another key than the
        table inherits from its foreign keys.

    Yields
    ------
    KeyOutcome
        One a key, in order.

    Raises
    ------
    PopulateError
        If the table is restricted, or this thread is in a transaction.
    """
    _check(table)
    jobs = _queue(table) if reserve else None
    worker = _Worker(table, jobs, retry_errors, dict(make_kwargs or {}))
    if keys is None:
        for key in pending_keys(table, retry_errors=retry_errors, ignore_jobs=jobs is None):
            yield worker.make(key)
        return
    if jobs is not None:
        jobs.release_dead()
    wanted = _typed(table, keys)
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        idle = _not_pending(table, chunk)
        for key in chunk:
            status = idle.get(tuple(key.values()))
            yield KeyOutcome(key, status) if status else worker.make(key)


class _Worker:
    """Makes keys of one table."""

    def __init__(
        self, table: Makes, jobs: JobQueue | None, retry_errors: bool, make_kwargs: dict[str, Any]
    ) -> None:
        self._table = table
        self._jobs = jobs
        self._retry_errors = retry_errors
        self._make_kwargs = make_kwargs

    def make(self, key: Key) -> KeyOutcome:
        if self._jobs is None:
            return self._attempt(key)
        if not self._jobs.reserve(key, retry_errors=self._retry_errors):
            return KeyOutcome(key, "reserved")
        try:
            outcome = self._attempt(key)
        except BaseException:
            # The process is being stopped: the key is for the next worker.
            self._jobs.release(key)
            raise
        if outcome.status == "failed":
            message = f"{type(outcome.error).__name__}: {outcome.error}"
            self._jobs.error(key, message, outcome.traceback)
        else:
            self._jobs.complete(key)
        return outcome

    def _attempt(self, key: Key) -> KeyOutcome:
        started = time.perf_counter()
        try:
            if self._is_present(key):
                return KeyOutcome(key, "present")
            made = run_make(
                self._table, key, must_insert=self._jobs is not None, **self._make_kwargs
            )
        except Exception as error:
            if isinstance(error, DuplicateError) and self._is_present(key):
                return KeyOutcome(key, "present")
            seconds = time.perf_counter() - started
            return KeyOutcome(key, "failed", seconds, error=error, traceback=traceback.format_exc())
        return KeyOutcome(key, "made", time.perf_counter() - started, made.rows, made.bytes)

    def _is_present(self, key: Key) -> bool:
        node = algebra.restrict(_all_rows(self._table), make_condition(key, self._table.heading))
        return fetch.exists(self._table.connection, node)


def _check(table: Makes) -> None:
    if table.is_restricted:
        raise PopulateError(
            f"{table.name} is restricted: call populate on the table itself and pass the "
            "restriction as an argument."
        )
    if table.connection.in_transaction or table.connection.write_buffer is not None:
        raise PopulateError(f"{table.name} cannot be populated inside a transaction or a make.")


def _all_rows(table: Makes) -> Base:
    return algebra.all_rows(table.name, table.heading)


def _queue(table: Makes) -> JobQueue | None:
    """Return the job queue, None where its key is another than that of the key source.

    A queue has the part of the table's key that comes from foreign keys. A key source may be
    coarser or finer; its keys can then not be claimed one by one.
    """
    jobs = JobQueue(table)
    key = table.key_source.primary_key
    return jobs if key and set(key) == set(jobs.key) else None


def _typed(table: Makes, keys: Iterable[Mapping[str, Any]]) -> list[Key]:
    """Return keys with the attributes of the key source alone, as values of their types."""
    heading = source(table).heading
    typed: list[Key] = []
    for key in keys:
        lacking = [name for name in heading.primary_key if name not in key]
        if lacking:
            raise PopulateError(f"The key {dict(key)} for {table.name} lacks {', '.join(lacking)}.")
        typed.append({name: comparable(key[name], heading[name]) for name in heading.primary_key})
    return typed


def _not_pending(table: Makes, keys: list[Key]) -> dict[tuple[Any, ...], Status]:
    """Return why those keys that are not pending are not."""
    node = source(table, keys)
    names = node.heading.primary_key
    known = set(fetch.rows(table.connection, node, names))
    restricted = algebra.restrict(_all_rows(table), make_condition(keys, table.heading))
    present = set(fetch.rows(table.connection, restricted, names))
    idle: dict[tuple[Any, ...], Status] = {}
    for row in (tuple(key.values()) for key in keys):
        if row in present:
            idle[row] = "present"
        elif row not in known:
            idle[row] = "missing"
    return idle

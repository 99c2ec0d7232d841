"""Making the pending keys of a computed table, each on its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from dj_dagster.errors import PopulateError
from dj_dagster.workflow.attempt import Attempts, KeyOutcome, Status
from dj_dagster.workflow.batches import Batches
from dj_dagster.workflow.code_version import code_version
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.notes import NoteTaker
from dj_dagster.workflow.pending import Key, progress, source, typed, unmade_keys

__all__ = [
    "Key",
    "KeyOutcome",
    "Makes",
    "Making",
    "Status",
    "check_populable",
    "pending_keys",
    "populate_keys",
    "progress",
    "queue_of",
]


@dataclass(frozen=True)
class Making:
    """How keys are made; plain data, that a worker process can be given.

    Attributes
    ----------
    reserve
        Whether keys are claimed in the job queue.
    given, statuses
        See `Batches`.
    must_insert, make_kwargs
        See `MakeRunner`.
    """

    reserve: bool = False
    given: bool = False
    statuses: tuple[str, ...] = ("pending",)
    must_insert: bool = False
    make_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])

    def batches(self, table: Makes, before: Any = None) -> Batches:
        """Return what makes keys of a table in this process."""
        attempts = Attempts(
            table, must_insert=self.must_insert, make_kwargs=self.make_kwargs, before=before
        )
        queue = JobQueue(table) if self.reserve else None
        names = source(table).heading.primary_key
        notes = NoteTaker(table, names, code_version(type(table)))
        return Batches(table, attempts, notes, queue, self.given, self.statuses)


def pending_keys(
    table: Makes,
    *restrictions: Any,
    limit: int | None = None,
    retry_errors: bool = False,
    ignore_jobs: bool = False,
) -> list[Key]:
    """Return the keys that a computed table has still to make, in their order.

    Those of jobs that are due later are left out.

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
    queue = None if ignore_jobs else queue_of(table)
    if queue is None:
        return unmade_keys(table, *restrictions, limit=limit)
    queue.release_dead()
    held = ("reserved", "ignore") if retry_errors else ("reserved", "ignore", "error")
    # Workers of another era hold keys that a query does not tell.
    most = limit if queue.rows.shared is None else None
    keys = unmade_keys(table, *restrictions, held=queue.rows.held(*held), limit=most)
    return queue.free(keys, ("error",) if retry_errors else ())[:limit]


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
        and failures are kept there; not possible where the keys are those of no other table.

    Yields
    ------
    KeyOutcome
        One a key.

    Raises
    ------
    PopulateError
        If the table is restricted, or this thread is in a transaction.
    """
    wanted, making = chosen(table, keys, retry_errors=retry_errors, reserve=reserve)
    making = replace(making, make_kwargs=dict(make_kwargs or {}))
    with closing(making.batches(table).run(wanted)) as outcomes:
        yield from outcomes


def chosen(
    table: Makes,
    keys: Iterable[Mapping[str, Any]] | None,
    *,
    retry_errors: bool,
    reserve: bool = True,
) -> tuple[list[Key], Making]:
    """Return the keys that `populate_keys` is to make, and how; parameters and errors are its."""
    check_populable(table)
    queue = queue_of(table) if reserve else None
    if keys is None:
        wanted = pending_keys(table, retry_errors=retry_errors, ignore_jobs=queue is None)
    else:
        wanted = typed(table, keys)
        if queue is not None:
            queue.release_dead()
    making = Making(
        reserve=queue is not None,
        given=True,
        statuses=("pending", "success", "error") if retry_errors else ("pending", "success"),
        must_insert=queue is not None,
    )
    return wanted, making


def check_populable(table: Makes) -> None:
    """Refuse to populate where the result would be unclear.

    Raises
    ------
    PopulateError
        If the table is restricted, or this thread is in a transaction or a make.
    """
    if table.is_restricted:
        raise PopulateError(
            f"{table.name} is restricted: call populate on the table itself and pass the "
            "restriction as an argument."
        )
    if table.connection.in_transaction or table.connection.write_buffer is not None:
        raise PopulateError(f"{table.name} cannot be populated inside a transaction or a make.")


def queue_of(table: Makes) -> JobQueue | None:
    """Return the job queue, None where it cannot tell the keys of the key source apart."""
    queue = JobQueue(table)
    return queue if queue.holds(source(table).heading.primary_key) else None

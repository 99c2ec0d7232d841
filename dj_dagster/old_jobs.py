"""The jobs of a whole schema as one table, as DataJoint 0.14 kept them in ``schema.jobs``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dj_dagster.compat import key_hash
from dj_dagster.errors import PopulateError
from dj_dagster.late import LateModule
from dj_dagster.relational.algebra.oversight import refuse_oversights
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.workflow.jobs import JobQueue

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LateModule("pandas")

_STATUSES = "status in ('reserved', 'error', 'ignore')"
_KEY = ("table_name", "key_hash")
_OWN = ("status", "error_message", "error_stack", "user", "host", "pid", "connection_id")
_COLUMNS = (*_KEY, *_OWN[:1], "key", *_OWN[1:], "timestamp")


class OldJobs:
    """Jobs that are reserved, failed or ignored, of any tables of a schema.

    Their attributes are those of DataJoint 0.14: `table_name` and `key_hash` as the primary key,
    `status`, `key`, `error_message`, `error_stack`, `user`, `host`, `pid`, `connection_id` and
    `timestamp`.

    Parameters
    ----------
    jobs
        Pairs of a queue and a query for some of its jobs.
    hashes
        The only hashes of keys to take; None takes all.
    """

    def __init__(
        self, jobs: list[tuple[JobQueue, QueryExpression]], hashes: frozenset[str] | None = None
    ) -> None:
        self._jobs = jobs
        self._hashes = hashes

    @classmethod
    def of(cls, queues: list[JobQueue]) -> OldJobs:
        """Return all jobs of some queues."""
        return cls([(queue, _named(queue)) for queue in queues])

    def __and__(self, restriction: Any) -> OldJobs:
        hashes = self._hashes
        if isinstance(restriction, Mapping) and "key_hash" in restriction:
            restriction = dict(restriction)
            wanted = frozenset({restriction.pop("key_hash")})
            hashes = wanted if hashes is None else hashes & wanted
            restriction = restriction or True
        return OldJobs([(queue, jobs & restriction) for queue, jobs in self._jobs], hashes)

    def __sub__(self, restriction: Any) -> OldJobs:
        return OldJobs([(queue, jobs - restriction) for queue, jobs in self._jobs], self._hashes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for queue, jobs in self._jobs:
            yield from (row for row in _rows(queue, jobs) if self._wants(row["key"]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def fetch(self, *attrs: str, as_dict: bool | None = None, format: str = "array") -> Any:
        """Return the jobs in one of the old shapes; see `dj_dagster.compat.OldQuery.fetch`."""
        rows = list(self)
        if as_dict:
            names = [n for a in attrs for n in (_KEY if a == "KEY" else [a])] or _COLUMNS
            return [{name: row[name] for name in names} for row in rows]
        if attrs:
            columns = [_column(rows, attr) for attr in attrs]
            return columns if len(columns) > 1 else columns[0]
        frame = pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object)
        return frame.set_index([*_KEY]) if format == "frame" else frame.to_records(index=False)

    def delete(self, **options: Any) -> int:
        """Forget these jobs, without asking, so that their keys are pending again."""
        del options
        deleted = 0
        for queue, jobs in self._jobs:
            refuse_oversights(jobs.node, f"delete jobs of {queue.target.name}")
        for queue, jobs in self._jobs:
            keys = [key for key in jobs.proj().to_dicts() if self._wants(key)]
            deleted += (queue & keys).delete_quick() if keys else 0
        return deleted

    delete_quick = delete

    def __repr__(self) -> str:
        return repr(self.fetch(format="frame"))

    def _wants(self, key: Mapping[str, Any]) -> bool:
        return self._hashes is None or key_hash(key) in self._hashes


class SchemaJobs(list[JobQueue]):
    """The job queues of a schema, one for each computed table that has one.

    That is what DataJoint 2.3 gives. Restricted, fetched from or deleted from it is the one table
    of jobs that DataJoint 0.14 had, see `OldJobs`.

    Examples
    --------
    ::

        (schema.jobs & 'status = "error"').delete()
    """

    def __and__(self, restriction: Any) -> OldJobs:
        return OldJobs.of(self) & restriction

    def __sub__(self, restriction: Any) -> OldJobs:
        return OldJobs.of(self) - restriction

    def fetch(self, *attrs: str, **options: Any) -> Any:
        """Return the jobs of all tables; see `OldJobs.fetch`."""
        return OldJobs.of(self).fetch(*attrs, **options)

    def delete(self, **options: Any) -> int:
        """Forget the jobs of all tables."""
        return OldJobs.of(self).delete(**options)

    def ignore(self, table_name: str, key: Mapping[str, Any]) -> None:
        """Leave a key of a table out from now on."""
        self._queue(table_name).ignore(key)

    def complete(self, table_name: str, key: Mapping[str, Any]) -> None:
        """Forget a job that was done."""
        self._queue(table_name).complete(key)

    def error(
        self,
        table_name: str,
        key: Mapping[str, Any],
        error_message: str,
        error_stack: str | None = None,
    ) -> None:
        """Keep why a job failed."""
        self._queue(table_name).error(key, error_message, error_stack)

    def _queue(self, table_name: str) -> JobQueue:
        for queue in self:
            if queue.target.table_name == table_name:
                return queue
        known = ", ".join(queue.target.table_name for queue in self) or "none"
        raise PopulateError(f"No table {table_name!r} has jobs here; those that have: {known}.")


def _named(queue: JobQueue) -> QueryExpression:
    """Return a queue's jobs with the attributes that only the old table had."""
    name = queue.target.table_name.replace("'", "''")
    return (queue & _STATUSES).proj(..., table_name=f"'{name}'", timestamp="(reserved_time)")


def _rows(queue: JobQueue, jobs: QueryExpression) -> Iterator[dict[str, Any]]:
    for row in jobs.to_dicts():
        key = {name: row[name] for name in queue.key}
        row |= {"key": key, "key_hash": key_hash(key), "timestamp": _time(row)}
        yield {name: row[name] for name in _COLUMNS}


def _time(row: Mapping[str, Any]) -> Any:
    """Return when the job was last changed, as far as it says."""
    return row["completed_time"] or row["timestamp"] or row["created_time"]


def _column(rows: list[dict[str, Any]], attr: str) -> Any:
    if attr == "KEY":
        return [{name: row[name] for name in _KEY} for row in rows]
    values = np.empty(len(rows), dtype=object)
    values[:] = [row[attr] for row in rows]
    return values

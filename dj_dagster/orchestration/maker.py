"""What fills a table: the protocol that runs and the sensor go by, and our own tables' side of it.

Tables of DataJoint follow it too, see `datajoint_tables`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from dj_dagster.model.types import Family
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.values import is_only_found
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.key_source import blaming, own_key_source
from dj_dagster.workflow.make import STEPS, Makes, has_own_key_source
from dj_dagster.workflow.pending import progress
from dj_dagster.workflow.populate import Key, KeyOutcome, pending_keys, populate_keys

logger = logging.getLogger(__name__)

_ODD = (Family.DATE, Family.DATETIME, Family.FLOAT)


class Maker(Protocol):
    """Makes the keys of one table, and knows which there are."""

    @property
    def source(self) -> type:
        """The class that the user wrote `make` in."""
        ...

    @property
    def key_names(self) -> list[str]:
        """The attributes that a call of `make` is given."""
        ...

    @property
    def reservable(self) -> bool:
        """Whether the table has a job queue: its keys are those of other tables."""
        ...

    def keys(self) -> list[Key]:
        """Return all keys that `make` could be given, in their order."""
        ...

    def pending(
        self, *restrictions: Any, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """Return the keys that `make` has still to be given."""
        ...

    def progress(self) -> tuple[int, int]:
        """Return how many keys remain to be made, and how many there are in all."""
        ...

    def failed(self) -> int:
        """Return how many keys wait in the job queue because they failed."""
        ...

    def make(
        self, keys: Iterable[Mapping[str, Any]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """Make keys one by one, all that are pending for None; a failing one ends nothing."""
        ...

    def release_dead(self) -> int:
        """Make keys pending again whose worker is gone; return how many."""
        ...


class OwnMaker:
    """The maker of a table of ours."""

    def __init__(self, table: Makes) -> None:
        self._table = table

    @property
    def source(self) -> type:
        """The table's class."""
        return type(self._table)

    @property
    def table(self) -> Makes:
        """The table."""
        return self._table

    @property
    def key_names(self) -> list[str]:
        """Those of the table's key that the key source has."""
        given = self.key_source.primary_key
        return [name for name in self._table.primary_key if name in given]

    @property
    def key_source(self) -> QueryExpression:
        """The query for all keys that `make` could be given."""
        own = has_own_key_source(self._table)
        return own_key_source(self._table) if own else self._table.key_source

    @property
    def reservable(self) -> bool:
        """Whether a foreign key is part of the primary key."""
        # Hidden attributes, such as that of a table with one row, are in no job.
        names = set(self._table.primary_key)
        return any(key.primary and names & set(key.attributes) for key in self._table.foreign_keys)

    def keys(self) -> list[Key]:
        """Return the keys of the key source."""
        with self._blaming():
            return self.key_source.proj().to_dicts(order_by=self.key_names or None)

    def pending(
        self, *restrictions: Any, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """See `pending_keys`."""
        with self._blaming():
            found = pending_keys(
                self._table,
                *restrictions,
                limit=limit,
                retry_errors=retry_errors,
                ignore_jobs=not self.reservable,
            )
        return self._usable(found)

    def progress(self) -> tuple[int, int]:
        """See `dj_dagster.workflow.pending.progress`."""
        with self._blaming():
            return progress(self._table)

    def _usable(self, keys: list[Key]) -> list[Key]:
        """Leave out the keys that no table can be given, such as zero dates; say so."""
        heading = self._table.heading
        kinds = [(name, heading[name].type) for name in self.key_names if keys]
        looked = [(name, kind.family) for name, kind in kinds if kind and kind.family in _ODD]
        if not looked:
            return keys
        odd = [key for key in keys if any(is_only_found(key[n], family) for n, family in looked)]
        for key in odd[:1]:
            logger.warning(
                "%s: %d keys hold what no table takes and are left out, such as %s; correct them.",
                self._table.name,
                len(odd),
                key,
            )
        return [key for key in keys if key not in odd] if odd else keys

    def _blaming(self) -> AbstractContextManager[None]:
        """Name the key source where a query fails that a user has written."""
        return blaming(self._table) if has_own_key_source(self._table) else nullcontext()

    def failed(self) -> int:
        """Count the jobs that are in error."""
        return len(JobQueue(self._table).errors) if self.reservable else 0

    def make(
        self, keys: Iterable[Mapping[str, Any]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """See `populate_keys`."""
        return populate_keys(self._table, keys, retry_errors=retry_errors, reserve=self.reservable)

    def release_dead(self) -> int:
        """See `JobQueue.release_dead`."""
        return JobQueue(self._table).release_dead() if self.reservable else 0


def maker_of(table: object) -> Maker | None:
    """Return what fills a table of ours, None where its class says neither how nor which keys."""
    if not isinstance(table, Makes):
        return None
    written = type(table).__mro__[: type(table).__mro__.index(Makes)]
    names = {name for cls in written for name in vars(cls)}
    if names & {"make", "key_source"} or names.issuperset(STEPS):
        return OwnMaker(table)
    return None

"""A table as Dagster sees it: its asset key, its partitions, and what fills it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dagster import AssetKey

from dj_dagster.errors import PopulateError
from dj_dagster.model.names import TableName, Tier
from dj_dagster.orchestration.coarse import by_partition
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.maker import Maker
from dj_dagster.orchestration.naming import class_name
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.table import Table
from dj_dagster.workflow.populate import Key, KeyOutcome
from dj_dagster.workflow.staleness import Staleness


@dataclass(frozen=True)
class TableNode:
    """One table as Dagster sees it.

    Attributes
    ----------
    grain
        What a partition of the table is; a part has its master's. None for a table that has one
        row at most, and for a lookup table whose key no other table shares: these have none.
    master
        Asset key of a part's master.
    parents
        Asset keys of the tables that the foreign keys refer to, each once; a part's master first.
    filler
        What fills the table, None for tables that `make` does not fill, or not here.
    definition
        The text that declares the table.
    """

    table: Table
    name: TableName
    key: AssetKey
    tier: Tier
    grain: Grain | None = None
    master: AssetKey | None = None
    parents: tuple[AssetKey, ...] = ()
    filler: Maker | None = None
    definition: str = ""

    @property
    def populated(self) -> bool:
        """Whether `make` fills the table here, in contrast to people and other programs."""
        return self.filler is not None

    @property
    def maker(self) -> Maker:
        """What fills the table.

        Raises
        ------
        PopulateError
            When people or other programs enter its rows.
        """
        if self.filler is not None:
            return self.filler
        raise PopulateError(f"{self.title} is {self.tier.value}: there is nothing to make in it")

    @property
    def reservable(self) -> bool:
        """Whether the table has a job queue: its keys are those of other tables."""
        return self.maker.reservable

    @cached_property
    def coarse(self) -> bool:
        """Whether a partition stands for many keys of `make`: it is a prefix of them."""
        if self.grain is None or self.filler is None:
            return False
        return set(self.grain.names) < set(self.filler.key_names)

    @property
    def staleness(self) -> Staleness:
        """What tells which of its keys are stale, by the notes on them."""
        return Staleness(self.table, self.maker.key_names, self.maker.source)

    def pending(
        self, *restrictions: Any, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """Return the keys that `make` has still to be given."""
        return self.maker.pending(*restrictions, limit=limit, retry_errors=retry_errors)

    def outcomes(
        self, keys: Iterable[Mapping[str, Any]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """Make the keys that `keys` stand for, all that are pending for None.

        With partitions that are coarser than keys there is one outcome a partition, and `keys` may
        be keys of either.
        """
        grain = self.grain
        if not self.coarse or grain is None:
            yield from self.maker.make(keys, retry_errors=retry_errors)
            return
        wanted = None if keys is None else [{n: key[n] for n in grain.names} for key in keys]
        chosen = () if wanted is None else (wanted,)
        pending = self.pending(*chosen, retry_errors=retry_errors) if wanted != [] else []
        pending.sort(key=grain.encode)
        busy = Counter(map(grain.encode, pending))
        made = self.maker.make(pending, retry_errors=retry_errors)
        for outcome in by_partition(made, grain, busy):
            # Keys that failed before are not tried again, and are pending still.
            whole = outcome.status != "made" or self.finished([grain.encode(outcome.key)])
            yield outcome if whole else replace(outcome, status="reserved")
        for key in wanted or ():
            if grain.encode(key) not in busy:
                yield KeyOutcome(key, "present" if self.table & key else "missing")

    @property
    def title(self) -> str:
        """The table as a user names it: ``"lab.Session.Trial"``."""
        return class_name(self.name)

    def rows_in(self, partitions: Iterable[str]) -> int:
        """Return how many rows the table has in some partitions."""
        return len(self.table & self._decoded(partitions))

    def finished(self, partitions: list[str]) -> list[str]:
        """Return those partitions, of some that have rows, of which no key is left to be made."""
        if not self.coarse or self.grain is None or not partitions:
            return partitions
        left = self.pending(self._decoded(partitions), retry_errors=True)
        unfinished = set(self.grain.encode_all(left))
        return [partition for partition in partitions if partition not in unfinished]

    def partitions(self) -> list[str]:
        """Return the partitions that have rows in the table, in the order of their keys."""
        return self._encoded(self.table)

    def _decoded(self, partitions: Iterable[str]) -> list[Key]:
        grain = self.grain
        return [] if grain is None else [grain.decode(partition) for partition in partitions]

    def _encoded(self, query: QueryExpression) -> list[str]:
        if self.grain is None:
            return []
        names = self.grain.names
        return self.grain.encode_rows(fetch.keys(query.connection, query.node, names, names))

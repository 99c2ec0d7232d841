"""What people have removed in Dagster, while its rows are there: partitions, assets, and runs.

Counting is all that a tick does for it, and less often where that takes long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from dagster import AssetKey, DagsterInstance
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetKeyTable, DynamicPartitionsTable
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.pauses import idle_seconds

SHARE = 100
"""How much longer than it took counting is not done again."""

SHORTEST, LONGEST = 3.0, 6.0
"""For how many seconds it is not, at least and at most: ticks with nothing new are to be cheap."""


QUICK = 0.2
"""Seconds up to which counting is quick, on a machine that is not busy with other things."""


@dataclass
class Count:
    """How many lines of one of Dagster's tables there are, up to the last one of now."""

    lines: int = 0
    last: int = 0

    def falls(self, connection: SAConnection, table: sa.Table, *where: Any) -> bool:
        """Count anew, and return whether some of those counted before are gone."""
        id_ = table.c["id"]
        query = sa.select(sa.func.count(), sa.func.max(id_)).select_from(table).where(*where)
        lines, last = connection.execute(query).one()
        left = lines
        if (last or 0) > self.last:
            left = connection.execute(query.where(id_ <= self.last)).one()[0]
        fell = left < self.lines
        self.lines, self.last = lines, last or 0
        return fell


@dataclass
class Losses:
    """Remembers how much of what the sensor keeps in Dagster there was.

    Attributes
    ----------
    partitions
        Number of partitions by grain.
    """

    partitions: dict[Grain, Count] = field(default_factory=dict[Grain, Count])
    _runs: Count = field(default_factory=Count)
    _wiped: dict[str, str] | None = None
    _until: float = 0.0
    _took: float = 0.0

    def look(
        self, instance: DagsterInstance, grains: Iterable[Grain], keys: Sequence[AssetKey]
    ) -> tuple[set[Grain], set[AssetKey]]:
        """Return the grains that lack partitions, and the tables whose events are gone.

        Dagster deletes the events of a run with it, and does not say of which tables they were.
        """
        began, storage = time.monotonic(), instance.event_log_storage
        if began < self._until or not isinstance(storage, SqlEventLogStorage):
            return set(), set()
        with storage.index_connection() as connection:
            lacking = {grain for grain in grains if self._lacks(connection, grain)}
            wiped = self._newly_wiped(connection, {key.to_string(): key for key in keys})
        if self._has_lost_runs(instance):
            wiped = set(keys)
        lines = sum(count.lines for count in (*self.partitions.values(), self._runs))
        self._took = idle_seconds(time.monotonic() - began, lines)
        pause = min(LONGEST, max(SHORTEST, SHARE * self._took))
        self._until = time.monotonic() + pause
        return lacking, wiped

    def recount(self, instance: DagsterInstance, grain: Grain) -> None:
        """Count the partitions of a grain of which the sensor itself has removed some."""
        storage = instance.event_log_storage
        if isinstance(storage, SqlEventLogStorage):
            self.partitions.pop(grain, None)
            with storage.index_connection() as connection:
                self._lacks(connection, grain)

    def hurry(self) -> None:
        """Count in any case the next time, where that is quick: there is more to lose now."""
        if self._took < QUICK:
            self._until = 0.0

    def _lacks(self, connection: SAConnection, grain: Grain) -> bool:
        count = self.partitions.setdefault(grain, Count())
        of_grain = DynamicPartitionsTable.c.partitions_def_name == grain.name
        return count.falls(connection, DynamicPartitionsTable, of_grain)

    def _newly_wiped(self, connection: SAConnection, keys: dict[str, AssetKey]) -> set[AssetKey]:
        # What Dagster keeps beside the events of an asset is when it was wiped.
        columns = AssetKeyTable.c
        query = sa.select(columns.asset_key, columns.asset_details).where(
            columns.asset_details.is_not(None)
        )
        now = {key: str(details) for key, details in connection.execute(query) if key in keys}
        before, self._wiped = self._wiped, now
        if before is None:
            return set()
        return {keys[key] for key, details in now.items() if details != before.get(key)}

    def _has_lost_runs(self, instance: DagsterInstance) -> bool:
        storage = instance.run_storage
        if not isinstance(storage, SqlRunStorage):
            return False
        connected: AbstractContextManager[SAConnection] = storage.connect()
        with connected as connection:
            return self._runs.falls(connection, RunsTable)

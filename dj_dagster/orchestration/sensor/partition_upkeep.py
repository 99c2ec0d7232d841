"""Upkeep of the partitions in Dagster, which are restored where people have removed them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa
from dagster import AssetKey, DagsterInstance
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.orchestration._dagster import (
    AssetKeyTable,
    DynamicPartitionsTable,
    RunsTable,
    SqlEventLogStorage,
    SqlRunStorage,
)
from dj_dagster.orchestration.sensor.limits import Evaluation, LongLook, idle_seconds
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.keys import Region, Regions, possible_in
from dj_dagster.orchestration.tables.partitions import Changes, beginnings, register, sync_pieces
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

SHARE = 100
"""The pause between two counts, as a multiple of the time that the first took."""

SHORTEST, LONGEST = 3.0, 6.0
"""Seconds of the pause between two counts, at least and at most, so that idle ticks are cheap."""

QUICK = 0.2
"""Seconds up to which counting is quick, see `idle_seconds`."""


class Partitions:
    """The partitions of all grains: new ones are registered, and the others compared with the rows.

    Parameters
    ----------
    rows
        A function that returns the number of rows of some tables.
    restored
        Called with each grain whose partitions have come back, or may have.

    Attributes
    ----------
    losses
        The numbers of partitions at the last count.
    """

    def __init__(
        self,
        graph: TableGraph,
        rows: Callable[[Iterable[TableNode]], int],
        restored: Callable[[Grain], None],
    ) -> None:
        self._graph = graph
        self._rows = rows
        self._restored = restored
        self._new: defaultdict[AssetKey, Regions] = defaultdict(Regions)
        self._comparisons = LongLook[Grain, Changes]()
        self.losses = Losses()

    @property
    def has_new(self) -> bool:
        """Whether there may be partitions to register."""
        return any(self._new.values())

    @property
    def goes_on(self) -> bool:
        """Whether a grain is being compared."""
        return bool(self._comparisons)

    def note_new(self, node: TableNode, region: Region) -> None:
        """Note a region in which a table may have keys without a partition."""
        self._new[node.key].add(region)

    def note_gone(self, node: TableNode) -> None:
        """Note that partitions of a table's grain may have to be removed, or restored."""
        if node.grain is not None:
            self._comparisons.note(node.grain)

    def is_in_doubt(self, grain: Grain) -> bool:
        """Whether keys may lack their partitions until the grain has been compared."""
        return grain in self._comparisons

    def is_compared(self, grain: Grain, tick: Evaluation) -> bool:
        """Whether the grain is being compared in this tick."""
        return self._comparisons.is_ready(grain, tick)

    def register_new(self, tick: Evaluation) -> None:
        """Register the partitions of new rows, and of new keys for `make`."""
        for key, regions in list(self._new.items()):
            if regions:
                node = self._graph.by_key[key]
                tick.attempt(node, self._register, node, regions, tick)

    def _register(self, node: TableNode, regions: Regions, tick: Evaluation) -> None:
        if node.grain is not None and node in beginnings(self._graph, node.grain):
            if regions.whole:
                self._comparisons.note(node.grain)
            else:
                partitions = possible_in(node, regions)
                register(tick.instance, node.grain, partitions)
                tick.changes += Changes(added=len(partitions))
                self._restored(node.grain)
        del self._new[node.key]

    def pieces(self, tick: Evaluation) -> list[Callable[[], None]]:
        """Return the next piece of a comparison, one grain after the other.

        A comparison holds all partitions of its grain in memory.
        """
        grains = [each for each in self._graph.grains if self._comparisons.is_ready(each, tick)]
        grains.sort(key=self._comparisons.goes_on, reverse=True)
        return [partial(self._compare, grain, tick) for grain in grains[:1]]

    def _compare(self, grain: Grain, tick: Evaluation) -> None:
        nodes = self._graph.of_grain(grain)
        ended = self._comparisons.step(
            grain,
            tick,
            grain.name,
            nodes[0].table.connection,
            partial(sync_pieces, tick.instance, self._graph, grain),
            partial(self._count, grain, tick),
            partial(self._rows, nodes),
        )
        if ended:
            self._restored(grain)

    def _count(self, grain: Grain, tick: Evaluation, done: Changes) -> None:
        tick.changes += done
        if done.removed and self.losses.recount(tick.instance, grain, done.removed):
            self._comparisons.note(grain)


@dataclass
class Count:
    """The number of lines of one of Dagster's tables, up to the last line at the time."""

    lines: int = 0
    last: int = 0

    def falls(self, connection: SAConnection, table: sa.Table, *where: Any) -> bool:
        """Count anew, and return whether lines that were counted before are gone."""
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
    """Counts of the sensor's records in Dagster, which show when people have removed some.

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

        Dagster deletes the events of a run with the run, and does not tell their tables. After a
        deletion of runs, all tables are therefore returned.
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

    def recount(self, instance: DagsterInstance, grain: Grain, removed: int) -> bool:
        """Count the partitions of a grain after the sensor itself has removed some.

        Returns whether others are gone too: a person may remove a partition during the comparison
        of a grain with its tables, after the sensor has seen it.
        """
        storage = instance.event_log_storage
        if not isinstance(storage, SqlEventLogStorage):
            return False
        self.partitions.setdefault(grain, Count()).lines -= removed
        with storage.index_connection() as connection:
            return self._lacks(connection, grain)

    def hurry(self) -> None:
        """End the pause before the next count if counting is quick, because records were added."""
        if self._took < QUICK:
            self._until = 0.0

    def _lacks(self, connection: SAConnection, grain: Grain) -> bool:
        count = self.partitions.setdefault(grain, Count())
        of_grain = DynamicPartitionsTable.c.partitions_def_name == grain.name
        return count.falls(connection, DynamicPartitionsTable, of_grain)

    def _newly_wiped(self, connection: SAConnection, keys: dict[str, AssetKey]) -> set[AssetKey]:
        # Beside the events of an asset, Dagster keeps the time when the asset was wiped.
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

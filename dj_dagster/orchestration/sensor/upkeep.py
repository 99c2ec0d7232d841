"""Upkeep of partitions and marks in Dagster: restored, registered, written and taken back."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
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
from dj_dagster.orchestration.runs.event_log import MarkWatch, write_marks
from dj_dagster.orchestration.runs.failures import compare_failures
from dj_dagster.orchestration.runs.shown_marks import (
    mark_row_count,
    mark_single,
    repeated,
    shown_as_failed,
    unmarked_in,
    unmarked_pages,
    vanished_pages,
)
from dj_dagster.orchestration.runs.stale_marks import Aging, Outdated, first_marks, outdated_pages
from dj_dagster.orchestration.sensor.changes import Errors
from dj_dagster.orchestration.sensor.sensor_settings import (
    Evaluation,
    LongLook,
    Pause,
    idle_seconds,
)
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import (
    Changes,
    Region,
    Regions,
    beginnings,
    possible_in,
    present_among,
    present_in,
    register,
    sync_pieces,
)
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
    records
        The sensor's records in Dagster at the last look at them.
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
        self.records = Records()

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
        if done.removed and self.records.recount(tick.instance, grain, done.removed):
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


@dataclass(frozen=True)
class Seen:
    """Changes of the sensor's records in Dagster.

    Attributes
    ----------
    lacking
        The grains that lack partitions.
    wiped
        The tables whose events are gone.
    marked
        The tables with new marks.
    """

    lacking: Set[Grain] = frozenset()
    wiped: Set[AssetKey] = frozenset()
    marked: Set[AssetKey] = frozenset()


@dataclass
class Records:
    """The sensor's records in Dagster: people may have removed some, and runs have added marks.

    Attributes
    ----------
    partitions
        Number of partitions by grain.
    """

    partitions: dict[Grain, Count] = field(default_factory=dict[Grain, Count])
    _runs: Count = field(default_factory=Count)
    _marks: MarkWatch = field(default_factory=MarkWatch)
    _wiped: dict[str, str] | None = None
    _until: float = 0.0
    _took: float = 0.0

    def look(
        self, instance: DagsterInstance, grains: Iterable[Grain], keys: Sequence[AssetKey]
    ) -> Seen:
        """Return what has changed since the last look, except during a pause.

        Dagster deletes the events of a run with the run, and does not tell their tables. After a
        deletion of runs, all tables are therefore returned as wiped.
        """
        began, storage = time.monotonic(), instance.event_log_storage
        if began < self._until or not isinstance(storage, SqlEventLogStorage):
            return Seen()
        with storage.index_connection() as connection:
            lacking = {grain for grain in grains if self._lacks(connection, grain)}
            marked = self._marks.marked(connection).intersection(keys)
            wiped = self._newly_wiped(connection, {key.to_string(): key for key in keys})
        if self._has_lost_runs(instance):
            wiped = set(keys)
        lines = sum(count.lines for count in (*self.partitions.values(), self._runs))
        self._took = idle_seconds(time.monotonic() - began, lines)
        pause = min(LONGEST, max(SHORTEST, SHARE * self._took))
        self._until = time.monotonic() + pause
        return Seen(lacking, wiped, marked)

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


MARKS = 1000
"""Marks that are written at once, at most."""

NOTED = 10.0
"""Seconds after which rows have their notes, if they get any."""

AGAIN = 20_000
"""Rows without notes that a tick looks at again, at most."""

Pieces = list[Callable[[], None]]


class NewMarks:
    """Rows without a mark, which are found in changed regions or page by page, and marked.

    Parameters
    ----------
    partitions
        The partitions of the grains; Dagster does not show a mark while its partition is missing.
    rows
        A function that returns the number of rows of some tables.
    """

    def __init__(
        self,
        graph: TableGraph,
        partitions: Partitions,
        rows: Callable[[Iterable[TableNode]], int],
    ) -> None:
        self._graph = graph
        self._partitions = partitions
        self._rows = rows
        self._regions: defaultdict[AssetKey, Regions] = defaultdict(Regions)
        self._searches = LongLook[AssetKey, list[str]]()
        # Partitions to mark, and those shown as failed although made, whose last mark is repeated.
        self._backlog: defaultdict[AssetKey, deque[str]] = defaultdict(deque[str])
        self._refuted: defaultdict[AssetKey, set[str]] = defaultdict(set[str])

    @property
    def goes_on(self) -> bool:
        """Whether rows are being searched or marked."""
        return bool(self._searches) or any(self._backlog.values())

    def note(self, node: TableNode, region: Region) -> None:
        """Note a region in which rows may lack their marks."""
        self._regions[node.key].add(region)

    def repeat(self, key: AssetKey, partitions: Iterable[str]) -> None:
        """Have the last marks of partitions repeated, after later events showed them as failed."""
        known = self._backlog[key]
        known.extend(partition for partition in partitions if partition not in known)
        self._refuted[key].update(partitions)

    def is_behind(self, key: AssetKey) -> bool:
        """Whether marks of a table are missing that a search has found, or may find."""
        return self._searches.goes_on(key) or bool(self._backlog.get(key))

    def find(self, tick: Evaluation) -> None:
        """Find the rows without a mark in the noted regions."""
        for key, regions in list(self._regions.items()):
            if regions and key not in tick.held.whole:
                node = self._graph.by_key[key]
                tick.attempt(node, self._find, node, regions, tick)

    def _find(self, node: TableNode, regions: Regions, tick: Evaluation) -> None:
        if node.key not in tick.managed:
            if node.grain is None:
                mark = mark_single if node.populated else mark_row_count
                tick.changes += Changes(marked=mark(tick.instance, node))
            elif regions.whole:
                self._searches.note(node.key)
            else:
                backlog = self._backlog[node.key]
                found = dict.fromkeys(unmarked_in(tick.instance, node, regions))
                # New rows are marked before the rows that a look at the whole table finds.
                self._backlog[node.key] = deque([*found, *(p for p in backlog if p not in found)])
        del self._regions[node.key]

    def pieces(self, tick: Evaluation) -> Pieces:
        """Return a page of each search, and some marks of each table."""
        nodes = self._graph.nodes
        return [
            *(partial(self._search, node, tick) for node in nodes if self._is_searched(node, tick)),
            *(partial(self._write, node, tick) for node in nodes if self._is_marked(node, tick)),
        ]

    def _is_searched(self, node: TableNode, tick: Evaluation) -> bool:
        key = node.key
        if node.grain is None or key in tick.held.whole or self._backlog.get(key):
            return False
        compared = self._partitions.is_compared(node.grain, tick)
        return not compared and self._searches.is_ready(key, tick)

    def _search(self, node: TableNode, tick: Evaluation) -> None:
        self._searches.step(
            node.key,
            tick,
            node.title,
            node.table.connection,
            partial(unmarked_pages, tick.instance, node),
            self._backlog[node.key].extend,
            partial(self._rows, [node]),
        )

    def _is_marked(self, node: TableNode, tick: Evaluation) -> bool:
        return bool(self._backlog.get(node.key)) and self._most(node, tick) > 0

    def _most(self, node: TableNode, tick: Evaluation) -> int:
        return min(MARKS, tick.settings.max_marks - tick.written[node.key])

    def _write(self, node: TableNode, tick: Evaluation) -> None:
        key, backlog, busy = node.key, self._backlog[node.key], tick.held.of(node.key)
        wanted = [backlog.popleft() for _ in range(min(len(backlog), self._most(node, tick)))]
        # A run that holds a key is to mark it; the end of the run makes us look again.
        free = [partition for partition in wanted if partition not in busy]
        refuted = self._refuted[key]
        again = repeated(tick.instance, node, refuted.intersection(free))
        refuted.difference_update(wanted)
        first = [partition for partition in free if partition not in again]
        marks = [*again.values(), *first_marks(tick.instance, self._graph, node, first)]
        tick.changes += Changes(marked=write_marks(tick.instance, marks))
        tick.written[key] += len(wanted)


class StaleMarks:
    """Rows that may have become stale, or current again, whose marks are to show this.

    Parameters
    ----------
    aged
        Called with each table whose marks have changed.
    """

    def __init__(
        self, graph: TableGraph, new_marks: NewMarks, aged: Callable[[TableNode], None]
    ) -> None:
        self._graph = graph
        self._new_marks = new_marks
        self._aged = aged
        self._regions: defaultdict[AssetKey, Regions] = defaultdict(Regions)
        self._looks = LongLook[AssetKey, Outdated]()
        # Partitions whose inputs have changed since they were made, and the tables with such
        # partitions in whose schemas notes were written since, so that some may be made again.
        self._changed: defaultdict[AssetKey, set[str]] = defaultdict(set[str])
        self._renoted: set[AssetKey] = set()
        self._pauses: defaultdict[AssetKey, Pause] = defaultdict(Pause)
        # Partitions without a note on their rows, and the time to look at them again.
        self._unnoted: dict[AssetKey, tuple[float, set[str]]] = {}

    @property
    def goes_on(self) -> bool:
        """Whether a table is being looked at."""
        return bool(self._looks)

    def note(self, node: TableNode, region: Region) -> None:
        """Note a region in which rows may have become stale, or current again."""
        self._regions[node.key].add(region)

    def note_written(self, node: TableNode) -> None:
        """Note that notes were written, so that stale rows may have been made again unchanged."""
        if self._changed[node.key]:
            self._renoted.add(node.key)

    def find(self, tick: Evaluation) -> None:
        """Look at the noted regions, and once more at rows that lacked their notes before."""
        now = time.monotonic()
        for key, (due, partitions) in list(self._unnoted.items()):
            if now >= due:
                node = self._graph.by_key[key]
                taken = [partitions.pop() for _ in range(min(AGAIN, len(partitions)))]
                tick.attempt(node, self._look_at_notes, node, taken, tick)
                if not partitions:
                    del self._unnoted[key]
        for key in list(self._renoted):
            if self._pauses[key].over:
                node = self._graph.by_key[key]
                tick.attempt(node, self._look_at_changed, node, tick)
        for key, regions in list(self._regions.items()):
            if regions:
                node = self._graph.by_key[key]
                tick.attempt(node, self._find, node, regions, tick)

    def _look_at_notes(self, node: TableNode, partitions: list[str], tick: Evaluation) -> None:
        # DataJoint's rows never get notes, and their marks take far longer to read.
        noted = Aging(tick.instance, self._graph, node).noted(partitions)
        self._look_again(node, noted, tick)

    def _look_again(self, node: TableNode, partitions: Iterable[str], tick: Evaluation) -> None:
        found = Aging(tick.instance, self._graph, node).outdated(sorted(partitions))
        self._write(node, tick, replace(found, unnoted=()))

    def _look_at_changed(self, node: TableNode, tick: Evaluation) -> None:
        began, changed = time.monotonic(), self._changed[node.key]
        changed &= present_among(node, sorted(changed))
        self._look_again(node, changed, tick)
        self._renoted.discard(node.key)
        self._pauses[node.key].after(began, len(changed))

    def _find(self, node: TableNode, regions: Regions, tick: Evaluation) -> None:
        if node.grain is not None and regions.whole:
            self._looks.note(node.key)
        elif node.grain is not None:
            aging = Aging(tick.instance, self._graph, node)
            self._write(node, tick, aging.outdated(present_in(node, regions)))
        del self._regions[node.key]

    def _write(self, node: TableNode, tick: Evaluation, found: Outdated) -> None:
        """Write the marks that some rows need; have rows without a note looked at again."""
        self._changed[node.key] = (self._changed[node.key] | found.changed) - found.others
        if found.marks:
            tick.changes += Changes(marked=write_marks(tick.instance, found.marks))
            self._aged(node)
        if found.unnoted:
            due = time.monotonic() + NOTED
            self._unnoted.setdefault(node.key, (due, set()))[1].update(found.unnoted)

    def pieces(self, tick: Evaluation) -> Pieces:
        """Return a page of each look at a whole table."""
        return [
            partial(self._look, node, tick)
            for node in self._graph.populated
            # Marks that are still to be written will show the age of their rows.
            if not self._new_marks.is_behind(node.key) and self._looks.is_ready(node.key, tick)
        ]

    def _look(self, node: TableNode, tick: Evaluation) -> None:
        self._looks.step(
            node.key,
            tick,
            node.title,
            node.table.connection,
            partial(outdated_pages, tick.instance, self._graph, node),
            partial(self._write, node, tick),
        )


class FailureMarks:
    """Partitions whose failures Dagster may show wrongly, or not at all.

    Parameters
    ----------
    errors
        A function that returns the failed jobs of a table, by partition.
    """

    def __init__(
        self, graph: TableGraph, new_marks: NewMarks, errors: Callable[[TableNode], Errors]
    ) -> None:
        self._graph = graph
        self._new_marks = new_marks
        self._errors = errors
        self._doubtful: defaultdict[AssetKey, set[str]] = defaultdict(set[str])
        # Tables with all their failures in doubt.
        self._unproven: set[AssetKey] = set()

    @property
    def goes_on(self) -> bool:
        """Whether failures are in doubt."""
        return bool(self._unproven) or any(self._doubtful.values())

    def note(self, node: TableNode, region: Region) -> None:
        """Note keys whose failure is in doubt, except keys that do not tell their partition."""
        if region.keys is None:
            self._unproven.add(node.key)
        elif node.grain is not None:
            names = set(node.grain.names)
            told = [key for key in region.keys if names <= key.keys()]
            self._doubtful[node.key].update(node.partitions_of(told))

    def pieces(self, tick: Evaluation) -> Pieces:
        """Return a comparison for each table with failures in doubt."""
        return [
            partial(self._prove, node, tick)
            for node in self._graph.populated
            if (node.key in self._unproven or self._doubtful.get(node.key))
            and (self, node.key) not in tick.failed
        ]

    def _prove(self, node: TableNode, tick: Evaluation) -> None:
        if tick.attempt(node, self._compare, node, tick) is None:
            tick.failed.add((self, node.key))

    def _compare(self, node: TableNode, tick: Evaluation) -> bool:
        """Compare the shown failures in doubt with the errors in the job queue."""
        key, parts = node.key, [part.key for part in self._graph.parts(node)]
        doubtful = self._doubtful[key]
        if key in self._unproven:
            for table in (key, *parts):
                doubtful.update(shown_as_failed(tick.instance, table))
            doubtful.update(self._errors(node))
            self._unproven.discard(key)
        # The end of a run makes us look again at the keys that it holds.
        held = set(doubtful) if key in tick.held.whole else tick.held.of(key)
        waiting = sorted(doubtful.difference(held))
        now, later = waiting[:MARKS], waiting[MARKS:]
        errors = self._errors(node)
        written, refuted = compare_failures(tick.instance, node, parts, now, errors)
        self._doubtful[key] = set(later)
        for table in (key, *parts) if refuted else ():
            self._new_marks.repeat(table, refuted)
        tick.changes += Changes(marked=written)
        return True


class Withdrawals:
    """Tables in which marked rows may be gone, so that the marks are to be taken back.

    Parameters
    ----------
    withdrawn
        Called with the partitions of a filled table, because Dagster would show a failure from
        before the mark again.
    """

    def __init__(
        self, graph: TableGraph, withdrawn: Callable[[TableNode, Sequence[str]], None]
    ) -> None:
        self._graph = graph
        self._withdrawn = withdrawn
        self._looks = LongLook[AssetKey, list[str]]()

    @property
    def goes_on(self) -> bool:
        """Whether a table is being compared."""
        return bool(self._looks)

    def note(self, node: TableNode) -> None:
        """Note that rows of a table may be gone; the marks of a part follow its master's rows."""
        master = self._graph.by_key.get(node.master) if node.master else None
        if master is None or not master.populated:
            self._looks.note(node.key)

    def pieces(self, tick: Evaluation) -> Pieces:
        """Return a page of each comparison of marks with rows."""
        return [
            partial(self._withdraw, node, tick)
            for node in self._graph.nodes
            if node.key not in tick.managed and self._looks.is_ready(node.key, tick)
        ]

    def _withdraw(self, node: TableNode, tick: Evaluation) -> None:
        parts = self._graph.parts(node) if node.populated else []
        marked = [node.key, *(part.key for part in parts)]
        self._looks.step(
            node.key,
            tick,
            node.title,
            node.table.connection,
            partial(vanished_pages, tick.instance, node, marked),
            partial(self._withdrawn, node),
        )

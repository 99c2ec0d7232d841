"""The part of a tick that keeps Dagster's partitions and marks true to the tables.

What has changed just now is dealt with at once. What takes long, the look at whole tables, is cut
into pieces; those that the tick has no time for are left to the next ones.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dagster import AssetKey, DagsterInstance

from dj_dagster.orchestration.runs.event_log import Mark, write_marks
from dj_dagster.orchestration.runs.failures import compare_failures
from dj_dagster.orchestration.runs.run_records import HeldKeys
from dj_dagster.orchestration.runs.shown_marks import (
    mark_row_count,
    mark_single,
    repeated,
    shown_as_failed,
    unmarked_in,
    unmarked_pages,
    vanished_pages,
)
from dj_dagster.orchestration.runs.stale_marks import Aging, outdated_pages
from dj_dagster.orchestration.sensor.limits import Budget, Guard
from dj_dagster.orchestration.sensor.sensor_settings import SensorSettings
from dj_dagster.orchestration.sensor.state import Watch
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.keys import EVERYTHING, Regions, possible_in, present_in
from dj_dagster.orchestration.tables.partitions import Changes, beginnings, register, sync_pieces
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

MARKS = 1000
"""Marks that are written at once, at most."""

NOTED = 10.0
"""Seconds after which rows have the note on them, unless they never will."""


@dataclass
class Upkeep:
    """Registers and removes partitions, and marks rows.

    Attributes
    ----------
    managed
        Assets that are the user's own, which mark themselves.
    changes
        What was done.
    """

    instance: DagsterInstance
    watch: Watch
    settings: SensorSettings
    managed: frozenset[AssetKey]
    held: HeldKeys
    guard: Guard
    budget: Budget
    changes: Changes = field(default_factory=Changes)
    _written: Counter[AssetKey] = field(default_factory=Counter[AssetKey])
    _failed: set[Hashable] = field(default_factory=set[Hashable])

    def register_new(self) -> None:
        """Register the partitions of new rows, and of new keys for `make`."""
        for node in self._noted(self.watch.possible):
            self._attempt(node, self._register)

    def find_new(self) -> None:
        """Find the new rows that have no mark."""
        for node in self._noted(self.watch.unmarked):
            self._attempt(node, self._find_unmarked)
        self._find_unnoted()
        for node in self._noted(self.watch.aging):
            self._attempt(node, self._find_outdated)

    def go_on(self) -> None:
        """Do some of what takes long, one piece at least, as long as there is time."""
        while pieces := self._pieces():
            # In turn over all ticks, so that each gets its share however short they are.
            self.watch.turn += 1
            pieces[self.watch.turn % len(pieces)]()
            if self.budget.spent:
                return

    def _noted(self, where: Mapping[AssetKey, Regions]) -> list[TableNode]:
        return [self.watch.graph.by_key[key] for key, regions in list(where.items()) if regions]

    def _attempt(self, node: TableNode, action: Callable[[TableNode], None]) -> bool:
        return self.guard.attempt(node.title, node.table.connection, action, node)

    def _register(self, node: TableNode) -> None:
        regions = self.watch.possible[node.key]
        if node.grain is not None and node in beginnings(self.watch.graph, node.grain):
            if regions.whole:
                self.watch.unsynced.add(node.grain)
            else:
                partitions = possible_in(node, regions)
                register(self.instance, node.grain, partitions)
                self.changes += Changes(added=len(partitions))
                self.watch.retry_orphans(node.grain)
        del self.watch.possible[node.key]

    def _find_unmarked(self, node: TableNode) -> None:
        regions, watch = self.watch.unmarked[node.key], self.watch
        if node.key in self.held.whole:
            return
        if node.key not in self.managed:
            if node.grain is None:
                mark = mark_single if node.populated else mark_row_count
                self.changes += Changes(marked=mark(self.instance, node))
            elif regions.whole:
                return
            else:
                backlog = watch.backlog[node.key]
                found = dict.fromkeys(unmarked_in(self.instance, node, regions))
                # New rows are marked before those that a look at the whole table finds.
                watch.backlog[node.key] = deque([*found, *(p for p in backlog if p not in found)])
        del watch.unmarked[node.key]

    def _find_unnoted(self) -> None:
        """Look once more at rows that were there before the notes on them."""
        watch, now = self.watch, time.monotonic()
        for key, (due, partitions) in list(watch.unnoted.items()):
            if now >= due:
                del watch.unnoted[key]
                self._attempt(watch.graph.by_key[key], partial(self._age_again, partitions))

    def _age_again(self, partitions: Iterable[str], node: TableNode) -> None:
        marks, _ = Aging(self.instance, self.watch.graph, node).outdated(sorted(partitions))
        self._write_aged(node, marks)

    def _find_outdated(self, node: TableNode) -> None:
        """Have marks say which rows are stale, where these or what they refer to have changed."""
        watch, regions = self.watch, self.watch.aging[node.key]
        if node.grain is not None and regions.whole:
            return
        if node.grain is not None:
            aging = Aging(self.instance, watch.graph, node)
            self._write_aged(node, *aging.outdated(present_in(node, regions)))
        del watch.aging[node.key]

    def _write_aged(
        self, node: TableNode, marks: Sequence[Mark], unnoted: Sequence[str] = ()
    ) -> None:
        """Write the marks that some rows need; look again at those on which there is no note."""
        if marks:
            self.changes += Changes(marked=write_marks(self.instance, marks))
            self.watch.code.look_again(node)
        if unnoted:
            due, known = self.watch.unnoted.get(node.key, (time.monotonic() + NOTED, set[str]()))
            self.watch.unnoted[node.key] = due, known.union(unnoted)

    def _pieces(self) -> list[Callable[[], None]]:
        """Return what can be done next: a piece of each thing that goes on."""
        watch, graph = self.watch, self.watch.graph
        for grain in graph.grains:
            if self._is_to_be_synced(grain):
                watch.syncs[grain] = sync_pieces(self.instance, graph, grain)
                watch.unsynced.discard(grain)
        # One grain after the other, for each holds its partitions in memory.
        pieces = [partial(self._sync, grain) for grain in list(watch.syncs)[:1]]
        pieces += [partial(self._search, n) for n in graph.nodes if self._is_to_be_searched(n)]
        pieces += [partial(self._write_marks, n) for n in graph.nodes if self._is_to_be_marked(n)]
        pieces += [partial(self._age_page, n) for n in graph.populated if self._is_to_be_aged(n)]
        pieces += [partial(self._prove, n) for n in graph.populated if self._is_doubted(n)]
        pieces += [partial(self._withdraw, n) for n in graph.nodes if self._has_vanished(n)]
        return pieces

    def _is_to_be_synced(self, grain: Grain) -> bool:
        watch = self.watch
        due = grain in watch.unsynced and grain not in watch.syncs and watch.pauses[grain].over
        return due and grain not in self._failed

    def _is_to_be_searched(self, node: TableNode) -> bool:
        watch, key = self.watch, node.key
        if node.grain is None or key in self.managed or key in self.held.whole:
            return False
        # A mark would not be shown as long as its partition is not there.
        if node.grain in watch.syncs or watch.backlog.get(key) or key in self._failed:
            return False
        noted = watch.unmarked.get(key)
        due = noted is not None and noted.whole and watch.pauses[key, "marks"].over
        return due or key in watch.searches

    def _is_to_be_aged(self, node: TableNode) -> bool:
        watch, key = self.watch, node.key
        # A mark that is missing still would say it at once.
        if key in watch.searches or watch.backlog.get(key) or (key, "aging") in self._failed:
            return False
        noted = watch.aging.get(key)
        due = noted is not None and noted.whole and watch.pauses[key, "aging"].over
        return due or key in watch.agings

    def _age_page(self, node: TableNode) -> None:
        watch, key, began = self.watch, node.key, time.monotonic()
        if key not in watch.agings:
            watch.agings[key] = outdated_pages(self.instance, watch.graph, node)
            del watch.aging[key]
        if not self._attempt(node, self._next_aged):
            watch.agings.pop(key)
            watch.aging[key].add(EVERYTHING)
            self._failed.add((key, "aging"))
        watch.seconds[key, "aging"] += time.monotonic() - began
        if key not in watch.agings:
            watch.pauses[key, "aging"].took(watch.seconds.pop((key, "aging")))

    def _next_aged(self, node: TableNode) -> None:
        found = next(self.watch.agings[node.key], None)
        if found is None:
            del self.watch.agings[node.key]
        else:
            self._write_aged(node, *found)

    def _is_to_be_marked(self, node: TableNode) -> bool:
        waiting = bool(self.watch.backlog.get(node.key))
        return waiting and self._written[node.key] < self.settings.max_marks

    def _is_doubted(self, node: TableNode) -> bool:
        doubted = node.key in self.watch.unproven or bool(self.watch.doubtful.get(node.key))
        return doubted and (node.key, "failures") not in self._failed

    def _prove(self, node: TableNode) -> None:
        if not self._attempt(node, self._compare_failures):
            self._failed.add((node.key, "failures"))

    def _compare_failures(self, node: TableNode) -> None:
        """Compare what is shown as failed with the errors in the job queue, as far as in doubt."""
        watch, key = self.watch, node.key
        if key in watch.unproven:
            for table in (key, *(part.key for part in watch.graph.parts(node))):
                watch.doubtful[key].update(shown_as_failed(self.instance, table))
            watch.doubtful[key].update(watch.errors_of(node))
            watch.unproven.discard(key)
        # The end of a run makes us look again at what it holds.
        doubtful = set[str]() if key in self.held.whole else watch.doubtful[key]
        waiting = sorted(doubtful - self.held.of(key))
        parts = [part.key for part in self.watch.graph.parts(node)]
        now, later = waiting[:MARKS], waiting[MARKS:]
        errors = watch.errors_of(node)
        written, refuted = compare_failures(self.instance, node, parts, now, errors)
        watch.doubtful[key] = set(later)
        for table in (key, *parts) if refuted else ():
            known = watch.backlog[table]
            known.extend(partition for partition in refuted if partition not in known)
            watch.refuted[table].update(refuted)
        self.changes += Changes(marked=written)

    def _has_vanished(self, node: TableNode) -> bool:
        watch, key = self.watch, node.key
        if node.grain is None or key in self.managed or (key, "vanished") in self._failed:
            return False
        master = self.watch.graph.by_key.get(node.master) if node.master else None
        if master is not None and master.populated:
            # A part is marked with its master, whether or not it has rows.
            watch.vanished.discard(key)
            return False
        due = key in watch.vanished and watch.pauses[key, "vanished"].over
        return due or key in watch.withdrawals

    def _withdraw(self, node: TableNode) -> None:
        watch, key, began = self.watch, node.key, time.monotonic()
        if not self._attempt(node, self._withdraw_page):
            watch.withdrawals.pop(key, None)
            watch.vanished.add(key)
            self._failed.add((key, "vanished"))
        watch.seconds[key, "vanished"] += time.monotonic() - began
        if key not in watch.withdrawals:
            watch.pauses[key, "vanished"].took(watch.seconds.pop((key, "vanished")))

    def _withdraw_page(self, node: TableNode) -> None:
        watch, key = self.watch, node.key
        if key not in watch.withdrawals:
            watch.vanished.discard(key)
            parts = watch.graph.parts(node) if node.populated else []
            marked = [key, *(part.key for part in parts)]
            watch.withdrawals[key] = vanished_pages(self.instance, node, marked)
        page = next(watch.withdrawals[key], None)
        if page is None:
            del watch.withdrawals[key]
        elif node.populated:
            # A failure before the mark would be shown again.
            watch.doubtful[key].update(page)

    def _sync(self, grain: Grain) -> None:
        watch, began = self.watch, time.monotonic()
        connection = watch.graph.of_grain(grain)[0].table.connection
        if not self.guard.attempt(grain.name, connection, self._sync_piece, grain):
            del watch.syncs[grain]
            watch.unsynced.add(grain)
            self._failed.add(grain)
        watch.seconds[grain] += time.monotonic() - began
        if grain not in watch.syncs:
            rows = watch.rows(*watch.graph.of_grain(grain))
            watch.pauses[grain].took(watch.seconds.pop(grain), rows)

    def _sync_piece(self, grain: Grain) -> None:
        done = next(self.watch.syncs[grain], None)
        if done is None:
            del self.watch.syncs[grain]
            self.watch.retry_orphans(grain)
            return
        self.changes += done
        if done.removed and self.watch.losses.recount(self.instance, grain, done.removed):
            self.watch.unsynced.add(grain)

    def _search(self, node: TableNode) -> None:
        watch, key, began = self.watch, node.key, time.monotonic()
        if key not in watch.searches:
            watch.searches[key] = unmarked_pages(self.instance, node)
            del watch.unmarked[key]
        if not self._attempt(node, self._search_page):
            watch.searches.pop(key)
            watch.unmarked[key].add(EVERYTHING)
            self._failed.add(key)
        watch.seconds[key] += time.monotonic() - began
        if key not in watch.searches:
            watch.pauses[key, "marks"].took(watch.seconds.pop(key), watch.rows(node))

    def _search_page(self, node: TableNode) -> None:
        page = next(self.watch.searches[node.key], None)
        if page is None:
            del self.watch.searches[node.key]
        else:
            self.watch.backlog[node.key].extend(page)

    def _write_marks(self, node: TableNode) -> None:
        backlog, busy = self.watch.backlog[node.key], self.held.of(node.key)
        most = min(len(backlog), MARKS, self.settings.max_marks - self._written[node.key])
        wanted = [backlog.popleft() for _ in range(most)]
        # A run that holds a key is going to mark it; if it does not, its end makes us look again.
        free = [partition for partition in wanted if partition not in busy]
        refuted = self.watch.refuted[node.key]
        again = repeated(self.instance, node, refuted.intersection(free))
        refuted.difference_update(wanted)
        first = first_marks(
            self.instance, self.watch.graph, node, [p for p in free if p not in again]
        )
        marks = [*again.values(), *first]
        self.changes += Changes(marked=write_marks(self.instance, marks))
        self._written[node.key] += most


def first_marks(
    instance: DagsterInstance, graph: TableGraph, node: TableNode, partitions: Sequence[str]
) -> list[Mark]:
    """Return marks of partitions that have none, with what is known of how `make` filled them."""
    filled = graph.by_key[node.master] if node.master is not None else node
    if not filled.populated:
        return [Mark(node.key, partition) for partition in partitions]
    return Aging(instance, graph, filled).marks(node, partitions)

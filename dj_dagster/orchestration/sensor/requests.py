"""Requests of the sensor for runs of pending keys, each once, and retries of failed keys."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import assert_never

from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    EventRecordsFilter,
    RunRequest,
    RunsFilter,
)

from dj_dagster.model.heading import Values
from dj_dagster.orchestration._dagster import (
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    RUN_KEY_TAG,
    RUNLESS_RUN_ID,
)
from dj_dagster.orchestration.runs.run_records import (
    BATCH_TAG,
    Attempts,
    HeldKeys,
    Refusal,
    RunBook,
    run_tags,
)
from dj_dagster.orchestration.runs.shown_marks import last_events
from dj_dagster.orchestration.sensor.sensor_settings import (
    NO_RETRIES,
    Evaluation,
    Pause,
    RetryPolicy,
)
from dj_dagster.orchestration.sensor.upkeep import Partitions
from dj_dagster.orchestration.tables.partitions import (
    Key,
    Region,
    Regions,
    beginnings,
    own_table,
    present_among,
    register,
)
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode, op_name
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.jobs import JobQueue


@dataclass(frozen=True)
class Batch:
    """Keys of one grain, and the tables that one run is to fill for them, parents first.

    Attributes
    ----------
    partitions
        In the order of the keys; None stands for the single row of a table without a key.
    """

    nodes: tuple[TableNode, ...]
    partitions: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A name for these tables and keys, the same in every process."""
        words = [node.title for node in self.nodes] + list(self.partitions)
        # A partition of many keys is requested again for new keys, which is not a further attempt.
        words += [str(node.rows_in(self.partitions)) for node in self.nodes if node.coarse]
        # Keys that one version of a make has left pending may be made by another.
        words += [str(node.staleness.code) for node in self.nodes]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


@dataclass
class Requests:
    """The requests of one tick.

    Attributes
    ----------
    exhausted
        Batches that were run so often that they are not requested any more.
    postponed
        Batches that are requested later.
    gathered
        Batches of few keys that wait for more, because runs of their tables wait to begin.
    goes_on
        Whether a whole table still waits to be looked at.
    """

    runs: list[RunRequest] = field(default_factory=list[RunRequest])
    exhausted: list[Batch] = field(default_factory=list[Batch])
    postponed: list[Batch] = field(default_factory=list[Batch])
    gathered: list[Batch] = field(default_factory=list[Batch])
    goes_on: bool = False

    def __iadd__(self, other: Requests) -> Requests:
        self.runs += other.runs
        self.exhausted += other.exhausted
        self.postponed += other.postponed
        self.gathered += other.gathered
        self.goes_on |= other.goes_on
        return self


QUEUE = 2
"""Runs of a table that may wait to begin before its new keys are gathered into larger batches.

Otherwise a full queue grows by a small run with each tick. With twenty faults on a Slurm of two
nodes and a tick each second, all keys were shown 204 to 254 seconds after the last fault, and 10 to
121 with this limit.
"""

PATIENCE = 30.0
"""Seconds for which keys are gathered beside `QUEUE` runs, twice as long for each further run.

A run whose start was interrupted waits for minutes, and keeps nothing up for so long; a queue that
takes a day grows by a dozen runs.
"""


class RunRequester:
    """Keys that may be pending, for which runs are requested.

    Parameters
    ----------
    rows
        A function that returns the number of rows of some tables.
    runs
        The unfinished runs.
    postponed
        Called with each batch that is to be requested later.

    Attributes
    ----------
    orphans
        Pending partitions below a deleted row, by table.
    """

    def __init__(
        self,
        graph: TableGraph,
        partitions: Partitions,
        rows: Callable[[Iterable[TableNode]], int],
        runs: RunBook,
        postponed: Callable[[Batch], None],
    ) -> None:
        self._graph = graph
        self._partitions = partitions
        self._rows = rows
        self._runs = runs
        self._postponed = postponed
        self._pending: defaultdict[AssetKey, Regions] = defaultdict(Regions)
        self._pauses: defaultdict[AssetKey, Pause] = defaultdict(Pause)
        # Requested batches, by run key, until their runs are seen.
        self._asked: dict[str, Batch] = {}
        self._has_looked = False
        self._not_begun: Counter[AssetKey] | None = None
        # The times since which new keys are gathered, by `time.monotonic`.
        self._gathered: dict[AssetKey, float] = {}
        self.orphans: defaultdict[AssetKey, set[str]] = defaultdict(set[str])

    @property
    def asked_tables(self) -> set[AssetKey]:
        """The tables of the requested runs that are not there yet."""
        return {node.key for batch in self._asked.values() for node in batch.nodes}

    def note(self, node: TableNode, region: Region) -> None:
        """Note a region in which keys may have become pending."""
        self._pending[node.key].add(region)

    def ended(self, instance: DagsterInstance) -> Iterator[Batch]:
        """Yield the requested batches whose run has ended, or was never created."""
        for run_key, batch in list(self._asked.items()):
            runs = instance.get_runs(RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
            if not runs or runs[0].is_finished:
                yield batch
            del self._asked[run_key]

    def request(self, tick: Evaluation) -> Requests:
        """Return requests for the pending keys."""
        done, self._has_looked, self._not_begun = Requests(), False, None
        waiting = {
            key
            for key, regions in self._pending.items()
            if regions and tick.settings.of(self._graph.by_key[key]).automatic
        }
        for grain in self._graph.grains:
            nodes = [node for node in self._graph.of_grain(grain) if node.key in waiting]
            if nodes:
                connection = nodes[0].table.connection
                found = tick.guard.attempt(grain.name, connection, self._in_grain, nodes, tick)
                done += found or Requests()
        for node in self._graph.populated:
            if node.grain is None and node.key in waiting:
                done += tick.attempt(node, self._single, node, tick) or Requests()
        for batch in done.postponed:
            self._postponed(batch)
        return done

    def _in_grain(self, nodes: list[TableNode], tick: Evaluation) -> Requests:
        """Request the pending keys of tables of one grain; clear the notes on requested tables."""
        grain, limit, done = nodes[0].grain, tick.settings.max_batches, Requests()
        members = [node for node in self._graph.populated if node.grain == grain]
        size = min(tick.settings.of(node).batch_size for node in members)
        able, found = self._able(tick), dict[AssetKey, _Pending]()
        for node in nodes:
            if node.key not in able:
                continue
            if not self._has_time(node, tick):
                done.goes_on = True
            elif pending := tick.attempt(node, self._find, node, tick, size * limit):
                found[node.key] = pending
        partitions = {key: pending.partitions for key, pending in found.items()}
        asked, are_all = batches(
            self._graph, partitions, tick.held, size=size, limit=limit, of=self._able(tick)
        )
        for batch in asked:
            if not batch.nodes:
                continue
            if len(batch.partitions) < size and self._gathers(batch, tick):
                done.gathered.append(batch)
            else:
                done += self._request(batch, tick)
        for key, pending in found.items():
            if are_all and pending.are_all and not done.gathered:
                del self._pending[key]
        return done

    def _gathers(self, batch: Batch, tick: Evaluation) -> bool:
        """Whether so many runs of a table wait to begin that a small one is better gathered."""
        if self._not_begun is None:
            self._not_begun = self._runs.not_begun(tick.instance)
        keys, now = [node.key for node in batch.nodes], time.monotonic()
        queued = max(self._not_begun[key] for key in keys)
        since = min(self._gathered.setdefault(key, now) for key in keys)
        # A day and a half at most, which a float holds.
        longest = PATIENCE * 2 ** min(queued - QUEUE, 12)
        if queued >= QUEUE and now - since < longest:
            return True
        for key in keys:
            del self._gathered[key]
        return False

    def _has_time(self, node: TableNode, tick: Evaluation) -> bool:
        """Whether there is time to look at a table; each tick looks at one whole table at least."""
        if not self._pending[node.key].whole:
            return True
        if not self._pauses[node.key].over:
            return False
        first, self._has_looked = not self._has_looked, True
        return first or not tick.budget.spent

    def _find(self, node: TableNode, tick: Evaluation, limit: int) -> _Pending:
        regions, began = self._pending[node.key], time.monotonic()
        found = pending_partitions(self._graph, node, regions, tick.held, limit)
        self.orphans[node.key] |= found.orphans
        if regions.whole:
            self._pauses[node.key].after(began, self._rows([node]))
        return found

    def _able(self, tick: Evaluation) -> set[AssetKey]:
        """Return the tables that runs may fill: automatic ones without errors in this tick."""
        failed = tick.guard.errors.keys()
        return {
            node.key
            for node in self._graph.populated
            if tick.settings.of(node).automatic
            and not failed & {node.title, str(node.name)}
            and tick.attempt(node, _try, node)
        }

    def _single(self, node: TableNode, tick: Evaluation) -> Requests:
        done = Requests()
        if node.key not in tick.held.whole:
            for batch in single_batch(node, tick.held):
                done += self._request(batch, tick)
            del self._pending[node.key]
        return done

    def _request(self, batch: Batch, tick: Evaluation) -> Requests:
        asked = request(
            tick.instance,
            self._graph,
            batch,
            attempts=tick.settings.attempts,
            priority=max(tick.settings.of(node).priority for node in batch.nodes),
        )
        match asked:
            case Refusal.EXHAUSTED:
                return Requests(exhausted=[batch])
            case Refusal.LATER:
                return Requests(postponed=[batch])
            case RunRequest():
                grain = batch.nodes[0].grain
                if grain is not None and self._partitions.is_in_doubt(grain):
                    # The comparison of the grain may not have reached these partitions.
                    register(tick.instance, grain, batch.partitions)
                self._asked[str(asked.run_key)] = batch
                return Requests(runs=[asked])
            case _:
                assert_never(asked)


def _try(node: TableNode) -> bool:
    """Read the attributes of the keys of `make`, which raises if the key source is wrong."""
    _ = node.coarse
    return True


@dataclass(frozen=True)
class _Pending:
    """Partitions to make.

    Attributes
    ----------
    are_all
        Whether these are all pending partitions.
    orphans
        Pending partitions that are left out, because they went with a deleted row.
    """

    partitions: list[str]
    are_all: bool
    orphans: set[str] = field(default_factory=set[str])


def pending_partitions(
    graph: TableGraph, node: TableNode, regions: Regions, held: HeldKeys, limit: int
) -> _Pending:
    """Return partitions to make.

    They are in the table's key source, but neither in the table nor in an unfinished run, and are
    without an error. Keys below an orphan are left out, because their partition went with the
    deleted row.

    Parameters
    ----------
    regions
        The regions to look at.
    """
    grain = node.grain
    if grain is None or node.key in held.whole or not regions:
        return _Pending([], not regions)
    busy = held.of(node.key)
    most = limit + len(busy)

    def find(*within: object) -> tuple[list[str], bool]:
        keys = node.pending(*regions.restrictions(), *within, limit=most)
        return [p for p in grain.encode_all(keys) if p not in busy], len(keys) < most

    free, ended = find()
    orphans = set[str]()
    if roots := _roots(graph, node):
        orphans = set(free).difference(*(present_among(root, free) for root in roots))
        if orphans:
            # Orphans that fill the limit would hide the keys behind them.
            free, ended = find([root.table.proj() for root in roots])
    return _Pending(free[:limit], ended, orphans)


def _roots(graph: TableGraph, node: TableNode) -> list[TableNode]:
    """Return the tables where a table's grain begins, if the table depends on others in between."""
    if node.grain is None:
        return []
    roots = beginnings(graph, node.grain)
    own = {root.key for root in roots}
    between = {each.key for each in graph.of_grain(node.grain)} - own
    return roots if node.key in between and between.intersection(node.parents) else []


def batches(
    graph: TableGraph,
    pending: Mapping[AssetKey, list[str]],
    held: HeldKeys,
    *,
    size: int,
    limit: int,
    of: Collection[AssetKey],
) -> tuple[list[Batch], bool]:
    """Put the pending keys of one grain into batches; return these, and whether they have all keys.

    Parameters
    ----------
    size, limit
        Keys of a batch, and number of batches, at most.
    of
        The tables that may be in the batches.
    """
    keys = list(dict.fromkeys(chain.from_iterable(pending.values())))
    wanted = keys[: size * limit]
    parts = (wanted[start : start + size] for start in range(0, len(wanted), size))
    found = [
        Batch(nodes, tuple(part))
        for part in parts
        for nodes in _nodes(graph, pending, held, part, of)
    ]
    return found, len(wanted) == len(keys)


def single_batch(node: TableNode, held: HeldKeys) -> list[Batch]:
    """Return a batch for a pending table whose key is empty: it has one row at most."""
    if node.key in held.whole or not node.pending(limit=1):
        return []
    return [Batch((node,), ())]


def request(
    instance: DagsterInstance, graph: TableGraph, batch: Batch, *, attempts: int, priority: int = 0
) -> RunRequest | Refusal:
    """Return the run of a batch, unless it was run `attempts` times and is still pending.

    Dagster starts one run for a `run_key`, so that a batch evaluated twice runs once. A run that
    was cancelled, or whose process died, leaves its keys pending; the next has another number.

    Notes
    -----
    The keys are in the run config: Dagster's tags hold one key or one range only, and would have a
    line in the event log for each key. Nevertheless the tags have one key of each run, because
    Dagster asks each run of a partitioned asset for its partitions.
    """
    before = Attempts.read(instance, batch.digest)
    if refusal := before.refusal(attempts):
        return refusal
    selection = [key for node in batch.nodes for key in _with_parts(graph, node)]
    return RunRequest(
        run_key=f"{batch.digest}-{before.next_number}",
        asset_selection=selection,
        # Each check is a further step that reads all rows from the database.
        asset_check_keys=sorted({c for key in selection for c in graph.blocking.get(key, ())}),
        run_config=_run_config(batch, again=before.has_died),
        tags={
            BATCH_TAG: batch.digest,
            **run_tags(batch.nodes, len(batch.partitions) or 1),
            **({PRIORITY_TAG: str(priority)} if priority else {}),
            **({PARTITION_NAME_TAG: batch.partitions[0]} if batch.partitions else {}),
        },
    )


def _nodes(
    graph: TableGraph,
    pending: Mapping[AssetKey, list[str]],
    held: HeldKeys,
    part: list[str],
    of: Collection[AssetKey],
) -> Iterator[tuple[TableNode, ...]]:
    """Yield the tables of each run: those that lack some of the keys, and those made after them."""
    wanted, able = set(part), set(of) - held.whole
    lacking = [graph.by_key[key] for key, keys in pending.items() if wanted.intersection(keys)]
    for nodes in graph.chains(lacking):
        # A run without a selection would be one of all assets.
        if chosen := tuple(node for node in nodes if node.key in able):
            yield chosen


def _run_config(batch: Batch, *, again: bool) -> dict[str, object]:
    # A make that has ended its process may do so again, and then should end only a worker process.
    config: dict[str, object] = {"retry_errors": False, "isolate": again}
    if batch.partitions:
        config["keys"] = list(batch.partitions)
    return {"ops": {op_name(node.key): {"config": config} for node in batch.nodes}}


def _with_parts(graph: TableGraph, node: TableNode) -> Iterator[AssetKey]:
    yield node.key
    yield from (part.key for part in graph.parts(node))


LOOKED_AT = 1000
"""Errors of one table that are read together, at most."""


class Retries:
    """Failed keys that are retried automatically, and tables whose errors are to be read."""

    def __init__(self) -> None:
        self._unread: dict[AssetKey, TableNode] = {}
        self._waiting: dict[AssetKey, tuple[TableNode, _Waiting]] = {}

    def note(self, node: TableNode) -> None:
        """Note that the errors of a table may have changed."""
        self._unread[node.key] = node

    def free(self, tick: Evaluation) -> list[tuple[TableNode, list[Key]]]:
        """Make due keys pending again, and return them by table."""
        due = {key: node for key, (node, waiting) in self._waiting.items() if waiting.is_due}
        found = [
            (node, tick.attempt(node, self._free, node, tick))
            for node in {**self._unread, **due}.values()
        ]
        return [(node, keys) for node, keys in found if keys]

    def _free(self, node: TableNode, tick: Evaluation) -> list[Key]:
        _, waiting = self._waiting.setdefault(node.key, (node, _Waiting()))
        if node.key in self._unread:
            policy = tick.settings.of(node).retries or NO_RETRIES
            waiting.read(tick.instance, node, policy)
            del self._unread[node.key]
        return waiting.free(node)


@dataclass
class _Waiting:
    """The failed keys of one table that wait for a retry, each with the time when it is due.

    Attributes
    ----------
    due
        The times, by `time.monotonic`.
    """

    due: dict[Values, float] = field(default_factory=dict[Values, float])

    @property
    def is_due(self) -> bool:
        """Whether a key is due."""
        return any(at <= time.monotonic() for at in self.due.values())

    def read(self, instance: DagsterInstance, node: TableNode, policy: RetryPolicy) -> None:
        """Read the errors of a table from its job queue."""
        table = own_table(node)
        self.due = {}
        if table is None or policy.attempts < 2:
            return
        rows = JobQueue(table).rows
        names = [*rows.key, "error_message", "completed_time"]
        errors = fetch.rows(rows.connection, rows.node("error"), names)
        found = {row[:-2]: row[-1] for row in errors if policy.covers(row[-2])}
        found = dict(list(found.items())[:LOOKED_AT])
        if not found:
            return
        now, clock = rows.now(), time.monotonic()
        keys = [dict(zip(rows.key, row, strict=True)) for row in found]
        named = node.partitions_of(keys) or [None] * len(keys)
        partitions = dict(zip(found, named, strict=True))
        failures = failures_of(instance, node.key, list(partitions.values()))
        for row, ended in found.items():
            count = max(1, failures.get(partitions[row], 1))
            if count < policy.attempts:
                self.due[row] = clock + policy.wait(count) - _age(now, ended)

    def free(self, node: TableNode) -> list[Key]:
        """Make due keys pending again, and return them."""
        now = time.monotonic()
        due = [row for row, at in self.due.items() if at <= now]
        table = own_table(node)
        if not due or table is None:
            return []
        rows = JobQueue(table).rows
        rows.delete(due, ("error",))
        for row in due:
            del self.due[row]
        return [dict(zip(rows.key, row, strict=True)) for row in due]


def failures_of(
    instance: DagsterInstance, key: AssetKey, partitions: Sequence[str | None]
) -> Mapping[str | None, int]:
    """Return the numbers of failures of partitions since they were last made, by the event log."""
    named = [partition for partition in partitions if partition is not None]
    last = last_events(instance, key, DagsterEventType.ASSET_MATERIALIZATION, named)
    records = instance.get_event_records(
        EventRecordsFilter(
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED, asset_key=key, asset_partitions=named
        )
    )
    counts: dict[str | None, int] = {}
    for record in records:
        partition = record.event_log_entry.get_dagster_event().partition
        if record.run_id == RUNLESS_RUN_ID:
            # This plan takes an earlier one back.
            continue
        if record.storage_id > last.get(partition or "", 0):
            counts[partition] = counts.get(partition, 0) + 1
    return counts


def _age(now: datetime, ended: datetime | None) -> float:
    return (now - ended).total_seconds() if ended is not None else 0.0

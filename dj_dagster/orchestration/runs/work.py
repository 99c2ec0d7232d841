"""Keys made in a step: in its process, in worker processes, or again where rows are there.

A `make` does not bring back rows that people entered, nor those whose key its key source has not
any more, so keys with such dependent rows are left.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from dagster import Enum, EnumValue, Field

from dj_dagster.errors import PopulateError, counted
from dj_dagster.model.heading import Key, Value, Values
from dj_dagster.model.names import TableName, class_path
from dj_dagster.orchestration.arguments import check_number
from dj_dagster.orchestration.runs.held_keys import IGNORED, bring_forward, ignored
from dj_dagster.orchestration.runs.stale_marks import Aging
from dj_dagster.orchestration.tables.partitions import own_table
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import OwnPopulator, TableNode
from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.delete import Doomed, doomed_rows, row_counts
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.table import Table
from dj_dagster.workflow.attempt import KeyOutcome
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import KeySource, PopulatedTable, has_own_key_source
from dj_dagster.workflow.notes import Notes, is_entered, spelled_otherwise
from dj_dagster.workflow.pending import given
from dj_dagster.workflow.populate import PopulateOptions, check_populable, chosen
from dj_dagster.workflow.workers import WorkerPool, WorkerProcess


@dataclass(frozen=True)
class Work:
    """The way in which a step makes keys.

    Attributes
    ----------
    processes
        The number of worker processes of a run, for a `make` that keeps a core busy.
    timeout
        Seconds after which a `make` is killed, and its key fails. Keys are then made in worker
        processes, as with `isolate` or more than one process.
    isolate
        Whether a `make` that ends its process fails its key alone instead of the whole run.

    Raises
    ------
    ConfigurationError
        When `processes` is below 1, or `timeout` is not positive.
    """

    processes: int = 1
    timeout: float | None = None
    isolate: bool = False

    def __post_init__(self) -> None:
        check_number("Work", "processes", self.processes, 1, "1 or more", whole=True)
        if self.timeout is not None:
            words = "seconds, or None"
            check_number("Work", "timeout", self.timeout, sys.float_info.min, words)

    @property
    def apart(self) -> bool:
        """Whether keys are made in worker processes."""
        return self.processes > 1 or self.timeout is not None or self.isolate


HERE = Work()
"""The default: keys are made in the process of the step, one after another."""


def outcomes(
    node: TableNode, keys: Iterable[Mapping[str, Value]] | None, *, retry_errors: bool, work: Work
) -> Iterator[KeyOutcome]:
    """Make keys of a table, all pending ones for None; see `TableNode.outcomes`."""
    if work.apart and isinstance(node.filled_by, OwnPopulator):
        node = replace(node, filled_by=ProcessPopulator(node.filled_by.table, work))
    return node.outcomes(keys, retry_errors=retry_errors)


class MakeTimeoutError(PopulateError):
    """A `make` took longer than its timeout.

    Raise `Work.timeout` of its table in the translator's `get_work` if the time was needed, and
    materialise the key again.
    """


class WorkerDiedError(PopulateError):
    """The process that made a key ended early or was killed.

    Most often the system ran out of memory: let fewer processes work at once, by `Work.processes`
    or Dagster's pools. A library that crashes ends its process too. The sensor tries such keys
    again.
    """


class ProcessPopulator(OwnPopulator):
    """The populator of a table of ours that uses worker processes."""

    def __init__(self, table: PopulatedTable, work: Work) -> None:
        super().__init__(table)
        self._work = work

    def make(
        self, keys: Iterable[Mapping[str, Value]] | None, *, retry_errors: bool
    ) -> Generator[KeyOutcome]:
        """Make keys as `populate_keys` does."""
        check_populable(self.table)
        source = KeySource(self.table)
        wanted, options = chosen(source, keys, retry_errors=retry_errors, reserve=self.reservable)
        pool = TimedPool(self.table, options, wanted, self._work)
        with closing(pool.outcomes()) as made:
            yield from made


class TimedPool(WorkerPool):
    """Worker processes with a timeout: one that takes too long for a key is killed."""

    def __init__(
        self, table: PopulatedTable, options: PopulateOptions, keys: Iterable[Key], work: Work
    ) -> None:
        super().__init__(table, options, keys, work.processes, None)
        self._timeout = work.timeout
        self._late: set[Values] = set()

    def _ready(self) -> list[WorkerProcess]:
        ready = super()._ready()
        if self._timeout is not None:
            ready += [w for w in self._workers if w not in ready and self._is_late(w)]
        return ready

    def _is_late(self, worker: WorkerProcess) -> bool:
        key, since = worker.current_key(), worker.status.since
        if key is None or self._timeout is None or time.monotonic() - since < self._timeout:
            return False
        self._late.add(tuple(key.values()))
        worker.process.kill()
        worker.process.join()
        return True

    def _failed(self, key: Key, code: int | None) -> KeyOutcome:
        if tuple(key.values()) in self._late:
            text = f"make took longer than {self._timeout:g} s and was killed"
            error: PopulateError = MakeTimeoutError(text)
        else:
            error = WorkerDiedError(str(super()._failed(key, code).error))
        outcome = KeyOutcome(key, "failed", self._timeout or 0.0, error=error)
        if self._options.reserve:
            JobQueue(self._table).error(key, outcome.message, str(error))
        return outcome


SKIP, STALE, RECOMPUTE = "skip", "stale", "recompute"

_ON_EXISTING = Enum("OnExisting", [EnumValue(SKIP), EnumValue(STALE), EnumValue(RECOMPUTE)])

_SAID = (
    "What becomes of keys that are there already. stale: those that are stale are deleted, with "
    "all that depends on them, and made again. recompute: all of them are. skip: none is."
)


def on_existing(default: str) -> Field:
    """Return the launchpad's field for the treatment of present keys."""
    return Field(_ON_EXISTING, default_value=default, description=_SAID)


DELETE_ENTERED = Field(
    bool,
    default_value=False,
    description="Whether dependent rows that no make brings back are deleted: rows that people "
    "entered, and rows whose key is not in the key source any more. Otherwise such keys are left "
    "as they are.",
)


@dataclass(frozen=True)
class OnExisting:
    """The treatment of keys that are in their table already.

    Attributes
    ----------
    choice
        ``"skip"``, ``"stale"`` or ``"recompute"``.
    delete_entered
        Whether dependent rows that no `make` brings back are deleted too.
    gone
        A mapping to which the keys are added, by table, that are deleted with keys of parents.
    """

    choice: str = SKIP
    delete_entered: bool = False
    gone: dict[TableName, list[Key]] | None = None


def made_again(
    graph: TableGraph,
    aging: Aging,
    node: TableNode,
    keys: Sequence[Key] | None,
    existing: OnExisting,
    *,
    retry_errors: bool,
    work: Work,
) -> Iterator[KeyOutcome]:
    """Make keys, including present ones that are to be made again.

    Keys whose jobs were put off are made now where failed ones are tried again.

    Yields
    ------
    KeyOutcome
        One a key. The status is ``left`` for keys that `make` would not be given, and for keys with
        dependent rows that no `make` brings back.
    """
    if keys is not None and retry_errors:
        bring_forward(node, keys)
    doomed = _doomed(aging, node, keys, existing)
    rows = {_partition(node, key) for key in doomed}
    others = None if keys is None else [key for key in keys if _partition(node, key) not in rows]
    if others is None or others:
        yield from outcomes(node, others, retry_errors=retry_errors, work=work)
    deletion = deletion_of(graph, node, existing)
    for start in range(0, len(doomed), DELETED_TOGETHER):
        chunk = doomed[start : start + DELETED_TOGETHER]
        left = ungiven(node, chunk)
        left |= deletion.clear([key for key in chunk if tuple(key.values()) not in left])
        free = [key for key in chunk if tuple(key.values()) not in left]
        if free:
            yield from outcomes(node, free, retry_errors=True, work=work)
        yield from _beside(node, free, left, retry_errors=retry_errors, work=work)
        yield from _left(node, left)


def deletion_of(graph: TableGraph, node: TableNode, existing: OnExisting) -> KeyDeletion:
    """Return the deletion of keys of a table that are to be made again."""
    deletion = KeyDeletion(
        node.table,
        node.populator.key_names,
        _Filled(graph),
        {each.name: each for each in graph.populated if _leaves_out(each)},
        with_entered=existing.delete_entered,
    )
    if existing.gone is None:
        return deletion
    below = {each.name: each.populator.key_names for each in graph.populated}
    return replace(deletion, below=below, gone=existing.gone)


def _doomed(
    aging: Aging, node: TableNode, keys: Sequence[Key] | None, existing: OnExisting
) -> list[Key]:
    """Return the present keys of `make` that are to be made again."""
    if existing.choice == SKIP or keys == []:
        return []
    chosen = () if keys is None else (list(keys),)
    if existing.choice == STALE:
        return aging.stale(*chosen)
    return [key for page in node.staleness.pages(*chosen) for key in node.respelled(page)]


def ungiven(node: TableNode, keys: Sequence[Key]) -> dict[Values, str]:
    """Return the keys that `make` would not be given, by their values, each with the reason."""
    table, names = own_table(node), node.populator.key_names
    if table is None:
        every = node.respelled(node.populator.keys())
        known = {tuple(key[name] for name in names) for key in every}
    else:
        known = given(KeySource(table), list(keys))
    rows = (tuple(key.values()) for key in keys)
    gone = {row: "its key is not in the key source any more" for row in rows if row not in known}
    return gone | dict.fromkeys(ignored(node, keys), IGNORED)


def _leaves_out(node: TableNode) -> bool:
    """Whether the key source may lack keys that are in the table: that of the parents has all."""
    table = own_table(node)
    return table is None or has_own_key_source(table)


def _partition(node: TableNode, key: Key) -> str:
    return node.grain.encode(key) if node.grain is not None else ""


def _beside(
    node: TableNode,
    free: Sequence[Key],
    left: dict[Values, str],
    *,
    retry_errors: bool,
    work: Work,
) -> Iterator[KeyOutcome]:
    """Make the pending keys of partitions of many keys, of which no key is free to be made again.

    Where one is, the others of its partition have been made with it.
    """
    if not node.coarse:
        return
    done = {_partition(node, key) for key in free}
    keys = [key for key in _keys(node, left) if _partition(node, key) not in done]
    if keys:
        made = outcomes(node, keys, retry_errors=retry_errors, work=work)
        yield from (each for each in made if each.status not in ("present", "missing"))


def _left(node: TableNode, left: dict[Values, str]) -> Iterator[KeyOutcome]:
    for key, reason in zip(_keys(node, left), left.values(), strict=True):
        error = PopulateError(f"It is left as it is: {reason}.")
        yield KeyOutcome(key, "left", error=error)


def _keys(node: TableNode, rows: Iterable[Values]) -> list[Key]:
    return [dict(zip(node.populator.key_names, row, strict=True)) for row in rows]


class _Filled:
    """A predicate whether a `make` fills a table: here, or, judged by its tier, elsewhere."""

    def __init__(self, graph: TableGraph) -> None:
        self._filled = {node.name: _root(graph, node).populated for node in graph.nodes}

    def __call__(self, name: TableName) -> bool:
        return self._filled.get(name, not is_entered(name))


def _root(graph: TableGraph, node: TableNode) -> TableNode:
    return node if node.master is None else graph.by_key[node.master]


DELETED_TOGETHER = 100
"""Keys that are deleted together, just before they are made."""


@dataclass(frozen=True)
class KeyDeletion:
    """The deletion of keys of one table so that they can be made again.

    Attributes
    ----------
    names
        The attributes of the keys that its `make` is given.
    is_filled
        A function that tells whether a `make` fills a table.
    leaving_out
        The tables whose key source may lack keys that are in them.
    with_entered
        Whether rows that no `make` brings back are deleted too.
    below
        The attributes of the keys of `make`, for each dependent table.
    gone
        The keys of these tables that were deleted with keys that they depend on.
    """

    table: Table
    names: Sequence[str]
    is_filled: Callable[[TableName], bool] = field(default=lambda name: not is_entered(name))
    leaving_out: Mapping[TableName, TableNode] = field(default_factory=dict[TableName, TableNode])
    with_entered: bool = False
    below: Mapping[TableName, Sequence[str]] = field(default_factory=dict[TableName, Sequence[str]])
    gone: dict[TableName, list[Key]] = field(default_factory=dict[TableName, list[Key]])

    def clear(self, keys: Sequence[Key]) -> dict[Values, str]:
        """Delete the rows of keys with all that depends on them.

        Returns
        -------
        dict
            The keys that are left, by their values, each with the reason.
        """
        left = self.kept(keys)
        free = [key for key in keys if tuple(key.values()) not in left]
        if free:
            if self.below:
                self._note_gone(free)
            differing = spelled_otherwise(self.table, free)
            self._rows(free).delete(prompt=False)
            Notes(self.table, self.names).forget([*free, *differing.values()])
        return left

    def kept(self, keys: Sequence[Key]) -> dict[Values, str]:
        """Return the keys that `clear` would leave, by their values, each with the reason.

        They have dependent rows that no `make` brings back, and are found by halving `keys`.
        """
        lost = self._lost(keys) if keys and not self.with_entered else {}
        if not lost:
            return {}
        if len(keys) == 1:
            found = ", ".join(
                f"{counted(count, 'row')} of {name.schema}.{class_path(name.table)}"
                for name, count in lost.items()
            )
            reason = f"{found} below it would go, and no make brings them back: delete them first"
            return {tuple(keys[0].values()): reason}
        half = len(keys) // 2
        return self.kept(keys[:half]) | self.kept(keys[half:])

    def _rows(self, keys: Sequence[Key]) -> QueryExpression:
        # A key without attributes stands for all rows.
        return self.table & list(keys) if self.names else self.table

    def _lost(self, keys: Sequence[Key]) -> Mapping[TableName, int]:
        """Return the numbers of rows that would go with keys for good, by table."""
        doomed = self.doomed(keys)
        unfilled = {name: rows for name, rows in doomed.items() if not self.is_filled(name)}
        found = row_counts(self.table.connection, unfilled)
        for name in self.leaving_out.keys() & doomed.keys():
            found[name] = self._left_out(self.leaving_out[name], doomed[name])
        return {name: count for name, count in found.items() if count}

    def _left_out(self, node: TableNode, layers: list[Node]) -> int:
        """Return the number of rows of a table whose key is not in its key source any more."""
        try:
            names = node.populator.key_names
            rows = [each for r in layers for each in fetch.rows(self.table.connection, r, names)]
            keys = [dict(zip(names, row, strict=True)) for row in dict.fromkeys(rows)]
            lost = ungiven(node, keys) if keys else {}
        except PopulateError:
            # Nothing can be made for as long as the key source fails.
            return row_counts(self.table.connection, {node.name: layers})[node.name]
        return sum(row in lost for row in rows)

    def doomed(self, keys: Sequence[Key]) -> Doomed:
        """Return the rows of keys with all that depends on them, by table."""
        rows, connection = self._rows(keys), self.table.connection
        return doomed_rows(connection, hierarchy.of_table(connection, rows.node), self.table.name)

    def _note_gone(self, keys: Sequence[Key]) -> None:
        for name, layers in self.doomed(keys).items():
            names = self.below.get(name, ())
            if name == self.table.name or not names:
                continue
            known = self.gone.setdefault(name, [])
            for rows in layers:
                found = fetch.rows(self.table.connection, rows, names)
                known += [dict(zip(names, row, strict=True)) for row in dict.fromkeys(found)]

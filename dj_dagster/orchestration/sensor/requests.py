"""Requests of the sensor for populate runs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dagster import AssetKey, DagsterInstance, RunRequest

from dj_dagster.orchestration._dagster import PARTITION_NAME_TAG, PRIORITY_TAG
from dj_dagster.orchestration.runs.chosen_keys import run_tags
from dj_dagster.orchestration.runs.run_records import BATCH_TAG, Attempts, HeldKeys, Refusal
from dj_dagster.orchestration.tables.keys import Regions, present_among
from dj_dagster.orchestration.tables.naming import op_name
from dj_dagster.orchestration.tables.partitions import beginnings
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode


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
        # A partition of many keys is asked for again as its keys come: that is no attempt more.
        words += [str(node.rows_in(self.partitions)) for node in self.nodes if node.coarse]
        # What a make has left pending may be made by another.
        words += [str(node.staleness.code) for node in self.nodes]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def pending_partitions(
    graph: TableGraph, node: TableNode, regions: Regions, held: HeldKeys, limit: int
) -> tuple[list[str], bool, set[str]]:
    """Return partitions to make, whether these are all, and some that are left out.

    They are in the table's key source, not in the table, without an error, and in no unfinished
    run. Keys below an orphan are left out: their partition went with the row that is gone.

    Parameters
    ----------
    regions
        Where to look.
    """
    grain = node.grain
    if grain is None or node.key in held.whole or not regions:
        return [], not regions, set()
    busy = held.of(node.key)
    most = limit + len(busy)

    def find(*within: list[Any]) -> tuple[list[str], bool]:
        keys = node.pending(*regions.restrictions(), *within, limit=most)
        return [p for p in grain.encode_all(keys) if p not in busy], len(keys) < most

    free, ended = find()
    orphans = set[str]()
    if roots := _roots(graph, node):
        orphans = set(free).difference(*(present_among(root, free) for root in roots))
        if orphans:
            # Those that fill the limit would hide what comes behind them.
            free, ended = find([root.table.proj() for root in roots])
    return free[:limit], ended, orphans


def _roots(graph: TableGraph, node: TableNode) -> list[TableNode]:
    """Return where a table's grain begins, none if it hangs on nothing between."""
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
    """Put what is pending in tables of one grain into batches; return whether it is all in them.

    Parameters
    ----------
    size, limit
        Keys of a batch, and number of batches, at most.
    of
        Tables that may be in them.
    """
    keys = list(dict.fromkeys(chain.from_iterable(pending.values())))
    wanted = keys[: size * limit]
    parts = (wanted[start : start + size] for start in range(0, len(wanted), size))
    found = [Batch(_nodes(graph, pending, held, part, of), tuple(part)) for part in parts]
    return found, len(wanted) == len(keys)


def single_batch(node: TableNode, held: HeldKeys) -> list[Batch]:
    """Return a batch for a pending table whose key is empty: it has one row at most."""
    if node.key in held.whole or not node.pending(limit=1):
        return []
    return [Batch((node,), ())]


def request(
    instance: DagsterInstance, graph: TableGraph, batch: Batch, *, attempts: int, priority: int = 0
) -> RunRequest | Refusal:
    """Return the run of a batch, unless it was run `attempts` times and is pending still.

    Dagster starts one run for a `run_key`, so that a batch evaluated twice runs once. A run that
    was cancelled, or whose process died, leaves its keys pending: the next has another number.

    Notes
    -----
    The keys are in the run config: Dagster's tags hold one key or one range only, and would have a
    line in the event log for each key. One key is in the tags for all the same: Dagster asks each
    run of a partitioned asset for its partitions.
    """
    before = Attempts.read(instance, batch.digest)
    if refusal := before.refusal(attempts):
        return refusal
    selection = [key for node in batch.nodes for key in _with_parts(graph, node)]
    return RunRequest(
        run_key=f"{batch.digest}-{before.next_number}",
        asset_selection=selection,
        # Each check is a step more, and asks the database for all rows.
        asset_check_keys=[check for check in graph.blocking if check.asset_key in selection],
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
) -> tuple[TableNode, ...]:
    """Return the tables that lack some of the keys, and those that will once these have them."""
    wanted = set(part)
    lacking = [graph.by_key[key] for key, keys in pending.items() if wanted.intersection(keys)]
    wanted_nodes = (node for node in graph.chain(lacking) if node.key in of)
    return tuple(node for node in wanted_nodes if node.key not in held.whole)


def _run_config(batch: Batch, *, again: bool) -> dict[str, object]:
    # What has ended its process once may do so again: the next time it ends one of its own.
    config: dict[str, object] = {"retry_errors": False, "isolate": again}
    if batch.partitions:
        config["keys"] = list(batch.partitions)
    return {"ops": {op_name(node.key): {"config": config} for node in batch.nodes}}


def _with_parts(graph: TableGraph, node: TableNode) -> Iterator[AssetKey]:
    yield node.key
    yield from (part.key for part in graph.parts(node))

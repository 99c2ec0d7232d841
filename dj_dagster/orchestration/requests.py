"""Which populate runs the sensor asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from dagster import AssetKey, DagsterInstance, RunRequest, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.naming import op_name
from dj_dagster.orchestration.table_graph import TableGraph, TableNode
from dj_dagster.orchestration.unfinished import HeldKeys
from dj_dagster.workflow.jobs import JobQueue

BATCH_TAG = "dj_dagster/batch"
KEYS_TAG = "dj_dagster/keys"
TABLES_TAG = "dj_dagster/tables"


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
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def pending_partitions(node: TableNode, held: HeldKeys, limit: int) -> list[str]:
    """Return partitions to make: not in the table, without an error, in no unfinished run."""
    if node.grain is None or node.key in held.whole:
        return []
    # Keys that a killed process had claimed are pending again.
    if node.reservable:
        JobQueue(node.table).release_dead()
    busy = held.of(node.key)
    keys = node.pending(limit=limit + len(busy))
    free = [p for p in node.grain.encode_all(keys) if p not in busy]
    return free[:limit]


def grain_batches(
    graph: TableGraph, grain: Grain, held: HeldKeys, *, size: int, limit: int
) -> list[Batch]:
    """Return what is pending in a grain, in batches of `size` keys, `limit` batches at most."""
    pending = {
        node.key: pending_partitions(node, held, size * limit)
        for node in graph.of_grain(grain)
        if node.populated
    }
    keys = list(dict.fromkeys(chain.from_iterable(pending.values())))[: size * limit]
    return [
        Batch(_nodes(graph, pending, held, part), tuple(part))
        for part in (keys[start : start + size] for start in range(0, len(keys), size))
    ]


def single_batch(node: TableNode, held: HeldKeys) -> list[Batch]:
    """Return a batch for a pending table whose key is empty: it has one row at most."""
    if node.key in held.whole or not node.pending(limit=1):
        return []
    return [Batch((node,), ())]


def request(
    instance: DagsterInstance, graph: TableGraph, batch: Batch, *, attempts: int
) -> RunRequest | None:
    """Return the run of a batch, None when it was run `attempts` times and is pending still.

    Dagster starts one run for a `run_key`, so that a batch evaluated twice runs once. A run that
    was cancelled, or whose process died, leaves its keys pending: the next has another number.

    Notes
    -----
    The keys are in the run config: Dagster's tags hold one key or one range only, and would have a
    line in the event log for each key. One key is in the tags for all the same: Dagster asks each
    run of a partitioned asset for its partitions.
    """
    before = instance.get_runs_count(RunsFilter(tags={BATCH_TAG: batch.digest}))
    if before >= attempts:
        return None
    return RunRequest(
        run_key=f"{batch.digest}-{before + 1}",
        asset_selection=[key for node in batch.nodes for key in _with_parts(graph, node)],
        run_config=_run_config(batch),
        tags={
            BATCH_TAG: batch.digest,
            KEYS_TAG: str(len(batch.partitions) or 1),
            TABLES_TAG: ", ".join(node.title for node in batch.nodes),
            **({PARTITION_NAME_TAG: batch.partitions[0]} if batch.partitions else {}),
        },
    )


def _nodes(
    graph: TableGraph, pending: Mapping[AssetKey, list[str]], held: HeldKeys, part: list[str]
) -> tuple[TableNode, ...]:
    """Return the tables that lack some of the keys, and those that will once these have them."""
    wanted = set(part)
    lacking = [graph.by_key[key] for key, keys in pending.items() if wanted.intersection(keys)]
    return tuple(node for node in graph.chain(lacking) if node.key not in held.whole)


def _run_config(batch: Batch) -> dict[str, object]:
    config: dict[str, object] = {"retry_errors": False}
    if batch.partitions:
        config["keys"] = list(batch.partitions)
    return {"ops": {op_name(node.key): {"config": config} for node in batch.nodes}}


def _with_parts(graph: TableGraph, node: TableNode) -> Iterator[AssetKey]:
    yield node.key
    yield from (part.key for part in graph.parts(node))

"""Which keys runs that have not ended hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dagster import AssetKey, DagsterInstance, DagsterRun, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.naming import op_name
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode


@dataclass
class HeldKeys:
    """Partitions by table that unfinished runs are going to make.

    Attributes
    ----------
    whole
        Tables of which a run may make any key.
    """

    partitions: dict[AssetKey, set[str]] = field(default_factory=dict[AssetKey, set[str]])
    whole: set[AssetKey] = field(default_factory=set[AssetKey])

    def of(self, key: AssetKey) -> set[str]:
        """Return the held partitions of a table, without those of `whole`."""
        return self.partitions.get(key, set())

    def add(self, other: HeldKeys) -> None:
        """Hold what another run holds too."""
        for key, partitions in other.partitions.items():
            self.partitions.setdefault(key, set()).update(partitions)
        self.whole |= other.whole


class RunBook:
    """The unfinished runs that have been read: what a run holds does not change."""

    def __init__(self) -> None:
        self._runs: dict[str, HeldKeys] = {}

    def read(self, instance: DagsterInstance, graph: TableGraph) -> list[HeldKeys]:
        """Read the queued, starting and running runs; return what those held that have ended."""
        unfinished = RunsFilter(statuses=list(NOT_FINISHED_STATUSES))
        now = set(instance.get_run_ids(unfinished))
        new = sorted(now - set(self._runs))
        if new:
            for run in instance.get_runs(RunsFilter(run_ids=new)):
                self._runs[run.run_id] = held_by(instance, graph, run)
        return [self._runs.pop(run_id) for run_id in set(self._runs) - now]

    def held(self) -> HeldKeys:
        """Return what all of them hold."""
        held = HeldKeys()
        for run in self._runs.values():
            held.add(run)
        return held


def held_by(instance: DagsterInstance, graph: TableGraph, run: DagsterRun) -> HeldKeys:
    """Return what a run is going to make."""
    held = HeldKeys()
    for node in _nodes(run, graph):
        partitions = _partitions(instance, run, node)
        if partitions:
            held.partitions[node.key] = set(partitions)
        else:
            held.whole.add(node.key)
    return held


def _nodes(run: DagsterRun, graph: TableGraph) -> Iterable[TableNode]:
    selected = run.asset_selection or ()
    return [graph.by_key[key] for key in selected if key in graph.by_key]


def _partitions(instance: DagsterInstance, run: DagsterRun, node: TableNode) -> list[str]:
    named = _configured(run, node)
    if named or node.grain is None:
        return named
    if PARTITION_NAME_TAG in run.tags:
        return [run.tags[PARTITION_NAME_TAG]]
    return _range(instance, run, node.grain)


def _configured(run: DagsterRun, node: TableNode) -> list[str]:
    op = node.master or node.key
    config: Any = run.run_config
    for name in ("ops", op_name(op), "config", "keys"):
        config = config.get(name, {})
    return list(config)


def _range(instance: DagsterInstance, run: DagsterRun, grain: Grain) -> list[str]:
    start = run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    end = run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    registered = list(instance.get_dynamic_partitions(grain.name))
    if start not in registered or end not in registered:
        return []
    return registered[registered.index(start) : registered.index(end) + 1]

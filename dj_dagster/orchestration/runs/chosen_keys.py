"""The keys of a run: only those that were chosen when the run was created.

The tags of a run hold only the two ends of a range of partitions. The partitions between them
change: a key that is deleted and entered again comes last. The events by which a run announces its
partitions are written when it is created, and so tell which partitions were chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRun

from dj_dagster.errors import ConfigurationError, PopulateError
from dj_dagster.orchestration._dagster import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    DefaultPartitionsSubset,
)
from dj_dagster.orchestration.tables.naming import op_name
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

ALL = "all"
"""The only word for all keys, or all tables; an empty or missing value never means all."""

KEYS_TAG = "dj_dagster/keys"
TABLES_TAG = "dj_dagster/tables"

Keys = str | Sequence[str] | None
"""The keys in a run's config: `ALL`, partition keys, or None."""


@dataclass
class RunChoice:
    """The partitions that a run is for, as the step and the sensor both read them."""

    instance: DagsterInstance
    run: DagsterRun
    _read: dict[str, Mapping[AssetKey, list[str]]] = field(
        default_factory=dict[str, Mapping[AssetKey, list[str]]]
    )

    def partitions(self, node: TableNode, keys: Keys) -> Sequence[str] | None:
        """Return the partitions of a table that the run makes, None for all.

        A table without partitions is chosen as a whole.

        Parameters
        ----------
        keys
            The keys in the config of the table's op, which override the run's partitions.

        Raises
        ------
        ConfigurationError
            When neither `keys` nor the run names partitions, or `keys` is empty.
        PopulateError
            When the partitions of a range can no longer be known.
        """
        if keys == ALL:
            return None
        if keys is not None:
            return _named(node, keys)
        if node.grain is None:
            return None
        if not self._tagged:
            raise ConfigurationError(
                f"The run names no partition of {node.title}, and no keys: choose partitions, or "
                f"write keys: {ALL} in the config of {op_name(node.key)}."
            )
        return self.covered(node)

    def configured(self, node: TableNode) -> Sequence[str] | None:
        """Return `partitions` for the keys in the run's config, before its step has started."""
        config: Any = self.run.run_config
        for name in ("ops", op_name(node.master or node.key), "config"):
            config = config.get(name, {}) if isinstance(config, Mapping) else {}
        return self.partitions(node, config.get("keys"))

    def covered(self, node: TableNode) -> Sequence[str]:
        """Return the partitions of a table that the run's tags stand for.

        Raises
        ------
        PopulateError
            When the partitions of a range can no longer be known.
        """
        if node.grain is None or not self._tagged:
            return []
        start, end = self._tagged
        if start == end:
            return [start]
        for run in self._first, self.run:
            if (found := self._announced_by(run).get(node.key)) is not None:
                return self._of_backfill(node, found)
        raise PopulateError(
            f"{node.title} is not made: the run is for the partitions {start!r} to {end!r}, and "
            "the events that say which these were are gone. Launch them anew."
        )

    def tell(self, graph: TableGraph, node: TableNode, partitions: Sequence[str] | None) -> None:
        """Tag the run with its tables and keys, as the sensor's runs are tagged from the start."""
        # A run that is executed again has the tags of the run before.
        if TABLES_TAG in self.run.tags and self.run.parent_run_id is None:
            return
        selected = self.run.asset_selection or ()
        nodes = [each for each in graph.populated if each.key in selected]
        whole = None if node.grain else 1
        keys = whole if partitions is None else len(partitions)
        self.instance.add_run_tags(self.run.run_id, run_tags(nodes, keys))

    @cached_property
    def _tagged(self) -> tuple[str, str] | None:
        return _ends(self.run)

    @cached_property
    def _first(self) -> DagsterRun:
        """The first run that this one repeats, for which the range was chosen, or this one."""
        root = self.run.root_run_id
        found = self.instance.get_run_by_id(root) if root else None
        return found if found is not None and _ends(found) == self._tagged else self.run

    def _of_backfill(self, node: TableNode, partitions: list[str]) -> list[str]:
        """Leave out the partitions that are not in the target of the run's backfill.

        A backfill chooses the ends of its ranges before it creates its runs one after the other, so
        that other partitions may lie between the ends by then.
        """
        name = self.run.tags.get(BACKFILL_ID_TAG)
        backfill = self.instance.get_backfill(name) if name else None
        data = backfill.asset_backfill_data if backfill is not None else None
        subsets = data.target_subset.partitions_subsets_by_asset_key if data is not None else {}
        target = subsets.get(node.key)
        if not isinstance(target, DefaultPartitionsSubset):
            return partitions
        return [partition for partition in partitions if partition in target.subset]

    def _announced_by(self, run: DagsterRun) -> Mapping[AssetKey, list[str]]:
        if run.run_id not in self._read:
            self._read[run.run_id] = announced(self.instance, run.run_id)
        return self._read[run.run_id]


def run_tags(nodes: Iterable[TableNode], keys: int | None) -> dict[str, str]:
    """Return the tags that show the tables and the number of keys of a run in lists of runs.

    Parameters
    ----------
    keys
        The number of keys, None for all.
    """
    return {
        KEYS_TAG: ALL if keys is None else str(keys),
        TABLES_TAG: ", ".join(node.title for node in nodes),
    }


def announced(instance: DagsterInstance, run_id: str) -> dict[AssetKey, list[str]]:
    """Return the partitions that a run has announced, by table."""
    found: dict[AssetKey, dict[str, None]] = {}
    planned = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    for entry in instance.all_logs(run_id, of_type=planned):
        data = entry.get_dagster_event().asset_materialization_planned_data
        partitions = found.setdefault(data.asset_key, {})
        if data.partition is not None:
            partitions[data.partition] = None
        elif data.partitions_subset is not None:
            partitions.update(dict.fromkeys(data.partitions_subset.get_partition_keys()))
        else:
            del found[data.asset_key]
    return {key: list(partitions) for key, partitions in found.items()}


def _ends(run: DagsterRun) -> tuple[str, str] | None:
    """Return the first and the last partition of a run, None for a run without partitions."""
    if PARTITION_NAME_TAG in run.tags:
        return run.tags[PARTITION_NAME_TAG], run.tags[PARTITION_NAME_TAG]
    start = run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    end = run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    return (start, end) if start and end else None


def _named(node: TableNode, keys: str | Sequence[str]) -> Sequence[str]:
    if isinstance(keys, str):
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has keys: {keys}. Write a list of partition keys "
            f"of {node.title}, or {ALL}."
        )
    if not keys:
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has an empty list of keys, which is none: leave it "
            f"out to make the run's own partitions of {node.title}, or write keys: {ALL}."
        )
    if node.grain is None:
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has keys, and {node.title} has no partitions: "
            "leave them out."
        )
    return keys

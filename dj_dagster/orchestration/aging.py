"""Which rows are stale, and what the marks of rows that are there should say of that.

The notes that `populate` keeps with the rows decide, whoever ran it; see `workflow.notes`. Where
there is none, the code version in the last mark does. Dagster finds by itself that a mark has
another code version than the asset. It is told of an input that has changed by a mark more, that
names an input which the asset does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import AssetKey, DagsterInstance
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from dj_dagster.orchestration.events import Mark
from dj_dagster.orchestration.key_pages import key_pages
from dj_dagster.orchestration.node_keys import present_pages
from dj_dagster.orchestration.provenance import Provenance, data_versions, last_marks
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.workflow.notes import Note
from dj_dagster.workflow.populate import Key
from dj_dagster.workflow.staleness import STALE, Age

CHANGED = "/changed"
"""Ends the data version of a mark that tells of a changed input."""

CHANGED_INPUT = AssetKey("a_row_it_refers_to_which_has_changed")
"""The input that such a mark names: Dagster says `removed dependency on` it."""

WORST: tuple[Age, ...] = ("code", "inputs", "unknown", "current")
"""What counts for a partition of several keys: the first that one of them is."""

Row = tuple[object, ...]


@dataclass(frozen=True)
class Aged:
    """The age of one key or partition, and the note that tells it, None where a mark does."""

    age: Age
    note: Note | None = None

    @property
    def stale(self) -> bool:
        """Whether it is to be made again."""
        return self.age in STALE


UNKNOWN = Aged("unknown")


class Aging:
    """Tells the age of rows of a table that `make` fills, and writes their marks.

    Parameters
    ----------
    node
        The table.
    """

    def __init__(self, instance: DagsterInstance, graph: TableGraph, node: TableNode) -> None:
        self._instance = instance
        self._node = node
        self._provenance = Provenance(instance, graph, node, "")
        self._version = graph.versions.get(node.key)
        self._staleness = node.staleness
        # By data version, without what ends it: the code version in the same mark.
        self._codes: dict[str, str | None] = {}

    def of_keys(self, keys: Sequence[Key]) -> dict[Row, Aged]:
        """Return the ages of keys of `make` that are in the table, by their values."""
        found = {row: Aged(*each) for row, each in self._staleness.of(keys).items()}
        unnoted = [key for key in keys if found[tuple(key.values())].note is None]
        grain = self._node.grain
        if unnoted and grain is not None and self._version is not None:
            partitions = {tuple(key.values()): grain.encode(key) for key in unnoted}
            ages = self._marked_ages(sorted(set(partitions.values())))
            found |= {row: Aged(ages.get(each, "unknown")) for row, each in partitions.items()}
        return found

    def of(self, partitions: Sequence[str]) -> dict[str, Aged]:
        """Return the ages of partitions that have rows."""
        found: dict[str, Aged] = {}
        grain = self._node.grain
        if grain is None or not partitions:
            return found
        keys = self.keys_in(partitions)
        ages = self.of_keys(keys)
        for key in keys:
            partition, age = grain.encode(key), ages[tuple(key.values())]
            found[partition] = min(found.get(partition, age), age, key=_rank)
        return found

    def keys_in(self, partitions: Iterable[str]) -> list[Key]:
        """Return the keys of `make` that are in the table in some partitions."""
        grain = self._node.grain
        keys = [] if grain is None else [grain.decode(partition) for partition in partitions]
        if not self._node.coarse:
            return keys
        return [key for page in self._staleness.pages(keys) for key in page]

    def pages(self) -> Iterator[list[Key]]:
        """Yield all keys of `make` that are in the table, so many at a time."""
        names = self._node.maker.key_names
        if not names:
            yield [{}] if len(self._node.table) else []
            return
        for page in key_pages(self._node.table, names):
            yield [dict(zip(names, row, strict=True)) for row in page]

    def stale(self, *restrictions: Any) -> list[Key]:
        """Return the stale keys among those in the table for which all restrictions hold."""
        found: list[Key] = []
        for page in self._staleness.pages(*restrictions):
            ages = self.of_keys(page)
            found += [key for key in page if ages[tuple(key.values())].stale]
        return found

    def marks(self, node: TableNode, partitions: Sequence[str]) -> list[Mark]:
        """Return first marks of rows that are there.

        Parameters
        ----------
        node
            The table or a part of it, whose rows these are.
        """
        ages = self.of(partitions)
        return self._marks(node, {p: ages.get(p, UNKNOWN) for p in partitions})

    def outdated(self, partitions: Sequence[str]) -> tuple[list[Mark], list[str]]:
        """Return new marks of those rows whose marks say something else than the notes on them.

        Returns
        -------
        tuple
            The marks, and the partitions on which there are no notes.
        """
        ages = self.of(partitions)
        unnoted = [partition for partition, aged in ages.items() if aged.note is None]
        noted = {partition: aged for partition, aged in ages.items() if aged.note is not None}
        versions = data_versions(self._instance, self._node.key, list(noted))
        codes = self._codes_of(versions)
        wrong = {
            partition: aged
            for partition, aged in noted.items()
            if partition not in versions
            or codes.get(partition) != self._code(aged)
            or versions[partition].endswith(CHANGED) != (aged.age == "inputs")
        }
        return self._again(wrong), unnoted

    def _again(self, wrong: Mapping[str, Aged]) -> list[Mark]:
        found: list[Mark] = []
        if not wrong:
            return found
        new = {mark.partition: mark for mark in self._marks(self._node, wrong)}
        for record in last_marks(self._instance, self._node.key, wrong):
            mark, old = new[record.partition_key], record.asset_materialization
            tags = record.event_log_entry.tags or {}
            same = (mark.tags or {}).get(CODE_VERSION_TAG) == tags.get(CODE_VERSION_TAG)
            # What is told of the rows of another make is not true of these.
            kept = dict(old.metadata) if old is not None and same else {}
            kept.pop(_STALE, None)
            found.append(_with(mark, kept))
        return found

    def _marks(self, node: TableNode, ages: Mapping[str, Aged]) -> list[Mark]:
        noted = [partition for partition, aged in ages.items() if aged.note is not None]
        inputs = self._provenance.inputs(noted)
        found: list[Mark] = []
        for partition, aged in ages.items():
            mark = Mark(node.key, partition)
            if aged.note is not None:
                mark = self._noted(mark, aged, aged.note, inputs)
            found.append(mark)
        return found

    def _noted(
        self, mark: Mark, aged: Aged, note: Note, inputs: Mapping[AssetKey, Mapping[str, str]]
    ) -> Mark:
        changed = aged.age == "inputs"
        code = self._code(aged)
        version = f"{code}/{note.inputs.hex[:12]}{CHANGED if changed else ''}"
        tags = dict(self._provenance.tags(mark, code, version, inputs))
        if not changed:
            return Mark(mark.key, mark.partition, tags=tags)
        tags[get_input_data_version_tag(CHANGED_INPUT)] = "changed"
        tags[get_input_event_pointer_tag(CHANGED_INPUT)] = "NULL"
        metadata = {_STALE: "a row that it refers to has changed since it was made"}
        return Mark(mark.key, mark.partition, metadata, tags=tags)

    def _code(self, aged: Aged) -> str:
        """Return the code version that a mark should have, in the asset's words."""
        code = aged.note.code if aged.note is not None else ""
        return (self._version or code) if code in ("", self._staleness.code) else code

    def _marked_ages(self, partitions: Sequence[str]) -> dict[str, Age]:
        versions = data_versions(self._instance, self._node.key, partitions)
        return {
            partition: "current" if code == self._version else "code"
            for partition, code in self._codes_of(versions).items()
            if code is not None
        }

    def _codes_of(self, versions: Mapping[str, str]) -> dict[str, str | None]:
        """Return the code versions of the last marks, given with their data versions.

        Dagster finds data versions fast, and rows with the same one are of the same code.
        """
        bases = {p: version.removesuffix(CHANGED) for p, version in versions.items()}
        samples = {base: p for p, base in bases.items() if base not in self._codes}
        for record in last_marks(self._instance, self._node.key, list(samples.values())):
            tags = record.event_log_entry.tags or {}
            base = tags.get(DATA_VERSION_TAG, "").removesuffix(CHANGED)
            self._codes[base] = tags.get(CODE_VERSION_TAG)
        return {partition: self._codes.get(base) for partition, base in bases.items()}


def outdated_pages(
    instance: DagsterInstance, graph: TableGraph, node: TableNode
) -> Iterator[tuple[list[Mark], list[str]]]:
    """Yield what `Aging.outdated` returns for the rows of a whole table, page by page."""
    aging = Aging(instance, graph, node)
    for page in present_pages(node):
        yield aging.outdated(page)


_STALE = "stale"


def _with(mark: Mark, metadata: Mapping[str, object]) -> Mark:
    together = {**metadata, **(mark.metadata or {})}
    return Mark(mark.key, mark.partition, together, tags=mark.tags)


def _rank(aged: Aged) -> int:
    return WORST.index(aged.age)

"""The partitions of a grain in Dagster: added and removed in bulk, and kept true to the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dagster import DagsterInstance

from dj_dagster.orchestration._dagster import DynamicPartitionsTable, SqlEventLogStorage
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.keys import possible_among, possible_pages
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

CHUNK = 10_000
"""Partitions of one statement; SQLite limits its variables to 32,766."""

LISTED = 50_000
"""Partitions that are read at once."""


@dataclass(frozen=True)
class Changes:
    """The numbers of partitions that were added and removed, and of marks that were written."""

    added: int = 0
    removed: int = 0
    marked: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            self.added + other.added, self.removed + other.removed, self.marked + other.marked
        )

    def __str__(self) -> str:
        return f"{self.added} partitions added, {self.removed} removed, {self.marked} marked"


def register(instance: DagsterInstance, grain: Grain, partitions: Sequence[str]) -> None:
    """Register partitions, in bulk; those already there are left as they are."""
    for start in range(0, len(partitions), CHUNK):
        instance.add_dynamic_partitions(grain.name, partitions[start : start + CHUNK])


def remove(instance: DagsterInstance, grain: Grain, partitions: Sequence[str]) -> None:
    """Remove partitions from a grain, in bulk where the storage allows it.

    Dagster itself executes a statement for each, which takes 1 to 9 ms.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        for partition in partitions:
            instance.delete_dynamic_partition(grain.name, partition)
        return
    columns = DynamicPartitionsTable.c
    for start in range(0, len(partitions), CHUNK):
        chunk = partitions[start : start + CHUNK]
        with storage.index_connection() as connection:
            connection.execute(
                DynamicPartitionsTable.delete().where(
                    columns.partitions_def_name == grain.name, columns.partition.in_(chunk)
                )
            )


def sync_pieces(instance: DagsterInstance, graph: TableGraph, grain: Grain) -> Iterator[Changes]:
    """Give a grain the partitions that its tables have, or could have, rows for; remove others.

    Yields the changes after each piece of work. New partitions are there at once. Partitions that
    others register meanwhile stay, as do partitions whose rows have come back meanwhile.

    Raises
    ------
    Exception
        The error of a table that could not be read, after the partitions of the others were added.
        Partitions are not removed in this case.
    """
    known: dict[str, bool] = {}
    for page in _registered(instance, grain):
        known.update(dict.fromkeys(page, False))
        yield Changes()
    nodes = beginnings(graph, grain)
    failed: list[Exception] = []
    for node in nodes:
        pages = possible_pages(node)
        while True:
            try:
                page = next(pages, None)
            except Exception as error:
                # The other tables go on if one is gone; its partitions stay for now.
                failed.append(error)
                break
            if page is None:
                break
            new = [partition for partition in page if partition not in known]
            register(instance, grain, new)
            known.update(dict.fromkeys(page, True))
            yield Changes(added=len(new))
    if failed:
        raise failed[0]
    gone = [partition for partition, seen in known.items() if not seen]
    known.clear()
    for start in range(0, len(gone), CHUNK):
        chunk = gone[start : start + CHUNK]
        still = set[str]().union(*(possible_among(node, chunk) for node in nodes))
        remove(instance, grain, [partition for partition in chunk if partition not in still])
        yield Changes(removed=len(chunk) - len(still))


def sync_partitions(instance: DagsterInstance, graph: TableGraph, grain: Grain) -> Changes:
    """Do all pieces of `sync_pieces`, and return the sum of their changes."""
    return sum(sync_pieces(instance, graph, grain), Changes())


def beginnings(graph: TableGraph, grain: Grain) -> list[TableNode]:
    """Return the tables where a grain begins.

    Tables that refer to another table of their grain do not add partitions, because their keys are
    keys of that table.
    """
    nodes = [node for node in graph.of_grain(grain) if node.master is None]
    keys = {node.key for node in nodes}
    return [node for node in nodes if not keys & set(node.parents)]


def _registered(instance: DagsterInstance, grain: Grain) -> Iterator[Sequence[str]]:
    cursor: str | None = None
    while True:
        page = instance.get_paginated_dynamic_partitions(
            grain.name, limit=LISTED, ascending=True, cursor=cursor
        )
        yield page.results
        if not page.has_more:
            return
        cursor = page.cursor

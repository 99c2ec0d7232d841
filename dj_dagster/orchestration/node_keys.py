"""The partitions of one table: those of its rows, and those that its `make` could be given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dj_dagster.errors import InvalidValueError
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.key_pages import key_pages
from dj_dagster.orchestration.maker import OwnMaker
from dj_dagster.orchestration.regions import Key, Region, Regions
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import source

CHUNK = 20_000
"""Keys that are spelled as partitions at once."""


def own_table(node: TableNode) -> Makes | None:
    """Return the table if it is one of ours that `make` fills."""
    return node.filler.table if isinstance(node.filler, OwnMaker) else None


def present_pages(node: TableNode) -> Iterator[list[str]]:
    """Yield the partitions that have rows, so many at a time; one may come twice."""
    grain = node.grain
    if grain is not None:
        for page in key_pages(node.table, grain.names):
            yield grain.encode_rows(page)


def possible_pages(node: TableNode) -> Iterator[list[str]]:
    """Yield those that `make` could be given before them, whose keys are read at once."""
    grain = node.grain
    if grain is None:
        return
    if node.filler is not None:
        rows = _given_rows(node, grain)
        for start in range(0, len(rows), CHUNK):
            yield grain.encode_rows(rows[start : start + CHUNK])
    yield from present_pages(node)


def present_in(node: TableNode, regions: Regions) -> list[str]:
    """Return the partitions that have rows in some regions, which are not the whole table."""
    if node.grain is None:
        return []
    rows = node.table & regions.restrictions()[0]
    order = node.grain.names
    return node.grain.encode_rows(fetch.keys(node.table.connection, rows.node, order, order))


def possible_in(node: TableNode, regions: Regions) -> list[str]:
    """Return the partitions of the keys that `make` could be given in some regions.

    Of a table that `make` does not fill, those that have rows.
    """
    grain, table = node.grain, own_table(node)
    if grain is None or table is None:
        return present_in(node, regions)
    keys = source(table, *regions.restrictions())
    return grain.encode_rows(fetch.keys(table.connection, keys, grain.names, grain.names))


def present_among(node: TableNode, partitions: Sequence[str]) -> set[str]:
    """Return those partitions, of some, that have rows."""
    keys = [] if node.grain is None else _decoded(node.grain, partitions)
    return set(present_in(node, Regions(Region(keys=tuple(keys))))) if keys else set()


def possible_among(node: TableNode, partitions: Sequence[str]) -> set[str]:
    """Return those partitions, of some, that have rows or that `make` could be given."""
    grain = node.grain
    keys = [] if grain is None else _decoded(grain, partitions)
    if grain is None or not keys:
        return set()
    found = present_among(node, partitions)
    if node.filler is None:
        return found
    if own_table(node) is None:
        return found | set(grain.encode_rows(_given_rows(node, grain))).intersection(partitions)
    return found | set(possible_in(node, Regions(Region(keys=tuple(keys)))))


def _given_rows(node: TableNode, grain: Grain) -> Sequence[Sequence[object]]:
    table = own_table(node)
    if table is None:
        keys = node.maker.keys()
        return [[key[name] for name in grain.names] for key in keys]
    return fetch.keys(table.connection, source(table), grain.names, grain.names)


def _decoded(grain: Grain, partitions: Sequence[str]) -> list[Key]:
    found: list[Key] = []
    for partition in partitions:
        try:
            found.append(grain.decode(partition))
        except InvalidValueError:
            # A person has added it by hand, and it stands for no key.
            continue
    return found

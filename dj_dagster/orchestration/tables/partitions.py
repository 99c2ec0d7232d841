"""Partitions: those of a table's rows and of its `make`, and those that Dagster has.

Keys are read a page at a time. Each page is a query of its own that begins behind the last key of
the page before, so that neither a cursor nor a transaction is held open meanwhile. Rows that come
or go in earlier pages are not seen; callers that need them must also look at changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from dagster import DagsterInstance

from dj_dagster.errors import InvalidValueError, counted
from dj_dagster.model.heading import Attribute, Key, Value, Values
from dj_dagster.orchestration._dagster import DynamicPartitionsTable, SqlEventLogStorage
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import OwnPopulator, TableNode
from dj_dagster.relational.database.sessions import Tuples, fetch_select
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import RowDecoder
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.sql.select import NOT_COMPARABLE
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import as_inserted, is_missing, without_zone
from dj_dagster.workflow.collation import matched
from dj_dagster.workflow.make import KeySource, PopulatedTable
from dj_dagster.workflow.pending import rows_of

ENCODED_AT_ONCE = 20_000
"""Keys that are encoded as partitions at once."""


def own_table(node: TableNode) -> PopulatedTable | None:
    """Return the table if it is one of ours that `make` fills, otherwise None."""
    return node.filled_by.table if isinstance(node.filled_by, OwnPopulator) else None


def present_pages(node: TableNode) -> Iterator[list[str]]:
    """Yield the partitions that have rows, page by page; a partition may come twice.

    Texts are spelled as in the rows, see `TableNode.renamed`; so they are in `possible_pages` and
    `present_in`.
    """
    grain = node.grain
    if grain is not None:
        for page in key_pages(node.table, grain.names):
            yield grain.encode_rows(page)


def possible_pages(node: TableNode) -> Iterator[list[str]]:
    """Yield the partitions that `make` could be given, read at once, then `present_pages`."""
    grain = node.grain
    if grain is None:
        return
    if node.filled_by is not None:
        rows = _given_rows(node, grain)
        for start in range(0, len(rows), ENCODED_AT_ONCE):
            yield grain.encode_rows(rows[start : start + ENCODED_AT_ONCE])
    yield from present_pages(node)


def present_in(node: TableNode, regions: Regions) -> list[str]:
    """Return the partitions that have rows in some regions; these must not be the whole table."""
    if node.grain is None:
        return []
    rows = node.table & regions.restrictions()[0]
    order = node.grain.names
    return node.grain.encode_rows(fetch.keys(node.table.connection, rows.node, order, order))


def possible_in(node: TableNode, regions: Regions) -> list[str]:
    """Return the partitions of the keys that `make` could be given in some regions.

    For a table that `make` does not fill, return the partitions that have rows.
    """
    grain, table = node.grain, own_table(node)
    if grain is None or table is None:
        return node.spelled(present_in(node, regions), ())
    keys = KeySource(table).restricted(*regions.restrictions())
    rows = fetch.keys(table.connection, keys, grain.names, grain.names)
    return node.spelled(grain.encode_rows(rows), ())


def present_among(node: TableNode, partitions: Sequence[str]) -> set[str]:
    """Return those of some partitions that have rows."""
    keys = decoded(node.grain, partitions)
    found = present_in(node, Regions(Region(keys=tuple(keys)))) if keys else []
    return set(node.spelled(found, set(partitions)))


def possible_among(node: TableNode, partitions: Sequence[str]) -> set[str]:
    """Return those of some partitions that have rows, or keys that `make` could be given."""
    grain = node.grain
    keys = decoded(grain, partitions)
    if grain is None or not keys:
        return set()
    found = present_among(node, partitions)
    if node.filled_by is None:
        return found
    if own_table(node) is None:
        given = grain.encode_rows(_given_rows(node, grain))
        return found | set(node.spelled(given, set(partitions))).intersection(partitions)
    return found | set(possible_in(node, Regions(Region(keys=tuple(keys)))))


def _given_rows(node: TableNode, grain: Grain) -> Sequence[Sequence[object]]:
    table = own_table(node)
    if table is None:
        keys = node.populator.keys()
        return [[key[name] for name in grain.names] for key in keys]
    return fetch.keys(table.connection, KeySource(table).keys, grain.names, grain.names)


def decoded(grain: Grain | None, partitions: Sequence[str]) -> list[Key]:
    """Return the keys of partitions, without partitions of people's own that are not keys."""
    found: list[Key] = []
    if grain is None:
        return found
    for partition in partitions:
        try:
            found.append(grain.decode(partition))
        except InvalidValueError:
            continue
    return found


def stored_keys(table: Table, rows: Iterable[Mapping[str, Value]]) -> list[Values | None]:
    """Return the primary keys of rows to be inserted, as they are fetched afterwards.

    None for a row whose key the database completes, by its number or a default, or refuses.
    """
    attributes = [table.heading[name] for name in table.primary_key]
    drops_zones = table.connection.era == "0.14"

    def key(row: Mapping[str, Value]) -> Values | None:
        given = [row.get(attribute.name) for attribute in attributes]
        if drops_zones:
            given = list(map(without_zone, given))
        try:
            return tuple(map(_stored, given, attributes))
        except InvalidValueError:
            return None

    return list(map(key, rows))


def _stored(value: Value, attribute: Attribute) -> Value:
    found = None if is_missing(value, attribute) else as_inserted(value, attribute)
    numbered = attribute.type is not None and attribute.type.auto_increment
    if found is None or (numbered and not found):
        raise InvalidValueError("The database completes the key.")
    return found


def keys_there(table: Table, keys: Iterable[Values | None]) -> dict[Values, Values]:
    """Return those of some primary keys that a table has, each with its spelling there."""
    known = [key for key in keys if key is not None]
    return matched(table.connection, rows_of(table), table.primary_key, known)


def partitions_of_keys(node: TableNode, keys: Iterable[Values]) -> list[str]:
    """Return the partitions of primary keys as a table has them, each once."""
    names = node.table.primary_key
    rows = (dict(zip(names, key, strict=True)) for key in keys)
    return list(dict.fromkeys(node.partitions_of(rows)))


MANY = 10_000
"""The greatest number of keys that are looked up one by one."""


@dataclass(frozen=True, eq=False)
class Region:
    """Rows of one table.

    Attributes
    ----------
    keys
        The rows' keys.
    name, ranges
        The first attribute of the key and the ranges of its values, ends included; they are given
        instead of keys. With neither, the region is the whole table.
    """

    keys: tuple[Key, ...] | None = None
    name: str = ""
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the region is the whole table."""
        return self.keys is None and not self.ranges

    def restriction(self, names: Mapping[str, str]) -> list[Any]:
        """Return a restriction of a query to the region, where attributes have other names.

        Parameters
        ----------
        names
            ``{name in this table: name in the query}``.
        """
        if self.keys is not None:
            return [{names[n]: v for n, v in key.items() if n in names} for key in self.keys]
        column = names[self.name]
        return [f"`{column}` BETWEEN {low} AND {high}" for low, high in self.ranges]

    def renamed(self, names: Mapping[str, str]) -> Region:
        """Return the region for a table that has these attributes under other names."""
        if self.keys is not None:
            return Region(keys=tuple(self.restriction(names)))
        return Region(name=names[self.name], ranges=self.ranges) if self.ranges else self


EVERYTHING = Region()


class Regions:
    """Regions of one table, gathered until they have been dealt with."""

    def __init__(self, *first: Region) -> None:
        self.each: list[Region] = list(first)

    def __bool__(self) -> bool:
        return bool(self.each)

    def __len__(self) -> int:
        return len(self.each)

    @property
    def whole(self) -> bool:
        """Whether the whole table is among them."""
        return any(region.whole for region in self.each)

    def add(self, region: Region) -> None:
        """Add a region; with too many keys the whole table takes their place."""
        if region.keys is not None and not region.keys:
            return
        self.each.append(region)
        if self.whole or sum(len(item.keys or ()) for item in self.each) > MANY:
            self.each = [EVERYTHING]

    def restrictions(self) -> list[list[Key | str]]:
        """Return the restrictions of a query to all of the regions; empty for the whole table."""
        if self.whole:
            return []
        found: list[Key | str] = []
        for region in self.each:
            own = [region.name] if region.ranges else list((region.keys or ({},))[0])
            found += region.restriction({name: name for name in own})
        return [found]


PAGE = 20_000
"""Rows of a page, at most."""

Page = Sequence[Values]


def key_pages(table: Table, names: Sequence[str]) -> Iterator[Page]:
    """Yield the present values of attributes of the key, each once, page by page.

    Parameters
    ----------
    names
        Attributes of the primary key. If the key begins with them, in any order, each page is read
        from its index.
    """
    heading, connection = table.heading, table.connection
    kinds = [heading[name].type for name in names]
    if any(kind is not None and kind.family in NOT_COMPARABLE for kind in kinds):
        yield from _whole(table, names)
        return
    decoder = RowDecoder(connection, heading, names)
    order = [names.index(name) for name in heading.primary_key if name in names]
    last: Values | None = None
    done = 0
    while True:
        try:
            page = _page(table, names, order, last)
        except InvalidValueError:
            # A text is invalid, and the driver cannot read the page with it.
            yield from _whole(table, names, [names[position] for position in order], done)
            return
        if page:
            # The check `readable` names the keys that cannot be read.
            rows = decoder.readable(page)[0]
            done += len(rows)
            yield rows
        if len(page) < PAGE:
            return
        last = page[-1]


def _whole(
    table: Table, names: Sequence[str], order: Sequence[str] | None = None, done: int = 0
) -> Iterator[Page]:
    """Yield the pages of `key_pages` from one query, without the first `done` rows."""
    found = fetch.keys(table.connection, table.node, names, order)
    rows = list(dict.fromkeys(map(tuple, found)))
    yield from (rows[start : start + PAGE] for start in range(done, len(rows), PAGE))


def _page(table: Table, names: Sequence[str], order: Sequence[int], last: Values | None) -> Tuples:
    """Return the next page of rows behind the last row, as the driver gives them."""
    backend = table.connection.backend
    lowered = Lowering(backend).lower(table.node)
    columns = [lowered.columns[name] for name in names]
    ordered = [columns[position] for position in order]
    select = sa.select(*columns).select_from(lowered.source).where(*lowered.where)
    if len(names) < len(table.primary_key):
        select = select.distinct()
    if last is not None:
        place = [last[position] for position in order]
        select = select.where(backend.is_beyond(ordered, place))
    select = select.order_by(*ordered).limit(PAGE)
    return table.connection.read(fetch_select, select)


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
        added = counted(self.added, "partition")
        return f"{added} added, {self.removed} removed, {self.marked} marked"


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
            page = node.spelled(page, known)
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

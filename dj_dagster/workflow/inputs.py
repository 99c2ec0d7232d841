"""What the rows are like that the keys of a computed table refer to, as one digest a key.

A digest covers the rows of the tables that the table's foreign keys refer to by the key, and, where
people entered those, the rows that they refer to in turn. The database computes it; see
`Backend.row_digest` for what it covers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName, Tier, parse_table_name
from dj_dagster.relational.algebra.nodes import In, all_rows, restrict
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import ForeignKey
from dj_dagster.relational.table import Table

ENTERED = (Tier.MANUAL, Tier.LOOKUP)

CHUNK = 1000
"""Rows that are read by one statement, at most."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Input:
    """A table whose rows are referred to.

    Attributes
    ----------
    attributes
        ``{attribute there: attribute of what refers to it}``.
    columns
        The attributes that a digest covers.
    inputs
        What its rows refer to in turn.
    """

    name: TableName
    heading: Heading
    attributes: Mapping[str, str]
    columns: tuple[str, ...]
    inputs: tuple[Input, ...]


class Inputs:
    """Reads the rows that the keys of a table refer to.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._connection = table.connection
        by_key = [key for key in table.foreign_keys if key.attributes.keys() <= set(names)]
        self.each = _inputs(table.connection, by_key, frozenset({table.name}))

    def tables(self) -> Iterator[tuple[TableName, Mapping[str, str] | None]]:
        """Yield the tables that are read, each with the names that its key has in the keys.

        These are ``{name there: name in the key}``, None where the key does not tell which row.
        """
        yield from _tables(self.each, None)

    def of(self, keys: Sequence[Mapping[str, Any]]) -> dict[Row, UUID]:
        """Return the digests of the rows that keys refer to, by the keys' values."""
        parts: list[list[bytes]] = [[] for _ in keys]
        for each in self.each:
            wanted = [tuple(key[own] for own in each.attributes.values()) for key in keys]
            found = _digests(self._connection, each, wanted)
            for part, row in zip(parts, wanted, strict=True):
                part.append(found.get(row, b""))
        return {
            tuple(key.values()): UUID(bytes=_digest(part))
            for key, part in zip(keys, parts, strict=True)
        }


def _tables(
    inputs: Iterable[Input], above: Mapping[str, str] | None
) -> Iterator[tuple[TableName, Mapping[str, str] | None]]:
    for each in inputs:
        names: dict[str, str] | None = dict(each.attributes)
        if above is not None:
            renamed = {there: above.get(here, "") for there, here in each.attributes.items()}
            names = renamed if all(renamed.values()) else None
        yield each.name, names
        yield from _tables(each.inputs, names or {})


def is_entered(name: TableName) -> bool:
    """Whether people enter the rows of a table, a part like its master."""
    parsed = parse_table_name(name.table)
    while parsed is not None and parsed.master is not None:
        parsed = parse_table_name(parsed.master)
    return parsed is not None and parsed.tier in ENTERED


def _inputs(
    connection: Connection, foreign_keys: Iterable[ForeignKey], below: frozenset[TableName]
) -> tuple[Input, ...]:
    """Return the tables referred to of which there is something to read."""
    found: list[Input] = []
    for key in sorted(foreign_keys, key=lambda key: (key.parent, sorted(key.attributes))):
        stored = None if key.parent in below else connection.catalog.find(key.parent)
        if stored is None:
            continue
        columns = tuple(stored.heading.secondary_attributes)
        further = stored.foreign_keys if is_entered(key.parent) else ()
        inputs = _inputs(connection, further, below | {key.parent})
        if columns or inputs:
            theirs = {there: here for here, there in key.attributes.items()}
            found.append(Input(key.parent, stored.heading, theirs, columns, inputs))
    return tuple(found)


def _digests(connection: Connection, source: Input, rows: Sequence[Row]) -> dict[Row, bytes]:
    """Return the digests of the rows of a table, by the values that they are referred to by."""
    used = dict.fromkeys(
        (*source.attributes, *(own for each in source.inputs for own in each.attributes.values()))
    )
    names, width = list(used), len(source.attributes)
    decoded = _decoder(connection, source.heading, names)
    wanted = list(dict.fromkeys(row for row in rows if None not in row))
    found: list[tuple[Row, list[bytes]]] = []
    above: list[list[Row]] = [[] for _ in source.inputs]
    for start in range(0, len(wanted), CHUNK):
        for row in _read(connection, source, names, wanted[start : start + CHUNK]):
            key = decoded(row[:-1])
            found.append((key[:width], [b"%d" % int(row[-1])]))
            for each, theirs in zip(source.inputs, above, strict=True):
                theirs.append(tuple(key[names.index(own)] for own in each.attributes.values()))
    for each, theirs in zip(source.inputs, above, strict=True):
        digests = _digests(connection, each, theirs)
        for (_, content), row in zip(found, theirs, strict=True):
            content.append(digests.get(row, b""))
    return {row: _digest(content) for row, content in found}


def _read(
    connection: Connection, source: Input, names: Sequence[str], rows: Sequence[Row]
) -> Sequence[Sequence[Any]]:
    """Return attributes of rows, and a number that stands for all of their values."""
    heading, backend = source.heading, connection.backend
    node = restrict(all_rows(source.name, heading), In(tuple(source.attributes), tuple(rows)))
    lowered = Lowering(backend).lower(node)
    columns = [
        lowered.columns[name]
        if (kind := heading[name].type) is None
        else backend.fetched(lowered.columns[name], kind)
        for name in names
    ]
    digest: Any = sa.literal_column("0")
    if source.columns:
        digest = backend.row_digest([(lowered.columns[n], heading[n]) for n in source.columns])
    select = sa.select(*columns, digest).select_from(lowered.source).where(*lowered.where)
    return connection.rows(select)


def _decoder(
    connection: Connection, heading: Heading, names: Sequence[str]
) -> Callable[[Sequence[Any]], Row]:
    decoders = [
        (place, decode)
        for place, name in enumerate(names)
        if (kind := heading[name].type) is not None
        and (decode := connection.backend.decoder(kind)) is not None
    ]

    def decoded(row: Sequence[Any]) -> Row:
        values = list(row)
        for place, decode in decoders:
            if values[place] is not None:
                values[place] = decode(values[place])
        return tuple(values)

    return decoded if decoders else tuple


def _digest(parts: Sequence[bytes]) -> bytes:
    """Return a hash of texts, each told from the next by its length."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(b"%d " % len(part))
        state.update(part)
    return state.digest()

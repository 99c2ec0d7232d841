"""Collation: keys that differ in spelling only, which a server takes for one.

MySQL and MariaDB compare texts by a collation. A row may therefore refer to ``mouse`` as ``MOUSE``:
case, accents or trailing blanks do not count. Only the server knows which texts are equal, so it is
asked whenever keys of one query are looked for in another and are not there as they are written.
SQLite compares texts by code points, and its keys have one spelling.

Where one spelling must stand for all, it is that of the table that first declares the attribute.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dj_dagster.model.heading import Attribute, Heading, Key, Values
from dj_dagster.model.names import TableName
from dj_dagster.model.types import Family, parse_type
from dj_dagster.relational.algebra.nodes import (
    Base,
    Computed,
    Equals,
    In,
    Listed,
    Node,
    Projected,
    SQLText,
)
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Table

AT_ONCE = 200
"""Keys whose spelling is asked for by one statement, at most."""

_TEXTS = (Family.STRING, Family.ENUM)

# A name that no attribute has.
_NUMBER = "number of key"


def has_spellings(connection: Connection, attributes: Iterable[Attribute]) -> bool:
    """Whether equal values of some attributes may be spelled differently."""
    return not connection.backend.tells_text_apart and any(map(_is_text, attributes))


def _is_text(attribute: Attribute) -> bool:
    return attribute.family in _TEXTS


def matched(
    connection: Connection, node: Node, names: Sequence[str], rows: Iterable[Values]
) -> dict[Values, Values]:
    """Return those of some keys that a query has, each with its spelling there.

    Parameters
    ----------
    names
        The attributes of the keys.
    """
    asked = list(dict.fromkeys(rows))
    found = fetch.rows(connection, _having(node, names, asked), names) if asked else ()
    return paired(connection, node, names, asked, set(found))


def paired(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    asked: Iterable[Values],
    found: Collection[Values],
) -> dict[Values, Values]:
    """Return `matched` for keys that the query was asked for, and that it has `found`.

    Keys that are spelled as in the query need no further statement, unless others are missing.
    """
    asked = list(dict.fromkeys(asked))
    pairs = {row: row for row in asked if row in found}
    rest = [row for row in asked if row not in pairs]
    if not rest or not found or not has_spellings(connection, map(node.heading.__getitem__, names)):
        return pairs
    if len(pairs) == len(found) and not fetch.exists(connection, _having(node, names, rest)):
        return pairs
    for start in range(0, len(rest), AT_ONCE):
        chunk = rest[start : start + AT_ONCE]
        for number, *row in fetch.rows(connection, _each(node, names, chunk), [_NUMBER, *names]):
            pairs[chunk[number]] = tuple(row)
    return pairs


def _having(node: Node, names: Sequence[str], rows: Sequence[Values]) -> Node:
    if not names:
        return node
    if len(names) == 1 and len(rows) == 1:
        return restrict(node, Equals(names[0], rows[0][0]))
    return restrict(node, In(tuple(names), tuple(rows)))


def _each(node: Node, names: Sequence[str], rows: Sequence[Values]) -> Node:
    """Return the query for each of some keys on its own, with the key's number."""
    number = Attribute(_NUMBER, parse_type("int32"))
    heading = Heading([number, *map(node.heading.__getitem__, names)])
    same = {name: name for name in names}
    parts: list[Node] = []
    for place, row in enumerate(rows):
        columns: Mapping[str, Computed] = {_NUMBER: SQLText(str(place)), **same}
        parts.append(Projected(heading, node.tables, _having(node, names, [row]), columns))
    return Listed(heading, node.tables, tuple(parts))


@dataclass(frozen=True)
class Origin:
    """A table that first declares texts in the key of another.

    Attributes
    ----------
    key
        ``{attribute of the other table: attribute of the origin's key}``.
    texts
        The attributes of the other table whose spelling the origin gives.
    """

    rows: Base
    key: Mapping[str, str]
    texts: tuple[str, ...]


def origins(table: Table, names: Sequence[str]) -> list[Origin]:
    """Return the tables that spell attributes of a table's key, empty where texts are told apart.

    Parameters
    ----------
    names
        The attributes; those that the table itself declares have no origin.
    """
    catalog, heading = table.connection.catalog, table.heading
    texts = [name for name in names if name in heading and _is_text(heading[name])]
    if table.connection.backend.tells_text_apart or not texts:
        return []
    found: dict[tuple[TableName, tuple[tuple[str, str], ...]], list[str]] = {}
    for text in texts:
        stored = catalog.find(table.name)
        origin = None if stored is None else _origin(table.connection, stored, text, names)
        if origin is not None:
            found.setdefault(origin, []).append(text)
    return [
        Origin(all_rows(name, stored.heading), dict(key), tuple(its))
        for (name, key), its in found.items()
        if (stored := catalog.find(name)) is not None
    ]


def _origin(
    connection: Connection, stored: StoredTable, text: str, names: Sequence[str]
) -> tuple[TableName, tuple[tuple[str, str], ...]] | None:
    """Follow the foreign keys of an attribute up to where it begins, as far as `names` tell rows.

    Returns the table, and ``(name, name there)`` of its key.
    """
    # The names of the attributes in the table above, and the names that they began with.
    here, seen = {name: name for name in names}, {stored.name}
    origin = None
    while True:
        step = _step(connection, stored, text, here, seen)
        if step is None:
            return origin
        stored, here = step
        seen.add(stored.name)
        origin = stored.name, tuple((own, there) for there, own in here.items())


def _step(
    connection: Connection,
    stored: StoredTable,
    text: str,
    here: Mapping[str, str],
    seen: Collection[TableName],
) -> tuple[StoredTable, dict[str, str]] | None:
    for foreign_key in stored.foreign_keys:
        above = connection.catalog.find(foreign_key.parent)
        if above is None or above.name in seen:
            continue
        up = {there: here[n] for n, there in foreign_key.attributes.items() if n in here}
        key = {name: up[name] for name in above.heading.primary_key if name in up}
        if text in key.values() and len(key) == len(above.heading.primary_key):
            return above, key
    return None


def keys_respelled(table: Table, keys: Sequence[Key]) -> list[Key]:
    """Return keys for a table as their origins spell them, in their order."""
    names = list(keys[0]) if keys else []
    if not origins(table, names):
        return list(keys)
    rows = respelled(table, names, [tuple(key[name] for name in names) for key in keys])
    return [dict(zip(names, row, strict=True)) for row in rows]


def respelled(table: Table, names: Sequence[str], rows: Sequence[Values]) -> list[Values]:
    """Return keys as their origins spell them, in their order.

    Parameters
    ----------
    names
        The attributes of the keys.
    """
    result = list(rows)
    for origin in origins(table, names):
        places = [names.index(name) for name in origin.key]
        own = [tuple(row[place] for place in places) for row in result]
        there = list(origin.key.values())
        known = matched(table.connection, origin.rows, there, own)
        if all(row == spelled for row, spelled in known.items()):
            continue
        texts = [(names.index(t), list(origin.key).index(t)) for t in origin.texts]
        for number, row in enumerate(own):
            spelled, values = known.get(row, row), list(result[number])
            for place, where in texts:
                values[place] = spelled[where]
            result[number] = tuple(values)
    return result

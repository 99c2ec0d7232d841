"""Keys that SQLite tells apart and a server does not: they could not be moved there."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from dj_dagster.model.types import Family
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.table import Table

Keys = tuple[dict[str, Any], dict[str, Any]]

_TEXTS = (Family.STRING, Family.ENUM)


def folded(text: str) -> str:
    """Return what a server's usual collation compares: neither case, accents nor trailing blanks.

    Examples
    --------
    >>> folded("Straße ") == folded("STRASSE")
    True
    >>> folded("é") == folded("e")
    True
    """
    letters = unicodedata.normalize("NFKD", text.rstrip(" ").casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def colliding_keys(table: Table) -> Iterator[Keys]:
    """Yield pairs of values of a key, primary or unique, that a server would take for equal.

    Nothing is read of a key without text, or where the database compares as servers do.
    """
    backend, name = table.connection.backend, table.name
    if not backend.tells_text_apart:
        return
    with table.connection.cursor() as session:
        indexes = backend.indexes(session, name.schema, name.table).get(name.table, {})
    keys = [index.parts for index in indexes.values() if index.unique]
    for names in dict.fromkeys((tuple(table.primary_key), *keys)):
        texts = [_is_text(table, name) for name in names]
        if any(texts) and set(names) <= set(table.heading.names):
            yield from _among(table, names, texts)


def _among(table: Table, names: Sequence[str], texts: Sequence[bool]) -> Iterator[Keys]:
    seen: dict[tuple[Any, ...], Sequence[Any]] = {}
    for row in fetch.keys(table.connection, table.node, names, names):
        if None in row:
            continue
        same = tuple(
            folded(value) if is_text else value for value, is_text in zip(row, texts, strict=True)
        )
        first = seen.setdefault(same, row)
        if first is not row:
            yield dict(zip(names, first, strict=True)), dict(zip(names, row, strict=True))


def _is_text(table: Table, name: str) -> bool:
    # A part of an index may be an expression.
    attribute = table.heading.attributes.get(name)
    kind = attribute.type if attribute is not None else None
    return kind is not None and kind.family in _TEXTS

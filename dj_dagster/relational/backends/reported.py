"""From the rows in which a database describes its tables to `RawTable`, shared by the backends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from dj_dagster.model.names import TableName
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn

Rows = list[Sequence[Any]]
Reference = tuple[TableName, dict[str, str]]
"""The parent of a foreign key, and ``{child attribute: parent attribute}``."""


def grouped(rows: Iterable[Sequence[Any]]) -> defaultdict[Any, Rows]:
    """Return rows by their first value, without it, in their order."""
    groups: defaultdict[Any, Rows] = defaultdict(list)
    for first, *rest in rows:
        groups[first].append(rest)
    return groups


def raw_table(
    name: TableName,
    comment: str,
    columns: Sequence[StoredColumn],
    key: Sequence[str],
    references: Iterable[Reference],
    unique: Iterable[tuple[str, ...]],
) -> RawTable:
    """Put together what a database reports of a table."""
    indexes = tuple(unique)
    optional = {column.name for column in columns if column.nullable}
    foreign_keys = tuple(
        ForeignKey(
            name,
            parent,
            attributes,
            primary=attributes.keys() <= set(key),
            nullable=bool(optional & attributes.keys()),
            unique=tuple(attributes) in indexes,
        )
        for parent, attributes in references
    )
    return RawTable(name, comment, tuple(columns), tuple(key), foreign_keys, indexes)

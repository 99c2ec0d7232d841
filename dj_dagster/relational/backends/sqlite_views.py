"""Views of a SQLite file, whose columns have the types of the columns that they select."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError

from dj_dagster.model.names import TableName
from dj_dagster.relational.backends import sqlite_catalog as catalog
from dj_dagster.relational.stored import RawTable, StoredColumn

_SELECT = re.compile(r"\bAS\b(?=\s*(?:SELECT|WITH)\b)", re.IGNORECASE)

Columns = dict[str, StoredColumn]


def views(connection: SAConnection, schema: str, tables: Iterable[RawTable]) -> list[RawTable]:
    """Return the views of a schema; those that SQLite itself cannot read any more are left out.

    Parameters
    ----------
    tables
        The tables of the schema.
    """
    found = catalog.views(connection, schema)
    known = {str(raw.name): {c.name: c for c in raw.columns} for raw in tables} if found else {}
    return list(_views(connection, found, known))


def _views(
    connection: SAConnection, found: Iterable[tuple[str, str]], known: dict[str, Columns]
) -> Iterator[RawTable]:
    for name, sql in found:
        try:
            info = connection.exec_driver_sql(f'PRAGMA table_info("{name}")').fetchall()
        except DBAPIError:
            # It selects from a table or column that is gone.
            continue
        names = [(column, kind) for _, column, kind, *_ in info]
        selected = _selected(sql, [column for column, _ in names], known)
        columns = tuple(_column(column, kind, selected.get(column)) for column, kind in names)
        known[name] = {column.name: column for column in columns}
        schema, _, view = name.partition(".")
        yield RawTable(TableName(schema, view), "", columns, (), (), is_view=True)


def _column(name: str, kind: str, origin: StoredColumn | None) -> StoredColumn:
    if origin is None:
        return StoredColumn(name, kind, True, None, "")
    return replace(origin, name=name, default=None, auto_increment=False)


def _selected(sql: str, names: list[str], known: Mapping[str, Columns]) -> Columns:
    """Return by name the columns of tables that a view selects as they are."""
    # Imported only where there is a view: it takes a moment.
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    match = _SELECT.search(sql)
    try:
        tree = parse_one(sql[match.end() :] if match else "", dialect="sqlite")
    except SqlglotError:
        return {}
    while isinstance(tree, exp.SetOperation):
        tree = tree.this
    if not isinstance(tree, exp.Select):
        return {}
    outer = any(join.side for join in tree.args.get("joins") or ())
    sources = {
        table.alias_or_name: known.get(table.name, {})
        for table in tree.find_all(exp.Table)
        if table.parent_select is tree
    }
    origins: list[StoredColumn | None] = []
    for part in tree.expressions:
        origins += _origins(part, sources)
    if len(origins) != len(names):
        return {}
    return {
        name: replace(origin, nullable=origin.nullable or outer)
        for name, origin in zip(names, origins, strict=True)
        if origin is not None
    }


def _origins(part: Any, sources: Mapping[str, Columns]) -> list[StoredColumn | None]:
    """Return the columns that one term of a SELECT stands for, None for what is computed."""
    from sqlglot import exp

    term = part.unalias()
    if isinstance(term, exp.Star):
        return [column for columns in sources.values() for column in columns.values()]
    if not isinstance(term, exp.Column):
        return [None]
    columns = [sources.get(term.table, {})] if term.table else list(sources.values())
    if isinstance(term.this, exp.Star):
        return [column for known in columns for column in known.values()]
    having = [known[term.name] for known in columns if term.name in known]
    return [having[0] if len(having) == 1 else None]

"""Changing a table by making it anew and moving its rows over, where ALTER TABLE can do little.

The steps are those that SQLite's documentation of ALTER TABLE recommends, in one transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import IntegrityError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.backends.unchecked import without_foreign_keys
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.alteration import Alteration, Present, altered_meanwhile
from dj_dagster.relational.declaring.conversion import changes_values, converted
from dj_dagster.relational.declaring.ddl import create_statements
from dj_dagster.relational.declaring.plan import PlannedColumn, PlannedTable


def rebuild(connection: Connection, present: Present, changes: Alteration) -> None:
    """Change a table; foreign keys of other tables to it stay as they are.

    Raises
    ------
    DefinitionError
        If a value has no equal of the new type of its attribute.
    QueryError
        If the table is not as it was when the changes were found.
    IntegrityError
        If a row refers to none by a new foreign key.
    """
    plan = _whole(changes, present)
    # Otherwise the old table could not be dropped.
    with connection.cursor() as session, without_foreign_keys(session, connection.backend.begin):
        # Only from here on nobody else writes.
        if connection.catalog.read(session, plan.name) != present.raw:
            raise altered_meanwhile(plan.name)
        _rebuild(connection, session, plan, present, changes)


def _rebuild(
    connection: Connection,
    session: SAConnection,
    plan: PlannedTable,
    present: Present,
    changes: Alteration,
) -> None:
    backend = connection.backend
    made = TableName(plan.name.schema, f"{plan.name.table}~new")
    create, *indexes = create_statements(plan, backend, made)
    session.execute(create)
    old_names = {name: changes.renamed.get(name, name) for name in changes.columns}
    kept = [name for name in changes.columns if name not in changes.added]
    source = backend.sql_table(plan.name, *[sa.column(old_names[name]) for name in kept])
    target = backend.sql_table(made, *map(sa.column, kept))
    before, after = present.stored.heading.all_attributes, changes.attributes
    values = [
        _moved(connection, session, source, before[old_names[name]], after[name])
        if name in changes.modified
        else source.c[old_names[name]]
        for name in kept
    ]
    session.execute(sa.insert(target).from_select(kept, sa.select(*values)))
    for name in changes.modified:
        session.exec_driver_sql(f'DROP TABLE IF EXISTS temp."converted~{name}"')
    backend.drop_tables(session, [plan.name])
    session.exec_driver_sql(f'ALTER TABLE "{made}" RENAME TO "{plan.name}"')
    for statement in indexes:
        session.execute(statement)
    comments = {column.name: column.full_comment for column in plan.columns}
    backend.after_create(session, plan.name, plan.comment, comments)
    _check_references(session, plan.name)


def _whole(changes: Alteration, present: Present) -> PlannedTable:
    """Return the plan with the hidden columns that stay, in the order of the new table."""
    planned = {column.name: column for column in changes.plan.columns}
    there = {column.name: column for column in present.raw.columns}
    hidden = present.stored.heading.all_attributes
    columns = [
        planned[name] if name in planned else _as_it_is(hidden[name], there[name].comment)
        for name in changes.columns
    ]
    return replace(changes.plan, columns=tuple(columns))


def _as_it_is(attribute: Attribute, comment: str) -> PlannedColumn:
    kind = attribute.type or AttributeType("bytes", Family.BYTES)
    return PlannedColumn(attribute.name, kind, attribute.nullable, attribute.default, comment, None)


def _moved(
    connection: Connection,
    session: SAConnection,
    source: sa.TableClause,
    old: Attribute,
    new: Attribute,
) -> sa.ColumnElement[Any]:
    """Return what the new column is filled with: the old one, or what its values are turned into.

    The values are converted before they are written, since a column changes what it is given: 1
    becomes '1' in a column for text.
    """
    column = source.c[old.name]
    if old.type is None or new.type is None or not changes_values(old.type, new.type):
        return column
    if Family.CODEC in (old.type.family, new.type.family):
        return column
    decode, encode = connection.backend.decoder(old.type), connection.backend.encoder(new.type)
    found = session.execute(sa.select(column).distinct().where(column.is_not(None)))
    decoded = [(stored, decode(stored) if decode else stored) for (stored,) in found.fetchall()]
    wanted = converted((value for _, value in decoded), old, new)
    name = f"converted~{new.name}"
    session.exec_driver_sql(f'CREATE TEMP TABLE "{name}" (old PRIMARY KEY, new) WITHOUT ROWID')
    pairs = sa.table(name, sa.column("old"), sa.column("new"))
    rows = [
        {"old": stored, "new": encode(wanted[value]) if encode else wanted[value]}
        for stored, value in decoded
    ]
    if rows:
        session.execute(sa.insert(pairs), rows)
    return sa.select(pairs.c.new).where(pairs.c.old == column).scalar_subquery()


def _check_references(session: SAConnection, name: TableName) -> None:
    lost = session.exec_driver_sql(f'PRAGMA foreign_key_check("{name}")').fetchall()
    if lost:
        parent = lost[0][2]
        raise IntegrityError(
            f"{len(lost)} rows of {name} refer to rows of {parent} that do not exist. "
            "Insert those first, or correct the rows."
        )

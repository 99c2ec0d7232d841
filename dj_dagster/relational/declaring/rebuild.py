"""Changing a table by making it anew and moving its rows over, where ALTER TABLE can do little.

The steps are those that SQLite's documentation of ALTER TABLE recommends, in one transaction.
"""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import IntegrityError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.table_name import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.backends.unchecked import without_foreign_keys
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.alteration import Alteration, Present
from dj_dagster.relational.declaring.ddl import create_statements
from dj_dagster.relational.declaring.plan import PlannedColumn, PlannedTable
from dj_dagster.relational.values import checked


def rebuild(connection: Connection, present: Present, changes: Alteration) -> None:
    """Change a table; foreign keys of other tables to it stay as they are.

    Raises
    ------
    InvalidValueError
        If a value does not fit the new type of its attribute.
    IntegrityError
        If a row refers to none by a new foreign key.
    """
    plan = _whole(changes, present)
    # Otherwise the old table could not be dropped.
    with connection.cursor() as session, without_foreign_keys(session, connection.backend.begin):
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
    values = sa.select(*[source.c[old_names[name]] for name in kept])
    session.execute(sa.insert(target).from_select(kept, values))
    for name in changes.modified:
        old = present.stored.heading.all_attributes[old_names[name]]
        _convert(connection, session, target, old, changes.attributes[name])
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


def _convert(
    connection: Connection,
    session: SAConnection,
    target: sa.TableClause,
    old: Attribute,
    new: Attribute,
) -> None:
    """Turn the values of a column into those of its new type."""
    if old.type is None or new.type is None or old.type == new.type:
        return
    if Family.CODEC in (old.type.family, new.type.family):
        return
    decode, encode = (
        connection.backend.decoder(old.type),
        connection.backend.encoder(new.type),
    )
    column = target.c[new.name]
    found = session.execute(sa.select(column).distinct().where(column.is_not(None)))
    for (stored,) in found.fetchall():
        value = checked(decode(stored) if decode else stored, new)
        wanted = encode(value) if encode else value
        if wanted != stored or type(wanted) is not type(stored):
            session.execute(sa.update(target).where(column == stored).values({new.name: wanted}))


def _check_references(session: SAConnection, name: TableName) -> None:
    lost = session.exec_driver_sql(f'PRAGMA foreign_key_check("{name}")').fetchall()
    if lost:
        parent = lost[0][2]
        raise IntegrityError(
            f"{len(lost)} rows of {name} refer to rows of {parent} that do not exist. "
            "Insert those first, or correct the rows."
        )

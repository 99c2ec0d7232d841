"""Altering a table so that it is as its definition says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import DefinitionError, MissingTableError, QueryError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.algebra import all_rows
from dj_dagster.relational.asking import Confirm
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.headings import resolve
from dj_dagster.relational.declaring import alter_statement, lineage, rebuild
from dj_dagster.relational.declaring.alteration import (
    Alteration,
    Present,
    alteration,
    altered_meanwhile,
)
from dj_dagster.relational.declaring.conversion import changes_values, converted
from dj_dagster.relational.declaring.declare import reported
from dj_dagster.relational.declaring.old_layout import ensure_external_tables
from dj_dagster.relational.declaring.plan import PlannedTable
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.stored import StoredTable


def alter_table(connection: Connection, plan: PlannedTable, confirm: Confirm | None) -> bool:
    """Give a table the attributes, foreign keys, indexes and comment of its definition.

    Parameters
    ----------
    plan
        What the definition says.
    confirm
        Asked first with the changes in words; None to go ahead.

    Returns
    -------
    bool
        Whether anything was changed.

    Raises
    ------
    DefinitionError
        If the primary key would change, or rows cannot get what the definition wants of them.
        Nothing is changed then.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    if connection.in_transaction or connection.write_buffer is not None:
        raise QueryError(f"{plan.name} cannot be altered inside a transaction or a make.")
    present = _present(connection, plan)
    changes = find_changes(connection, present, plan)
    if not changes:
        return False
    _check_rows(connection, present.stored, changes)
    question = "\n  ".join([f"Altering {plan.name}", *changes.lines()])
    if confirm is not None:
        if not confirm(question):
            return False
        # While somebody thought about it, others may have changed the table, or entered rows.
        now = _present(connection, plan)
        if now.raw != present.raw or now.indexes != present.indexes:
            raise altered_meanwhile(plan.name)
        _check_rows(connection, now.stored, changes)
    try:
        ensure_external_tables(connection, plan)
        if connection.backend.alters_tables:
            alter_statement.alter(connection, present, changes)
        else:
            rebuild.rebuild(connection, present, changes)
        if connection.backend.keeps_lineage and not plan.old:
            lineage.write(connection, plan.name, plan.lineage)
    finally:
        # Tables that refer to it take over types from it.
        for schema in {t.name.schema for t in connection.catalog.related(plan.name.schema)}:
            connection.catalog.forget(schema)
    return True


def find_changes(connection: Connection, present: Present, plan: PlannedTable) -> Alteration:
    """Return the difference between a table and its plan."""
    backend = connection.backend

    def wanted(planned: PlannedTable) -> StoredTable:
        return resolve(reported(planned, backend), connection.catalog.find)

    return alteration(
        present,
        plan,
        wanted,
        backend.index_part,
        server_indexes_keys=backend.indexes_in_table,
    )


def _present(connection: Connection, plan: PlannedTable) -> Present:
    connection.catalog.forget(plan.name.schema)
    raw, stored = connection.catalog.raw(plan.name), connection.catalog.find(plan.name)
    if raw is None or stored is None:
        raise MissingTableError(f"There is no table {plan.name} in {connection.url} to alter.")
    with connection.cursor() as session:
        indexes = connection.backend.indexes(session, *plan.name)
    return Present(raw, stored, indexes.get(plan.name.table, {}))


def _check_rows(connection: Connection, stored: StoredTable, changes: Alteration) -> None:
    """Refuse what the rows that are there cannot follow, before anything is changed."""
    rows = all_rows(stored.name, stored.heading)
    if not fetch.exists(connection, rows):
        return
    for name in changes.added:
        attribute = changes.attributes[name]
        if not attribute.nullable and attribute.default is None:
            raise DefinitionError(
                f"{stored.name} has rows, which have no value for the new attribute {name!r}: "
                "give it a default, or make it nullable, and fill it in before it is made to be "
                "required."
            )
    for name in changes.modified:
        old = stored.heading.all_attributes[changes.renamed.get(name, name)]
        new = changes.attributes[name]
        _check_values(connection, stored, old, new)
        if Family.CODEC not in {kind.family for kind in (old.type, new.type) if kind}:
            conversions(connection, stored, old, new)


def conversions(
    connection: Connection, stored: StoredTable, old: Attribute, new: Attribute
) -> Mapping[Any, Any]:
    """Return the new value of each value of an attribute whose type changes, by the old one.

    Empty where the new type holds all values of the old one as they are.

    Raises
    ------
    DefinitionError
        If a value has no equal of the new type.
    """
    if not changes_values(old.type, new.type):
        return {}
    rows = fetch.rows(connection, all_rows(stored.name, stored.heading), [old.name])
    return converted((value for (value,) in rows if value is not None), old, new)


def _check_values(
    connection: Connection, stored: StoredTable, old: Attribute, new: Attribute
) -> None:
    converted = Family.CODEC in {kind.family for kind in (old.type, new.type) if kind}
    changes_type = converted and old.type != new.type
    if not changes_type and not (old.nullable and not new.nullable):
        return
    table = connection.backend.sql_table(stored.name, sa.column(old.name))
    column = table.c[old.name]
    if changes_type and _is_other_object(old, new):
        query = sa.select(sa.func.count()).select_from(table).where(column.is_not(None))
        if connection.rows(query)[0][0]:
            raise DefinitionError(
                f"The values of {stored.name}.{old.name} cannot be turned from {_text(old)} into "
                f"{_text(new)}: add a second attribute, fill it from the first, drop that one."
            )
    if old.nullable and not new.nullable:
        query = sa.select(sa.func.count()).select_from(table).where(column.is_(None))
        if found := connection.rows(query)[0][0]:
            raise DefinitionError(
                f"{stored.name}.{old.name} is null in {found} rows: give them values with update1 "
                "before the attribute is made to be required."
            )


def _is_other_object(old: Attribute, new: Attribute) -> bool:
    """Whether values are kept in another way; unmarked bytes may become what they are."""
    unmarked = old.type is not None and old.type.family is Family.BYTES and not old.type.core
    inline = new.type is not None and new.type.store is None
    return not (unmarked and inline)


def _text(attribute: Attribute) -> str:
    return attribute.type.text if attribute.type else "?"

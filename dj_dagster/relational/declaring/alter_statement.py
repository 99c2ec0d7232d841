"""All changes to a table as one ALTER TABLE, which happens as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from dj_dagster.model.declaration import IndexDeclaration
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.alteration import Alteration, Present
from dj_dagster.relational.declaring.ddl import TableSQL, in_server_words


def alter(connection: Connection, present: Present, changes: Alteration) -> None:
    """Alter a table."""
    with connection.cursor() as session:
        names = connection.backend.foreign_key_names(session, changes.plan.name)
        plan = in_server_words(changes.plan, connection.backend)
        sql = TableSQL(plan, connection.backend, session.dialect)
        clauses = [
            *(f"DROP FOREIGN KEY {sql.quote(names[key.parent, tuple(key.attributes)])}"
              for key in changes.dropped_keys),
            *(f"DROP INDEX {sql.quote(name)}" for name in changes.dropped_indexes),
            *(f"DROP COLUMN {sql.quote(name)}" for name in changes.dropped),
            *_columns(sql, present, changes),
            *(f"ADD {sql.index(index)}" for index in [*changes.added_indexes, *_needed(changes)]),
            *(f"ADD {sql.foreign_key(key)}" for key in changes.added_keys),
        ]  # fmt: skip
        if changes.comment_changes:
            clauses.append(f"COMMENT = {sql.text(plan.comment)}")
        session.exec_driver_sql(f"ALTER TABLE {sql.name} {', '.join(clauses)}")


def _needed(changes: Alteration) -> Iterator[IndexDeclaration]:
    """Yield indexes for foreign keys whose own goes: the server insists on one for each."""
    for foreign_key in changes.plan.foreign_keys:
        columns = tuple(foreign_key.attributes)
        dropped = [index.parts[: len(columns)] for index in changes.dropped_indexes.values()]
        if columns in dropped:
            yield IndexDeclaration(columns)


def _columns(sql: TableSQL, present: Present, changes: Alteration) -> Iterator[str]:
    """Yield the clauses that add, change and move columns, in their new order."""
    new_names = {old: new for new, old in changes.renamed.items()}
    here = [
        new_names.get(column.name, column.name)
        for column in present.raw.columns
        if column.name not in changes.dropped
    ]
    for position, name in enumerate(changes.columns):
        place = f"AFTER {sql.quote(changes.columns[position - 1])}" if position else "FIRST"
        stays = here[position : position + 1] == [name]
        if not stays:
            here = [other for other in here if other != name]
            here.insert(position, name)
        if name in changes.added:
            yield f"ADD COLUMN {sql.column(name)} {place}"
        elif name in changes.renamed:
            yield f"CHANGE COLUMN {sql.quote(changes.renamed[name])} {sql.column(name)} {place}"
        elif name in changes.modified or not stays:
            yield f"MODIFY COLUMN {sql.column(name)} {place}"

"""update1: other values for one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import MissingAttributeError, QueryError, UnknownAttributeError
from dj_dagster.relational.algebra.algebra import all_rows, restrict
from dj_dagster.relational.algebra.condition import make_condition
from dj_dagster.relational.backends.insert_statement import DEFAULT
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.inserting.encode import RowEncoder
from dj_dagster.relational.inserting.row_batch import Batch
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import StoredTable


def update_row(connection: Connection, table: StoredTable, row: Mapping[str, Any]) -> None:
    """Change the secondary attributes that a row gives, in the row with its key.

    Raises
    ------
    QueryError
        One of its kinds: a name that the table does not have, a key that is not whole or that no
        row has, a value that does not fit; nothing has been changed.
    """
    _check_names(table, row)
    key = {name: row[name] for name in table.heading.primary_key}
    condition = make_condition(key, table.heading)
    encoded = RowEncoder(connection, table, partial=True).encode(
        [Batch({name: [value] for name, value in row.items()}, 1)]
    )[0]
    base = all_rows(table.name, table.heading)
    lowering = Lowering(connection.backend)
    target, over = lowering.target(base)
    changes = {
        name: _changed(connection, table, name, values[0])
        for name, values in zip(encoded.columns, encoded.values, strict=True)
        if name not in key
    }
    where = lowering.where(condition, over, table.heading)

    def update() -> None:
        if encoded.objects is not None:
            encoded.objects.keep(connection.stores)
        with write.explained(encoded):
            write.write_before(connection, encoded)
            if changes:
                found = connection.execute(sa.update(target).where(where).values(changes))
            else:
                found = fetch.count(connection, restrict(base, condition))
        if found != 1:
            raise QueryError(f"{table.name} has no row {key} to update: insert it first.")

    write.change(connection, update)


def _check_names(table: StoredTable, row: Any) -> None:
    if not isinstance(row, Mapping):
        raise QueryError(f"update1 takes a dict with the key and the new values, not {row!r}.")
    names = table.heading.names
    for name in row:
        if name not in table.heading.attributes:
            raise UnknownAttributeError(
                f"{table.name} has no attribute {name!r}. It has: {', '.join(names)}."
            )
    for name in table.heading.primary_key:
        if row.get(name) is None:
            raise MissingAttributeError(
                f"update1 of {table.name} needs the whole key, and {name!r} is missing in "
                f"{dict(row)}."
            )


def _changed(connection: Connection, table: StoredTable, name: str, value: Any) -> Any:
    if value is not DEFAULT:
        return sa.literal(value) if value is not None else sa.null()
    attribute = table.heading[name]
    if attribute.default is None or attribute.type is None:
        raise MissingAttributeError(f"{table.name}.{name} has no default to go back to.")
    # SQLite knows no SET name = DEFAULT.
    return sa.literal_column(connection.backend.default_sql(attribute.default, attribute.type))

"""Tables without a class, by their names in the database."""

from __future__ import annotations

import re
from typing import Any

from dj_dagster.errors import DefinitionError, MissingTableError, QueryError
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name, snake_case
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Table
from dj_dagster.relational.table_meta import Binding

_QUOTED_WHOLE = re.compile(r"""([`"])([^`".]+\.[^`".]+)\1""")
_FULL_NAME = re.compile(
    r"""(?:`(?P<a>[^`.]+)`|"(?P<b>[^".]+)"|(?P<c>[^`".]+))\."""
    r"""(?:`(?P<x>[^`.]+)`|"(?P<y>[^".]+)"|(?P<z>[^`".]+))"""
)


class FreeTable(Table):
    """A table of the database without a class, which may be hidden or of another program.

    Rows may be inserted into it regardless of its tier.

    Parameters
    ----------
    connection
        The connection of the table's database.
    full_table_name
        Schema and table in SQL: ``"lab.__processed"``; each or both together may be quoted, as in
        `Table.full_table_name`.

    Raises
    ------
    QueryError
        For a name without a schema. The existence of the table is checked when it is used.

    Examples
    --------
    ::

        FreeTable(connection, "`lab`.`session`").to_dicts()
    """

    def __init__(self, connection: Connection, full_table_name: str | TableName) -> None:
        name = table_name(full_table_name)
        parsed = parse_table_name(name.table)
        # An attribute of the instance here, not of the class.
        self.tier = parsed.tier if parsed else Tier.MANUAL  # pyright: ignore[reportAttributeAccessIssue]
        self._bound = Binding(connection, name, class_path(name.table))
        self._node = None

    @property
    def stored(self) -> StoredTable:
        """The table as the database holds it.

        Raises
        ------
        MissingTableError
            If the table does not exist.
        """
        catalog = self.connection.catalog
        found = catalog.find(self.name)
        if found is None:
            # Another process may have made it since.
            catalog.forget(self.name.schema)
            found = catalog.find(self.name)
        if found is None:
            raise MissingTableError(f"There is no table {self.name} in {self.connection.url}.")
        return found

    def __repr__(self) -> str:
        return f"FreeTable {self.full_table_name}\n{super().__repr__()}"

    def _check_direct_insert(self) -> None:
        """Allow inserts in any tier: a `make` is not known for these rows."""


def table_name(full: str | TableName) -> TableName:
    """Return the table that ``schema.table`` names.

    Raises
    ------
    QueryError
        If it does not name a table with its schema.

    Examples
    --------
    >>> table_name("`lab`.`__processed`")
    TableName(schema='lab', table='__processed')
    """
    if isinstance(full, TableName):
        return full
    match = _FULL_NAME.fullmatch(_QUOTED_WHOLE.sub(r"\2", full))
    if match is None:
        raise QueryError(f"{full!r} does not name a table: write 'schema.table'.")
    schema, table = (part for part in match.groups() if part)
    return TableName(schema, table)


def find_table_name(
    connection: Connection, schema: str, name: str, *, missing_ok: bool = False
) -> str:
    """Return the name in SQL of a table that is given by any of its names.

    Parameters
    ----------
    name
        In SQL with or without the tier's prefix, or as a class: ``"__spike_sort__unit"``,
        ``"spike_sort"``, ``"SpikeSort.Unit"``.
    missing_ok
        Whether ``""`` is returned for a table that does not exist.

    Raises
    ------
    MissingTableError
        If the table does not exist, unless `missing_ok`.
    """
    spelled = _snake(name)
    for fresh in (False, True):
        if fresh:
            # Another process may have made it since.
            connection.catalog.forget(schema)
        catalog = connection.catalog
        found = [*catalog.names(schema), *catalog.view_names(schema)]
        tables = [name.table for name in found]
        for prefix in ("", "#", "_", "__"):
            if prefix + spelled in tables:
                return prefix + spelled
    if missing_ok:
        return ""
    shown = ", ".join(class_path(table) for table in tables if not table.startswith("~"))
    raise MissingTableError(
        f"The table does not exist: the schema {schema} has no table {name!r}. It has: "
        f"{shown or 'none'}."
    )


def _snake(name: Any) -> str:
    if not isinstance(name, str):
        raise QueryError(f"A table is looked up by its name, not by {name!r}.")
    if not name[:1].isupper():
        return name
    try:
        return "__".join(snake_case(part) for part in name.split("."))
    except DefinitionError:
        return name

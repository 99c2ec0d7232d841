"""Members of connections that only programs written for DataJoint use: an adapter, the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dj_dagster.lazy import LateModule
from dj_dagster.model.names import TableName

# It needs networkx, and the floors above this one.
graphs: Any = LateModule("dj_dagster.dependencies")


class Adapter:
    """A stand-in for DataJoint's adapter of a database, which only quotes names and texts.

    Parameters
    ----------
    backend
        The kind of database: ``"mysql"`` or ``"sqlite"``.
    full_name
        A function that writes a table's name together with its schema's.
    """

    def __init__(self, backend: str, full_name: Callable[[TableName], str]) -> None:
        self.backend = backend
        self._full_name = full_name

    def quote_identifier(self, name: str) -> str:
        """Return a name quoted for SQL.

        Examples
        --------
        >>> Adapter("mysql", str).quote_identifier("session")
        '`session`'
        """
        return "`" + name.replace("`", "``") + "`"

    def quote_string(self, text: str) -> str:
        """Return a text quoted for SQL."""
        return "'" + text.replace("'", "''") + "'"

    def make_full_table_name(self, database: str, table_name: str) -> str:
        """Return the full name of a table for SQL."""
        return self._full_name(TableName(database, table_name))


class HasKind(Protocol):
    """A kind of database."""

    name: str


class HasNames(Protocol):
    """A connection to a database."""

    @property
    def backend(self) -> HasKind:
        """The kind of database."""
        ...

    def full_name(self, name: TableName, /) -> str:
        """Return a table's name together with its schema's for SQL."""
        ...


def adapter_of(connection: HasNames) -> Adapter:
    """Return the quoting of names and texts in the SQL of the database."""
    return Adapter(connection.backend.name, connection.full_name)


def dependencies_of(connection: object) -> Any:
    """Return the graph of the tables of `schemas`; see `dj_dagster.dependencies.Dependencies`.

    It is empty before its method ``load()`` is called.
    """
    return graphs.Dependencies(connection)

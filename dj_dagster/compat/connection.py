"""Members of DataJoint's connections: schemas, the graph of tables, an adapter, a query cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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


class OldConnection:
    """Members of DataJoint's connections that only programs written for DataJoint use.

    Attributes
    ----------
    init_fun, charset
        Have no effect. In DataJoint they are a first statement and the character set.
    """

    init_fun: str | None = None
    charset = "utf8mb4"

    if TYPE_CHECKING:
        # Given by the connection.
        backend: Any
        full_name: Any

        def query(self, query: str) -> Any:
            """Run a statement."""

        def close(self) -> None:
            """Close the pooled connections."""

    @cached_property
    def schemas(self) -> dict[str, Any]:
        """The schemas that are activated on this connection, by name."""
        return {}

    def register(self, schema: Any) -> None:
        """Add a schema to `schemas`; those that are activated add themselves."""
        self.schemas[schema.database] = schema

    @cached_property
    def dependencies(self) -> Any:
        """The graph of the tables of `schemas`; see `dj_dagster.dependencies.Dependencies`.

        It is empty before its method ``load()`` is called.
        """
        return graphs.Dependencies(self)

    @cached_property
    def adapter(self) -> Adapter:
        """The quoting of names and texts in the SQL of the database."""
        return Adapter(self.backend.name, self.full_name)

    @property
    def connection_id(self) -> int:
        """The number that the server gave this thread's session; 0 for databases in files."""
        number = self.backend.session_id
        return 0 if number is None else self.query(f"SELECT {number}").fetchone()[0]

    def set_query_cache(self, query_cache: str | None = None) -> None:
        """Do nothing: rows are always those of the database."""

    def purge_query_cache(self) -> None:
        """Do nothing: rows are not cached."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

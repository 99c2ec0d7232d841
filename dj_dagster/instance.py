"""Databases besides the default one, each with settings of its own."""

from __future__ import annotations

from typing import Any

from dj_dagster.default_connection import Connection
from dj_dagster.defaults import FreeTable, Schema, VirtualModule
from dj_dagster.settings import Config


class Instance:
    """A connection with settings of its own, independent of `dj_dagster.config`.

    Schemas and tables of several instances are independent, in one process or one test.

    Parameters
    ----------
    host, user, password, port, use_tls
        Settings of the server, as in ``database.host`` and so on.
    backend
        Has no effect, and is accepted as DataJoint does; the URL or host names the database.
    **settings
        Any other settings, with ``__`` for the dot: ``safemode=False``,
        ``database__url="sqlite:///lab.sqlite"``. Other settings come from the environment and
        the files.

    Attributes
    ----------
    config
        The settings. The connection follows later changes, except of the database's address.
    connection
        The connection.

    Examples
    --------
    >>> lab = Instance(database__url="sqlite:///:memory:", safemode=False)
    >>> schema = lab.Schema("lab")
    >>> schema.list_tables()
    []
    """

    def __init__(
        self,
        host: str | None = None,
        user: str | None = None,
        password: str | None = None,
        port: int | None = None,
        use_tls: bool | dict[str, Any] | None = None,
        backend: str | None = None,
        **settings: object,
    ) -> None:
        del backend
        given: dict[str, Any] = {"host": host, "user": user, "password": password, "port": port}
        given["use_tls"] = use_tls
        self.config = Config.found()
        self.config.update({f"database.{n}": v for n, v in given.items() if v is not None})
        self.config.update({name.replace("__", "."): v for name, v in settings.items()})
        self.connection = self.config.connect(Connection)

    def Schema(self, schema_name: str | None = None, **options: Any) -> Schema:
        """Return a schema of this database; options are those of `dj_dagster.Schema`."""
        return Schema(schema_name, connection=self.connection, **options)

    def FreeTable(self, full_table_name: str) -> FreeTable:
        """Return a table of this database by its name."""
        return FreeTable(self.connection, full_table_name)

    def VirtualModule(self, module_name: str, schema_name: str) -> VirtualModule:
        """Return a module with a class for each table of a schema of this database."""
        return VirtualModule(module_name, schema_name, connection=self.connection)

    def __repr__(self) -> str:
        return f"Instance({self.connection.url!r})"

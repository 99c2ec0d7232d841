"""Databases besides the default one, each with settings of its own."""

from __future__ import annotations

from typing import Any

from dj_dagster.default_connection import Connection
from dj_dagster.defaults import FreeTable, Schema, VirtualModule
from dj_dagster.settings import Config


class Instance:
    """A connection with settings that are its own: those of `dj_dagster.config` do not matter.

    Schemas and tables of several instances are independent, in one process or one test.

    Parameters
    ----------
    host, user, password, port, use_tls
        Of the server, as in ``database.host`` and so on.
    backend
        Taken for DataJoint's sake; the URL and the host say which database it is.
    **settings
        Any others, ``__`` standing for the dot: ``safemode=False``,
        ``database__url="sqlite:///lab.sqlite"``. What is not given is as the environment and the
        files have it.

    Attributes
    ----------
    config
        The settings; later changes are followed, but not of where the database is.
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
        **settings: Any,
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

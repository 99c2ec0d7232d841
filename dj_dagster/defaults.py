"""The default configuration and connection, for those who do not pass their own.

This is the outermost shell: nothing below it reads what is here.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from dj_dagster.relational.connection import Connection
from dj_dagster.relational.schema import Schema as RelationalSchema
from dj_dagster.settings import Config

_lock = threading.Lock()
_config: Config | None = None
_connection: Connection | None = None


def config() -> Config:
    """Return the settings, read when they are first asked for."""
    global _config
    with _lock:
        if _config is None:
            _config = Config.load()
        return _config


def conn(*, reset: bool = False) -> Connection:
    """Return the default connection.

    Parameters
    ----------
    reset
        Whether to close it and read the settings anew.
    """
    global _config, _connection
    if reset:
        with _lock:
            if _connection is not None:
                _connection.close()
            _config = _connection = None
    settings = config()
    with _lock:
        if _connection is None:
            _connection = settings.connect()
        return _connection


class Schema(RelationalSchema):
    """A named group of tables; decorate a class with it to declare its table.

    Parameters
    ----------
    name
        On MySQL and MariaDB the database; on SQLite the first part of the table names.
    context
        Names that definitions may refer to besides those of the schema and of the class's module.
    connection
        Where the schema lives; the default connection if none is given.
    create_schema, create_tables
        Whether what does not exist is created; otherwise it is an error.
    """

    def __init__(
        self,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        connection: Connection | None = None,
        create_schema: bool = True,
        create_tables: bool = True,
    ) -> None:
        super().__init__(
            name,
            connection=connection if connection is not None else conn(),
            context=context,
            create_schema=create_schema,
            create_tables=create_tables,
        )

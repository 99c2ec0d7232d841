"""The default configuration and connection, for those who do not pass their own.

Only what users call themselves reads them: the public face, and `build_definitions` for patterns of
schema names.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

from dj_dagster.relational.database.connection import Connection
from dj_dagster.settings import Config

_lock = threading.RLock()
_config: Config | None = None
_connection: Connection | None = None


def config() -> Config:
    """Return the settings, read when they are first asked for."""
    global _config
    with _lock:
        if _config is None:
            _config = Config.found()
        return _config


def conn(
    host: str | None = None,
    user: str | None = None,
    password: str | None = None,
    *,
    init_fun: Callable[..., Any] | None = None,
    reset: bool = False,
    use_tls: bool | dict[str, Any] | None = None,
) -> Connection:
    """Return the default connection, which is made when it is first asked for.

    Parameters
    ----------
    host, user, password, use_tls
        Settings to change first. A connection that is open stays as it is, unless `reset`.
    init_fun
        Has no effect: it was an SQL statement to begin connections with.
    reset
        Whether to close the connection, read environment and files anew, and make another. What
        was set in Python stays set.
    """
    global _connection
    given = {"host": host, "user": user, "password": password, "use_tls": use_tls}
    changes = {f"database.{name}": value for name, value in given.items() if value is not None}
    del init_fun
    with _lock:
        if reset and _connection is not None:
            _connection.close()
            _connection = None
        settings = config()
        if reset:
            settings.reread()
        if _connection is None:
            settings.update(changes)
            _connection = settings.connect()
        elif any(settings[name] != value for name, value in changes.items()):
            warnings.warn(
                f"The connection to {_connection.url} is open and stays in use: pass reset=True "
                "to have another.",
                stacklevel=2,
            )
        return _connection

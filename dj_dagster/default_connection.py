"""The default configuration and connection, for those who do not pass their own.

Only what users call themselves reads them: the public face, and `build_definitions` for patterns of
schema names.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from dj_dagster.errors import ThreadSafetyError
from dj_dagster.relational.database import connection as database
from dj_dagster.settings import Config
from dj_dagster.settings_model import DatabaseSettings

_lock = threading.RLock()
_config: Config | None = None
_connection: database.Connection | None = None


class Connection(database.Connection):
    """A database, by its URL or as a server with an account.

    Parameters
    ----------
    host
        A SQLAlchemy URL, which may also be given as `url`; or a MySQL server, ``"host"`` or
        ``"host:port"``.
    user, password, port, use_tls
        Of a server, as in ``config["database.user"]`` and so on; the port is that of the settings
        by default.
    init_fun
        Has no effect: it was an SQL statement to begin connections with.
    backend
        Taken for DataJoint's sake: the URL says which database it is.
    config_override
        The settings that a connection to a server follows; `config` by default.
    **options
        Those of `dj_dagster.relational.database.connection.Connection`. A connection by URL has
        nothing else; one to a server takes the others from the settings and follows them.

    Examples
    --------
    ::

        Connection("mysql+pymysql://alice@db.lab.org/", safemode=False)
        Connection("db.lab.org", "alice", "secret")
    """

    def __init__(
        self,
        host: str | sa.URL | None = None,
        user: str | None = None,
        password: str | None = None,
        port: int | None = None,
        init_fun: str | None = None,
        use_tls: bool | dict[str, Any] | None = None,
        *,
        url: str | sa.URL | None = None,
        backend: Any = None,
        config_override: Config | None = None,
        **options: Any,
    ) -> None:
        del backend
        address = host if url is None else url
        if user is None or isinstance(address, sa.URL):
            super().__init__("" if address is None else address, **options)
        else:
            settings = config_override or (Config.found() if _is_thread_safe() else config())
            given = DatabaseSettings(
                host=address,
                user=user,
                password=None if password is None else SecretStr(password),
                port=port if port is not None else settings["database.port"],
                use_tls=use_tls,
            )
            super().__init__(given.chosen_url(), **{**settings.connection_options(), **options})
            self.display = settings.display
        self.init_fun = init_fun


class NoConfig:
    """What ``dj.config`` is where ``DJ_THREAD_SAFE`` is set: all but the template is refused."""

    save_template = staticmethod(Config.save_template)

    def __getattr__(self, name: str) -> Any:
        # Programs that look whether there is some other attribute are told that there is none.
        if name.startswith("_"):
            raise AttributeError(name)
        return config()[name]

    def __setattr__(self, name: str, value: Any) -> None:
        config()[name] = value

    def __getitem__(self, name: str) -> Any:
        return config()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        config()[name] = value


def public_config() -> Config | NoConfig:
    """Return what ``dj.config`` is."""
    return NoConfig() if _is_thread_safe() else config()


def config() -> Config:
    """Return the settings, read when they are first asked for.

    Raises
    ------
    ThreadSafetyError
        Where ``DJ_THREAD_SAFE`` is set, for a server whose threads must not share them.
    """
    global _config
    if _is_thread_safe():
        raise ThreadSafetyError(
            "DJ_THREAD_SAFE is set: this process has no settings and no connection that all of it "
            "shares. Make a dj.Instance(host, user, password), and use its config, connection, "
            "Schema and FreeTable, or pass connection=."
        )
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
) -> database.Connection:
    """Return the default connection, which is made when it is first asked for.

    It is ``conn.connection`` from then on.

    Parameters
    ----------
    host, user, password, use_tls
        Settings to change first. A connection that is open stays as it is, unless `reset`.
    init_fun
        Has no effect: it was an SQL statement to begin connections with.
    reset
        Whether to close the connection, read environment and files anew, and make another. What
        was set in Python stays set.

    Raises
    ------
    ThreadSafetyError
        As `config` does.
    """
    global _connection
    given = {"host": host, "user": user, "password": password, "use_tls": use_tls}
    changes = {f"database.{name}": value for name, value in given.items() if value is not None}
    del init_fun
    settings = config()
    with _lock:
        if reset and _connection is not None:
            _connection.close()
            _connection = None
        if reset:
            settings.reread()
        if _connection is None or (changes and _connection.is_lost):
            settings.update(changes)
            _connection = settings.connect(Connection)
            vars(conn)["connection"] = _connection
        elif any(settings[name] != value for name, value in changes.items()):
            warnings.warn(
                f"The connection to {_connection.url} is open and stays in use: pass reset=True "
                "to have another.",
                stacklevel=2,
            )
        return _connection


def _is_thread_safe() -> bool:
    return os.environ.get("DJ_THREAD_SAFE", "").lower() in ("1", "true", "yes")

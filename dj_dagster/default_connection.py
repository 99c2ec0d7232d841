"""The default configuration and connection, for programs that do not pass their own.

Only functions that users call themselves read them: the public face, and `build_definitions` for
patterns of schema names.
"""

from __future__ import annotations

import os
import threading
import warnings
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
        The account and port of a server, as in ``config["database.user"]`` and so on; the port is
        that of the settings by default.
    init_fun
        An SQL statement that new connections to a server run first.
    backend
        Has no effect, and is accepted as DataJoint does; the URL names the kind of database.
    config_override
        The settings that a connection to a server follows; `config` by default.
    **options
        The options of `dj_dagster.relational.database.connection.Connection`. A connection by URL
        has only those given; one to a server takes the others from the settings, and follows
        changes of these.

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
        backend: object = None,
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
        self.begin_with(init_fun)


class NoConfig:
    """The ``dj.config`` of ``DJ_THREAD_SAFE``, which refuses everything but `save_template`."""

    save_template = staticmethod(Config.save_template)

    def __getattr__(self, name: str) -> Any:
        # Programs that test for other attributes get an AttributeError.
        if name.startswith("_"):
            raise AttributeError(name)
        return config()[name]

    def __setattr__(self, name: str, value: object) -> None:
        config()[name] = value

    def __getitem__(self, name: str) -> Any:
        return config()[name]

    def __setitem__(self, name: str, value: object) -> None:
        config()[name] = value


def public_config() -> Config | NoConfig:
    """Return the value of ``dj.config``."""
    return NoConfig() if _is_thread_safe() else config()


def config() -> Config:
    """Return the settings, which are read on the first call.

    Raises
    ------
    ThreadSafetyError
        If ``DJ_THREAD_SAFE`` is set, for a server whose threads must not share settings.
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
    init_fun: str | None = None,
    reset: bool = False,
    use_tls: bool | dict[str, Any] | None = None,
) -> database.Connection:
    """Return the default connection, which is made on the first call.

    It is ``conn.connection`` from then on.

    Parameters
    ----------
    host, user, password, use_tls
        Settings to change first. A connection that is open stays as it is, unless `reset`.
    init_fun
        An SQL statement that new connections to a server run first; by default the setting
        ``connection.init_function``.
    reset
        Whether to close the connection, read environment and files anew, and make another.
        Settings that were set in Python stay.

    Raises
    ------
    ThreadSafetyError
        As `config` does.
    """
    global _connection
    given = {"host": host, "user": user, "password": password, "use_tls": use_tls}
    changes = {f"database.{name}": value for name, value in given.items() if value is not None}
    settings = config()
    with _lock:
        if reset and _connection is not None:
            _connection.close()
            _connection = None
        if reset:
            settings.reread()
        if _connection is None or (changes and _connection.is_lost):
            settings.update(changes)
            _connection = settings.connect(Connection, init_fun)
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

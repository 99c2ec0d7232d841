"""SQL backends: what differs between databases, in one protocol and its implementations."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import URL

from dj_dagster.errors import ConfigurationError
from dj_dagster.lazy import LateModule
from dj_dagster.relational.backends.base import Backend
from dj_dagster.relational.database.database_url import shown_url

# Each loads a dialect of SQLAlchemy.
_MYSQL = LateModule("dj_dagster.relational.backends.mysql")
_SQLITE = LateModule("dj_dagster.relational.backends.sqlite")

BACKENDS: dict[str, Callable[[], Backend]] = {
    "sqlite": lambda: _SQLITE.SQLiteBackend(),
    "mysql": lambda: _MYSQL.MySQLBackend(),
    "mariadb": lambda: _MYSQL.MySQLBackend(),
}


def backend_for(url: URL) -> Backend:
    """Return the backend that serves a database URL.

    Raises
    ------
    ConfigurationError
        If no backend serves this kind of database.
    """
    make = BACKENDS.get(url.get_backend_name())
    if make is None:
        raise ConfigurationError(
            f"{shown_url(url)} uses an unsupported database. "
            "Write sqlite:///path/to/file.sqlite or mysql+pymysql://user@host:port/."
        )
    return make()


__all__ = ["Backend", "backend_for"]

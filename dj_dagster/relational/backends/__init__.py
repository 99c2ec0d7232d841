"""SQL backends: one protocol for the differences between databases, and its implementations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL

from dj_dagster.errors import ConfigurationError
from dj_dagster.lazy import LateModule
from dj_dagster.relational.backends.base import Backend
from dj_dagster.relational.backends.common import shown_url

# Each of these modules loads a dialect of SQLAlchemy.
_MYSQL = LateModule("dj_dagster.relational.backends.mysql")
_SQLITE = LateModule("dj_dagster.relational.backends.sqlite")

BACKENDS: dict[str, Callable[[], Backend]] = {
    "sqlite": lambda: _SQLITE.SQLiteBackend(),
    "mysql": lambda: _MYSQL.MySQLBackend(),
    "mariadb": lambda: _MYSQL.MySQLBackend(),
}

SERVERS = {"mysql": ("mysql+pymysql", 3306)}
"""The driver and the port of servers, by the kind that settings name."""

USUAL_SERVER = "mysql"


def server_url(host: str, port: int | None = None, kind: str = USUAL_SERVER) -> URL:
    """Return the URL of a server, by default at its usual port.

    Raises
    ------
    ConfigurationError
        If no backend serves this kind of server.
    """
    if kind not in SERVERS:
        raise ConfigurationError(
            f"database.backend is {kind!r}: write one of {', '.join(map(repr, SERVERS))}, or leave "
            "the host out for SQLite."
        )
    driver, usual = SERVERS[kind]
    return URL.create(driver, host=host, port=port or usual)


def embedded_url(file: Path) -> URL:
    """Return the URL of a database without a server."""
    return URL.create("sqlite", database=str(file))


def embedded_file(url: URL) -> Path | None:
    """Return the file of a database without a server, None if it is in memory or on a server."""
    if backend_for(url).has_server or url.database in (None, "", ":memory:"):
        return None
    return Path(url.database)


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


__all__ = ["USUAL_SERVER", "Backend", "backend_for", "embedded_file", "embedded_url", "server_url"]

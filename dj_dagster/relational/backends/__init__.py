"""One thin module per SQL backend: what differs between the databases, and nothing else."""

from __future__ import annotations

from sqlalchemy import URL

from dj_dagster.errors import ConfigurationError
from dj_dagster.relational.backends.base import Backend
from dj_dagster.relational.backends.mysql import MySQLBackend
from dj_dagster.relational.backends.sqlite import SQLiteBackend

BACKENDS: dict[str, type[Backend]] = {
    "sqlite": SQLiteBackend,
    "mysql": MySQLBackend,
    "mariadb": MySQLBackend,
}


def backend_for(url: URL) -> Backend:
    """Return the backend that serves a database URL.

    Raises
    ------
    ConfigurationError
        If no backend serves this kind of database.
    """
    try:
        return BACKENDS[url.get_backend_name()]()
    except KeyError:
        raise ConfigurationError(
            f"{url.render_as_string()} names a database that dj_dagster does not speak. "
            "Write sqlite:///path/to/file.sqlite or mysql+pymysql://user@host:port/."
        ) from None


__all__ = ["Backend", "backend_for"]

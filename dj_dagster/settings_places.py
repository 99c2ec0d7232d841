"""From settings to places: the URL of the database, and the stores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores import Stores
from dj_dagster.settings_model import DatabaseSettings

FOLDER = ".dj"
"""Where the embedded defaults live, below the working directory."""


def database_url(database: DatabaseSettings) -> sa.URL:
    """Return the database URL, its password in it.

    Raises
    ------
    ConfigurationError
        If the settings name none that can be used.
    """
    if database.url is not None:
        return _parsed_url(database.url.get_secret_value())
    if database.host is None:
        return sa.URL.create("sqlite", database=str(Path(FOLDER, "lab.sqlite").resolve()))
    if database.backend != "mysql":
        raise ConfigurationError(
            f"database.backend is {database.backend!r}: write 'mysql', or leave the host out "
            "for SQLite."
        )
    host, _, port = database.host.partition(":")
    return sa.URL.create(
        "mysql+pymysql",
        username=database.user,
        password=database.password.get_secret_value() if database.password else None,
        host=host,
        port=int(port) if port.isdecimal() else database.port or 3306,
        query=_tls(database.use_tls),
    )


def embedded_store() -> dict[str, Any]:
    """Return the settings of the store that is always there, a folder, as the default store."""
    local = {"protocol": "file", "location": str(Path(FOLDER, "store").resolve())}
    return {"default": "local", "local": local}


class FollowingStores(Stores):
    """Stores that are looked up again when their settings have changed."""

    def __init__(self, source: Callable[[], dict[str, Any]]) -> None:
        self._source = source
        self._seen = copy.deepcopy(source())
        super().__init__(self._seen)

    @property
    def names(self) -> list[str]:
        """Do as `Stores` does, with the settings as they are now."""
        self._follow()
        return super().names

    def resolve(self, name: str | None = None, default: str = "default") -> str:
        """Do as `Stores` does, with the settings as they are now."""
        self._follow()
        return super().resolve(name, default)

    def __contains__(self, name: object) -> bool:
        self._follow()
        return super().__contains__(name)

    def _follow(self) -> None:
        if self._source() != self._seen:
            self.__init__(self._source)


def _tls(use_tls: bool | Mapping[str, Any] | None) -> dict[str, str]:
    """Return the query of a URL that demands TLS; without a `ca` no certificate is checked."""
    if not use_tls:
        return {}
    options = {"check_hostname": "false"} if use_tls is True else dict(use_tls)
    return {f"ssl_{name}": str(value) for name, value in options.items()}


def _parsed_url(text: str) -> sa.URL:
    try:
        return sa.make_url(text)
    except (ArgumentError, ValueError):
        # The text is not shown: it may hold a password.
        raise ConfigurationError(
            "DJ_DATABASE_URL is no database URL. Write sqlite:///path/to/file.sqlite or "
            "mysql+pymysql://user:password@host:port/."
        ) from None

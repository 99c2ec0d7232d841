"""Where the database is: a URL, or the parts of one, of which the last that was set counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal, Self

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, SecretStr

from dj_dagster.errors import ConfigurationError
from dj_dagster.local_files import DATABASE, embedded_folder
from dj_dagster.relational.database.database_url import NO_TLS, demands_tls, parsed_url, shown_url

_logger = logging.getLogger(__package__)


class Section(BaseModel):
    """A group of settings; a value is checked whenever it is assigned."""

    model_config = ConfigDict(validate_assignment=True, extra="forbid", hide_input_in_errors=True)

    def take(self, other: Self) -> None:
        """Have the values of another from now on; the sections within stay the same objects."""
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Section):
                mine.take(theirs)
            else:
                vars(self)[name] = theirs


class DatabaseSettings(Section):
    """Where the database is: a `url`, or else a MySQL server by its `host`.

    Where both come from environment and files, the `url` counts. What is set afterwards, in Python,
    counts more: a `host` takes the place of the URL, and `user`, `password`, `port` and `use_tls`
    of that part of it. What a URL leaves out of user, password and port is taken from these too.

    Attributes
    ----------
    use_tls
        True demands an encrypted connection, which is looked at once it is there; False switches
        encryption off. A mapping demands it too, and may name `ca`, `cert`, `key` and so on:
        ``{"verify_cert": True}`` has the certificate checked against the machine's authorities,
        ``{"ca": "lab.pem"}`` against that one, the name of the host included unless
        ``"check_hostname": False``.
    create_tables
        Whether schemas declare tables that do not exist, unless told otherwise.
    name, database_prefix, reconnect
        Kept for programs that read them. Connections are always opened again when they are lost.
    """

    url: SecretStr | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: SecretStr | None = None
    use_tls: bool | dict[str, Any] | None = None
    create_tables: bool = True
    backend: Literal["mysql", "postgresql"] = "mysql"
    name: str | None = None
    database_prefix: str = ""
    reconnect: bool = True

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if self.url is None or value is None:
            return
        if name == "host":
            self.url = None
        elif name in ("user", "password", "port", "use_tls"):
            url = _with_parts(_parsed_url(self.url.get_secret_value()), self._parts(name))
            self.url = SecretStr(url.render_as_string(hide_password=False))

    def chosen_url(self) -> sa.URL:
        """Return the URL of the database, its password in it.

        Raises
        ------
        ConfigurationError
            If the settings name none that can be used, or an account without its server.
        """
        if self.url is not None:
            return self._completed(_parsed_url(self.url.get_secret_value()))
        if self.host is None:
            self._refuse_lone_account()
            return sa.URL.create("sqlite", database=str(embedded_folder() / DATABASE))
        if self.backend != "mysql":
            raise ConfigurationError(
                f"database.backend is {self.backend!r}: write 'mysql', or leave the host out "
                "for SQLite."
            )
        host, _, port = self.host.partition(":")
        url = sa.URL.create(
            "mysql+pymysql", host=host, port=int(port) if port.isdecimal() else None
        )
        parts = self._parts("user", "password", "use_tls", *([] if url.port else ["port"]))
        return _with_parts(url, {"port": url.port or 3306, **parts})

    @property
    def is_embedded(self) -> bool:
        """Whether no database is named, so that it is the SQLite file of the folder ``.dj``."""
        return self.url is None and self.host is None

    def _refuse_lone_account(self) -> None:
        given = {"user (DJ_USER)": self.user, "password (DJ_PASS)": self.password}
        names = [name for name, value in given.items() if value is not None]
        if names:
            raise ConfigurationError(
                f"Settings: database.{' and database.'.join(names)} without a server. Set "
                "database.host (DJ_HOST), or leave the account out to use the embedded SQLite file."
            )

    def _completed(self, url: sa.URL) -> sa.URL:
        """Return a URL with the parts that it leaves out."""
        if self.host is not None and self.host.partition(":")[0] != url.host:
            _logger.warning(
                "The host %s is not used: a database URL is set too, and names %s. Leave one of "
                "the two out (DJ_HOST, DJ_DATABASE_URL).",
                self.host,
                shown_url(url),
            )
        lacking = ["user", "password"] if url.username is None else []
        if not demands_tls(url) and NO_TLS not in url.query:
            lacking.append("use_tls")
        return _with_parts(url, self._parts(*lacking, *([] if url.port else ["port"])))

    def _parts(self, *names: str) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in names}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in found.items()
            if value is not None
        }


def _with_parts(url: sa.URL, parts: Mapping[str, Any]) -> sa.URL:
    """Return the URL of a server with some parts changed; a file's as it is."""
    if url.get_backend_name() == "sqlite":
        return url
    url = url.set(
        username=parts.get("user", url.username),
        password=parts.get("password", url.password),
        port=parts.get("port", url.port),
    )
    if "use_tls" not in parts:
        return url
    others = {name: value for name, value in url.query.items() if not name.startswith("ssl_")}
    return url.set(query={**others, **_tls(parts["use_tls"])})


def _tls(use_tls: bool | Mapping[str, Any]) -> dict[str, str]:
    """Return the query of a URL that demands TLS, or declines it.

    Without a `ca` or `verify_cert` no certificate is checked.
    """
    if use_tls is False:
        return {NO_TLS: "true"}
    options = {} if use_tls is True else use_tls
    texts = {
        f"ssl_{name}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
    }
    return texts or {"ssl_check_hostname": "false"}


def _parsed_url(text: str) -> sa.URL:
    return parsed_url(text, "DJ_DATABASE_URL")

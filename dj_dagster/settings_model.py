"""Names, types and defaults of settings; those that DataJoint has keep its names."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeGuard

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, SecretStr, field_validator

from dj_dagster.errors import ConfigurationError
from dj_dagster.local_files import (
    DATABASE,
    DOWNLOADS,
    FOLDER,
    at_home,
    check_usable,
    embedded_folder,
)
from dj_dagster.objects.blob.format import DEFAULT_LIMITS
from dj_dagster.objects.stores.store_settings import with_hidden_secrets
from dj_dagster.relational.backends import USUAL_SERVER, backend_for, embedded_url, server_url
from dj_dagster.relational.backends.common import (
    NO_TLS,
    TLS_FILES,
    demands_tls,
    parsed_url,
    shown_url,
)
from dj_dagster.relational.database.catalog import Era

_logger = logging.getLogger(__package__)


_TLS_NAMES = (
    *TLS_FILES,
    *("key_password", "cipher", "check_hostname", "verify_cert", "verify_identity"),
)


class Section(BaseModel):
    """A group of settings; a value is checked whenever it is assigned."""

    model_config = ConfigDict(validate_assignment=True, extra="forbid", hide_input_in_errors=True)

    def take(self, other: Self) -> None:
        """Take the values of another section; nested sections stay the same objects."""
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Section):
                mine.take(theirs)
            else:
                vars(self)[name] = theirs


class DatabaseSettings(Section):
    """The address of the database: a `url`, or else a MySQL server by its `host`.

    If one source sets both, the `url` is used. Assigning a `host` afterwards removes the URL, and
    assigning `user`, `password`, `port` or `use_tls` changes that part of the URL. If a URL lacks
    the user and password, or the port, they are taken from these settings too.

    Attributes
    ----------
    url
        A SQLAlchemy URL, such as ``mysql+pymysql://me:secret@db.lab.org:3306/``.
    host
        The name or address of a MySQL or MariaDB server; the port may follow it after a colon.
    port
        The server's port; its kind's own by default, such as 3306.
    user
        The account on the server.
    password
        The password of that account.
    use_tls
        True demands encryption, which is checked once connected; False switches it off. A mapping
        demands it too, and may name `ca`, `cert`, `key` and so on: ``{"verify_cert": True}`` checks
        the certificate against the machine's authorities, ``{"ca": "lab.pem"}`` against that one.
        Either checks the name of the host too, unless ``"check_hostname": False``.
    backend
        The kind of server that `host` is.
    create_tables
        Whether schemas by default declare tables that do not exist.
    shared
        Whether all machines that make keys have the file of an embedded database under its path.
    name
        Kept for programs that read it.
    """

    url: SecretStr | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: SecretStr | None = None
    use_tls: bool | dict[str, Any] | None = None
    create_tables: bool = True
    shared: bool = False
    backend: str = USUAL_SERVER
    name: str | None = None

    @field_validator("use_tls")
    @classmethod
    def _is_known(cls, value: Any) -> Any:
        unknown = set(value) - {*_TLS_NAMES} if isinstance(value, dict) else None
        if unknown:
            raise ValueError(f"{min(unknown)!r} is not known: write {', '.join(_TLS_NAMES)}")
        return with_hidden_secrets("use_tls", value)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if self.url is None or value is None:
            return
        if name == "host":
            self.url = None
        elif name in ("user", "password", "port", "use_tls"):
            url = _with_parts(_parsed_url(self.url.get_secret_value()), self._parts(name))
            self.url = SecretStr(url.render_as_string(hide_password=False))

    def chosen_url(self) -> sa.URL:
        """Return the URL of the database, including the password.

        Raises
        ------
        ConfigurationError
            If the URL cannot be used, or the settings name an account without its server.
        """
        if self.url is not None:
            return self._completed(_parsed_url(self.url.get_secret_value()))
        if self.host is None:
            self._refuse_lone_account()
            folder = embedded_folder()
            check_usable(folder, "name a database by DJ_DATABASE_URL")
            return embedded_url(folder / DATABASE)
        host, _, port = self.host.partition(":")
        given = int(port) if port.isdecimal() else self.port
        url = server_url(host, given, self.backend)
        return _with_parts(url, self._parts("user", "password", "use_tls"))

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the SQLite file of the folder ``.dj``, as none is named."""
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
        """Return a URL with its missing parts taken from the settings."""
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
    """Return the URL of a server with some parts changed, that of a file unchanged."""
    if not backend_for(url).has_server:
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

    Certificates are checked only with a `ca` or `verify_cert`.
    """
    if use_tls is False:
        return {NO_TLS: "true"}
    options = {} if use_tls is True else use_tls
    texts = {
        f"ssl_{name}": str(value).lower() if isinstance(value, bool) else _at_home(name, value)
        for name, value in options.items()
    }
    return texts or {"ssl_check_hostname": "false"}


def _at_home(name: str, value: object) -> str:
    return str(at_home(str(value), f"use_tls.{name}") if name in TLS_FILES else value)


def _parsed_url(text: str) -> sa.URL:
    return parsed_url(text, "DJ_DATABASE_URL")


class ConnectionSettings(Section):
    """Details of the connection to a server.

    Attributes
    ----------
    charset
        Kept for programs that read it.
    init_function
        An SQL statement that each new connection to a server runs first, such as ``set time_zone =
        '+00:00'``. An embedded database does not run it.
    """

    charset: str = ""
    init_function: str | None = None


class DisplaySettings(Section):
    """The look of previews and diagrams.

    Attributes
    ----------
    limit
        Rows that a preview shows, at most.
    width
        Characters of a column that a preview shows, at most.
    show_tuple_count
        Whether the number of all rows is below a preview.
    diagram_direction
        ``"LR"`` draws from left to right, ``"TB"`` from top to bottom.
    """

    limit: int = Field(default=12, ge=0)
    width: int = Field(default=24, ge=1)
    show_tuple_count: bool = True
    diagram_direction: Literal["LR", "TB"] = "LR"


class JobsSettings(Section):
    """Settings of the jobs of computed tables; see `dj_dagster.model.job_settings`.

    Attributes
    ----------
    allow_new_pk_fields_in_computed_tables
        Kept for programs that set it; such fields are always allowed.
    """

    auto_refresh: bool = True
    keep_completed: bool = False
    stale_timeout: float = Field(default=3600, ge=0)
    default_priority: int = Field(default=5, ge=-128, le=127)
    version_method: str | None = None
    allow_new_pk_fields_in_computed_tables: bool = False
    add_job_metadata: bool = False
    lease: float = Field(default=300, gt=0)
    packages: tuple[str, ...] = ()
    on_other_code: Literal["warn", "refuse"] = "warn"

    @field_validator("packages", mode="before")
    @classmethod
    def _separated(cls, value: Any) -> Any:
        # Variables of the environment are texts.
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class GarbageSettings(Section):
    """Settings of ``dj-dagster gc``, in seconds; see `dj_dagster.GarbageCollector`.

    Attributes
    ----------
    grace
        The age in seconds up to which objects without a row are left alone.
    keep
        The seconds for which removed objects stay in the trash.
    """

    grace: float = Field(default=86_400, ge=0)
    keep: float = Field(default=30 * 86_400, ge=0)


class ReadLimitSettings(Section):
    """Limits on reading one packed value; see `dj_dagster.objects.blob.format.ReadLimits`."""

    unpacked_bytes: int = Field(default=DEFAULT_LIMITS.unpacked_bytes, ge=0)
    # Deeper nesting would use up Python's stack.
    depth: int = Field(default=DEFAULT_LIMITS.depth, ge=1, le=200)
    equal_hashes: int = Field(default=DEFAULT_LIMITS.equal_hashes, ge=1)


class ProvenanceSettings(Section):
    """Settings of the provenance of entered rows; see `dj_dagster.relational.database.write`.

    Attributes
    ----------
    capture
        Whether manual tables that are declared from now on get the hidden attribute ``_prov``, and
        inserts fill it. `dj_dagster.deploy.add_prov_column` adds it to existing tables.
    source
        Facts of the outside system that are recorded.
    """

    capture: bool = False
    source: dict[str, Any] = Field(default_factory=dict)

    @field_validator("source")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, default=str)
        except (TypeError, ValueError) as error:
            raise ValueError(f"it has to be JSON-serializable: {error}") from error
        return value


class Settings(Section):
    """All settings.

    Attributes
    ----------
    stores
        The settings of each store by its name, as DataJoint spells them.
    download_path
        The folder that fetched attachments are written to.
    safemode
        Whether `delete`, `drop` and the like ask before they act.
    loglevel
        The level of the logger ``dj_dagster``.
    fetch_format
        The form that the old ``fetch()`` returns: ``"array"`` or ``"frame"``.
    query_cache
        Kept for programs that read it: rows are always those of the database.
    enable_python_native_blobs
        Has no effect: such blobs are always enabled.
    semantic_check
        Whether queries refuse to match attributes with the same name that are not related by
        foreign keys. DataJoint 0.14 matched attributes by their names alone.
    era
        ``"0.14"`` for code of that era of DataJoint; see `dj_dagster.replace_datajoint`.
    strict_provenance
        Whether a `make` may only read tables that its own refers to, and only write rows of its
        key: for tests of pipelines. DataJoint had it in 2.3.0 to 2.3.2.
    custom
        Free for programs to use.
    """

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    connection: ConnectionSettings = Field(default_factory=ConnectionSettings)
    display: DisplaySettings = Field(default_factory=DisplaySettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    gc: GarbageSettings = Field(default_factory=GarbageSettings)
    read_limits: ReadLimitSettings = Field(default_factory=ReadLimitSettings)
    provenance: ProvenanceSettings = Field(default_factory=ProvenanceSettings)
    # The same dict that was given, as programs go on filling it.
    stores: InstanceOf[dict[str, Any]] = Field(default_factory=dict, repr=False)
    custom: Any = Field(default_factory=dict)
    safemode: bool = True
    semantic_check: bool = True
    era: Era = "2.3"
    strict_provenance: bool = False
    download_path: str = f"{FOLDER}/{DOWNLOADS}"
    fetch_format: Literal["array", "frame"] = "array"
    loglevel: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    query_cache: Path | None = None
    enable_python_native_blobs: bool = True


def section_names() -> list[str]:
    """Return the names of the sections."""
    fields = Settings.model_fields.items()
    return [name for name, field in fields if _is_section(field.annotation)]


def setting_names() -> Iterator[str]:
    """Yield the dotted names of all settings, ``"database.host"``."""
    for name, field in Settings.model_fields.items():
        if _is_section(field.annotation):
            yield from (f"{name}.{inner}" for inner in field.annotation.model_fields)
        else:
            yield name


def _is_section(annotation: object) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)

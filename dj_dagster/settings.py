"""Settings from the environment, from files and from Python, and the stores that they describe.

==================  ===============================================================================
environment         meaning
==================  ===============================================================================
``DJ_DATABASE_URL`` a SQLAlchemy URL; without it and without a host the file ``lab.sqlite`` in
                    the nearest folder ``.dj``, from the working directory upwards
``DJ_HOST`` …       ``DJ_HOST``, ``DJ_PORT``, ``DJ_USER``, ``DJ_PASS``: a MySQL server, as DataJoint
``DJ_STORES``       the stores as JSON, spelled as in ``datajoint.json``
``DJ_SAFEMODE``     whether deleting asks first
==================  ===============================================================================

All variables are listed in `dj_dagster.settings_mapping`. A file ``datajoint.json``, or DataJoint
0.14's ``dj_local_conf.json``, is looked for in the working directory and in those above it, then
``~/.datajoint_config.json``; ``DJ_CONFIG_FILE`` names one instead. Files of other users in folders
that everyone may write are left out. The environment wins over files, and settings made in Python
win over both.

A URL and a host name the same thing twice. The stronger source decides between them: a host set in
Python takes the place of a URL from the environment, and ``DJ_HOST`` that of a URL in a file. Where
one source has both, the URL is used, and the log says so unless they agree. If a URL lacks the user
and password, or the port, they are taken from the other settings.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from dj_dagster.errors import ConfigurationError
from dj_dagster.local_files import STORE, embedded_folder, is_usable, make_private_file
from dj_dagster.model.job_settings import JobSettings, Provenance
from dj_dagster.objects.blob.format import ReadLimits
from dj_dagster.objects.stores.store_settings import StoreSettings, with_hidden_secrets
from dj_dagster.objects.stores.stores import Stores
from dj_dagster.relational.backends import embedded_file
from dj_dagster.relational.backends.common import shown_url
from dj_dagster.relational.database.connection import Connection, Display
from dj_dagster.settings_mapping import (
    FILE_NAMES,
    GLOBAL_FILE,
    LOCAL_FILE,
    SECRETS,
    SettingsMapping,
    UnknownSettingError,
    found_settings,
    read_file,
    with_paths_in,
    without_environment,
)
from dj_dagster.settings_model import Settings


def embedded_store(folder: Path) -> dict[str, Any]:
    """Return the settings of the default store, in the folder of the embedded database.

    The folder of another user has none.
    """
    if not is_usable(folder):
        return {}
    return {"default": "local", "local": {"protocol": "file", "location": str(folder / STORE)}}


class FollowingStores(Stores):
    """Stores that are opened again when their settings have changed."""

    def __init__(self, source: Callable[[], dict[str, Any]]) -> None:
        self._source = source
        seen = copy.deepcopy(source())
        super().__init__(seen)
        # Set last, so that settings that are refused are refused again each time.
        self._seen = seen

    @property
    def names(self) -> list[str]:
        """The names of all stores in the present settings."""
        self._follow()
        return super().names

    def resolve(self, name: str | None = None, default: str = "default") -> str:
        """Return the name of a configured store, as `Stores.resolve`, by the present settings."""
        self._follow()
        return super().resolve(name, default)

    def __contains__(self, name: object) -> bool:
        self._follow()
        return super().__contains__(name)

    def _follow(self) -> None:
        if self._source() != self._seen:
            self.__init__(self._source)


__all__ = ["Config", "UnknownSettingError"]

_STORE_DEFAULTS = StoreSettings(location="").model_dump(
    include={
        "filepath_prefix",
        "hash_prefix",
        "partition_pattern",
        "schema_prefix",
        "subfolding",
        "token_length",
    }
)

_logger = logging.getLogger(__package__)


class Config(SettingsMapping):
    """The settings, by dotted name or as attributes: ``config["jobs.auto_refresh"]``.

    Names of earlier versions of DataJoint, and any others, can be set and read back as well; one
    warning for each says that it has no effect. ``config["custom"]`` is free for programs to use.

    Parameters
    ----------
    values
        Settings by dotted name.

    Raises
    ------
    ConfigurationError
        If a value cannot be used; the message names the setting, never its value.

    Examples
    --------
    >>> config = Config({"database.host": "db.lab.org"})
    >>> config["database.port"] = 3307
    >>> config.database.port, config["display.limit"]
    (3307, 12)
    >>> with config.override(display__limit=5):
    ...     config.display.limit
    5
    """

    @classmethod
    def found(cls) -> Config:
        """Return the settings of the environment and the files."""
        return cls(found_settings())

    def reread(self) -> None:
        """Read the environment and the files again; settings made in Python stay."""
        fresh, changes = Config.found(), self.changes()
        fresh._put_all(changes)
        self._others, self._given = fresh._others, fresh._given
        self._settings.take(fresh._settings)

    def load(self, filename: str | Path | None = None) -> None:
        """Take the settings of a JSON file, by default of ``dj_local_conf.json``.

        Settings from the environment stay as they are.

        Raises
        ------
        ConfigurationError
            If the file cannot be read; for a missing file, it is a `FileNotFoundError` as well.
        """
        values = without_environment(read_file(Path(filename or LOCAL_FILE)))
        self._put_all(values)
        self._assigned.update(values)

    def save(self, filename: str | Path, verbose: bool = False) -> None:
        """Write the settings that differ from the defaults to a JSON file, private to its owner.

        The password is written too, as DataJoint 0.14 does. Relative paths are written whole in
        a file outside of the working directory, since those in a file are below its folder.
        """
        plain = Config()
        values = {n: v for n, v in self.items() if n in self._others or v != plain[n]}
        if Path(filename).absolute().parent != Path.cwd():
            values = with_paths_in(Path.cwd(), values)
        # Opened for its owner only before anything is written.
        descriptor = os.open(filename, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(values, stream, indent=4, default=str)
        Path(filename).chmod(0o600)
        if verbose:
            print(f"Saved the settings in {filename}.")

    def save_local(self, verbose: bool = False) -> None:
        """Write the settings to ``dj_local_conf.json`` in the working directory; see `save`."""
        self.save(LOCAL_FILE, verbose)

    def save_global(self, verbose: bool = False) -> None:
        """Write the settings to ``~/.datajoint_config.json``; see `save`."""
        self.save(Path(GLOBAL_FILE).expanduser(), verbose)

    @staticmethod
    def save_template(
        path: str | Path = FILE_NAMES[0], minimal: bool = True, create_secrets_dir: bool = False
    ) -> Path:
        """Write a ``datajoint.json`` to start from, without secrets, and return its path.

        Parameters
        ----------
        minimal
            Whether it only has the settings of the server.
        create_secrets_dir
            Whether a folder ``.secrets`` is made beside it, which git ignores, with empty files
            for user and password.

        Raises
        ------
        FileExistsError
            If the file exists.
        """
        if Path(path).exists():
            raise FileExistsError(f"{path} already exists: move it away, or give another name.")
        content: dict[str, object] = {"database": {"host": "localhost", "port": 3306}}
        if not minimal:
            store = {"protocol": "file", "location": str(embedded_folder() / STORE)}
            content |= {"stores": {"default": "main", "main": store}}
            content |= Settings().model_dump(
                include={"connection", "display", "jobs", "loglevel", "safemode"}
            )
        with Path(path).open("x", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
        if create_secrets_dir:
            secrets = Path(path).absolute().parent / SECRETS[0]
            if make_private_file(secrets / ".gitignore"):
                (secrets / ".gitignore").write_text("*\n")
            for name in ("database.user", "database.password"):
                make_private_file(secrets / name)
        return Path(path).absolute()

    def get_store_spec(
        self, store: str | None = None, *, use_filepath_default: bool = False
    ) -> dict[str, Any]:
        """Return the settings of one store, with defaults; by default of the default store.

        Parameters
        ----------
        use_filepath_default
            Whether the default store is ``filepath_default``, that of ``<filepath@>``.

        Raises
        ------
        ConfigurationError
            If the store is unknown, or if a default is requested and not configured: the embedded
            store that is then in use is returned only by its name.
        """
        stores = self._stores(embedded_store(embedded_folder()))
        default = "filepath_default" if use_filepath_default else "default"
        if store is None and default not in self._settings.stores:
            raise ConfigurationError(
                f"stores.{default} is not configured: set it to the name of a store, or name one."
            )
        given = stores[Stores(stores).resolve(store, default)]
        return with_hidden_secrets(store or default, {**_STORE_DEFAULTS, **given}, in_store=True)

    def url(self) -> sa.URL:
        """Return the database URL, including the password."""
        return self._settings.database.chosen_url()

    def check_place(self) -> None:
        """Refuse a database in a file whose folder is not there, such as a share's mount point.

        A connection would make the folder, and an empty database in it.

        Raises
        ------
        ConfigurationError
            If the settings name such a database.
        """
        url = self.url()
        file = None if self._settings.database.is_embedded else embedded_file(url)
        if file is not None and not file.parent.is_dir():
            raise ConfigurationError(
                f"The folder of the database {shown_url(url)} is not there. Make it or mount it, "
                "or correct DJ_DATABASE_URL."
            )

    def _prepared_url(self) -> sa.URL:
        """Return the database URL; make a missing file of an embedded database, and log that.

        Raises
        ------
        ConfigurationError
            If the file cannot be made.
        """
        url = self.url()
        if not self._settings.database.is_embedded:
            return url
        try:
            is_new = make_private_file(Path(str(url.database)))
        except OSError as error:
            raise ConfigurationError(
                f"The embedded database {url.database} cannot be made: {error}. Call this in a "
                "folder that this user may write, or name a database by DJ_DATABASE_URL."
            ) from error
        if is_new:
            _logger.warning(
                "A new database was made: %s. It is used wherever settings name no other, from "
                "this folder and those below it.",
                url.database,
            )
        return url

    def connect(
        self, kind: type[Connection] = Connection, init_fun: str | None = None
    ) -> Connection:
        """Return a new connection to the configured database, without connecting yet.

        It follows later changes of the settings, except of the database's address. `init_fun` takes
        precedence over the setting ``connection.init_function``.
        """
        connection = kind(self._prepared_url(), **self.connection_options())
        # The section itself, so that changes are seen.
        connection.display = cast(Display, self._settings.display)
        connection.begin_with(init_fun or self._settings.connection.init_function)
        return connection

    def connection_options(self) -> dict[str, Any]:
        """Return the options of connections that follow these settings."""
        # Looked for once: a program that changes its directory later keeps its store.
        embedded = embedded_store(embedded_folder())
        return {
            "stores": FollowingStores(lambda: self._stores(embedded)),
            "shared": lambda: self._settings.database.shared,
            "safemode": partial(getattr, self._settings, "safemode"),
            "jobs": self._jobs,
            "download_path": lambda: Path(self._settings.download_path),
            # Not functions of Python: each join and restriction reads these.
            "semantic_check": partial(getattr, self._settings, "semantic_check"),
            "fetch_format": partial(getattr, self._settings, "fetch_format"),
            "era": partial(getattr, self._settings, "era"),
            "provenance": self._provenance,
            "read_limits": lambda: ReadLimits(**self._settings.read_limits.model_dump()),
        }

    def _jobs(self) -> JobSettings:
        known = JobSettings.__dataclass_fields__
        return JobSettings(**self._settings.jobs.model_dump(include=set(known)))

    def _provenance(self) -> Provenance:
        said = self._settings.provenance
        return Provenance(said.capture, said.source, self._settings.strict_provenance)

    def _stores(self, embedded: Mapping[str, Any]) -> dict[str, Any]:
        stores = {**embedded, **self._settings.stores}
        if self._settings.era == "0.14":
            # DataJoint 0.14 reached servers without encryption by default, and took a missing
            # location for the working directory.
            stores = {name: _as_before(store) for name, store in stores.items()}
        return stores


def _as_before(store: Any) -> Any:
    match store:
        case {"protocol": "s3"}:
            return {"secure": False, **store}
        case {"protocol": "file", "location": ""}:
            return {**store, "location": "."}
        case _:
            return store

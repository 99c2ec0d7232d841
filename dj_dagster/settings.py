"""Settings, from the environment, from files, and from Python.

==================  ===============================================================================
environment         meaning
==================  ===============================================================================
``DJ_DATABASE_URL`` a SQLAlchemy URL; ``sqlite:///.dj/lab.sqlite`` without it and without a host
``DJ_HOST`` …       ``DJ_HOST``, ``DJ_PORT``, ``DJ_USER``, ``DJ_PASS``: a MySQL server, as DataJoint
``DJ_STORES``       the stores as JSON, spelled as in ``datajoint.json``
``DJ_SAFEMODE``     whether deleting asks first
==================  ===============================================================================

All of them are in `dj_dagster.settings_sources`. A file ``datajoint.json``, or DataJoint 0.14's
``dj_local_conf.json``, is looked for in the working directory and in those above it, then
``~/.datajoint_config.json``; the environment wins over files, and what is set in Python over both.
"""

from __future__ import annotations

import json
import logging
import os
import pprint
import warnings
from collections.abc import Generator, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from pydantic import SecretStr, ValidationError

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.objects.stores import Stores
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.display import Display
from dj_dagster.settings_model import Section, Settings, section_names, setting_names
from dj_dagster.settings_places import (
    FollowingStores,
    database_url,
    embedded_store,
)
from dj_dagster.settings_sources import (
    ENVIRONMENT,
    FILE_NAMES,
    GLOBAL_FILE,
    LOCAL_FILE,
    found_settings,
    read_file,
)

_NAMES = frozenset(setting_names())


class UnknownSettingError(ConfigurationError, KeyError):
    """A setting that is neither known nor has been set."""

    __str__ = Exception.__str__


class Config(MutableMapping[str, Any]):
    """The settings, by dotted name or as attributes: ``config["jobs.auto_refresh"]``.

    Names of earlier versions of DataJoint, and any others, can be set and read back as well; a
    warning says once of each that nothing here reads it. ``config["custom"]`` is yours.

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

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._settings = Settings()
        self._others: dict[str, Any] = {}
        self._assigned: dict[str, Any] = {}
        self._warned: set[str] = set()
        for name, value in (values or {}).items():
            self._put(name, value)

    @classmethod
    def found(cls) -> Config:
        """Return the settings that the environment and the files say."""
        return cls(found_settings())

    def reread(self) -> None:
        """Read the environment and the files again; what was set in Python stays."""
        fresh = Config({**found_settings(), **self._assigned})
        self._settings, self._others = fresh._settings, fresh._others

    def __getitem__(self, name: str) -> Any:
        if name in self._others:
            return self._others[name]
        value: Any = self._settings
        for part in name.split("."):
            inner = value if isinstance(value, Mapping) else _fields(value)
            if part not in inner:
                known = ", ".join(sorted(_NAMES))
                raise UnknownSettingError(
                    f"There is no setting {name!r}, and none was set. Known settings: {known}."
                )
            value = inner[part]
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "database.host" and value is not None:
            # The last word counts: a URL from elsewhere would win over the host.
            self["database.url"] = None
        self._put(name, value)
        self._assigned[name] = value

    def __delitem__(self, name: str) -> None:
        """Set a setting back to its default, or forget one of your own."""
        self._assigned.pop(name, None)
        if name in self._others:
            del self._others[name]
        else:
            self._put(name, Config()[name])

    def __iter__(self) -> Iterator[str]:
        return iter([*setting_names(), *self._others])

    def __len__(self) -> int:
        return len(_NAMES) + len(self._others)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in Settings.model_fields:
            raise AttributeError(f"There is no setting {name!r}; see config.keys().")
        return getattr(self._settings, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __repr__(self) -> str:
        # Whole stores are left out, for they hold keys.
        shown = {name: _shown(name, self[name]) for name in self}
        return pprint.pformat(shown, sort_dicts=False)

    @contextmanager
    def override(self, **values: Any) -> Generator[Config]:
        """Change settings for a while; ``__`` in a name stands for the dot."""
        names = {name.replace("__", "."): value for name, value in values.items()}
        before = {name: self[name] for name in names if name in self}
        assigned = dict(self._assigned)
        try:
            for name, value in names.items():
                self[name] = value
            yield self
        finally:
            for name in names:
                if name in before:
                    self._put(name, before[name])
                else:
                    self._others.pop(name, None)
            self._assigned = assigned

    __call__ = override

    def load(self, filename: str | Path | None = None) -> None:
        """Take the settings of a JSON file, by default of ``dj_local_conf.json``.

        Raises
        ------
        ConfigurationError
            If it cannot be read.
        """
        self.update(read_file(Path(filename or LOCAL_FILE)))

    def save(self, filename: str | Path, verbose: bool = False) -> None:
        """Write what differs from the defaults to a JSON file, which only its owner can read.

        The password is written too, as DataJoint 0.14 does.
        """
        plain = Config()
        values = {n: v for n, v in self.items() if n in self._others or v != plain[n]}
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
    def save_template(path: str | Path = FILE_NAMES[0], minimal: bool = True) -> Path:
        """Write a ``datajoint.json`` to begin with, without secrets, and return its path.

        Raises
        ------
        FileExistsError
            If there is one.
        """
        content: dict[str, Any] = {"database": {"host": "localhost", "port": 3306, "user": None}}
        if not minimal:
            content |= {"stores": embedded_store(), "safemode": True}
            content |= {
                name: getattr(Settings(), name).model_dump() for name in ("display", "jobs")
            }
        with Path(path).open("x", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
        return Path(path).absolute()

    def get_store_spec(self, store: str | None = None) -> dict[str, Any]:
        """Return the settings of one store, by default of the default store.

        Raises
        ------
        ConfigurationError
            If there is no such store.
        """
        stores = self._stores()
        return dict(stores[Stores(stores).resolve(store)])

    def url(self) -> sa.URL:
        """Return the database URL, its password in it."""
        return database_url(self._settings.database)

    def connect(self) -> Connection:
        """Return a new connection to the configured database; nothing is dialled yet.

        It follows later changes of the settings, but not of where the database is.
        """
        connection = Connection(
            self.url(),
            stores=FollowingStores(self._stores),
            safemode=lambda: self["safemode"],
            jobs=self._jobs,
            download_path=lambda: Path(self["download_path"]),
            semantic_check=lambda: self._settings.semantic_check,
        )
        # The section itself, so that changes are seen.
        connection.display = cast(Display, self._settings.display)
        return connection

    def _jobs(self) -> JobSettings:
        known = JobSettings.__dataclass_fields__
        return JobSettings(**self._settings.jobs.model_dump(include=set(known)))

    def _stores(self) -> dict[str, Any]:
        return embedded_store() | self._settings.stores

    def _put(self, name: str, value: Any) -> None:
        *path, last = name.split(".")
        holder = self[".".join(path)] if path and path[0] in ("stores", "custom") else None
        if isinstance(holder, dict):
            holder[last] = value
        elif name in section_names() and isinstance(value, Mapping):
            for inner, item in value.items():
                self._put(f"{name}.{inner}", item)
        elif name in _NAMES:
            self._assign(path, last, value)
        else:
            self._others[name] = value
            self._warn(name, f"The setting {name!r} is kept, but nothing here reads it.")

    def _assign(self, path: list[str], last: str, value: Any) -> None:
        section: Section = getattr(self._settings, path[0]) if path else self._settings
        try:
            setattr(section, last, value)
        except ValidationError as error:
            raise _refused(".".join([*path, last]), error) from None
        if last == "loglevel":
            logging.getLogger(__package__).setLevel(self._settings.loglevel)
        if last == "enable_python_native_blobs" and not self._settings.enable_python_native_blobs:
            self._warn(last, f"{last} cannot be turned off here: blobs hold any Python value.")

    def _warn(self, name: str, message: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(message, stacklevel=4)


def _fields(section: Any) -> dict[str, Any]:
    return dict(section) if isinstance(section, Section) else {}


def _shown(name: str, value: Any) -> Any:
    if name in ("database.url", "database.password"):
        return None if value is None else "***"
    return list(value) if name == "stores" else value


def _refused(name: str, error: ValidationError) -> ConfigurationError:
    """Say which setting cannot be used, without its value, which may be secret."""
    variable = f" ({ENVIRONMENT[name]})" if name in ENVIRONMENT else ""
    problems = "; ".join(dict.fromkeys(problem["msg"] for problem in error.errors()))
    return ConfigurationError(f"Settings: {name}{variable}: {problems}.")

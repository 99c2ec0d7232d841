"""A temporary lab: default settings and connection in a folder, and modules imported with these."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dj_dagster import default_connection
from dj_dagster.errors import ConfigurationError
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.settings_mapping import found_settings

_LEFT_OUT = ("database.", "stores", "download_path", "safemode")
"""Beginnings of the names of settings that a temporary lab does not take over."""


class TemporaryLab:
    """A database and stores of a test's own, which the default connection uses until `close`.

    Other settings, such as ``era`` or ``jobs.keep_completed``, are those of the user's project, and
    each of its stores becomes a folder. Processes that the test starts use the lab, too.

    Parameters
    ----------
    url
        The URL of an empty database.
    folder
        An empty folder.

    Examples
    --------
    ::

        lab = TemporaryLab("sqlite:////tmp/test/lab.sqlite", Path("/tmp/test"))
        pipeline = lab.load("my_project.pipeline")
        pipeline.Session.insert1({"session_id": 1})
        lab.close()
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._modules: set[str] = set()
        self._environment = dict(os.environ)
        self._defaults = default_connection._config, default_connection._connection
        self._path = list(sys.path)
        for name in [name for name in os.environ if name.startswith("DJ_")]:
            del os.environ[name]
        file = folder / "settings.json"
        file.write_text(json.dumps(self._settings(), default=str), encoding="utf-8")
        os.environ.update({"DJ_CONFIG_FILE": str(file), "DJ_DATABASE_URL": url})
        default_connection._config = default_connection._connection = None

    @property
    def connection(self) -> Connection:
        """The default connection, to the lab's database."""
        return default_connection.conn()

    def load(self, module: str) -> ModuleType:
        """Import a module of a pipeline, so that its schemas are in this lab.

        It is forgotten at the end of the lab, with the modules of the project that it imports, so
        that the next test declares its tables anew.

        Raises
        ------
        ConfigurationError
            When the module, or one that it imports, was imported before, or has its schemas in
            another database.
        """
        before = set(sys.modules)
        try:
            loaded = import_module(module)
        finally:
            # Those that a module has imported stay when it fails.
            new = {name: sys.modules[name] for name in set(sys.modules) - before}
            self._modules |= _of_project(module, new)
        for schema, name in _schemas(loaded):
            if schema.connection is not self.connection:
                raise ConfigurationError(
                    f"{name} has its schema {schema.database} in {schema.connection.url}, not in "
                    "the temporary lab. Import it by the lab's load alone, not at the top of a "
                    "test, and let its schemas use the default connection."
                )
        return loaded

    def close(self) -> None:
        """Close the connection, forget the modules, and bring back the settings of before."""
        if default_connection._connection is not None:
            default_connection._connection.close()
        for name in self._modules:
            _forget(name)
        sys.path[:] = self._path
        os.environ.clear()
        os.environ.update(self._environment)
        default_connection._config, default_connection._connection = self._defaults

    def _settings(self) -> dict[str, Any]:
        os.environ.update({n: v for n, v in self._environment.items() if n.startswith("DJ_")})
        found = found_settings()
        for name in [name for name in os.environ if name.startswith("DJ_")]:
            del os.environ[name]
        stores: dict[str, Any] = found.get("stores", {})
        kept = {name: value for name, value in found.items() if not name.startswith(_LEFT_OUT)}
        return {
            **kept,
            "safemode": False,
            "download_path": str(self.folder / "downloads"),
            "stores": {
                "default": "local",
                "local": self._store("local"),
                **{
                    name: self._store(name) if isinstance(given, dict) else given
                    for name, given in stores.items()
                },
            },
        }

    def _store(self, name: str) -> dict[str, str]:
        return {"protocol": "file", "location": str(self.folder / "stores" / name)}


def _of_project(loaded: str, new: Mapping[str, ModuleType]) -> set[str]:
    """Return the names of those of some modules that belong to a project and not to a library.

    A project may be installed, too: all of the package that is loaded belongs to it, and all of a
    package that has a schema.
    """
    own = {_top(loaded), *(_top(name) for name, module in new.items() if _has_schema(module))}
    return {
        name
        for name, module in new.items()
        if _top(name) != _top(__name__) and (_top(name) in own or not _is_installed(module))
    }


def _top(name: str) -> str:
    return name.partition(".")[0]


def _has_schema(module: ModuleType) -> bool:
    # Libraries put objects of any kind there, which may do anything when isinstance asks for their
    # class.
    values = [*getattr(module, "__dict__", {}).values()]
    return any(issubclass(type(value), Schema) for value in values)


def _is_installed(module: ModuleType) -> bool:
    """Whether a module comes from a package or from Python, not from a project's own folder."""
    # A folder without an __init__.py has a path alone.
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    file = next(filter(None, places), None)
    if file is None or {"site-packages", "dist-packages"} & set(Path(file).parts):
        return True
    return Path(file).is_relative_to(sysconfig.get_path("stdlib"))


def _forget(name: str) -> None:
    """Let a module be imported anew, also from a package that stays."""
    module = sys.modules.pop(name, None)
    package, _, own = name.rpartition(".")
    if package in sys.modules and vars(sys.modules[package]).get(own) is module:
        delattr(sys.modules[package], own)


def _schemas(module: ModuleType) -> Iterator[tuple[Schema, str]]:
    """Yield the schemas of a module and of the modules whose names it has, with their modules."""
    inner = [value for value in vars(module).values() if isinstance(value, ModuleType)]
    for each in (module, *inner):
        for value in vars(each).values():
            if isinstance(value, Schema) and value.database is not None:
                yield value, each.__name__

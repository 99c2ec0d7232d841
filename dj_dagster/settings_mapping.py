"""Settings in memory and their sources: the environment, files, and folders of secrets."""

from __future__ import annotations

import copy
import json
import logging
import os
import pprint
import warnings
from collections.abc import Collection, Generator, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, ValidationError

from dj_dagster.errors import ConfigurationError
from dj_dagster.local_files import and_above, at_home, is_trusted, reading
from dj_dagster.objects.stores.store_settings import SecretText, with_hidden_secrets
from dj_dagster.relational.backends import embedded_file
from dj_dagster.relational.backends.common import TLS_FILES, TLS_OPTIONS, parsed_url
from dj_dagster.settings_model import (
    JobsSettings,
    ReadLimitSettings,
    Section,
    Settings,
    section_names,
    setting_names,
)

FILE_NAMES = ("datajoint.json", "dj_local_conf.json")
"""Files of a project's settings, of DataJoint 2 and 0.14; of two in a folder the first is read."""

LOCAL_FILE = FILE_NAMES[1]

GLOBAL_FILE = "~/.datajoint_config.json"
"""The file of a user's settings, read if a project's file is not found."""

SECRETS = (".secrets", "/run/secrets/datajoint")
"""Folders with one file for each secret: beside the project's settings, or on the machine."""

SYSTEM_SECRETS_DIR = Path(SECRETS[1])

ENVIRONMENT = {
    "database.url": "DJ_DATABASE_URL",
    "database.host": "DJ_HOST",
    "database.port": "DJ_PORT",
    "database.user": "DJ_USER",
    "database.password": "DJ_PASS",
    "database.use_tls": "DJ_USE_TLS",
    "database.backend": "DJ_BACKEND",
    "database.name": "DJ_DATABASE_NAME",
    "database.create_tables": "DJ_CREATE_TABLES",
    "database.shared": "DJ_DATABASE_SHARED",
    "stores": "DJ_STORES",
    "safemode": "DJ_SAFEMODE",
    "semantic_check": "DJ_SEMANTIC_CHECK",
    "strict_provenance": "DJ_STRICT_PROVENANCE",
    "provenance.capture": "DJ_PROVENANCE_CAPTURE",
    "provenance.source": "DJ_PROVENANCE_SOURCE",
    "gc.grace": "DJ_GC_GRACE",
    "gc.keep": "DJ_GC_KEEP",
    "loglevel": "DJ_LOG_LEVEL",
    "display.diagram_direction": "DJ_DIAGRAM_DIRECTION",
    **{
        f"read_limits.{name}": f"DJ_READ_LIMITS_{name.upper()}"
        for name in ReadLimitSettings.model_fields
    },
    **{f"jobs.{name}": f"DJ_JOBS_{name.upper()}" for name in JobsSettings.model_fields},
}
"""The environment variable of each setting."""

CONFIG_FILE = "DJ_CONFIG_FILE"
"""The variable that names the only file of settings to read, which any user may own."""

_IGNORE_FILES = "DJ_IGNORE_CONFIG_FILE"

_OTHER_VARIABLES = (CONFIG_FILE, _IGNORE_FILES, "DJ_THREAD_SAFE")

_logger = logging.getLogger(__package__)


class MissingSettingsError(ConfigurationError, FileNotFoundError):
    """A file of settings that was named does not exist.

    Correct the path, which `DJ_CONFIG_FILE` or the call gives, or unset the variable.
    """


def found_settings() -> dict[str, Any]:
    """Return the settings found, by dotted name; the environment wins over files and secrets.

    Raises
    ------
    ConfigurationError
        If a file or a variable is not valid JSON, or the file of ``DJ_CONFIG_FILE`` is not there.
    """
    _warn_of_names()
    if os.environ.get(_IGNORE_FILES, "").lower() in ("1", "true", "yes"):
        return _environment()
    named = os.environ.get(CONFIG_FILE)
    file = at_home(named, CONFIG_FILE) if named else find_config_file()
    settings = read_file(file) if file else {}
    _add_secrets(settings, file)
    return _over(settings, _environment())


def read_file(file: Path) -> dict[str, Any]:
    """Return the settings of a JSON file, in sections or with dotted names, without the nulls.

    Relative paths of data are taken from the folder of the file; see `with_paths_in`.

    Raises
    ------
    MissingSettingsError
        If the file does not exist.
    ConfigurationError
        If it holds something else.
    """
    try:
        # Windows' editors begin a file with a mark.
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is not valid JSON: {error}") from error
    except FileNotFoundError as error:
        raise MissingSettingsError(
            f"There are no settings {file}: {error.strerror}. Correct the path, which "
            "DJ_CONFIG_FILE or the call gives."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"The settings {file} cannot be read: {error}") from error
    sections = section_names()
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name, {}), dict) for name in sections
    ):
        raise ConfigurationError(
            f'{file} must hold an object, such as {{"database": {{"host": "db.lab.org"}}}}.'
        )
    settings: dict[str, Any] = {}
    for name, value in content.items():
        inner = {f"{name}.{key}": item for key, item in value.items()} if name in sections else {}
        settings |= inner if name in sections else {name: value}
    given = {name: value for name, value in settings.items() if value is not None}
    return with_paths_in(file.absolute().parent, given)


def with_paths_in(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose relative paths of data are below a folder.

    These are the folders of stores, the file of a SQLite URL, and those of certificates. Programs
    with another working directory would look for them elsewhere.
    """
    changed = dict(settings)
    if isinstance(stores := settings.get("stores"), Mapping):
        changed["stores"] = {
            name: _with_paths_in(folder, store, _folders(store)) for name, store in stores.items()
        }
    if isinstance(url := settings.get(_URL), str):
        changed[_URL] = _url_in(folder, url)
    tls = settings.get("database.use_tls")
    changed |= {"database.use_tls": _with_paths_in(folder, tls, TLS_FILES)} if tls else {}
    return changed


def _url_in(folder: Path, text: str) -> str:
    try:
        url = parsed_url(text)
        file = embedded_file(url)
    except ConfigurationError:
        # It is refused where it is used, unless another source sets one.
        return text
    query = _with_paths_in(folder, url.query, TLS_OPTIONS)
    placed = url.set(query=query, database=str(folder / file) if file else url.database)
    return text if placed == url else placed.render_as_string(hide_password=False)


def _folders(store: Any) -> tuple[str, ...]:
    is_local = isinstance(store, Mapping) and store.get("protocol") == "file"
    return ("location", "stage") if is_local else ("stage",)


def _with_paths_in(folder: Path, values: Any, names: Collection[str]) -> Any:
    if not isinstance(values, Mapping):
        return values
    paths = {n: str(values[n]) for n in names if isinstance(values.get(n), str | Path)}
    placed = {n: str(folder / path) for n, path in paths.items() if path and path[0] != "~"}
    return {**values, **placed}


def without_environment(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file without those that the environment sets."""
    said = _environment()
    left = {name: value for name, value in settings.items() if name not in said}
    if "stores" in said and isinstance(settings.get("stores"), Mapping):
        left["stores"] = {**settings["stores"], **said["stores"]}
    return left


def _over(settings: dict[str, Any], winning: dict[str, Any]) -> dict[str, Any]:
    """Return settings updated by others, which replace stores one by one."""
    stores = settings.get("stores"), winning.get("stores")
    if all(isinstance(part, Mapping) for part in stores):
        winning = {**winning, "stores": {**settings["stores"], **winning["stores"]}}
    if "database.host" in winning:
        # The URL wins only over a host of the same source, and this URL is the weaker source's.
        settings = {name: value for name, value in settings.items() if name != "database.url"}
    return {**settings, **winning}


def find_config_file(start: Path | None = None) -> Path | None:
    """Return the file of settings that is read if ``DJ_CONFIG_FILE`` is not set.

    Parameters
    ----------
    start
        The folder to look in first, by default the working directory.
    """
    folders = and_above(Path.cwd() if start is None else Path(start))
    files = [folder / name for folder in folders for name in FILE_NAMES]
    everywhere = (*files, Path(GLOBAL_FILE).expanduser())
    return next((file for file in everywhere if file.is_file() and is_trusted(file)), None)


def find_secrets_dir(config_path: Path | None = None) -> Path | None:
    """Return the folder of secrets beside a file of settings, or that of the machine."""
    beside = (config_path.parent if config_path else Path.cwd()) / SECRETS[0]
    if beside.is_dir() and is_trusted(beside):
        return beside
    return SYSTEM_SECRETS_DIR if SYSTEM_SECRETS_DIR.is_dir() else None


def read_secret_file(secrets_dir: Path | None, name: str) -> str | None:
    """Return a secret from its file in a folder, None if the file is missing or empty.

    Raises
    ------
    ConfigurationError
        If it cannot be read.
    """
    file = None if secrets_dir is None else secrets_dir / name
    if file is None or not file.is_file() or not is_trusted(file):
        return None
    with reading(file):
        return file.read_text(encoding="utf-8").strip() or None


@cache
def _warn_once(message: str) -> None:
    _logger.warning(message)


def _warn_of_names() -> None:
    """Warn of variables that look like misspelt settings, and of empty addresses of the database.

    Work would go on in another database than the one that was meant.
    """
    known = [*ENVIRONMENT.values(), *_OTHER_VARIABLES]
    for name in os.environ:
        close = get_close_matches(name, known, n=1, cutoff=0.85) if name.startswith("DJ_") else []
        if close and name not in known:
            _warn_once(f"Nothing here reads the variable {name}. Is {close[0]} meant?")
    addresses = {name: os.environ.get(name) for name in ("DJ_DATABASE_URL", "DJ_HOST")}
    if not any(addresses.values()):
        for name, value in addresses.items():
            if value is not None:
                _warn_once(f"The variable {name} is set and empty: it does not name a database.")


def _environment() -> dict[str, Any]:
    settings: dict[str, Any] = {
        name: os.environ[variable]
        for name, variable in ENVIRONMENT.items()
        if os.environ.get(variable)
    }
    for name in {"stores", "provenance.source"} & settings.keys():
        try:
            settings[name] = json.loads(settings[name])
        except ValueError:
            # The text is not shown: it may hold keys.
            raise ConfigurationError(
                f"Settings: {name} ({ENVIRONMENT[name]}) cannot be read; write valid JSON."
            ) from None
    return settings


def _add_secrets(settings: dict[str, Any], file: Path | None) -> None:
    """Add missing settings from files of secrets, such as one named ``database.password``."""
    folder = find_secrets_dir(file)
    with reading(folder or Path()):
        secrets = sorted(folder.iterdir()) if folder else []
    for secret in secrets:
        # Empty files, as of a template, are not filled in yet.
        text = None if secret.name.startswith(".") else read_secret_file(folder, secret.name)
        if text is not None:
            _set_default(settings, secret.name, text)


def _set_default(settings: dict[str, Any], name: str, value: str) -> None:
    if name.startswith("stores."):
        _, store, key = [*name.split(".", 2), ""][:3]
        stores = settings.get("stores")
        named: Any = stores.get(store) if isinstance(stores, Mapping) else None
        if isinstance(named, dict):
            named.setdefault(key, value)
    else:
        settings.setdefault(name, value if name in _NAMES else SecretText(value))


_NAMES = frozenset(setting_names())
_URL = "database.url"


class UnknownSettingError(ConfigurationError, KeyError):
    """A setting that is neither known nor has been set.

    The message lists all settings. Programs keep settings of their own in ``dj.config["custom"]``.
    """

    __str__ = Exception.__str__


class SettingsMapping(MutableMapping[str, Any]):
    """Settings in memory; `dj_dagster.settings.Config` reads them and makes connections."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._settings = Settings()
        self._others: dict[str, Any] = {}
        self._assigned: set[str] = set()
        self._warned: set[str] = set()
        self._put_all(values or {})
        self._given = copy.deepcopy(dict(self))

    def changes(self) -> dict[str, Any]:
        """Return the settings that were set since this object was made."""
        nothing = object()
        return {
            name: value
            for name, value in self.items()
            if name in self._assigned or self._given.get(name, nothing) != value
        }

    def __getitem__(self, name: str) -> Any:
        if name in self._others:
            # In a section it may be a secret whose name is misspelt.
            return with_hidden_secrets(name, self._others[name], in_store="." in name)
        value: Any = self._settings
        for part in name.split("."):
            inner = value if isinstance(value, Mapping) else _fields(value)
            if part not in inner:
                known = ", ".join(sorted(_NAMES))
                raise UnknownSettingError(
                    f"There is no setting {name!r}, and none was set. Known settings: {known}."
                )
            value = inner[part]
        if isinstance(value, SecretStr):
            return SecretText(value.get_secret_value())
        own_name = name.rpartition(".")[2]
        return with_hidden_secrets(own_name, value, in_store=name.startswith("stores"))

    def __setitem__(self, name: str, value: Any) -> None:
        if name == _URL and value is not None and "database.host" not in self._assigned:
            # The URL replaces a host from a file or the environment.
            self._put("database.host", None)
        self._put(name, value)
        self._assigned.add(name)

    def __delitem__(self, name: str) -> None:
        """Set a setting back to its default, or forget one of your own."""
        self._assigned.discard(name)
        if name in self._others:
            del self._others[name]
        else:
            self._put(name, SettingsMapping()[name])

    def __iter__(self) -> Iterator[str]:
        return iter([*setting_names(), *self._others])

    def __len__(self) -> int:
        return len(_NAMES) + len(self._others)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in Settings.model_fields:
            raise AttributeError(f"There is no setting {name!r}; see config.keys().")
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __repr__(self) -> str:
        return pprint.pformat(dict(self), sort_dicts=False)

    @contextmanager
    def override(self, **values: Any) -> Generator[Self]:
        """Change settings for a while; ``__`` in a name stands for the dot."""
        names = {name.replace("__", "."): value for name, value in values.items()}
        touched = {*names, *(name for name in self if name.startswith("database."))}
        before = {name: self[name] for name in touched if name in self}
        assigned = set(self._assigned)
        try:
            for name, value in names.items():
                self[name] = value
            yield self
        finally:
            for name in names:
                self._others.pop(name, None)
            self._put_all(before)
            self._assigned = assigned

    __call__ = override

    def _put_all(self, values: Mapping[str, Any]) -> None:
        # The URL comes last: a host that is set after it would take its place.
        for name in sorted(values, key=lambda name: name == _URL):
            self._put(name, values[name])

    def _put(self, name: str, value: Any) -> None:
        *path, last = name.split(".")
        holder = self[".".join(path)] if path and path[0] in ("stores", "custom") else None
        if isinstance(holder, dict):
            holder[last] = value
        elif name in section_names() and isinstance(value, Mapping):
            self._put_all({f"{name}.{inner}": item for inner, item in value.items()})
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


def _refused(name: str, error: ValidationError) -> ConfigurationError:
    """Return an error that names a setting, without its value, which may be secret."""
    variable = f" ({ENVIRONMENT[name]})" if name in ENVIRONMENT else ""
    problems = "; ".join(dict.fromkeys(problem["msg"] for problem in error.errors()))
    return ConfigurationError(f"Settings: {name}{variable}: {problems}.")

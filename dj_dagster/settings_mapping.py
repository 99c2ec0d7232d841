"""Settings by dotted name or as attributes, checked as they are set."""

from __future__ import annotations

import copy
import logging
import pprint
import warnings
from collections.abc import Generator, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Self

from pydantic import SecretStr, ValidationError

from dj_dagster.errors import ConfigurationError
from dj_dagster.settings_model import Section, Settings, section_names, setting_names
from dj_dagster.settings_sources import ENVIRONMENT

_NAMES = frozenset(setting_names())
_URL = "database.url"


class UnknownSettingError(ConfigurationError, KeyError):
    """A setting that is neither known nor has been set."""

    __str__ = Exception.__str__


class SettingsMapping(MutableMapping[str, Any]):
    """Settings in memory; `dj_dagster.settings.Config` is where they come from and what they do."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._settings = Settings()
        self._others: dict[str, Any] = {}
        self._assigned: set[str] = set()
        self._warned: set[str] = set()
        self._put_all(values or {})
        self._given = copy.deepcopy(dict(self))

    def changes(self) -> dict[str, Any]:
        """Return what was set since these settings were made, whether as attributes or by name."""
        nothing = object()
        return {
            name: value
            for name, value in self.items()
            if name in self._assigned or self._given.get(name, nothing) != value
        }

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
        if name == _URL and value is not None and "database.host" not in self._assigned:
            # One of a file or the environment has nothing to say beside it.
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


def _shown(name: str, value: Any) -> Any:
    if name in (_URL, "database.password"):
        return None if value is None else "***"
    return list(value) if name == "stores" else value


def _refused(name: str, error: ValidationError) -> ConfigurationError:
    """Say which setting cannot be used, without its value, which may be secret."""
    variable = f" ({ENVIRONMENT[name]})" if name in ENVIRONMENT else ""
    problems = "; ".join(dict.fromkeys(problem["msg"] for problem in error.errors()))
    return ConfigurationError(f"Settings: {name}{variable}: {problems}.")

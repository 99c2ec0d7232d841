"""Object stores by name, and kinds of stores that a package or a program adds."""

from __future__ import annotations

import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, ClassVar, assert_never

from fsspec import AbstractFileSystem
from pydantic import Field, InstanceOf

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores.bucket_store import AzureStore, BucketStore, GcsStore
from dj_dagster.objects.stores.store import FileStore, Store, checked_path
from dj_dagster.objects.stores.store_settings import (
    PROTOCOLS,
    AnyStoreSettings,
    AzureStoreSettings,
    FileStoreSettings,
    GcsStoreSettings,
    S3StoreSettings,
    StoreSettings,
    checked_settings,
    plain_paths,
    read_store_settings,
)

ENTRY_POINT_GROUPS = ("datajoint.storage", "dj_dagster.storage")
"""The groups of entry points in which packages name their adapter classes."""

_COMMON_STORE_KEYS = frozenset({"protocol", *StoreSettings.model_fields})
_SECRET_WORDS = ("key", "token", "secret", "password", "credential")

_adapter_registry: dict[str, StorageAdapter] = {}
_adapters_loaded = False
_logger = logging.getLogger(__name__.partition(".")[0])


class StorageAdapter(ABC):
    """The base of adapters, which reach the stores of a protocol; subclass it to add your own.

    A subclass is known as soon as it is defined. A package names its subclasses as entry points of
    the group ``datajoint.storage``, so that programs need not import them.

    Attributes
    ----------
    protocol
        The value of ``stores.<name>.protocol``.
    required_keys, allowed_keys
        Settings of the adapter's stores, besides those that all stores have.

    Examples
    --------
    ::

        class MemoryAdapter(dj.StorageAdapter):
            protocol = "memory"

            def create_filesystem(self, spec):
                return fsspec.filesystem("memory")
    """

    protocol: ClassVar[str]
    required_keys: ClassVar[tuple[str, ...]] = ()
    allowed_keys: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def create_filesystem(self, spec: dict[str, Any]) -> AbstractFileSystem:
        """Return the fsspec file system of a store, given its settings."""

    def validate_spec(self, spec: dict[str, Any]) -> None:
        """Check the settings of a store.

        Raises
        ------
        ConfigurationError
            Naming those that are missing, and those that are not known.
        """
        missing = [key for key in self.required_keys if key not in spec]
        if missing:
            raise ConfigurationError(f"A {self.protocol} store is missing: {', '.join(missing)}.")
        known = {*_COMMON_STORE_KEYS, *self.required_keys, *self.allowed_keys}
        unknown = [key for key in spec if key not in known]
        if unknown:
            raise ConfigurationError(
                f"Invalid keys of a {self.protocol} store: {', '.join(unknown)}. It may have "
                f"{', '.join(sorted(known))}."
            )

    def full_path(self, spec: dict[str, Any], relpath: str) -> str:
        """Return the path of an object in the file system."""
        location = str(spec.get("location") or "").rstrip("/")
        return f"{location}/{relpath}" if location else relpath

    def get_url(self, spec: dict[str, Any], path: str) -> str:
        """Return the address that people are shown for an object's path in the file system."""
        del spec
        return f"{self.protocol}://{path}"


class AdapterStoreSettings(StoreSettings):
    """The settings of a store with an adapter.

    Attributes
    ----------
    spec
        All settings as they were given, including those that only the adapter knows.
    """

    protocol: str
    location: str = ""
    adapter: InstanceOf[StorageAdapter] = Field(repr=False)
    spec: dict[str, Any] = Field(repr=False)


def read_adapter_settings(
    name: str, settings: Mapping[str, Any], adapter: StorageAdapter
) -> AdapterStoreSettings:
    """Check the settings of a store that an adapter reaches.

    Raises
    ------
    ConfigurationError
        Naming the store and the settings that are missing, unknown or wrong.
    """
    spec = plain_paths(settings)
    try:
        adapter.validate_spec(dict(spec))
    except ConfigurationError as error:
        raise ConfigurationError(f"Store '{name}': {error}") from None
    common = {key: value for key, value in spec.items() if key in _COMMON_STORE_KEYS}
    return checked_settings(
        name, {**common, "adapter": adapter, "spec": spec}, AdapterStoreSettings
    )


class AdapterStore(BucketStore):
    """A store that an adapter reaches.

    Its file system may have folders or not; it does not cache listings.
    """

    def __init__(self, name: str, settings: AdapterStoreSettings) -> None:
        super().__init__(name, settings, settings.protocol)
        self._adapter, self._spec = settings.adapter, settings.spec
        self._root = self._adapter.full_path(dict(self._spec), "x").removesuffix("/x").strip("/")

    @property
    def server(self) -> str:
        """The protocol, for messages."""
        return self._adapter.protocol

    @property
    def credentials(self) -> str:
        """The settings that may hold credentials."""
        return ", ".join((*self._adapter.required_keys, *self._adapter.allowed_keys)) or "them"

    @property
    def secrets(self) -> list[str]:
        """The values of settings whose names contain "key", "token" and the like."""
        return [
            str(value)
            for name, value in self._spec.items()
            if value and any(word in name.lower() for word in _SECRET_WORDS)
        ]

    def connect(self) -> AbstractFileSystem:
        """Return the adapter's file system."""
        return self._adapter.create_filesystem(dict(self._spec))

    def duplicate(self, key: str, other: str) -> None:
        """Copy a file; raises FileNotFoundError for a folder."""
        if self.filesystem.isdir(key):
            raise FileNotFoundError(key)
        super().duplicate(key, other)

    def full_path(self, path: str) -> str:
        """Return the path in the adapter's file system."""
        return self._adapter.full_path(dict(self._spec), checked_path(path))

    def url(self, path: str = "") -> str:
        """Return the address that the adapter shows for a path."""
        full = self.full_path(path) if path else self._root
        return self._adapter.get_url(dict(self._spec), full)


def get_storage_adapter(protocol: str) -> StorageAdapter | None:
    """Return the adapter of a protocol, None if it is unknown; packages are searched once."""
    global _adapters_loaded
    if protocol not in _adapter_registry and not _adapters_loaded:
        _adapters_loaded = True
        for group in ENTRY_POINT_GROUPS:
            for point in metadata.entry_points(group=group):
                _load(point)
    return _adapter_registry.get(protocol) or _defined(protocol)


def _defined(protocol: str) -> StorageAdapter | None:
    """Return an adapter of the latest subclass with a protocol, None without one."""
    found = [
        adapter
        for adapter in _subclasses(StorageAdapter)
        if getattr(adapter, "protocol", None) == protocol and not inspect.isabstract(adapter)
    ]
    return found[-1]() if found else None


def _subclasses(base: type[StorageAdapter]) -> Iterator[type[StorageAdapter]]:
    for adapter in base.__subclasses__():
        yield adapter
        yield from _subclasses(adapter)


def _load(point: metadata.EntryPoint) -> None:
    try:
        adapter = point.load()()
    except Exception as error:
        # The other adapters remain usable.
        _logger.warning("The storage adapter %s cannot be loaded: %s", point.name, error)
        return
    if adapter.protocol not in PROTOCOLS:
        _adapter_registry.setdefault(adapter.protocol, adapter)


__all__ = ["Store", "Stores", "open_store"]

_DEFAULTS = ("default", "filepath_default")


class Stores:
    """The stores that definitions may name, each opened when it is first used.

    Parameters
    ----------
    settings
        As DataJoint's ``config["stores"]``: a mapping for each store. ``"default"`` names the store
        of ``<blob@>``, ``"filepath_default"`` that of ``<filepath@>``.

    Raises
    ------
    ConfigurationError
        For settings that are missing, unknown or wrong.

    Examples
    --------
    >>> stores = Stores({"default": "main", "main": {"protocol": "file", "location": "/data/lab"}})
    >>> stores.get("main").name, stores.get().name
    ('main', 'main')
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        named = {name: value for name, value in (settings or {}).items() if name not in _DEFAULTS}
        # Checked at once, although opened late: a typing error should not wait for a long make.
        self._settings = {name: _read(name, value) for name, value in named.items()}
        self.default = self._known_default(settings, "default")
        self.filepath_default = self._known_default(settings, "filepath_default")
        self._opened: dict[str, Store] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The names of all stores."""
        return list(self._settings)

    def resolve(self, name: str | None = None, default: str = "default") -> str:
        """Return the name of a configured store; None and ``""`` mean the default store.

        Parameters
        ----------
        default
            The setting for the default; ``"filepath_default"``, if unset, falls back to
            ``"default"``.

        Raises
        ------
        ConfigurationError
            If the store is not configured; the message names those that are.
        """
        filepaths = self.filepath_default if default == "filepath_default" else None
        chosen = name or filepaths or self.default
        if not chosen and not self._settings:
            raise ConfigurationError(
                "There is no store: set one in the settings, as stores.default and its name, or "
                "give the connection stores={...}."
            )
        if not chosen:
            raise ConfigurationError(
                f"No default store is set, and none was named: write <codec@name> with one of "
                f"{self._listing()}, or set stores.default."
            )
        if chosen not in self._settings:
            raise ConfigurationError(
                f"The store is not configured: there is no store '{chosen}'; known are "
                f"{self._listing()}. Add its settings under stores.{chosen}."
            )
        return chosen

    def settings(self, name: str) -> AnyStoreSettings | AdapterStoreSettings:
        """Return the settings of a store, without opening it; errors are those of `resolve`."""
        return self._settings[self.resolve(name)]

    def get(self, name: str | None = None, default: str = "default") -> Store:
        """Return a store; parameters and errors are those of `resolve`."""
        name = self.resolve(name, default)
        with self._lock:
            if name not in self._opened:
                self._opened[name] = open_store(name, self._settings[name])
            return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self._settings

    def __repr__(self) -> str:
        return f"Stores({', '.join(self.names)}; default={self.default!r})"

    def _known_default(self, settings: Mapping[str, Any] | None, key: str) -> str | None:
        name = (settings or {}).get(key)
        if name is not None and name not in self._settings:
            raise ConfigurationError(
                f"stores.{key} names the store {name!r}, which is not there; known are "
                f"{self._listing()}."
            )
        return name

    def _listing(self) -> str:
        return ", ".join(f"'{name}'" for name in self._settings) or "none at all"


def _read(name: str, settings: Any) -> AnyStoreSettings | AdapterStoreSettings:
    protocol = settings.get("protocol") if isinstance(settings, Mapping) else None
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        adapter = get_storage_adapter(protocol)
        if adapter is not None:
            return read_adapter_settings(name, settings, adapter)
    return read_store_settings(name, settings)


def open_store(name: str, settings: AnyStoreSettings | AdapterStoreSettings) -> Store:
    """Return the store that settings describe, without contacting it.

    Raises
    ------
    ConfigurationError
        If the store needs a package that is not installed.
    """
    if isinstance(settings, FileStoreSettings):
        return FileStore(name, settings)
    if isinstance(settings, AdapterStoreSettings):
        return AdapterStore(name, settings)
    # Each client is an extra of its own.
    try:
        match settings:
            case S3StoreSettings():
                from dj_dagster.objects.stores.s3_store import S3Store

                return S3Store(name, settings)
            case GcsStoreSettings():
                return GcsStore(name, settings)
            case AzureStoreSettings():
                return AzureStore(name, settings)
            case _:
                assert_never(settings)
    except ImportError as error:
        raise ConfigurationError(
            f"Store '{name}' has the protocol {settings.protocol}, which needs the package "
            f"{error.name}: pip install 'dj-dagster[{settings.protocol}]'"
        ) from error

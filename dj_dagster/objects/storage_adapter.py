"""Stores of other kinds, which a package or a program adds as an fsspec file system."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, ClassVar

from pydantic import Field, InstanceOf

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores.bucket_store import BucketStore
from dj_dagster.objects.stores.store import checked_path
from dj_dagster.objects.stores.store_settings import (
    PROTOCOLS,
    StoreSettings,
    checked_settings,
    plain_paths,
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
    def create_filesystem(self, spec: dict[str, Any]) -> Any:
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

    def connect(self) -> Any:
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


def _load(point: Any) -> None:
    try:
        adapter = point.load()()
    except Exception as error:
        # The other adapters remain usable.
        _logger.warning("The storage adapter %s cannot be loaded: %s", point.name, error)
        return
    if adapter.protocol not in PROTOCOLS:
        _adapter_registry.setdefault(adapter.protocol, adapter)

"""Object stores by name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, assert_never

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.storage_adapter import (
    AdapterStore,
    AdapterStoreSettings,
    get_storage_adapter,
    read_adapter_settings,
)
from dj_dagster.objects.stores.bucket_store import AzureStore, GcsStore
from dj_dagster.objects.stores.file_store import FileStore
from dj_dagster.objects.stores.store import Store
from dj_dagster.objects.stores.store_settings import (
    PROTOCOLS,
    AnyStoreSettings,
    AzureStoreSettings,
    FileStoreSettings,
    GcsStoreSettings,
    S3StoreSettings,
    read_store_settings,
)

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

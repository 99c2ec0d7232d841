"""Objects whose rows are not committed yet: kept from the collector however long that takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import MissingExternalFile, ObjectError
from dj_dagster.objects import content
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.manifest import manifest_path
from dj_dagster.objects.store import Store
from dj_dagster.objects.stores import Stores


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The references of objects that a writer has just written, or found in their store."""

    references: tuple[Mapping[str, Any], ...]
    since: float = field(default_factory=time.monotonic)

    def keep(self, stores: Stores) -> None:
        """Make the objects young again, if that is long ago; to be called before their rows go in.

        Raises
        ------
        ObjectError
            If one is gone. Running the same again stores it again.
        """
        if time.monotonic() - self.since <= content.RENEW_AFTER:
            return
        for _ in in_flight(lambda reference: _keep(stores, reference), self.references):
            pass


def _keep(stores: Stores, reference: Mapping[str, Any]) -> None:
    store = stores.get(reference.get("store"))
    path = str(reference["path"])
    if not is_managed(store, path):
        return
    try:
        store.renew(_file_of(store, path, is_folder=bool(reference.get("is_dir"))))
    except MissingExternalFile as error:
        raise ObjectError(
            f"{store.url(path)} has vanished since it was written for a row that is not committed "
            "yet. Was a collector run with too short a grace period? Insert the row again."
        ) from error


def is_managed(store: Store, path: str) -> bool:
    """Whether an object comes and goes with its row; others are users' own files."""
    settings = store.settings
    folders = (settings.hash_prefix, settings.schema_prefix)
    return path.startswith(tuple(f"{folder.strip('/')}/" for folder in folders))


def _file_of(store: Store, path: str, *, is_folder: bool) -> str:
    """Return a file whose youth keeps the whole object."""
    if not is_folder:
        return path
    manifest = manifest_path(path)
    if store.exists(manifest):
        return manifest
    # One that was staged has none.
    found = next(store.list(path), None)
    if found is None:
        raise store.missing(path)
    return found

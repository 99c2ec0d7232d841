"""The codec ``<filepath@store>``: files that users keep in a store themselves."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any

from dj_dagster.errors import InvalidValueError
from dj_dagster.objects.checksums import Written
from dj_dagster.objects.codec import ObjectContext
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.manifest import files_crc32
from dj_dagster.objects.object_ref import ObjectRef
from dj_dagster.objects.schema_codec import Key, SchemaCodec, known, now
from dj_dagster.objects.store import OWN_FOLDER, Store, checked_path


class FilepathCodec(SchemaCodec, register=False):
    """A file or folder of the user's, given by its path in the store: verified, never changed."""

    name = "filepath"
    concurrent = True
    lazy = True
    default_store = "filepath_default"

    def validate(self, value: Any) -> None:
        """Accept paths."""
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"<filepath@> holds a path in its store, not {type(value).__name__}")

    def encode(
        self,
        value: Any,
        *,
        key: Key = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> dict[str, Any]:
        """Return the reference of what is there, which is read in full for its checksum."""
        store = known(context).stores.get(store_name, self.default_store)
        path = _managed_by_users(store, _relative(store, os.fspath(value)))
        files = [path] if store.exists(path) else list(store.list(path))
        if not files:
            raise InvalidValueError(
                f"There is no file {store.url(path)} in store '{store.name}': put it there first."
            )
        found = dict(
            zip(files, in_flight(lambda file: Written.from_store(store, file), files), strict=True)
        )
        fields = {"path": path, "store": store.name, "timestamp": now()}
        if files == [path]:
            return {**fields, **found[path].fields, "is_dir": False}
        names = [(file.removeprefix(f"{path}/"), written) for file, written in found.items()]
        return {
            **fields,
            "size": sum(written.size or 0 for written in found.values()),
            "is_dir": True,
            "item_count": len(files),
            "files_crc32": files_crc32(names),
        }

    def decode(
        self, stored: Any, *, key: Key = None, context: ObjectContext | None = None
    ) -> ObjectRef:
        """Return the handle of a file or folder; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        return ObjectRef.of(fields, store, known(context).place, listed=False)


def _relative(store: Store, path: str) -> str:
    """Return a path in the store; of a local store absolute paths are understood too."""
    root = store.local_path("x")
    if root is not None and PurePath(path).is_absolute():
        try:
            return Path(path).relative_to(root.parent).as_posix()
        except ValueError:
            raise InvalidValueError(
                f"{path} does not lie in store '{store.name}' at {store.url()}."
            ) from None
    return checked_path(path)


def _managed_by_users(store: Store, path: str) -> str:
    settings = store.settings
    for prefix in (settings.hash_prefix, settings.schema_prefix, OWN_FOLDER):
        if f"{path}/".startswith(f"{prefix.strip('/')}/"):
            raise InvalidValueError(
                f"{path} lies in the folder {prefix} of store '{store.name}', where objects come "
                "and go with their rows: keep your own files elsewhere."
            )
    own = (settings.filepath_prefix or "").strip("/")
    if own and not path.startswith(f"{own}/"):
        raise InvalidValueError(
            f"{path} does not lie in {own}/, where store '{store.name}' keeps users' files "
            "(its setting filepath_prefix)."
        )
    return path

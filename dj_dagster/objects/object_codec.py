"""The codec ``<object@store>``: files and folders, opened where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dj_dagster.objects.codec import ObjectContext
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.object_ref import ObjectRef, StagedObject, manifest_path
from dj_dagster.objects.schema_codec import Key, SchemaCodec, now
from dj_dagster.objects.store import Store


class ObjectCodec(SchemaCodec, register=False):
    """A file or folder, given by its path, or bytes; fetched as `ObjectRef`.

    ``(".bin", data)`` gives bytes the extension of a file.
    """

    name = "object"
    takes_path = True
    concurrent = True
    lazy = True

    def validate(self, value: Any) -> None:
        """Accept bytes, and the path of a file or folder that exists."""
        if isinstance(value, bytes | bytearray | memoryview | StagedObject) or _is_named(value):
            return
        if not isinstance(value, str | os.PathLike):
            raise TypeError(
                f"<object@> holds the path of a file or folder, or bytes, not "
                f"{type(value).__name__}"
            )
        if not Path(value).exists():
            raise ValueError(f"there is no file or folder {os.fspath(value)!r}")

    def encode(
        self,
        value: Any,
        *,
        key: Key = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> dict[str, Any]:
        """Copy a file or folder into the store and return its reference."""
        if isinstance(value, StagedObject):
            return value.to_json()
        ext, value = value if _is_named(value) else ("", value)
        if isinstance(value, bytes | bytearray | memoryview):
            store, path = self.new_object(context, store_name, ext)
            store.put(path, bytes(value))
            return ObjectRef(path, store, len(value), ext or None, timestamp=now()).to_json()
        source = Path(value)
        store, path = self.new_object(context, store_name, source.suffix)
        if source.is_dir():
            return _put_folder(store, path, source).to_json()
        store.put_file(path, source)
        size = source.stat().st_size
        return ObjectRef(path, store, size, source.suffix or None, timestamp=now()).to_json()

    def decode(
        self, stored: Any, *, key: Key = None, context: ObjectContext | None = None
    ) -> ObjectRef:
        """Return the handle of a file or folder; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        return ObjectRef.of(fields, store)


def _is_named(value: Any) -> bool:
    """Return whether a value is bytes with the extension of their file."""
    match value:
        case (str(ext), bytes() | bytearray() | memoryview()):
            return ext.startswith(".") and not set(ext) & set("/\\\0")
        case _:
            return False


def published(store: Store, path: str, ext: str | None) -> StagedObject:
    """Return the reference of what was written in place, after the list of a folder's files.

    Raises
    ------
    MissingExternalFile
        If nothing was written.
    """
    store.settle(path)
    if store.exists(path):
        return StagedObject(path, store, store.size(path), ext, timestamp=now())
    files = [
        {"path": file.path.removeprefix(f"{path}/"), "size": file.size} for file in store.scan(path)
    ]
    if not files:
        raise store.missing(path)
    files.sort(key=lambda file: str(file["path"]))
    return StagedObject(path, store, *_listed(store, path, ext, files))


def _put_folder(store: Store, path: str, folder: Path) -> ObjectRef:
    """Copy a folder's files, and after them the list of what it has."""
    files = [
        {"path": file.relative_to(folder).as_posix(), "size": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    names = [str(file["path"]) for file in files]
    for _ in in_flight(lambda name: store.put_file(f"{path}/{name}", folder / name), names):
        pass
    return ObjectRef(path, store, *_listed(store, path, folder.suffix or None, files))


def _listed(
    store: Store, path: str, ext: str | None, files: list[dict[str, Any]]
) -> tuple[int, str | None, bool, int, str]:
    """Write the list of a folder's files; return size and the other fields of its reference."""
    total = sum(int(file["size"]) for file in files)
    written = now()
    manifest = {"files": files, "total_size": total, "item_count": len(files), "created": written}
    store.put(manifest_path(path), json.dumps(manifest, indent=2).encode())
    return total, ext, True, len(files), written

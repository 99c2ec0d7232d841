"""The codec ``<object@store>``: files and folders, opened where they are."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from dj_dagster.objects.checksums import Written
from dj_dagster.objects.codec import ObjectContext
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.folder_content import folder_content
from dj_dagster.objects.manifest import Manifest, put_manifest
from dj_dagster.objects.object_ref import ObjectRef, StagedObject
from dj_dagster.objects.schema_codec import Key, SchemaCodec, known, now
from dj_dagster.objects.store import Store

_STREAMS = (io.BufferedIOBase, io.RawIOBase)


class ObjectCodec(SchemaCodec, register=False):
    """A file or folder, given by its path, or bytes; fetched as `ObjectRef`.

    ``(".bin", data)`` gives bytes, or what a stream has left to read, the extension of a file.
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
            raise ValueError(f"the file or folder {os.fspath(value)!r} was not found")
        if not Path(value).is_file() and not Path(value).is_dir():
            raise ValueError(f"{os.fspath(value)!r} is neither a file nor a folder")

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
        if isinstance(value, _STREAMS):
            value = value.read() or b""
        if isinstance(value, bytes | bytearray | memoryview):
            store, path = self.new_object(context, store_name, ext)
            data = bytes(value)
            store.put(path, data)
            return _file_ref(store, path, ext, Written.from_bytes(data)).to_json()
        source = Path(value)
        store, path = self.new_object(context, store_name, source.suffix)
        if source.is_dir():
            return _put_folder(store, path, source).to_json()
        return _file_ref(store, path, source.suffix, _put_file(store, path, source)).to_json()

    def decode(
        self, stored: Any, *, key: Key = None, context: ObjectContext | None = None
    ) -> ObjectRef:
        """Return the handle of a file or folder; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        return ObjectRef.of(fields, store, known(context).place)


def _is_named(value: Any) -> bool:
    """Return whether a value is bytes, or a stream of them, with the extension of their file."""
    match value:
        case (str(ext), bytes() | bytearray() | memoryview()):
            pass
        case (str(ext), stream) if isinstance(stream, _STREAMS):
            pass
        case _:
            return False
    return ext.startswith(".") and not set(ext) & set("/\\\0")


def published(store: Store, path: str, ext: str | None) -> StagedObject:
    """Return the reference of what was written in place, after the list of a folder's files.

    All is read once for its checksums.

    Raises
    ------
    MissingExternalFile
        If nothing was written.
    """
    store.settle(path)
    if store.exists(path):
        written = Written.from_store(store, path)
        return StagedObject(path, store, written.size, ext, timestamp=now(), crc32=written.crc32)
    paths = sorted(store.list(path))
    if not paths:
        raise store.missing(path)
    found = in_flight(lambda file: Written.from_store(store, file), paths)
    files = {
        file.removeprefix(f"{path}/"): written for file, written in zip(paths, found, strict=True)
    }
    return StagedObject(**_listed(store, path, ext, Manifest(files)))


def _put_file(store: Store, path: str, file: Path) -> Written:
    written = Written.from_file(file)
    store.put_file(path, file)
    return written


def _file_ref(store: Store, path: str, ext: str | None, written: Written) -> ObjectRef:
    return ObjectRef(path, store, written.size, ext or None, timestamp=now(), crc32=written.crc32)


def _put_folder(store: Store, path: str, folder: Path) -> ObjectRef:
    """Copy a folder's files, and after them the list of what it has."""
    files, empty = folder_content(folder)

    def put(name: str) -> Written:
        return _put_file(store, f"{path}/{name}", folder / name)

    found = dict(zip(files, in_flight(put, files), strict=True))
    return ObjectRef(**_listed(store, path, folder.suffix or None, Manifest(found, tuple(empty))))


def _listed(store: Store, path: str, ext: str | None, content: Manifest) -> dict[str, Any]:
    """Write the list of a folder's files; return the fields of the folder's handle."""
    written = now()
    return {
        "path": path,
        "location": store,
        "size": content.size,
        "ext": ext,
        "is_dir": True,
        "item_count": len(content.files),
        "timestamp": written,
        "crc32": put_manifest(store, path, content, written),
    }

"""The codecs of files in stores: ``<filepath@store>`` and ``<object@store>``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.heading import Value
from dj_dagster.objects.checksums import Manifest, Written, files_crc32, put_manifest
from dj_dagster.objects.codecs.codec import (
    GivenKey,
    ObjectContext,
    Reference,
    SchemaCodec,
    known,
    now,
)
from dj_dagster.objects.codecs.object_ref import ObjectRef, StagedObject
from dj_dagster.objects.stores.store import (
    OWN_FOLDER,
    Store,
    checked_path,
    in_flight,
    is_unfinished,
)


class FilepathCodec(SchemaCodec, register=False):
    """A user's own file or folder, given by its path in the store: verified, never changed."""

    name = "filepath"
    concurrent = True
    lazy = True
    default_store = "filepath_default"

    def validate(self, value: Value) -> None:
        """Accept paths."""
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"<filepath@> holds a path in its store, not {type(value).__name__}")

    def encode(
        self,
        value: Value,
        *,
        key: GivenKey = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> Reference:
        """Return the reference of a file or folder, which is read in full for its checksum.

        Raises
        ------
        InvalidValueError
            If the file or folder is not in the store, lies where managed objects do, or has an
            entry that could not be given back; see `empty_folders`.
        """
        store = known(context).stores.get(store_name, self.default_store)
        path = _managed_by_users(store, _relative(store, os.fspath(value)))
        files = [path] if store.exists(path) else list(store.list(path))
        empty = [] if files == [path] else empty_folders(store, path)
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
            **({"folders": empty} if empty else {}),
        }

    def decode(
        self, stored: Value, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> ObjectRef:
        """Return the handle of a file or folder; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        return ObjectRef.of(fields, store, known(context).place, listed=False)


def _relative(store: Store, path: str) -> str:
    """Return the path in the store; for a local store, absolute paths are accepted too."""
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


_STREAMS = (io.BufferedIOBase, io.RawIOBase)


class ObjectCodec(SchemaCodec, register=False):
    """A file or folder, given by its path, or bytes; fetched as `ObjectRef`.

    ``(".bin", data)`` stores bytes, or the rest of a stream, as a file with that extension.
    """

    name = "object"
    takes_path = True
    concurrent = True
    lazy = True

    def validate(self, value: Value) -> None:
        """Accept bytes, and the path of a file or folder that exists."""
        if isinstance(value, bytes | bytearray | memoryview | StagedObject):
            return
        if _is_named(value):
            _check_extension(value[0])
            return
        if not isinstance(value, str | os.PathLike):
            raise TypeError(
                f"<object@> holds the path of a file or folder, or bytes, not "
                f"{type(value).__name__}"
            )
        if not Path(value).parts:
            raise ValueError(
                f"{os.fspath(value)!r} names the whole working directory: if that is meant, give "
                "its full path"
            )
        if not Path(value).exists():
            raise ValueError(f"the file or folder {os.fspath(value)!r} was not found")
        if not Path(value).is_file() and not Path(value).is_dir():
            raise ValueError(f"{os.fspath(value)!r} is neither a file nor a folder")

    def encode(
        self,
        value: Value,
        *,
        key: GivenKey = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> Reference:
        """Copy a file, folder or bytes into the store and return the reference."""
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
            _check_outside(source, store, path)
            return _put_folder(store, path, source).to_json()
        return _file_ref(store, path, source.suffix, _put_file(store, path, source)).to_json()

    def decode(
        self, stored: Value, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> ObjectRef:
        """Return the handle of a file or folder; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        return ObjectRef.of(fields, store, known(context).place)


def _is_named(value: Value) -> bool:
    """Return whether a value is a pair of an extension and bytes, or a stream of bytes."""
    match value:
        case (str(), bytes() | bytearray() | memoryview()):
            return True
        case (str(), stream):
            return isinstance(stream, _STREAMS)
        case _:
            return False


def _check_extension(ext: str) -> None:
    if not ext.startswith(".") or set(ext) & set("/\\\0"):
        raise ValueError(
            f"<object@> holds bytes with an extension of one part that begins with a dot, such as "
            f"'.bin', not {ext!r}"
        )


def _check_outside(folder: Path, store: Store, path: str) -> None:
    """Refuse a folder that the copy of it would lie in."""
    copy = store.local_path(path)
    if copy is not None and copy.resolve().is_relative_to(folder.resolve()):
        raise InvalidValueError(
            f"the folder {folder} holds store '{store.name}' or a part of it, where its copy would "
            "lie: give a folder within it, or one that lies elsewhere"
        )


def published(store: Store, path: str, ext: str | None) -> StagedObject:
    """Return the reference of a file or folder that was written in place.

    All files are read once for their checksums. A folder's manifest is written first.

    Raises
    ------
    MissingExternalFile
        If nothing was written.
    InvalidValueError
        If a folder has an entry that could not be given back; see `empty_folders`.
    """
    empty = empty_folders(store, path, whole=True)
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
    return StagedObject(**_listed(store, path, ext, Manifest(files, tuple(empty))))


def _put_file(store: Store, path: str, file: Path) -> Written:
    written = Written.from_file(file)
    store.put_file(path, file)
    return written


def _file_ref(store: Store, path: str, ext: str | None, written: Written) -> ObjectRef:
    return ObjectRef(path, store, written.size, ext or None, timestamp=now(), crc32=written.crc32)


def _put_folder(store: Store, path: str, folder: Path) -> ObjectRef:
    """Copy a folder's files, and write its manifest after them."""
    files, empty = folder_content(folder)

    def put(name: str) -> Written:
        return _put_file(store, f"{path}/{name}", folder / name)

    found = dict(zip(files, in_flight(put, files), strict=True))
    return ObjectRef(**_listed(store, path, folder.suffix or None, Manifest(found, tuple(empty))))


def _listed(store: Store, path: str, ext: str | None, content: Manifest) -> Reference:
    """Write a folder's manifest; return the fields of the folder's handle."""
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


def folder_content(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths in a folder of all its files, and of its empty folders.

    A link to a file or folder inside the folder counts as that file or folder.

    Raises
    ------
    InvalidValueError
        Naming the entry that cannot be stored: a link that is broken, leads out of the folder or
        back to a folder that it is in, a socket, a pipe or a device.
    """
    files: list[str] = []
    empty: list[str] = []
    root = folder.resolve()
    for path in _visited(folder, root, (root,)):
        names = empty if path.is_dir() else files
        names.append(path.relative_to(folder).as_posix())
    return files, empty


def empty_folders(store: Store, path: str, *, whole: bool = False) -> list[str]:
    """Return the paths in a folder of a store of its empty folders, none for a store without any.

    Parameters
    ----------
    whole
        Whether links that lead out of the folder are refused as well.

    Raises
    ------
    InvalidValueError
        Naming the entry that the store would not list: a link to a folder, a broken link, a socket,
        a pipe or a device, or a file with the name of one that is being written.
    """
    root = store.local_path(path)
    if root is None or not root.is_dir():
        return []
    empty: list[str] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        entries = list(os.scandir(folder))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                _check_entry(entry, root if whole else None)
        if not entries and folder != root:
            empty.append(folder.relative_to(root).as_posix())
    return sorted(empty)


def _check_entry(entry: os.DirEntry[str], root: Path | None) -> None:
    path = Path(entry.path)
    if entry.is_symlink():
        if path.is_dir():
            raise InvalidValueError(
                f"{path} is a link to a folder, whose files would be left out: put the folder "
                "itself in its place."
            )
        _target(path, root.resolve() if root is not None else Path(path.anchor), ())
    _check_file(path, is_file=entry.is_file())


def _check_file(path: Path, *, is_file: bool) -> None:
    if not is_file:
        raise InvalidValueError(
            f"{path} is not a file but a pipe, a socket or a device, which a store cannot keep: "
            "remove it from the folder first."
        )
    if is_unfinished(path.name):
        raise InvalidValueError(
            f"{path} has the name of a file that is being written, which readers do not see: "
            "rename or remove it first."
        )


def _visited(folder: Path, root: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield files and empty folders, sorted."""
    for path in sorted(folder.iterdir()):
        target = _target(path, root, above)
        if target.is_dir():
            if not any(os.scandir(target)):
                yield path
            yield from _visited(path, root, (*above, target))
        else:
            _check_file(path, is_file=target.is_file())
            yield path


def _target(path: Path, root: Path, above: tuple[Path, ...]) -> Path:
    if not path.is_symlink():
        return path.resolve()
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidValueError(
            f"{path} is a broken link, to {path.readlink()}: mend or remove it first."
        ) from error
    if not target.is_relative_to(root):
        raise InvalidValueError(
            f"{path} is a link that leads out of the folder, to {target}: put a copy in its place."
        )
    if target in above:
        raise InvalidValueError(
            f"{path} is a link back to {target}, which it lies in: remove it first."
        )
    return target

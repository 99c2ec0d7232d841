"""Objects of DataJoint 0.14: a column holds a hash, a hidden table says where its object lies.

==========  =====================================================  =================================
kind        object in the store                                    hash (MD5, as a uuid)
==========  =====================================================  =================================
blob        ``schema/ab/cd/abcd…``, a packed blob                  of the object
attachment  ``schema/ab/cd/abcd….name``, the file                  of name, zero byte, file
filepath    wherever the user put it                               of its path
==========  =====================================================  =================================

The `contents_hash` of a filepath is that of the file.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from dj_dagster.errors import ChecksumError, InvalidValueError, MissingExternalFile, ObjectError
from dj_dagster.model.heading import Value
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.checksums import Written
from dj_dagster.objects.codecs.bytes import (
    AttachCodec,
    BlobCodec,
    check_attached_name,
    is_stored,
)
from dj_dagster.objects.codecs.codec import Codec, GivenKey, ObjectContext
from dj_dagster.objects.expected import Expected
from dj_dagster.objects.stores.store import FileStore, Store, checked_path

KINDS = ("blob", "attach", "filepath")
"""The kinds that 0.14 stores; other names are adapters, whose values are of these kinds."""

_FOLDS = (2, 2)


@dataclass(frozen=True, slots=True)
class ExternalPointerType(AttributeType):
    """The type of a column that points into ``~external_<store>``, in today's spelling."""


def pointer_type(codec: str, store: str) -> ExternalPointerType:
    """Return the type of a pointer.

    Examples
    --------
    >>> pointer_type("blob", "raw").text
    '<blob@raw>'
    """
    text = f"<{codec}@{store}>"
    return ExternalPointerType(text, Family.CODEC, codec=codec, store=store)


@dataclass(frozen=True, slots=True)
class ExternalObject:
    """A row of ``~external_<store>``; `attachment_name` and `filepath` are None for blobs."""

    store: str
    hash: UUID
    size: int
    attachment_name: str | None = None
    filepath: str | None = None
    contents_hash: UUID | None = None


class ExternalPointerCodec(Codec, register=False):
    """A codec for the objects of pointers, whose rows the caller looks up and writes.

    Parameters
    ----------
    kind
        The kind, one of `KINDS`, that values are written as.
    """

    name = "external"

    def __init__(self, kind: str = "blob") -> None:
        self._kind = kind

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of the column."""
        del is_store
        return "uuid"

    def validate(self, value: Value) -> None:
        """Accept paths for files, and any value for a blob."""
        if self._kind != "blob" and not isinstance(value, str | os.PathLike):
            raise TypeError(f"<{self._kind}@> takes the path of a file, not {type(value).__name__}")
        if self._kind == "attach":
            check_attached_name(Path(value).name)

    def encode(
        self,
        value: Value,
        *,
        key: GivenKey = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> ExternalObject:
        """Put an object into its store, and return its row of ``~external_<store>``.

        Raises
        ------
        InvalidValueError
            If a file cannot be read, or lies outside the folders that it can be stored from.
        """
        del key
        if context is None:
            raise ObjectError("An external object is written in the context of its attribute.")
        store = context.stores.get(store_name)
        if self._kind == "filepath":
            return placed_file(store, os.fspath(value))
        if self._kind == "blob":
            return placed_blob(store, context.schema, pack(value))
        return placed_attachment(store, context.schema, Path(value))

    def decode(
        self,
        stored: ExternalObject | UUID,
        *,
        key: GivenKey = None,
        context: ObjectContext | None = None,
    ) -> Value:
        """Return the blob's value, or the path of the file.

        Raises
        ------
        ConfigurationError
            If the settings lack the store.
        MissingExternalFile, ChecksumError
            If the object is missing, or not as it was written.
        """
        if context is None:
            raise ObjectError("An external object is read in the context of its attribute.")
        if not isinstance(stored, ExternalObject):
            raise MissingExternalFile(
                f"the object {stored} is not in its schema's table of external objects"
            )
        store = context.stores.get(stored.store)
        if stored.filepath is not None:
            return str(local_file(store, stored, stored.filepath, context.download_path))
        data = external_content(store, stored, context.schema)
        if stored.attachment_name is not None:
            return AttachCodec().decode(data, context=context)
        return BlobCodec().decode(data)


def external_path(store: Store, schema: str, found: ExternalObject) -> str:
    """Return the path in its store of a blob or an attachment."""
    digest, folds, start = found.hash.hex, [], 0
    for length in store.settings.subfolding or _FOLDS:
        folds.append(digest[start : start + length])
        start += length
    suffix = f".{found.attachment_name}" if found.attachment_name is not None else ""
    return "/".join([schema, *folds, digest + suffix])


def external_expected(place: str, found: ExternalObject) -> Expected:
    """Return what a row of ``~external_<store>`` says of the bytes in the store."""
    digest, before = found.hash, b""
    if found.filepath is not None:
        digest = found.contents_hash
    elif found.attachment_name is not None:
        before = found.attachment_name.encode() + b"\0"
    return Expected(place, Written(found.size), digest.bytes if digest else None, before)


def _file_data(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidValueError(f"{file} cannot be attached: {error.strerror or error}") from error


def placed_blob(store: Store, schema: str, data: bytes) -> ExternalObject:
    """Return the row of a blob, whose bytes are put into the store if they are not there."""
    return _placed(store, schema, data, data, None)


def placed_attachment(store: Store, schema: str, file: Path) -> ExternalObject:
    """Return the row of an attachment, a file that is stored with its name.

    Raises
    ------
    InvalidValueError
        If the file cannot be read.
    """
    data = _file_data(file)
    return _placed(store, schema, data, file.name.encode() + b"\0" + data, file.name)


def _placed(
    store: Store, schema: str, data: bytes, hashed: bytes, name: str | None
) -> ExternalObject:
    found = ExternalObject(store.name, bytes_hash(hashed), len(data), name)
    path = external_path(store, schema, found)
    if not is_stored(store, path, data):
        store.put(path, data)
    return found


def placed_file(store: Store, given: str) -> ExternalObject:
    """Return the row of a file, which is copied to the store from its stage if it is not there.

    Raises
    ------
    InvalidValueError
        If the file lies in neither, or the store has another file of that path.
    """
    stage = store.settings.stage
    folders = [Path(stage)] if stage else []
    local = store.local_path("x")
    folders += [local.parent] if local is not None else []
    path = _path_below(folders, given)
    if path is None:
        places = " nor ".join(map(str, folders)) or "a stage, which its settings do not name"
        raise InvalidValueError(f"{given} lies in neither {places} of store '{store.name}'.")
    path = checked_path(path)
    staged = Path(stage) / path if stage else None
    there = store.exists(path)
    if staged is not None and staged.is_file():
        size, contents = staged.stat().st_size, _file_hash(staged)
        if not there:
            store.put_file(path, staged)
        elif _stored_hash(store, path) != contents:
            raise InvalidValueError(
                f"A different version of {path} is in store '{store.name}' already: give the file "
                "another name."
            )
    elif there:
        size, contents = store.size(path), _stored_hash(store, path)
    else:
        raise InvalidValueError(f"There is no file {given} for store '{store.name}'.")
    return ExternalObject(store.name, bytes_hash(path.encode()), size, None, path, contents)


def _path_below(folders: list[Path], given: str) -> str | None:
    """Return the path of a file relative to one of the folders; relative paths are unchanged."""
    if not Path(given).is_absolute():
        return given
    for folder in folders:
        if Path(given).is_relative_to(folder):
            return Path(given).relative_to(folder).as_posix()
    return None


def _stored_hash(store: Store, path: str) -> UUID:
    local = store.local_path(path)
    return _file_hash(local) if local is not None else bytes_hash(store.get(path))


def bytes_hash(data: bytes) -> UUID:
    """Return the hash of bytes as DataJoint 0.14 keeps it, their MD5."""
    return UUID(bytes=hashlib.md5(data, usedforsecurity=False).digest())


def external_content(store: Store, found: ExternalObject, schema: str) -> bytes:
    """Return the bytes that were hashed: an attachment's with its name in front."""
    path = external_path(store, schema, found)
    data = store.get(path)
    if found.attachment_name is not None:
        data = found.attachment_name.encode() + b"\0" + data
    _check(store, path, bytes_hash(data), found.hash)
    return data


def local_file(store: Store, found: ExternalObject, path: str, folder: Path) -> Path:
    """Return the path at which a file can be read: in its store, or of a copy.

    A store with a `stage`, as in DataJoint 0.14, gives a copy there. A store that is not a folder
    gives a copy in the folder for downloads.
    """
    stage = store.settings.stage
    if isinstance(store, FileStore) and stage is None:
        file = Path(store.url(checked_path(path)))
        if not file.is_file():
            raise store.missing(path)
        _check(store, path, _file_hash(file), found.contents_hash)
        return file
    copy = (Path(stage) if stage else folder) / checked_path(path)
    if not copy.is_file() or _file_hash(copy) != found.contents_hash:
        data = store.get(path)
        digest = bytes_hash(data)
        _check(store, path, digest, found.contents_hash)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
    return copy


def _file_hash(file: Path) -> UUID:
    with file.open("rb") as stream:
        return UUID(bytes=hashlib.file_digest(stream, "md5").digest())


def _check(store: Store, path: str, digest: UUID, expected: UUID | None) -> None:
    if expected is not None and digest != expected:
        raise ChecksumError(
            f"{store.url(path)} in store '{store.name}' has changed since it was written: its hash "
            f"is {digest.hex}, not {expected.hex}."
        )

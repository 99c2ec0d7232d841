"""Objects of DataJoint 0.14: a column holds a hash, a hidden table says where its object lies.

==========  =====================================================  =================================
kind        object in the store                                    hash (MD5, as a uuid)
==========  =====================================================  =================================
blob        ``schema/ab/cd/abcd…``, a packed blob                  of the object
attachment  ``schema/ab/cd/abcd….name``, the file                  of name, zero byte, file
filepath    wherever the user put it                               of its path
==========  =====================================================  =================================

The `contents_hash` of a filepath is that of the file. They are read, never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from dj_dagster.errors import ChecksumError, MissingExternalFile, ObjectError
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.byte_codecs import AttachCodec, BlobCodec
from dj_dagster.objects.codec import Codec, ObjectContext
from dj_dagster.objects.file_store import FileStore
from dj_dagster.objects.store import Store, checked_path

KINDS = ("blob", "attach", "filepath")
"""What 0.14 keeps so; other names are adapters, whose values are one of these."""

_FOLDS = (2, 2)


@dataclass(frozen=True, slots=True)
class ExternalPointerType(AttributeType):
    """The type of a column that points into ``~external_<store>``; spelled as it would be today."""


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
    """A row of ``~external_<store>``; `attachment_name` or `filepath` tells what it is."""

    store: str
    hash: UUID
    size: int
    attachment_name: str | None = None
    filepath: str | None = None
    contents_hash: UUID | None = None


class ExternalPointerCodec(Codec, register=False):
    """Reads what a pointer stands for, once its row has been looked up."""

    name = "external"

    def get_dtype(self, is_store: bool) -> str:
        """Return what the column holds."""
        del is_store
        return "uuid"

    def validate(self, value: Any) -> None:
        """Refuse all values."""
        raise TypeError(
            "the column was made by DataJoint 0.14 and points into its table of external objects, "
            "which is read and not written here: add an attribute of a type such as <blob@store> "
            "to the table, or migrate the schema with DataJoint 2, and insert into that"
        )

    def encode(
        self, value: Any, *, key: Mapping[str, Any] | None = None, store_name: str | None = None
    ) -> Any:
        """Never reached: no value is valid."""
        raise ObjectError(f"{value!r:.80} cannot be written as an object of DataJoint 0.14.")

    def decode(
        self,
        stored: ExternalObject | UUID,
        *,
        key: Mapping[str, Any] | None = None,
        context: ObjectContext | None = None,
    ) -> Any:
        """Return the blob's value, or the path of the file.

        Raises
        ------
        ConfigurationError
            If the settings lack the store.
        MissingExternalFile, ChecksumError
            If the object is not there, or not as it was written.
        """
        if context is None:
            raise ObjectError("An external object is read in the context of its attribute.")
        if not isinstance(stored, ExternalObject):
            raise MissingExternalFile(
                f"the object {stored} is not in its schema's table of external objects"
            )
        store = context.stores.get(stored.store)
        if stored.filepath is not None:
            return str(_file(store, stored, stored.filepath, context))
        data = _content(store, stored, context.schema)
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


def _content(store: Store, found: ExternalObject, schema: str) -> bytes:
    """Return the bytes that were hashed: an attachment's with its name in front."""
    path = external_path(store, schema, found)
    data = store.get(path)
    if found.attachment_name is not None:
        data = found.attachment_name.encode() + b"\0" + data
    _check(store, path, UUID(bytes=hashlib.md5(data, usedforsecurity=False).digest()), found.hash)
    return data


def _file(store: Store, found: ExternalObject, path: str, context: ObjectContext) -> Path:
    """Return where a file can be read: in its folder, or in a copy where that is not possible.

    Copies go to the store's `stage`, as in DataJoint 0.14, or to the download folder.
    """
    stage = store.settings.stage
    if isinstance(store, FileStore) and stage is None:
        file = Path(store.url(checked_path(path)))
        if not file.is_file():
            raise store.missing(path)
        _check(store, path, _file_hash(file), found.contents_hash)
        return file
    copy = (Path(stage).expanduser() if stage else context.download_path) / checked_path(path)
    if not copy.is_file() or _file_hash(copy) != found.contents_hash:
        data = store.get(path)
        digest = UUID(bytes=hashlib.md5(data, usedforsecurity=False).digest())
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

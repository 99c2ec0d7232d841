"""Codecs of bytes: blobs, attachments, and objects in stores that are named by their hash.

An object lies at ``{hash_prefix}/{schema}/[fold/…/]{hash}``; the row holds a JSON reference
``{hash, path, schema, store, size}``, as DataJoint writes it.

An object that is there already may be garbage that a collector is about to delete: its last row is
gone, and the row that uses it again is not committed yet. A writer therefore makes an old object
young again, and looks afterwards whether a collector is at work, which may have seen the object
old. If one is, the writer stores the content under another name. A collector puts up its sign
before it looks at any object: a collector that starts later finds the object young, and if a
collector has ended by then, the writer sees whether it has deleted the object. The writer looks for
a collector even if the object is young: another writer may have made it young a moment ago, too
late for the collector.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from dj_dagster.errors import ChecksumError, DefinitionError, MissingExternalFile, ObjectError
from dj_dagster.local_files import FOLDER, check_usable, make_folder
from dj_dagster.model.heading import Value
from dj_dagster.objects.blob.reader import blob_summary, is_packed, unpack
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.codecs.codec import (
    Codec,
    GivenKey,
    ObjectContext,
    Reference,
    known,
    read_reference,
    reference_text,
)
from dj_dagster.objects.previews import byte_text
from dj_dagster.objects.stores.store import Stat, Store
from dj_dagster.objects.stores.store_settings import StoreSettings
from dj_dagster.objects.stores.stores import Stores

RENEW_AFTER = 900.0
"""Seconds for which an object counts as young; collectors spare objects for far longer."""

_REMEMBERED = 10_000
"""Number of verified objects of a store that a process remembers."""

_TOLD_APART = 5.0
"""Seconds after which a new write has a new time in any store: S3 gives whole seconds."""


def content_hash(data: bytes) -> str:
    """Return the hash that names bytes: MD5 in base32, 26 characters of ``a-z2-7``.

    Examples
    --------
    >>> content_hash(b"")
    '2qoyzwmpaczaj2mabgmoz6ccpy'
    """
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def content_path(digest: str, schema: str, settings: StoreSettings) -> str:
    """Return the path in a store of the content with a hash.

    Examples
    --------
    >>> from dj_dagster.objects.stores.store_settings import FileStoreSettings
    >>> settings = FileStoreSettings(protocol="file", location="/data", subfolding=(2, 2))
    >>> content_path("tehxabc", "lab", settings)
    '_hash/lab/te/hx/tehxabc'
    """
    folds: list[str] = []
    start = 0
    for length in settings.subfolding or ():
        folds.append(digest[start : start + length])
        start += length
    return "/".join([settings.hash_prefix.strip("/"), schema, *folds, digest])


def put_content(store: Store, schema: str, data: bytes) -> Reference:
    """Store bytes, unless they are there already, and return their reference."""
    digest = content_hash(data)
    size = len(data)
    path = content_path(digest, schema, store.settings)
    found = _whole(store, path, size)
    if found is None:
        store.put(path, data)
    else:
        if not _is_intact(store, found, data):
            store.put(path, data)
        elif abs(time.time() - found.modified) > RENEW_AFTER:
            store.renew(path, data)
        path = _spared(store, schema, path, data)
    return {"hash": digest, "path": path, "schema": schema, "store": store.name, "size": size}


def collecting_path(schema: str, settings: StoreSettings) -> str:
    """Return the path of a collector's sign that it is at work."""
    return f"{settings.hash_prefix.strip('/')}/{schema}/.collecting"


def get_content(stores: Stores, reference: Mapping[str, Any] | str | bytes) -> bytes:
    """Return the bytes that a reference names, verified.

    The path is read from the reference and not recomputed, so that objects stay readable when the
    settings of their store change.

    Raises
    ------
    MissingExternalFile
        If the object is not there.
    ChecksumError
        If its size or hash differs.
    ObjectError
        If the reference cannot be read.
    """
    fields = read_reference(reference)
    store = stores.get(fields.get("store"))
    path = fields["path"]
    data = store.get(path)
    size, digest = fields.get("size"), fields.get("hash")
    if size is not None and len(data) != size:
        raise ChecksumError(
            f"{store.url(path)} in store '{store.name}' has {len(data)} bytes, {size} were written."
        )
    if digest and (found := content_hash(data)) != digest:
        raise ChecksumError(
            f"{store.url(path)} in store '{store.name}' has changed since it was written: its hash "
            f"is {found}, not {digest}."
        )
    return data


def _spared(store: Store, schema: str, path: str, data: bytes) -> str:
    """Return a path at which content that was found is safe from collectors."""
    if store.exists(collecting_path(schema, store.settings)):
        path = f"{path}.{secrets.token_hex(4)}"
        store.put(path, data)
    elif _whole(store, path, len(data)) is None:
        store.put(path, data)
    return path


def _whole(store: Store, path: str, size: int) -> Stat | None:
    """Return size and age of stored content; None if it is missing or incomplete."""
    try:
        found = store.stat(path)
    except MissingExternalFile:
        return None
    return found if found.size == size else None


def is_stored(store: Store, path: str, data: bytes) -> bool:
    """Whether a store has these bytes at a path; a damaged object is to be written anew."""
    found = _whole(store, path, len(data))
    return found is not None and _is_intact(store, found, data)


def _is_intact(store: Store, found: Stat, data: bytes) -> bool:
    """Whether content that is to be used again is as it was written, and not damaged since.

    It is read once; later rows with the same content read nothing until its time changes.
    """
    if store.verified.get(found.path) == found.modified:
        return True
    try:
        same = store.get(found.path) == data
    except ObjectError:
        # Missing by now, or on a place of the disk that cannot be read.
        return False
    if same and abs(time.time() - found.modified) > _TOLD_APART:
        if len(store.verified) >= _REMEMBERED:
            store.verified.clear()
        store.verified[found.path] = found.modified
    return same


class BlobCodec(Codec, register=False):
    """Python values and arrays, packed; see `dj_dagster.objects.blob.writer`."""

    name = "blob"
    concurrent = True
    previews = True

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of the packed bytes."""
        return "<hash>" if is_store else "bytes"

    def encode(self, value: Value, *, key: GivenKey = None, store_name: str | None = None) -> bytes:
        """Pack a value."""
        return pack(value)

    def decode(
        self, stored: bytes, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> Value:
        """Unpack a value; bytes that another program wrote unpacked are returned as they are.

        Raises
        ------
        BlobError
            For packed bytes that are damaged, or that cost more to read than the context allows.
        """
        if not is_packed(stored):
            return bytes(stored)
        return unpack(stored, limits=context.limits) if context is not None else unpack(stored)

    def describe(self, stored: Value, size: int | None = None) -> str | None:
        """Return type, shape and bytes."""
        return blob_summary(stored, len(stored) if size is None else size)


class HashCodec(Codec, register=False):
    """Bytes in a store, named by their content; always with a store, ``<hash@store>``."""

    name = "hash"
    concurrent = True
    previews = True

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of a reference."""
        if not is_store:
            raise DefinitionError(
                "<hash> requires @, as it keeps objects in a store: write <hash@> for the default "
                "store, <hash@name>, or bytes."
            )
        return "json"

    def validate(self, value: Value) -> None:
        """Accept bytes only."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(
                f"<hash@> holds bytes, not {type(value).__name__}; use <blob@> for Python values"
            )

    def encode(
        self,
        value: bytes,
        *,
        key: GivenKey = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> Reference:
        """Store bytes and return their reference."""
        place = known(context)
        return put_content(place.stores.get(store_name), place.schema, bytes(value))

    def decode(
        self, stored: Value, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> bytes:
        """Return the verified bytes of a reference; raises as `get_content` does."""
        return get_content(known(context).stores, stored)

    def describe(self, stored: Value, size: int | None = None) -> str | None:
        """Return size and place of the bytes."""
        return reference_text(stored)


class AttachCodec(Codec, register=False):
    """A file with its name: give a path, get the path of a copy."""

    name = "attach"
    takes_path = True

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of the file's name and bytes."""
        return "<hash>" if is_store else "bytes"

    def validate(self, value: Value) -> None:
        """Accept the path of an existing file."""
        if not isinstance(value, str | PurePath):
            raise TypeError(f"<attach> holds the path of a file, not {type(value).__name__}")
        if Path(value).is_dir():
            raise ValueError(
                f"{str(value)!r} is a folder, and <attach> holds one file: declare <object@> for "
                "folders, or attach an archive of it"
            )
        if not Path(value).is_file():
            raise ValueError(f"there is no file {str(value)!r} to attach")
        check_attached_name(Path(value).name)

    def encode(self, value: Value, *, key: GivenKey = None, store_name: str | None = None) -> bytes:
        """Return the file's name, a zero byte, and the file's bytes."""
        file = Path(value)
        return file.name.encode() + b"\0" + file.read_bytes()

    def decode(
        self, stored: bytes, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> str:
        """Write the file into the download folder and return its path.

        If a file of that name has other content, it stays, and the new one is ``name_1.ext``.
        """
        name, content = named_content(stored)
        return str(_saved(known(context).download_path, name, content))

    def describe(self, stored: Value, size: int | None = None) -> str | None:
        """Return the file's name and bytes."""
        # Not bytes(5), which are five zeros: another program may have stored a number.
        name, zero, content = bytes(memoryview(stored)).partition(b"\0")
        length = len(content) if size is None else size - len(name) - 1
        return f"{name.decode(errors='replace')}, {byte_text(length)}" if zero else None


def check_attached_name(name: str) -> None:
    """Raise `ValueError` for the name of a file that could not be given back."""
    if "\\" in name:
        raise ValueError(
            f"{name!r} has a backslash, which separates folders on Windows: rename the file"
        )
    try:
        name.encode()
    except UnicodeError:
        raise ValueError(f"the name {name!r} is not in UTF-8: rename the file") from None


def named_content(stored: object) -> tuple[str, bytes]:
    """Return the name and the bytes of the file in an attachment.

    Raises
    ------
    ObjectError
        If the bytes are not an attachment.
    """
    data = bytes(stored) if isinstance(stored, bytes | bytearray | memoryview) else b""
    name, zero, content = data.partition(b"\0")
    # The last part only: a forged name must not reach another folder.
    safe = PurePath(name.decode(errors="replace").replace("\\", "/")).name
    if not zero or safe in ("", ".", ".."):
        raise ObjectError("The bytes are not an attachment, which starts with a file name.")
    return safe, content


def _saved(folder: Path, name: str, content: bytes) -> Path:
    """Write a file under the first free variant of its name, unless it is already there."""
    if folder.parts[:1] == (FOLDER,):
        check_usable(Path.cwd() / FOLDER, "set download_path")
    make_folder(folder)
    number = 0
    file = folder / _variant(name, number)
    while not _write_new(file, content) and not _holds(file, content):
        number += 1
        file = folder / _variant(name, number)
    return file


_LONGEST_NAME = 255
"""Bytes of a file's name on most disks."""


def _variant(name: str, number: int) -> str:
    """Return the name ``name_1.ext`` for 1, cut so that a disk takes it."""
    suffix = PurePath(name).suffix
    stem = name.removesuffix(suffix) if suffix else name
    end = f"_{number}{suffix}" if number else suffix
    room = max(_LONGEST_NAME - len(end.encode()), 0)
    whole = stem.encode()[:room].decode(errors="ignore") + end
    # The suffix may be long too.
    return whole.encode()[:_LONGEST_NAME].decode(errors="ignore")


def _holds(file: Path, content: bytes) -> bool:
    # A folder may have the name, or a link that leads nowhere.
    is_same_size = file.is_file() and file.stat().st_size == len(content)
    return is_same_size and file.read_bytes() == content


def _write_new(file: Path, content: bytes) -> bool:
    """Write a file unless it exists; of two processes at most one succeeds."""
    try:
        with file.open("xb") as stream:
            stream.write(content)
    except FileExistsError:
        return False
    return True

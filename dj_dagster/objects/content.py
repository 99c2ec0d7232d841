"""Objects named by their content: equal bytes are stored once, and what is read is verified.

An object lies at ``{hash_prefix}/{schema}/[fold/…/]{hash}``; the row holds a JSON reference
``{hash, path, schema, store, size}``, as DataJoint writes it.

An object that is there already may be garbage that the collector is about to delete: its last row
is gone, and the row that uses it again is not committed yet. So a writer makes an object that is
not young any more young again, and looks after that whether a collector is at work, which may have
seen it old. Then it writes the content under a name of its own. A collector says that it is at work
before it looks at any object, so one that starts later finds the object young; one that has come to
its end by then has deleted the object by then too, which the writer sees. That it is young already
proves nothing: another writer may have made it so a moment ago, too late for the collector.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from dj_dagster.errors import ChecksumError, MissingExternalFile
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.stores.store import Store
from dj_dagster.objects.stores.store_settings import StoreSettings
from dj_dagster.objects.stores.stores import Stores

RENEW_AFTER = 900.0
"""Seconds for which an object counts as young; collectors leave objects alone for far longer."""


def content_hash(data: bytes) -> str:
    """Return the name of bytes: MD5 in base32, 26 characters of ``a-z2-7``.

    Examples
    --------
    >>> content_hash(b"")
    '2qoyzwmpaczaj2mabgmoz6ccpy'
    """
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def content_path(digest: str, schema: str, settings: StoreSettings) -> str:
    """Return the path in a store of content with a hash.

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


def put_content(store: Store, schema: str, data: bytes) -> dict[str, Any]:
    """Store bytes, unless they are there already, and return their reference."""
    digest = content_hash(data)
    size = len(data)
    path = content_path(digest, schema, store.settings)
    age = _age(store, path, size)
    if age is None:
        store.put(path, data)
    else:
        if abs(age) > RENEW_AFTER:
            store.renew(path, data)
        path = _spared(store, schema, path, data)
    return {"hash": digest, "path": path, "schema": schema, "store": store.name, "size": size}


def collecting_path(schema: str, settings: StoreSettings) -> str:
    """Return where a collector says that it is at work."""
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
        If its size or hash is another.
    ObjectError
        If the reference is not one.
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
    """Return where content lies, after it was found at a path, safe from collectors."""
    if store.exists(collecting_path(schema, store.settings)):
        path = f"{path}.{secrets.token_hex(4)}"
        store.put(path, data)
    elif _age(store, path, len(data)) is None:
        store.put(path, data)
    return path


def _age(store: Store, path: str, size: int) -> float | None:
    """Return the seconds since content was stored, None where it is not, or not whole."""
    try:
        found = store.stat(path)
    except MissingExternalFile:
        return None
    return time.time() - found.modified if found.size == size else None

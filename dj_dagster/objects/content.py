"""Objects named by their content: equal bytes are stored once, and reading verifies them.

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
from typing import Any

from dj_dagster.errors import ChecksumError, MissingExternalFile
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.stores.store import Store
from dj_dagster.objects.stores.store_settings import StoreSettings
from dj_dagster.objects.stores.stores import Stores

RENEW_AFTER = 900.0
"""Seconds for which an object counts as young; collectors spare objects for far longer."""


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
    elif _age(store, path, len(data)) is None:
        store.put(path, data)
    return path


def _age(store: Store, path: str, size: int) -> float | None:
    """Return the seconds since content was stored; None if it is missing or incomplete."""
    try:
        found = store.stat(path)
    except MissingExternalFile:
        return None
    return time.time() - found.modified if found.size == size else None

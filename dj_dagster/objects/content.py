"""Objects named by their content: equal bytes are stored once, and what is read is verified.

An object lies at ``{hash_prefix}/{schema}/[fold/…/]{hash}``; the row holds a JSON reference
``{hash, path, schema, store, size}``, as DataJoint writes it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from dj_dagster.errors import ChecksumError, MissingExternalFile
from dj_dagster.objects.reference import read_reference
from dj_dagster.objects.store import Store
from dj_dagster.objects.store_settings import StoreSettings
from dj_dagster.objects.stores import Stores


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
    >>> from dj_dagster.objects.store_settings import FileStoreSettings
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
    path = content_path(digest, schema, store.settings)
    if not _is_stored(store, path, len(data)):
        store.put(path, data)
    size = len(data)
    return {"hash": digest, "path": path, "schema": schema, "store": store.name, "size": size}


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


def _is_stored(store: Store, path: str, size: int) -> bool:
    try:
        return store.size(path) == size
    except MissingExternalFile:
        return False

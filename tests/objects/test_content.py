from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dj_dagster.errors import ChecksumError, MissingExternalFile, ObjectError
from dj_dagster.objects.codecs.bytes import content_hash, content_path, get_content, put_content
from dj_dagster.objects.stores.stores import Store, Stores


def test_a_hash_is_md5_in_base32():
    assert content_hash(b"hello") == "lvauakv4jmvhnolrtwiraf6fsi"


def test_equal_bytes_are_stored_once_per_schema(stores: Stores, store: Store):
    first = put_content(store, "lab", b"hello")
    assert put_content(store, "lab", b"hello") == first
    assert list(store.list()) == [first["path"]]
    other = put_content(store, "lab2", b"hello")
    assert sorted(store.list()) == sorted([first["path"], other["path"]])
    assert get_content(stores, first) == get_content(stores, other) == b"hello"


def test_a_reference_is_datajoints(store: Store):
    digest = content_hash(b"hello")
    assert put_content(store, "lab", b"hello") == {
        "hash": digest,
        "path": f"_hash/lab/{digest}",
        "schema": "lab",
        "store": "main",
        "size": 5,
    }


def test_folders_are_folded_and_prefixed_as_configured(store_settings: dict[str, Any]):
    folded = {**store_settings, "subfolding": [2, 3], "hash_prefix": "objects"}
    stores = Stores({"main": folded})
    reference = put_content(stores.get("main"), "lab", b"hello")
    digest = reference["hash"]
    assert reference["path"] == f"objects/lab/{digest[:2]}/{digest[2:5]}/{digest}"
    # Objects written before a change of the settings stay readable.
    assert get_content(Stores({"main": store_settings}), reference) == b"hello"


def test_a_reference_may_come_as_text_and_without_store(stores: Stores, store: Store):
    reference = put_content(store, "lab", b"hello")
    assert get_content(stores, json.dumps(reference)) == b"hello"
    for absent in ("", None):
        assert get_content(stores, {**reference, "store": absent}) == b"hello"
    del reference["store"]
    assert get_content(stores, reference) == b"hello"


@pytest.mark.parametrize("found", [b"jello", b"hell", b"hello!", b""])
def test_changed_content_is_detected(stores: Stores, store: Store, found: bytes):
    reference = put_content(store, "lab", b"hello")
    store.put(reference["path"], found)
    with pytest.raises(ChecksumError, match=rf"{reference['path']} in store 'main'"):
        get_content(stores, reference)


@pytest.mark.parametrize("found", [b"hel", b"hallo", b"Hello"])
def test_a_half_written_or_damaged_object_is_replaced(stores: Stores, store: Store, found: bytes):
    path = content_path(content_hash(b"hello"), "lab", store.settings)
    for _ in range(2):
        store.put(path, found)
        assert get_content(stores, put_content(store, "lab", b"hello")) == b"hello"


def test_content_that_was_verified_is_not_read_again(tmp_path: Path):
    settings = {"protocol": "file", "location": str(tmp_path)}
    store = Stores({"main": settings}).get("main")
    path = put_content(store, "lab", b"hello")["path"]
    past = time.time() - 60
    for verified, found in ((None, b"hello"), (past, b"hello"), (past, b"hallo")):
        # The time of the last write tells whether it has changed.
        os.utime(tmp_path / path, (past, past))
        assert store.verified.get(path) == verified
        put_content(store, "lab", b"hello")
        (tmp_path / path).write_bytes(found)
    put_content(store, "lab", b"hello")
    assert store.get(path) == b"hello"


def test_a_lost_object_is_named(stores: Stores, store: Store):
    reference = put_content(store, "lab", b"hello")
    store.delete(reference["path"])
    with pytest.raises(MissingExternalFile, match=reference["path"]):
        get_content(stores, reference)


@pytest.mark.parametrize("reference", ["not json", "[1]", {}, {"path": 3}, b"\xff\xfe", None])
def test_what_is_no_reference_is_refused(stores: Stores, reference: Any):
    with pytest.raises(ObjectError, match="not a reference"):
        get_content(stores, reference)


def test_a_forged_reference_reads_nothing_outside(stores: Stores):
    with pytest.raises(ObjectError, match="not a path within a store"):
        get_content(stores, {"path": "../../etc/passwd"})

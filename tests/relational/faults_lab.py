"""What must hold after any fault: rows have their objects, objects are whole, garbage goes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import dj_dagster as dj
from dj_dagster.objects.codecs.bytes import content_hash
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.collection import Trash
from dj_dagster.objects.stores.store import Store


def declare(schema: dj.Schema) -> Any:
    @schema
    class Trace(dj.Manual):
        definition = """
        trace_id : int32
        ---
        trace : <blob@raw>
        array = null : <npy@raw>
        folder = null : <object@raw>
        """

    return Trace


def value(n: int, size: int = 3000) -> dict[str, Any]:
    """Return what row `n` holds: bytes that do not compress."""
    return {"n": n, "data": np.random.default_rng(n).integers(0, 255, size, dtype="u1")}


def check_rows(table: Any) -> int:
    """Read all rows with all their objects and return how many there are."""
    rows = table.to_dicts()
    for row in rows:
        expected = value(row["trace_id"], len(row["trace"]["data"]))
        assert np.array_equal(row["trace"]["data"], expected["data"])
        if row["array"] is not None:
            assert np.array_equal(row["array"].load(), expected["data"])
        if row["folder"] is not None:
            assert row["folder"].verify()
    return len(rows)


def check_content(store: Store) -> int:
    """Check that all content in sight is whole and return how many objects there are."""
    paths = [path for path in store.list("_hash") if not path.endswith(".collecting")]
    for path in paths:
        name = path.rpartition("/")[2].partition(".")[0]
        assert content_hash(store.get(path)) == name, f"{path} is not whole"
    return len(paths)


def referenced(table: Any, store: Store) -> set[str]:
    """Return the files that the rows refer to."""
    found: set[str] = set()
    for name in ("trace", "array", "folder"):
        column = table.connection.query(
            f"SELECT {name} FROM {table.connection.backend.full_name(table.name)} "
            f"WHERE {name} IS NOT NULL"
        )
        for (text,) in column:
            path = read_reference(text)["path"]
            files = [path] if store.exists(path) else [*store.list(path), f"{path}.manifest.json"]
            found |= set(files)
    return found


def check_collected(schema: dj.Schema, table: Any) -> dj.GarbageReport:
    """Collect all garbage and check that exactly what rows refer to is left, first with a trash."""
    store = schema.connection.stores.get("raw")
    time.sleep(1.1 if store.local_path("x") is None else 0.02)
    collector = dj.GarbageCollector(schema, store="raw")
    report = collector.collect(dry_run=False, grace=0)
    assert report.missing == ()
    assert set(store.list()) == referenced(table, store)
    assert report.trash == check_trash(store, schema.name) >= report.deleted
    emptied = collector.collect(dry_run=False, grace=0, keep=0)
    assert (emptied.trash, emptied.missing) == (0, ())
    assert emptied.freed_bytes >= report.deleted_bytes
    assert set(store.list()) == referenced(table, store)
    assert list(store.unfinished()) == []
    return report


def check_trash(store: Store, schema: str) -> int:
    """Check that the content in a trash is whole and return how many files are there."""
    files = Trash(store, schema).files()
    for file in files:
        name = file.path.rpartition("/")[2].partition(".")[0]
        if "/_hash/" in file.path:
            assert content_hash(store.get(file.path)) == name, f"{file.path} is not whole"
    return len(files)

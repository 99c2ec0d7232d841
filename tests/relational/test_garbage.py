"""The garbage collector: exactly what no row refers to goes, and only after its grace period."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.codecs import bytes as content
from dj_dagster.objects.codecs.bytes import collecting_path, content_hash
from dj_dagster.objects.collection import backing_up
from dj_dagster.objects.stores.store import Store

HOUR = 3600.0


@pytest.fixture
def stores(tmp_path: Path) -> dj.Stores:
    settings = {"protocol": "file", "location": str(tmp_path / "store")}
    cold = {**settings, "location": str(tmp_path / "cold"), "partition_pattern": "{rig}"}
    return dj.Stores({"default": "raw", "raw": settings, "cold": cold})


@pytest.fixture
def connection(database_url: str, stores: dj.Stores) -> Any:
    opened = dj.Connection(database_url, stores=stores, safemode=False)
    yield opened
    opened.close()


@pytest.fixture
def schema(connection: dj.Connection, schema_prefix: str) -> dj.Schema:
    return dj.Schema(f"{schema_prefix}lab", connection=connection)


@pytest.fixture
def scan(schema: dj.Schema) -> Any:
    @schema
    class Scan(dj.Manual):
        definition = """
        rig : int32
        scan : int32
        ---
        blob = null : <blob@>
        array = null : <npy@cold>
        folder = null : <object@cold>
        own = null : <filepath@raw>
        """

    return Scan


def age(store: Store, seconds: float) -> None:
    """Make everything in a folder's store older."""
    then = time.time() - seconds
    for path in store.list():
        os.utime(store.full_path(path), (then, then))


def collect(schema: dj.Schema, store: str = "raw", **options: Any) -> dj.GarbageReport:
    return dj.GarbageCollector(schema, store=store).collect(dry_run=False, **options)


def paths(schema: dj.Schema, store: str = "raw") -> list[str]:
    return sorted(schema.connection.stores.get(store).list())


@pytest.fixture
def filled(scan: Any, stores: dj.Stores, tmp_path: Path) -> Any:
    """Two rows, all of whose objects are two days old."""
    folder = tmp_path / "movie.zarr"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"aaa")
    (folder / "deep" / "b").write_bytes(b"b")
    stores.get("raw").put("mine/day1.dat", b"12345")
    for n in (1, 2):
        scan.insert1(
            {
                "rig": 7, "scan": n, "blob": f"value {n}", "array": np.arange(n), "folder": folder,
                "own": "mine/day1.dat",
            }
        )  # fmt: skip
    for name in stores.names:
        age(stores.get(name), 48 * HOUR)
    return scan


def test_what_rows_use_stays(filled: Any, schema: dj.Schema) -> None:
    before = paths(schema), paths(schema, "cold")
    for name, objects in (("raw", 2), ("cold", 4)):
        report = collect(schema, name)
        assert (report.kept, report.deleted, report.garbage, report.missing) == (objects, 0, (), ())
    assert (paths(schema), paths(schema, "cold")) == before
    assert filled.fetch("blob", order_by="KEY").tolist() == ["value 1", "value 2"]


def test_what_rows_used_goes_folders_whole(filled: Any, schema: dj.Schema) -> None:
    (filled & {"scan": 2}).delete()
    listed = dj.GarbageCollector(schema, store="cold").scan()
    assert (listed.deleted, listed.deleting, len(listed.garbage)) == (0, False, 2)
    assert len(paths(schema, "cold")) == 8
    report = collect(schema, "cold")
    assert (report.kept, report.deleted) == (2, 2)
    assert report.deleted_bytes == listed.garbage_bytes > 0
    left = paths(schema, "cold")
    assert len(left) == 4
    assert all(f"rig=7/{schema.name}/scan/scan=1/" in path for path in left)
    assert collect(schema).deleted == 1
    assert filled.fetch1("folder").verify()
    # Partitions and keys leave no empty folders behind.
    root = schema.connection.stores.get("cold").local_path("_schema")
    assert [d for d, inside, files in os.walk(root) if not inside and not files] == []


def test_what_is_young_stays(filled: Any, schema: dj.Schema) -> None:
    filled.delete()
    filled.insert1({"rig": 8, "scan": 1, "blob": "other"})
    filled.delete()
    report = collect(schema)
    assert (report.kept, report.young, report.deleted) == (0, 1, 2)
    age(schema.connection.stores.get(), 1)
    assert collect(schema, grace=60).deleted == 0
    assert collect(schema, grace=0).deleted == 1


def test_files_that_are_no_objects_stay(filled: Any, schema: dj.Schema) -> None:
    store = schema.connection.stores.get()
    others = [
        "mine/x_abcdefgh.npy", "_hash/other_schema/" + "a" * 26, f"_hash/{schema.name}/README",
        "_schema/other_schema/scan/scan=1/x_abcdefgh", f"_schema/{schema.name}/notes",
    ]  # fmt: skip
    for path in others:
        store.put(path, b"x")
    filled.delete()
    age(store, 48 * HOUR)
    assert collect(schema).deleted == 2
    assert paths(schema) == sorted([*others, "mine/day1.dat"])


def test_a_codec_that_is_not_known_here_keeps_its_objects(
    schema: dj.Schema, connection: dj.Connection, database_url: str, stores: dj.Stores
) -> None:
    class Note(dj.Codec, register=False):
        name = "note"

        def get_dtype(self, is_store: bool) -> str:
            return "<blob>"

        def encode(self, value: Any, *, key: Any = None, store_name: str | None = None) -> Any:
            return [value]

        def decode(self, stored: Any, *, key: Any = None) -> Any:
            return stored[0]

    connection.codecs.register(Note)

    @schema
    class Remark(dj.Manual):
        definition = """
        remark_id : int32
        ---
        text : <note@>
        """

    Remark.insert1({"remark_id": 1, "text": "remember"})
    age(stores.get(), 48 * HOUR)
    stranger = dj.Connection(database_url, stores=stores)
    report = collect(dj.Schema(schema.name, connection=stranger))
    stranger.close()
    assert (report.kept, report.deleted) == (1, 0)
    assert Remark.fetch1("text") == "remember"


def test_rows_of_other_schemas_count(
    filled: Any, schema: dj.Schema, schema_prefix: str, connection: dj.Connection
) -> None:
    other = dj.Schema(f"{schema_prefix}copies", connection=connection)

    @other
    class Copy(dj.Manual):
        definition = filled.definition

    Copy.insert(filled)
    filled.delete()
    for name in ("raw", "cold"):
        assert collect(schema, name).deleted == 0
    assert (Copy & {"scan": 1}).fetch1("blob") == "value 1"


UNTYPED = {
    "sqlite": {
        "renamed": ['ALTER TABLE "{0}.scan" RENAME TO "{0}.older"'],
        "copied": [
            'CREATE TABLE "{0}.copy" AS SELECT * FROM "{0}.scan"',
            'DELETE FROM "{0}.scan"',
        ],
    },
    "mysql": {
        "json": [
            "ALTER TABLE `{0}`.scan MODIFY `blob` json, MODIFY array json, MODIFY folder json"
        ],
        "text": [
            "CREATE TABLE `{0}`.copy (a longtext, b text, c mediumtext)",
            "INSERT INTO `{0}`.copy SELECT `blob`, array, folder FROM `{0}`.scan",
            "DELETE FROM `{0}`.scan",
        ],
    },
}
"""What clients do to a table, by which its columns lose the codecs in their comments."""


@pytest.mark.parametrize("kind", [0, 1])
def test_columns_that_have_lost_their_codecs_keep_their_objects(
    filled: Any, schema: dj.Schema, kind: int
) -> None:
    statements = list(UNTYPED[schema.connection.backend.name].values())[kind]
    before = paths(schema), paths(schema, "cold")
    for statement in statements:
        schema.connection.query(statement.format(schema.name))
    assert collect(schema).deleted == collect(schema, "cold").deleted == 0
    assert (paths(schema), paths(schema, "cold")) == before


def test_a_reference_that_cannot_be_read_forbids_deleting(filled: Any, schema: dj.Schema) -> None:
    (filled & {"scan": 2}).delete()
    table = filled.connection.backend.full_name(filled.name)
    filled.connection.query(f"""UPDATE {table} SET array = '{{"size": 3}}'""")
    with pytest.raises(dj.ObjectError, match=r"Nothing was deleted.*scan\.array.*referenced_paths"):
        collect(schema, "cold")
    assert len(paths(schema)) == 3
    # The column is declared for another store, and is none of the first one's business.
    assert collect(schema).deleted == 1
    assert len(paths(schema, "cold")) == 8
    assert collect(schema, "cold", ignore_unreadable=True).deleted == 3


def test_what_rows_lost_is_told(filled: Any, schema: dj.Schema) -> None:
    store = schema.connection.stores.get()
    lost = next(store.list("_hash"))
    store.delete(lost)
    assert dj.GarbageCollector(schema).scan().missing == (lost,)


def test_a_table_of_a_schema_that_was_dropped_is_missing(connection: dj.Connection) -> None:
    """The collector begins anew after this error: another user may drop a schema meanwhile."""
    with pytest.raises(dj.MissingTableError):
        connection.query("SELECT note FROM no_such_schema.note")


def test_objects_of_a_store_that_is_not_set_up_are_not_lost(
    filled: Any, schema: dj.Schema, tmp_path: Path
) -> None:
    raw = {"protocol": "file", "location": str(tmp_path / "store")}
    there = schema.connection
    connection = dj.Connection(there.url, stores=dj.Stores({"default": "raw", "raw": raw}))
    report = dj.GarbageCollector(dj.Schema(schema.name, connection=connection)).scan()
    assert (report.missing, report.elsewhere) == ((), ("cold",))
    assert "objects in cold, not set up here" in str(report)
    connection.close()


def test_what_killed_writers_left_goes(filled: Any, schema: dj.Schema) -> None:
    store = schema.connection.stores.get()
    place = store.local_path(f"_hash/{schema.name}/.writing-0123456789abcdef")
    place.write_bytes(b"half an obj")
    assert collect(schema).freed_bytes == 0
    os.utime(place, (0, 0))
    assert collect(schema).freed_bytes == 11
    assert not place.exists()


def test_content_that_is_used_again_becomes_young(filled: Any, schema: dj.Schema) -> None:
    filled.delete()
    store = schema.connection.stores.get()
    # The writer has stored its object, and has not committed its row when the collector looks.
    reference = content.put_content(store, schema.name, pack("value 1"))
    report = collect(schema)
    assert (report.young, report.deleted) == (1, 1)
    assert paths(schema, "raw") == sorted([reference["path"], "mine/day1.dat"])


def test_content_that_is_used_again_beside_a_collector_gets_a_name_of_its_own(
    filled: Any, schema: dj.Schema
) -> None:
    store = schema.connection.stores.get()
    store.put(collecting_path(schema.name, store.settings), b"a collector")
    filled.insert1({"rig": 9, "scan": 1, "blob": "value 1"})
    filled.insert1({"rig": 9, "scan": 2, "blob": "new"})
    assert len([path for path in paths(schema) if path.startswith("_hash")]) == 5
    assert (filled & "rig = 9 and scan = 1").fetch1("blob") == "value 1"
    store.delete(collecting_path(schema.name, store.settings))
    # The old one has a row still; this one is an object like any other.
    (filled & "rig = 9").delete()
    age(store, 48 * HOUR)
    assert collect(schema).deleted == 2


def test_content_that_another_writer_made_young_beside_a_collector_is_not_relied_on(
    filled: Any, schema: dj.Schema
) -> None:
    filled.delete()
    store = schema.connection.stores.get()
    store.put(collecting_path(schema.name, store.settings), b"a collector")
    (seen_old,) = (path for path in store.list("_hash") if content_hash(pack("value 1")) in path)
    store.renew(seen_old)
    filled.insert1({"rig": 9, "scan": 1, "blob": "value 1"})
    store.delete(seen_old)
    assert filled.fetch1("blob") == "value 1"


def test_content_that_a_collector_takes_in_the_very_moment_is_stored_again(
    filled: Any, schema: dj.Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = schema.connection.stores.get()
    renew = store.renew

    def renew_too_late(path: str, data: bytes | None = None) -> None:
        renew(path, data)
        # A collector that had seen it old deletes it, and is done, before the writer looks again.
        store.delete(path)

    monkeypatch.setattr(store, "renew", renew_too_late)
    filled.insert1({"rig": 9, "scan": 1, "blob": "value 1"})
    assert (filled & "rig = 9").fetch1("blob") == "value 1"


def test_one_collector_at_a_time(filled: Any, schema: dj.Schema) -> None:
    store = schema.connection.stores.get()
    sign = collecting_path(schema.name, store.settings)
    store.put(sign, b"another")
    filled.delete()
    age(store, 60)
    with pytest.raises(dj.ObjectError, match="Another collector is at work"):
        collect(schema, grace=0)
    assert len(paths(schema)) == 4
    age(store, 48 * HOUR)
    assert collect(schema).deleted == 2
    assert not store.exists(sign)


@pytest.mark.parametrize("hours", [-5, 5])
def test_others_are_at_work_by_the_clock_of_the_store(
    filled: Any, schema: dj.Schema, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    store, clock = schema.connection.stores.get(), time.time
    sign = collecting_path(schema.name, store.settings)
    filled.delete()
    monkeypatch.setattr(time, "time", lambda: clock() + hours * HOUR)
    with backing_up([store]):
        found = collect(schema, keep=0)
        assert found.deleted == 2
        assert found.trash > 0
    store.put(sign, b"another")
    with pytest.raises(dj.ObjectError, match="Another collector is at work"):
        collect(schema)
    store.delete(sign)
    assert collect(schema, keep=0).trash == 0


def test_a_long_unit_of_work_keeps_its_objects(
    filled: Any, schema: dj.Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "RENEW_AFTER", -1.0)
    store = schema.connection.stores.get()

    @schema
    class Result(dj.Computed):
        definition = """
        -> Scan
        ---
        value : <blob@>
        """

        def make(self, key: dict[str, Any], lose: bool = False) -> None:
            self.insert1({**key, "value": key})
            age(store, 48 * HOUR)
            if lose:
                store.delete_many(list(store.list("_hash")))

    Result.populate({"scan": 1})
    young = [found for found in store.scan("_hash") if found.modified > time.time() - HOUR]
    assert len(young) == 1
    assert (Result & {"scan": 1}).fetch1("value") == {"rig": 7, "scan": 1}
    store.delete(young[0].path)
    with pytest.raises(dj.ObjectError, match="vanished"):
        Result.populate({"scan": 2}, make_kwargs={"lose": True})


def test_several_stores_at_once(filled: Any, schema: dj.Schema) -> None:
    filled.delete()
    reports = dj.collect_garbage(schema)
    assert [(r.store, r.deleted, len(r.garbage)) for r in reports] == [
        ("raw", 0, 2),
        ("cold", 0, 4),
    ]
    assert "2 garbage" in str(reports[0])
    assert sum(report.deleted for report in dj.collect_garbage(schema, delete=True)) == 6


def test_schemas_are_asked_for(connection: dj.Connection) -> None:
    with pytest.raises(dj.ConfigurationError, match="At least one schema must be provided"):
        dj.GarbageCollector()
    wrong: Any
    for wrong in ("x", [], [dj.Schema("x", connection=connection)], None):
        with pytest.raises(dj.ConfigurationError, match="is not a schema"):
            dj.collect_garbage(wrong, delete=True)
    with pytest.raises(dj.ConfigurationError):
        dj.GarbageCollector(dj.Schema("x", connection=connection), store="nowhere")

"""To whom a store's objects belong: the collector removes what it can prove to be garbage."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.objects.collection import registrations
from dj_dagster.objects.stores.store import Store
from tests.services.database_server import drop_databases

DEFINITION = """
scan_id : int32
---
trace = null : <npy@raw>
blob = null : <blob@raw>
"""
DAYS = 86_400.0


def stores_in(folder: Path) -> dj.Stores:
    places = {
        name: {"protocol": "file", "location": str(folder / name)} for name in ("raw", "cold")
    }
    return dj.Stores({"default": "raw", **places})


def declared(schema: dj.Schema) -> Any:
    @schema
    class Scan(dj.Manual):
        definition = DEFINITION

    return Scan


def row(n: int) -> dict[str, Any]:
    return {"scan_id": n, "trace": np.arange(n + 1), "blob": f"value {n}"}


def make_old(store: Store, seconds: float = 3 * DAYS) -> None:
    then = time.time() - seconds
    for path in store.list():
        os.utime(store.full_path(path), (then, then))


def collect(*schemas: dj.Schema, **options: Any) -> dj.GarbageReport:
    (report,) = dj.collect_garbage(*schemas, stores=["raw"], delete=True, **options)
    return report


@pytest.fixture
def stores(tmp_path: Path) -> dj.Stores:
    return stores_in(tmp_path)


@pytest.fixture
def connection(database_url: str, stores: dj.Stores) -> Iterator[dj.Connection]:
    opened = dj.Connection(database_url, stores=stores, safemode=False)
    yield opened
    opened.close()


@pytest.fixture
def schema(connection: dj.Connection, schema_prefix: str) -> dj.Schema:
    return dj.Schema(f"{schema_prefix}lab", connection=connection)


@pytest.fixture
def scan(schema: dj.Schema, stores: dj.Stores) -> Any:
    """Three rows, one of which is gone; each has two old objects."""
    table = declared(schema)
    table.insert([row(n) for n in range(3)])
    (table & {"scan_id": 2}).delete()
    make_old(stores.get("raw"))
    return table


@pytest.fixture
def twin(tmp_path: Path, schema: dj.Schema) -> Iterator[dj.Schema]:
    """A schema of the same name in another database, with the same store."""
    opened = dj.Connection(
        f"sqlite:///{tmp_path}/twin.sqlite", stores=stores_in(tmp_path), safemode=False
    )
    yield dj.Schema(schema.name, connection=opened)
    opened.close()


def test_a_writer_registers_once_and_a_reader_never(
    scan: Any, schema: dj.Schema, stores: dj.Stores, twin: dj.Schema
) -> None:
    raw, cold = stores.get("raw"), stores.get("cold")
    (found,) = registrations(raw, schema.name)
    assert (found.place, found.found_objects) == (schema.connection.url, False)
    assert registrations(cold, schema.name) == []
    declared(twin)
    twin.list_tables()
    # Nulls need no store.
    declared(twin).insert1({"scan_id": 1})
    assert registrations(raw, schema.name) == [found]
    declared(twin).insert1(row(7))
    assert len(registrations(raw, schema.name)) == 2


def test_a_staged_insert_registers_before_it_writes(schema: dj.Schema, stores: dj.Stores) -> None:
    @schema
    class Movie(dj.Manual):
        definition = """
        movie_id : int32
        ---
        frames : <object@raw>
        """

    with Movie.staged_insert1 as staged:
        staged.rec["movie_id"] = 1
        staged.store("frames", ".zarr")["a"] = b"a"
        assert len(registrations(stores.get("raw"), schema.name)) == 1


def test_what_belongs_to_another_database_stays(
    scan: Any, schema: dj.Schema, stores: dj.Stores, twin: dj.Schema
) -> None:
    before = sorted(stores.get("raw").list())
    for delete in (False, True):
        with pytest.raises(dj.ObjectError, match="other databases") as refused:
            dj.collect_garbage(twin, stores=["raw"], delete=delete)
        assert schema.connection.url in str(refused.value)
    declared(twin).insert1(row(7))
    with pytest.raises(dj.ObjectError, match=r"twin\.sqlite"):
        collect(schema)
    assert set(before) < set(stores.get("raw").list())
    # Another schema's objects are nobody's business.
    other = dj.Schema(f"{schema.name}_more", connection=schema.connection)
    table = declared(other)
    table.insert1(row(1))
    table.delete()
    make_old(stores.get("raw"))
    assert collect(other).deleted == 2


def test_a_copy_of_a_file_is_another_database(tmp_path: Path) -> None:
    first = dj.Connection(f"sqlite:///{tmp_path}/a.sqlite", stores=stores_in(tmp_path))
    table = declared(dj.Schema("lab", connection=first))
    table.insert([row(1), row(2)])
    first.close()
    shutil.copy(tmp_path / "a.sqlite", tmp_path / "trial.sqlite")
    copy = dj.Connection(
        f"sqlite:///{tmp_path}/trial.sqlite", stores=stores_in(tmp_path), safemode=False
    )
    copied = dj.Schema("lab", connection=copy)
    declared(copied).delete()
    make_old(copy.stores.get("raw"))
    with pytest.raises(dj.ObjectError, match=r"a\.sqlite"):
        collect(copied)
    copy.close()
    # What was moved is the same.
    (tmp_path / "a.sqlite").rename(tmp_path / "b.sqlite")
    moved = dj.Connection(
        f"sqlite:///{tmp_path}/b.sqlite", stores=stores_in(tmp_path), safemode=False
    )
    schema = dj.Schema("lab", connection=moved)
    (declared(schema) & {"scan_id": 2}).delete()
    assert collect(schema).deleted == 2
    moved.close()


def test_objects_of_before_are_collected_once_somebody_claims_them(
    schema: dj.Schema, stores: dj.Stores, twin: dj.Schema
) -> None:
    raw = stores.get("raw")
    old = f"_hash/{schema.name}/" + "a" * 26
    raw.put(old, b"by an earlier version")
    make_old(raw)
    with pytest.raises(dj.ObjectError, match="did not register"):
        collect(schema)
    declared(schema).insert1(row(1))
    with pytest.raises(dj.ObjectError, match="before any database had registered"):
        collect(schema)
    declared(twin).insert1(row(7))
    (forgotten,) = dj.GarbageCollector(schema, store="raw").claim()
    assert "twin.sqlite" in forgotten.place
    report = collect(schema)
    assert [found.path for found in report.garbage] == [old]


def test_a_schema_that_was_dropped_and_made_again_registers_anew(
    schema: dj.Schema, stores: dj.Stores
) -> None:
    declared(schema).insert1(row(1))
    schema.drop()
    again = dj.Schema(schema.name, connection=schema.connection)
    declared(again).insert1(row(2))
    make_old(stores.get("raw"))
    # On MariaDB, which has no number of its own, it is another database.
    dj.GarbageCollector(again, store="raw").claim()
    report = collect(again)
    assert (report.kept, report.deleted) == (2, 2)


def test_a_schema_without_objects_needs_no_record(schema: dj.Schema) -> None:
    declared(schema)
    assert collect(schema).deleted == 0


def test_stores_are_named_or_all_of_them_are(schema: dj.Schema, scan: Any) -> None:
    for nothing in ([], None, ""):
        with pytest.raises(dj.ConfigurationError, match="No store is named"):
            dj.collect_garbage(schema, stores=nothing)  # pyright: ignore[reportArgumentType]
    assert len(dj.collect_garbage(schema, stores="all")) == 2
    assert [report.store for report in dj.collect_garbage(schema, stores="raw")] == ["raw"]


# --- the trash


def test_a_row_that_comes_back_finds_its_object(
    scan: Any, schema: dj.Schema, stores: dj.Stores
) -> None:
    table = scan.connection.backend.full_name(scan.name)
    columns = scan.connection.query(f"SELECT * FROM {table} WHERE scan_id = 1").fetchall()[0]
    (scan & {"scan_id": 1}).delete()
    assert collect(schema).deleted == 4
    scan.connection.query(f"INSERT INTO {table} VALUES (%s, %s, %s)", columns)
    with pytest.raises(dj.MissingExternalFile):
        (scan & {"scan_id": 1}).fetch1("blob")
    # Its time is over, but a row names it: it comes back instead of being deleted.
    report = collect(schema, keep=0)
    assert (report.restored, report.missing, report.trash) == (2, (), 0)
    assert (scan & {"scan_id": 1}).fetch1("blob") == "value 1"
    assert (scan & {"scan_id": 1}).fetch1("trace").load().tolist() == [0, 1]


def test_what_was_removed_can_be_restored_until_its_time_is_over(
    scan: Any, schema: dj.Schema, stores: dj.Stores
) -> None:
    raw = stores.get("raw")
    before = {path: raw.get(path) for path in raw.list()}
    assert collect(schema).trash == 2
    collector = dj.GarbageCollector(schema, store="raw")
    assert collector.restore().restored == 2
    assert {path: raw.get(path) for path in raw.list()} == before
    # As young as if it were just written.
    report = collect(schema)
    assert (report.young, report.deleted) == (2, 0)
    assert collect(schema, grace=0, keep=60).trash == 2
    for file in raw.scan(".dj_dagster/trash"):
        os.utime(raw.full_path(file.path), (0, 0))
    assert collect(schema).trash == 0
    assert collector.restore().restored == 0


def test_content_in_the_trash_is_written_anew(
    scan: Any, schema: dj.Schema, stores: dj.Stores
) -> None:
    collect(schema)
    scan.insert1(row(2))
    assert (scan & {"scan_id": 2}).fetch1("blob") == "value 2"
    dj.GarbageCollector(schema, store="raw").restore()
    assert (scan & {"scan_id": 2}).fetch1("blob") == "value 2"
    assert collect(schema).trash == 0


# --- rights, which SQLite has not


@pytest.fixture
def server_schema(server_url: str, stores: dj.Stores) -> Iterator[dj.Schema]:
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    opened = dj.Connection(server_url, stores=stores, safemode=False)
    schema = dj.Schema(f"{prefix}lab", connection=opened)
    table = declared(schema)
    table.insert([row(n) for n in range(3)])
    (table & {"scan_id": 2}).delete()
    make_old(stores.get("raw"))
    yield schema
    opened.close()
    drop_databases(server_url, prefix)


@pytest.fixture
def granted(
    server_schema: dj.Schema, server_url: str, stores: dj.Stores
) -> Iterator[Callable[..., dj.Schema]]:
    """Return a function: the schema as seen by a new user with some grants and no others."""
    admin, opened, users = server_schema.connection, list[dj.Connection](), list[str]()

    def connect(*grants: str) -> dj.Schema:
        user = f"u{uuid.uuid4().hex[:8]}"
        for host in ("%", "localhost"):
            admin.query(f"CREATE USER '{user}'@'{host}' IDENTIFIED BY 'pw'")
            users.append(f"'{user}'@'{host}'")
            for grant in grants:
                admin.query(f"GRANT {grant} TO '{user}'@'{host}'")
        url = f"mysql+pymysql://{user}:pw@{server_url.rpartition('@')[2]}"
        opened.append(dj.Connection(url, stores=stores, safemode=False))
        return dj.Schema(server_schema.name, connection=opened[-1], create_schema=False)

    yield connect
    for one in opened:
        one.close()
    for user in users:
        admin.query(f"DROP USER {user}")


def test_a_backup_is_refused_to_who_does_not_see_all(
    server_schema: dj.Schema, granted: Callable[..., dj.Schema], tmp_path: Path
) -> None:
    name = server_schema.name
    for grants in (
        [f"SELECT ON `{name}`.`scan`"],
        [f"INSERT ON `{name}`.*"],
        ["SHOW DATABASES ON *.*"],
    ):
        limited = granted(*grants).connection
        with pytest.raises(dj.AccessError):
            dj.backup(tmp_path / "copies", name, connection=limited)
    reader = granted(f"SELECT ON `{name}`.*").connection
    assert dj.backup(tmp_path / "copies", name, connection=reader).backup.schemas == (name,)


@pytest.mark.parametrize(
    ("grants", "named"),
    [
        (["SELECT ON `{0}`.*"], "schemas that are not shown"),
        (["SHOW DATABASES ON *.*", "SELECT ON `{0}`.`scan`"], "tables of {0}"),
        (["SHOW DATABASES ON *.*", "INSERT ON *.*"], "{0}.scan"),
        (["SHOW DATABASES ON *.*", "SELECT (scan_id) ON `{0}`.`scan`"], "tables of {0}"),
        (["INSERT ON `{0}`.*", "SELECT ON `other`.*"], "{0}.scan"),
    ],
)
def test_what_the_user_may_not_read_is_named_and_nothing_goes(
    server_schema: dj.Schema,
    granted: Callable[..., dj.Schema],
    stores: dj.Stores,
    grants: list[str],
    named: str,
) -> None:
    before = sorted(stores.get("raw").list())
    schema = granted(*(grant.format(server_schema.name) for grant in grants))
    for delete in (False, True):
        with pytest.raises(dj.ObjectError) as refused:
            dj.collect_garbage(schema, stores=["raw"], delete=delete)
        assert named.format(server_schema.name) in str(refused.value)
    assert sorted(stores.get("raw").list()) == before


def test_who_may_read_everything_collects(
    granted: Callable[..., dj.Schema], server_schema: dj.Schema
) -> None:
    assert collect(granted("SELECT ON *.*")).deleted == 2


def test_a_table_of_another_store_may_stay_unread(
    granted: Callable[..., dj.Schema], server_schema: dj.Schema
) -> None:
    """Its definition is shown, and says that it has nothing to do with the store."""
    aside = dj.Schema(f"{server_schema.name}_aside", connection=server_schema.connection)

    @aside
    class Note(dj.Manual):
        definition = """
        note_id : int32
        ---
        text : <npy@cold>
        """

    grants = ["SHOW DATABASES ON *.*", "INSERT ON *.*", f"SELECT ON `{server_schema.name}`.*"]
    assert collect(granted(*grants)).deleted == 2

"""Databases of DataJoint 0.14, laid out here by SQL as it left them, are read as they are."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

import dj_dagster as dj
from dj_dagster.objects.blob.writer import pack

EXTERNAL = """
CREATE TABLE `{schema}`.`~external_raw` (
    `hash` binary(16) NOT NULL COMMENT ':uuid:hash of contents (blob), ...',
    `size` bigint unsigned NOT NULL COMMENT 'size of object in bytes',
    `attachment_name` varchar(255) DEFAULT NULL COMMENT 'the filename of an attachment',
    `filepath` varchar(1000) DEFAULT NULL COMMENT 'relative file path or attachment filename',
    `contents_hash` binary(16) DEFAULT NULL COMMENT ':uuid:used for the filepath datatype',
    `timestamp` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'automatic timestamp',
    PRIMARY KEY (`hash`)
) ENGINE=InnoDB COMMENT 'external storage tracking'
"""
JOBS = """
CREATE TABLE `{schema}`.`~jobs` (
    `table_name` varchar(255) NOT NULL, `key_hash` char(32) NOT NULL,
    `status` enum('reserved','error','ignore') NOT NULL, `key` mediumblob,
    `error_message` varchar(2047) NOT NULL DEFAULT '', `error_stack` mediumblob,
    PRIMARY KEY (`table_name`, `key_hash`)
) ENGINE=InnoDB COMMENT 'job reservation table for `{schema}`'
"""
LOG = """
CREATE TABLE `{schema}`.`~log` (`id` int unsigned NOT NULL AUTO_INCREMENT,
    `event` varchar(255) NOT NULL DEFAULT '', PRIMARY KEY (`id`)) ENGINE=InnoDB
"""
SUBJECT = """
CREATE TABLE `{schema}`.`subject` (
    `subject_id` int unsigned NOT NULL COMMENT 'number in the colony',
    `alive` tinyint(1) NOT NULL DEFAULT '1',
    `sex` enum('M','F','U') NOT NULL DEFAULT 'U',
    `token` binary(16) DEFAULT NULL COMMENT ':uuid:',
    `notes` longblob,
    `protocol` longblob COMMENT ':attach:signed',
    `flags` set('a','b') DEFAULT NULL COMMENT 'of a type that is unknown now',
    PRIMARY KEY (`subject_id`)
) ENGINE=InnoDB COMMENT 'animals'
"""
SCAN = """
CREATE TABLE `{schema}`.`_scan` (
    `subject_id` int unsigned NOT NULL COMMENT 'number in the colony',
    `scan` smallint NOT NULL COMMENT 'native key attribute of an imported table',
    `movie` binary(16) DEFAULT NULL COMMENT ':blob@raw:frames',
    `report` binary(16) DEFAULT NULL COMMENT ':attach@raw:',
    `file` binary(16) DEFAULT NULL COMMENT ':filepath@raw:',
    `graph` binary(16) DEFAULT NULL COMMENT ':<old_graph>:',
    `mesh` longblob COMMENT ':<old_graph>:',
    PRIMARY KEY (`subject_id`, `scan`),
    CONSTRAINT FOREIGN KEY (`subject_id`) REFERENCES `{schema}`.`subject` (`subject_id`)
        ON UPDATE CASCADE ON DELETE RESTRICT,
    CONSTRAINT FOREIGN KEY (`movie`) REFERENCES `{schema}`.`~external_raw` (`hash`),
    CONSTRAINT FOREIGN KEY (`report`) REFERENCES `{schema}`.`~external_raw` (`hash`),
    CONSTRAINT FOREIGN KEY (`file`) REFERENCES `{schema}`.`~external_raw` (`hash`),
    CONSTRAINT FOREIGN KEY (`graph`) REFERENCES `{schema}`.`~external_raw` (`hash`)
) ENGINE=InnoDB
"""


class GraphCodec(dj.Codec):
    """Stands for an attribute adapter of 0.14."""

    name = "old_graph"

    def get_dtype(self, is_store: bool) -> str:
        return "<blob>"

    def encode(self, value: Any, *, key: Any = None, store_name: str | None = None) -> Any:
        return [list(edge) for edge in value]

    def decode(self, stored: Any, *, key: Any = None) -> Any:
        return {tuple(edge) for edge in stored}


def digest(data: bytes) -> uuid.UUID:
    """Return the hash that 0.14 gave to bytes."""
    return uuid.UUID(bytes=hashlib.md5(data).digest())


class Legacy:
    """A 0.14 schema and its store, filled in as 0.14 did."""

    def __init__(self, connection: dj.Connection, name: str, folder: Path) -> None:
        self.connection = connection
        self.name = name
        self.folder = folder
        self.run(f"CREATE DATABASE `{name}`")
        for statement in (EXTERNAL, JOBS, LOG, SUBJECT, SCAN):
            self.run(statement.format(schema=name))

    def run(self, sql: str, *values: Any) -> None:
        with self.connection.cursor() as session:
            session.exec_driver_sql(sql, values)

    def external(self, content: bytes, name: str | None = None) -> bytes:
        """Keep a blob or an attachment; returns what a row holds."""
        hashed = digest(content if name is None else name.encode() + b"\0" + content)
        place = self.folder / self.name / hashed.hex[:2] / hashed.hex[2:4]
        place.mkdir(parents=True, exist_ok=True)
        (place / (hashed.hex + (f".{name}" if name else ""))).write_bytes(content)
        self._track(hashed, len(content), name)
        return hashed.bytes

    def filepath(self, path: str, content: bytes) -> bytes:
        """Keep a file where it is; returns what a row holds."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        hashed = digest(path.encode())
        self._track(hashed, len(content), None, path, digest(content).bytes)
        return hashed.bytes

    def _track(self, hashed: uuid.UUID, size: int, *rest: Any) -> None:
        columns = ("hash", "size", "attachment_name", "filepath", "contents_hash")
        names = ", ".join(f"`{name}`" for name in columns[: 2 + len(rest)])
        marks = ", ".join(["%s"] * (2 + len(rest)))
        self.run(
            f"INSERT INTO `{self.name}`.`~external_raw` ({names}) VALUES ({marks})",
            hashed.bytes,
            size,
            *rest,
        )


@pytest.fixture
def stores(tmp_path: Path) -> dj.Stores:
    return dj.Stores({"raw": {"protocol": "file", "location": str(tmp_path / "raw")}})


@pytest.fixture
def legacy(server_url: str, stores: dj.Stores, tmp_path: Path) -> Iterator[Legacy]:
    connection = dj.Connection(server_url, stores=stores, safemode=False)
    made = Legacy(connection, f"t{uuid.uuid4().hex[:8]}_old", tmp_path / "raw")
    yield made
    made.run(f"DROP DATABASE `{made.name}`")
    connection.close()


@pytest.fixture
def old(legacy: Legacy) -> Any:
    """The virtual module of a 0.14 schema with two subjects."""
    subject = f"INSERT INTO `{legacy.name}`.`subject` VALUES (%s, %s, %s, %s, %s, %s, %s)"
    token = uuid.UUID(int=7).bytes
    attached = b"protocol.txt\0signed"
    legacy.run(subject, 1, 1, "M", token, pack(np.arange(4)), attached, "a,b")
    legacy.run(subject, 2, 0, "F", None, b"never packed", None, None)
    return dj.virtual_schema(legacy.name, connection=legacy.connection)


def test_native_columns(old: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = old.Subject.to_dicts(order_by="KEY")
    assert first["alive"] == 1
    assert first["sex"] == "M"
    assert first["token"] == uuid.UUID(int=7)
    assert first["notes"].tolist() == [0, 1, 2, 3]
    assert Path(first["protocol"]).read_bytes() == b"signed"
    assert first["flags"] == "a,b"
    assert second["notes"] == b"never packed"
    assert second["protocol"] is None
    assert old.Subject.heading["subject_id"].lineage == f"{old.schema.name}.subject.subject_id"


def test_an_adapter_that_is_not_at_hand(old: Any, legacy: Legacy) -> None:
    insert_scan(legacy, 1)
    legacy.run(f"ALTER TABLE `{legacy.name}`.`_scan` ADD `x` longblob COMMENT ':<lost_adapter>:'")
    table: Any = dj.FreeTable(dj.Connection(legacy.connection.engine.url), f"{legacy.name}._scan")
    with pytest.raises(dj.DefinitionError, match=r"_scan\.x cannot be read.*<lost_adapter>"):
        table.to_dicts()
    assert len(table.proj(..., "-x").to_dicts()) == 1


def test_hidden_tables_are_left_out(old: Any, legacy: Legacy) -> None:
    assert old.schema.list_tables() == ["subject", "_scan"]
    assert [key.parent.table for key in old.Scan.foreign_keys] == ["subject"]
    assert not [name for name in vars(old) if "xternal" in name]
    assert len(dj.FreeTable(legacy.connection, f"{legacy.name}.~log")) == 0


def insert_scan(legacy: Legacy, number: int, **values: Any) -> None:
    row = {"subject_id": 1, "scan": number, **values}
    names = ", ".join(f"`{name}`" for name in row)
    marks = ", ".join(["%s"] * len(row))
    legacy.run(f"INSERT INTO `{legacy.name}`.`_scan` ({names}) VALUES ({marks})", *row.values())


def test_external_objects(
    old: Any, legacy: Legacy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = np.arange(1000.0)
    insert_scan(
        legacy,
        1,
        movie=legacy.external(pack(frames)),
        report=legacy.external(b"all went well", "report.final.txt"),
        file=legacy.filepath("rig/2020/scan.dat", b"\0" * 100),
        graph=legacy.external(pack([[1, 2], [2, 3]])),
        mesh=pack([[3, 4]]),
    )
    insert_scan(legacy, 2)
    heading = old.Scan.heading
    kinds = [heading[name].type.text for name in ("movie", "report", "file", "graph", "mesh")]
    assert kinds == [
        "<blob@raw>",
        "<attach@raw>",
        "<filepath@raw>",
        "<old_graph@raw>",
        "<old_graph>",
    ]
    first, second = old.Scan.to_dicts(order_by="KEY")
    assert np.array_equal(first["movie"], frames)
    assert Path(first["report"]).name == "report.final.txt"
    assert Path(first["report"]).read_bytes() == b"all went well"
    assert first["file"] == str(legacy.folder / "rig/2020/scan.dat")
    assert first["graph"] == {(1, 2), (2, 3)}
    assert first["mesh"] == {(3, 4)}
    assert set(second.values()) == {1, 2, None}
    joined = (old.Subject * old.Scan.proj("movie") & "scan = 1").fetch1("movie")
    assert np.array_equal(joined, frames)


def test_files_are_copied_to_the_stage(old: Any, legacy: Legacy, tmp_path: Path) -> None:
    insert_scan(legacy, 1, file=legacy.filepath("rig/a.dat", b"raw data"))
    location, stage = str(legacy.folder), str(tmp_path / "stage")
    settings = {"protocol": "file", "location": location, "stage": stage}
    staged = dj.Connection(
        legacy.connection.engine.url, stores=dj.Stores({"raw": settings}), safemode=False
    )
    table: Any = dj.virtual_schema(old.schema.name, connection=staged)
    for _ in range(2):
        file = Path((table.Scan & {"scan": 1}).fetch1("file"))
        assert file == tmp_path / "stage" / "rig" / "a.dat"
        assert file.read_bytes() == b"raw data"
    staged.close()


def test_pointers_are_looked_up_together(old: Any, legacy: Legacy) -> None:
    for number in range(5):
        insert_scan(legacy, number, movie=legacy.external(pack(number)))
    len(old.Scan)
    queries: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        queries.append(statement)

    event.listen(legacy.connection.engine, "before_cursor_execute", note)
    assert sorted(old.Scan.to_arrays("movie")) == [0, 1, 2, 3, 4]
    assert len([query for query in queries if "~external_raw" in query]) == 1


def test_what_is_missing_or_damaged(old: Any, legacy: Legacy) -> None:
    content = pack("precious")
    insert_scan(legacy, 1, movie=legacy.external(content))
    [file] = (path for path in legacy.folder.rglob("*") if path.is_file())
    scan = old.Scan & {"scan": 1}
    file.write_bytes(content + b"?")
    with pytest.raises(dj.ChecksumError, match=r"_scan\.movie \(subject_id=1, scan=1\).*changed"):
        scan.fetch1("movie")
    file.unlink()
    with pytest.raises(dj.MissingExternalFile, match=file.name):
        scan.fetch1("movie")
    bare = dj.Connection(legacy.connection.engine.url, safemode=False)
    theirs: Any = dj.virtual_schema(legacy.name, connection=bare)
    with pytest.raises(dj.ConfigurationError, match=r"stores\.raw"):
        (theirs.Scan & {"scan": 1}).fetch1("movie")
    assert (theirs.Scan & {"scan": 1}).fetch1("subject_id") == 1
    bare.close()


def test_old_columns_are_written(old: Any, legacy: Legacy) -> None:
    legacy.folder.mkdir(exist_ok=True)
    (legacy.folder / "b.dat").write_bytes(b"b")
    values = {"movie": [1], "graph": {(1, 2), (2, 3)}, "file": "b.dat"}
    old.Scan.insert1({"subject_id": 1, "scan": 0, **values}, allow_direct_insert=True)
    found = (old.Scan & "scan = 0").fetch1()
    assert found["movie"] == [1]
    assert found["graph"] == {(1, 2), (2, 3)}
    assert Path(found["file"]).read_bytes() == b"b"
    old.Scan.insert1({"subject_id": 1, "scan": 1, "mesh": {(1, 2)}}, allow_direct_insert=True)
    assert (old.Scan & "scan = 1").fetch1("mesh") == {(1, 2)}
    old.Subject.insert1({"subject_id": 3, "notes": {"weight": 20.5}})
    assert (old.Subject & "subject_id = 3").fetch1("notes") == {"weight": 20.5}


def test_an_imported_table_with_a_key_of_its_own(old: Any, legacy: Legacy) -> None:
    schema: Any = dj.Schema(legacy.name, connection=legacy.connection)

    @schema
    class Scan(dj.Imported):
        definition = """
        -> old.Subject
        scan : smallint
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert({**key, "scan": number} for number in range(2))

    assert Scan.progress() == (2, 2)
    Scan.populate()
    assert len(Scan) == 4
    assert Scan.progress() == (0, 2)


def test_a_cascade_over_external_rows(old: Any, legacy: Legacy) -> None:
    insert_scan(legacy, 1, movie=legacy.external(pack(1)))
    assert (old.Subject & "subject_id = 1").delete(prompt=False) == 1
    assert len(old.Scan) == 0
    assert len(dj.FreeTable(legacy.connection, f"{legacy.name}.~external_raw")) == 1


def test_a_backup_has_external_objects(old: Any, legacy: Legacy, tmp_path: Path) -> None:
    insert_scan(
        legacy,
        1,
        movie=legacy.external(pack(np.arange(5))),
        report=legacy.external(b"text", "report.txt"),
        file=legacy.filepath("own/raw.bin", b"raw"),
    )

    def state() -> list[Any]:
        files = [path for path in legacy.folder.rglob("*") if path.is_file()]
        rows = [
            legacy.connection.query(f"SELECT * FROM `{legacy.name}`.`{table}`").fetchall()
            for table in ("_scan", "subject", "~external_raw", "~jobs", "~log")
        ]
        return [*rows, {path: path.read_bytes() for path in files if "own/" not in str(path)}]

    before = state()
    report = dj.backup(tmp_path / "backups", legacy.name, connection=legacy.connection)
    assert (report.objects, report.backup.problems) == (3, ())
    shutil.rmtree(legacy.folder)
    legacy.run(f"DROP DATABASE `{legacy.name}`")
    dj.restore(tmp_path / "backups", connection=legacy.connection)
    assert state() == before
    assert (legacy.folder / "own" / "raw.bin").read_bytes() == b"raw"

"""A schema that DataJoint 0.14 made gets the layout of 2.x, which DataJoint 2.3 reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import dj_dagster as dj
from dj_dagster.cli import cli
from dj_dagster.workflow.migration import Migration
from tests.compat.conftest import Eras

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses a datajoint.json
    import datajoint

OLD = """
import uuid
@schema
class Place(dj.Lookup):
    definition = '''
    place : varchar(8)  # it's a name
    '''
    contents = [("a",), ("b",)]

@schema
class Session(dj.Manual):
    definition = '''
    # sessions
    -> Place
    session : int
    ---
    good = 1 : bool  # whether
    sex = 'M' : enum('M', 'F')
    token = null : uuid
    began = null : datetime
    inside : longblob  # inside
    note = null : attach
    movie : blob@main  # outside
    report = null : attach@main
    raw = null : filepath@main
    '''

@schema
class Made(dj.Computed):
    definition = '''
    -> Session
    '''
    def make(self, key):
        raise ValueError("no")

Session.insert1(dict(place="a", session=1, good=0, token=uuid.UUID(int=7), began="2024-05-01",
    inside={"x": np.arange(3)}, movie=np.eye(100), note=files["note"], report=files["report"],
    raw=files["raw"]))
Session.insert([dict(place="b", session=n, inside=[n, "x"], movie=np.arange(n)) for n in (1, 2)])
Made.populate(reserve_jobs=True, suppress_errors=True)
"""


@pytest.fixture
def filled(eras: Eras) -> Eras:
    """A schema of 0.14 with all that it has."""
    folder = eras.stores / "stage" / eras.name
    folder.mkdir()
    for name in ("note", "report", "raw"):
        (folder / f"{name}.txt").write_text(name)
    eras.old.run(
        f"files = {{n: {str(folder)!r} + f'/{{n}}.txt' for n in ('note', 'report', 'raw')}}"
    )
    eras.old.run(OLD)
    eras.connection.catalog.forget(eras.name)
    return eras


def laid_out(eras: Eras) -> dict[str, str]:
    # Whose objects are in a store is noted for as long as there may be some.
    tables = [row[0] for row in eras.sql("SHOW TABLES FROM {}") if row[0] != "~identity"]
    return {name: eras.sql(f"SHOW CREATE TABLE {{}}.`{name}`")[0][1] for name in tables}


def check_rows(session: Any, files: bool = True) -> None:
    """Assert that the rows are those that 0.14 entered."""
    first, *others = session.to_dicts(order_by="KEY")
    assert (first["good"], first["sex"], first["token"].int) == (0, "M", 7)
    assert first["inside"]["x"].tolist() == [0, 1, 2]
    assert [row["inside"] for row in others] == [[1, "x"], [2, "x"]]
    assert np.array_equal(first["movie"], np.eye(100))
    assert [row["movie"].tolist() for row in others] == [[0], [0, 1]]
    assert [Path(first[name]).read_text() for name in ("note", "report")] == ["note", "report"]
    assert [row["report"] for row in others] == [None, None]


def test_a_schema_is_migrated_and_confirmed(filled: Eras, server_url: str, tmp_path: Path) -> None:
    migration = Migration(filled.connection, filled.name)
    counts = migration.run()
    assert {name.table: count for name, count in counts.items()} == {
        "#place": 2, "session": 3, "__made": 0,
    }  # fmt: skip
    session = dj.VirtualModule("m", filled.name, connection=filled.connection).Session
    check_rows(session)
    first = (session & "session = 1 and place = 'a'").fetch1()
    assert first["good"] is False
    assert first["raw"].read() == b"raw"
    texts = {name: a.type.text for name, a in session.heading.attributes.items()}
    assert texts == {
        "place": "varchar(8)", "session": "int", "good": "bool", "sex": "enum('M', 'F')",
        "token": "uuid", "began": "datetime", "inside": "<blob>", "note": "<attach>",
        "movie": "<blob@main>", "report": "<attach@main>", "raw": "<filepath@main>",
    }  # fmt: skip
    with pytest.raises(dj.DataJointError, match="has begun"):
        migration.run()
    migration.confirm()
    check_rows(session)
    assert not [name for name in laid_out(filled) if name.startswith(("~external", "~jobs"))]
    assert "_external" not in laid_out(filled)["session"]
    with pytest.raises(dj.DataJointError, match="no migration"):
        migration.undo()
    url = sa.make_url(server_url)
    store = {"protocol": "file", "location": str(filled.stores / "main")}
    datajoint.config["stores"] = {"default": "main", "main": store}
    datajoint.config["download_path"] = str(tmp_path)
    datajoint.logger.setLevel("ERROR")
    theirs = datajoint.Connection(
        url.host or "", url.username or "", str(url.password or ""), url.port
    )
    module: Any = datajoint.VirtualModule("module", filled.name, connection=theirs)
    wanted = module.Session
    if server_url.startswith("mysql") and not is_mariadb(filled):
        check_rows(wanted)
    else:
        # DataJoint cannot read JSON of MariaDB.
        inside = wanted.proj("good", "inside").to_dicts(order_by="KEY")
        assert [row["good"] for row in inside] == [0, 1, 1]
        assert inside[1]["inside"] == [1, "x"]
    theirs.close()


def is_mariadb(eras: Eras) -> bool:
    return "maria" in eras.sql("SELECT VERSION()")[0][0].lower()


def test_a_migration_is_undone(filled: Eras) -> None:
    before = laid_out(filled)
    migration = Migration(filled.connection, filled.name)
    migration.run()
    session = dj.VirtualModule("m", filled.name, connection=filled.connection).Session
    session.insert1({"place": "b", "session": 9, "inside": 1, "movie": 1})
    with pytest.raises(dj.DataJointError, match=r"session\.movie has 1 value "):
        migration.undo()
    (session & "session = 9").delete()
    migration.undo()
    after = laid_out(filled)
    assert after == before
    found = filled.old.run("""
        module = dj.create_virtual_module("module", schema.database)
        rows = module.Session.fetch(as_dict=True, order_by="KEY")
        read = lambda row: row["raw"] and open(row["raw"]).read()
        result = [[float(row["movie"].sum()), read(row)] for row in rows]
    """)
    assert found == [[100.0, "raw"], [0.0, None], [1.0, None]]


def test_a_migration_that_fails_leaves_the_schema_as_it_was(filled: Eras) -> None:
    before = laid_out(filled)
    objects = filled.stores / "main" / filled.name
    for path in objects.rglob("*.txt"):
        path.unlink()
    with pytest.raises(dj.MissingExternalFile):
        Migration(filled.connection, filled.name).run()
    assert laid_out(filled) == before


def test_the_command(
    filled: Eras, server_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = laid_out(filled)
    monkeypatch.setattr("dj_dagster.cli.conn", lambda: filled.connection)
    runner = CliRunner()
    told = runner.invoke(cli, ["migrate", filled.name, "--dry-run"], catch_exceptions=False)
    assert f"{filled.name}.session.good: is marked as bool" in told.output
    assert f"{filled.name}.session.movie: its pointers become references" in told.output
    assert laid_out(filled) == before
    told = runner.invoke(cli, ["migrate", filled.name], catch_exceptions=False)
    assert f"{filled.name}.session: 3 rows, all the same" in told.output
    told = runner.invoke(cli, ["migrate", filled.name, "--undo"], catch_exceptions=False)
    assert told.exit_code == 0
    assert laid_out(filled) == before
    assert runner.invoke(cli, ["migrate", filled.name, "--undo", "--confirm"]).exit_code == 2


EXTERNAL = """
CREATE TABLE {}.`~external_main` (
    `hash` binary(16) NOT NULL COMMENT ':uuid:hash', `size` bigint unsigned NOT NULL,
    `attachment_name` varchar(255) DEFAULT NULL, `filepath` varchar(1000) DEFAULT NULL,
    `contents_hash` binary(16) DEFAULT NULL COMMENT ':uuid:contents',
    `timestamp` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (`hash`)
) ENGINE=InnoDB
"""
MOVIES = """
CREATE TABLE {0}.`{1}` (
    `k` int NOT NULL PRIMARY KEY, `movie` binary(16) DEFAULT NULL COMMENT ':blob@main:',
    CONSTRAINT `{1}_movie` FOREIGN KEY (`movie`) REFERENCES {0}.`~external_main` (`hash`)
) ENGINE=InnoDB
"""


def test_what_was_changed_or_confirmed_in_part_is_not_undone(
    server_url: str, server_prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "main").mkdir()
    stores = {"main": {"protocol": "file", "location": str(tmp_path / "main")}}
    name = f"{server_prefix}old"
    with dj.Connection(server_url, stores=stores) as connection:
        connection.query(f"CREATE DATABASE {name}")
        connection.query(EXTERNAL.format(name))
        connection.query(f"CREATE TABLE {name}.`~log` (t int PRIMARY KEY)")
        for table in ("one", "two"):
            connection.query(MOVIES.format(name, table))
            old: Any = dj.Schema(name, connection=connection)
            old[table].insert([(1, [1]), (2, [2])])
        migration = Migration(connection, name)
        migration.run()
        new: Any = dj.Schema(name, connection=connection)
        new["one"].update1({"k": 1, "movie": [9]})
        new["one"].update1({"k": 2, "movie": None})
        with pytest.raises(dj.DataJointError, match=r"one\.movie has 2 values .* changed"):
            migration.undo()
        # A confirmation that was ended leaves this.
        connection.query(
            f"ALTER TABLE {name}.one DROP FOREIGN KEY one_movie, DROP COLUMN _external_movie"
        )
        with pytest.raises(dj.DataJointError, match=r"one\.movie were dropped"):
            migration.undo()
        migration.confirm()
        new = dj.Schema(name, connection=connection)
        assert new["one"].to_dicts(order_by="k") == [
            {"k": 1, "movie": [9]},
            {"k": 2, "movie": None},
        ]
        assert new["two"].to_dicts(order_by="k") == [{"k": 1, "movie": [1]}, {"k": 2, "movie": [2]}]

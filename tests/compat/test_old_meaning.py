"""What code of the era of DataJoint 0.14 means by the words of today."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dj_dagster as dj
from tests.compat.conftest import Eras


@pytest.fixture
def old_connection(database_url: str, tmp_path: Path) -> Iterator[dj.Connection]:
    """A connection for code of that era."""
    opened = dj.Connection(database_url, safemode=False, era="0.14")
    yield opened
    opened.close()


def tables(schema: Any) -> tuple[Any, Any]:
    """Two tables with attributes of one name, and no foreign key between them."""

    @schema
    class Region(dj.Lookup):
        definition = """
        region : int
        ---
        acronym : varchar(8)
        """
        contents: ClassVar[Any] = [(1, "a"), (2, "b"), (3, "c")]

    @schema
    class Cell(dj.Lookup):
        definition = """
        region : int
        cell : int
        ---
        depth : double
        """
        contents: ClassVar[Any] = [(1, 1, 0.5), (1, 2, 1.5), (2, 1, 2.5)]

    return Region, Cell


def test_the_old_meaning(old_connection: dj.Connection, schema_prefix: str) -> None:
    region, cell = tables(dj.Schema(f"{schema_prefix}old", connection=old_connection))
    assert (region & cell).fetch("acronym", order_by="region").tolist() == ["a", "b"]
    assert (region - cell).fetch("acronym").tolist() == ["c"]
    assert len(region * cell) == 3
    counts = region.aggr(cell, n="count(*)")
    assert counts.fetch("n", order_by="region").tolist() == [2, 1]
    assert len(region.aggr(cell, n="count(cell)", keep_all_rows=True)) == 3
    wider = dj.U("depth") * cell
    assert wider.primary_key == ["region", "cell", "depth"]
    assert len(cell * dj.U("depth")) == len(wider) == 3
    assert wider.fetch("depth", order_by="KEY").tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(dj.UnknownAttributeError, match="nothing"):
        _ = dj.U("nothing") * cell
    assert isinstance(region.head(2), np.ndarray)
    assert region.tail(2)["acronym"].tolist() == ["b", "c"]
    assert list(dj.Schema(f"{schema_prefix}old", connection=old_connection).jobs) == []


def related(schema: Any) -> tuple[Any, Any, Any]:
    """Tables of which two share an attribute beside their key, and one refers beside its key."""

    @schema
    class Animal(dj.Lookup):
        definition = """
        animal : int
        ---
        x : int
        notes = '' : varchar(20)
        """
        contents: ClassVar[Any] = [(1, 10, "x"), (2, 20, ""), (3, 30, "")]

    @schema
    class Scan(dj.Lookup):
        definition = """
        -> Animal
        scan : int
        ---
        y : int
        notes = '' : varchar(20)
        """
        contents: ClassVar[Any] = [(1, 1, 5, ""), (1, 2, 6, ""), (2, 1, 7, "")]

    @schema
    class Dose(dj.Lookup):
        definition = """
        dose : int
        ---
        -> Animal
        """
        contents: ClassVar[Any] = [(7, 1), (8, 2), (9, 2)]

    return Animal, Scan, Dose


def test_a_shared_name_is_in_the_key_of_one_side(
    old_connection: dj.Connection, schema_prefix: str
) -> None:
    animal, scan, dose = related(dj.Schema(f"{schema_prefix}shared", connection=old_connection))
    for query in (
        lambda: animal & scan,
        lambda: (animal - scan).delete(),
        lambda: animal & [scan],
        lambda: animal & dj.AndList([dj.Not(scan)]),
        lambda: animal * scan,
        lambda: animal.join(scan, left=True),
        lambda: animal.aggr(scan, n="count(*)"),
        lambda: animal & animal,
    ):
        with pytest.raises(dj.DataJointError, match=r"dependent attribute `(notes|x)`"):
            query()
    assert len(animal()) == 3
    assert len(animal @ scan) == len(animal ^ scan) == 1
    assert len(dj.U("notes") * animal * scan) == 1
    assert (animal & dose).fetch("animal", order_by="KEY").tolist() == [1, 2]
    assert len(animal.proj() & scan) == 2


def test_joins_have_the_keys_of_both_sides(
    old_connection: dj.Connection, schema_prefix: str
) -> None:
    animal, scan, dose = related(dj.Schema(f"{schema_prefix}joined", connection=old_connection))
    assert (animal * dose).primary_key == ["animal", "dose"]
    assert (dose @ animal).primary_key == ["dose", "animal"]
    assert dose.join(animal, left=True).primary_key == ["dose", "animal"]
    assert (animal * dose).fetch("KEY", order_by="KEY")[0] == {"animal": 1, "dose": 7}
    assert (animal.proj("x") * scan).heading.names == ["animal", "scan", "x", "y", "notes"]
    assert (scan * animal.proj("x")).heading.names == ["animal", "scan", "y", "notes", "x"]
    assert (dj.U("y", "animal") * scan).heading.names == ["animal", "scan", "y", "notes"]
    wider = animal.join(dose, left=True).fetch("dose", order_by="KEY").tolist()
    assert wider == [7, 8, 9, None]
    for joined in (dj.U("y").join(scan), scan.join(dj.U("y"))):
        assert joined.primary_key == ["animal", "scan", "y"]
    # The right side lacks a part of the left key.
    assert scan.aggr(dose, n="count(*)").fetch("n", order_by="KEY").tolist() == [1, 1, 2]
    assert dose.aggr(scan, n="count(*)").fetch("n", order_by="KEY").tolist() == [2, 1, 1]
    both = (animal * dose).aggr(scan.proj(), n="count(*)", keep_all_rows=True)
    assert both.fetch("n", order_by="KEY").tolist() == [2, 1, 1]


def test_a_key_source_has_the_keys_of_both_sides(
    old_connection: dj.Connection, schema_prefix: str
) -> None:
    schema = dj.Schema(f"{schema_prefix}source", connection=old_connection)
    animal, _, dose = related(schema)

    @schema
    class Effect(dj.Computed):
        definition = """
        -> Animal
        dose : int
        """
        key_source = animal * dose

        def make(self, key: Any) -> None:
            self.insert1(key)

    Effect.populate()
    assert Effect.fetch("animal", "dose", order_by="KEY")[0].tolist() == [1, 2, 2]


def test_names_of_tables_are_in_two_parts_on_every_database(
    old_connection: dj.Connection, schema_prefix: str
) -> None:
    """Packages look for a parent by the end of its name, and split names between the quotes."""
    name = f"{schema_prefix}named"
    schema = dj.Schema(name, connection=old_connection)

    @schema
    class Session(dj.Lookup):
        definition = "session : int"
        contents: ClassVar[Any] = [(1,), (2,)]

    @schema
    class Scan(dj.Manual):
        definition = "-> Session"

        class Field(dj.Part):
            definition = "-> master"

    session, scan, field = f"`{name}`.`#session`", f"`{name}`.`scan`", f"`{name}`.`scan__field`"
    assert (Session.full_table_name, Scan().full_table_name) == (session, scan)
    assert Scan.parents() == [session]
    assert Session.children() == [scan]
    assert Session.descendants() == [session, scan, field]
    assert Scan.Field.ancestors() == [field, scan, session]
    assert Scan.parts() == [field]
    assert Scan.parents(foreign_key_info=True)[0][0] == session
    dependencies = old_connection.dependencies
    dependencies.load()
    assert dependencies.topo_sort() == [session, scan, field]
    assert [parent for parent, _ in dependencies.parents(scan)] == [session]
    assert list((Session & "session = 1").delete(dry_run=True)) == [session]
    assert list(dj.Diagram(schema).topo_sort()) == [session, scan, field]
    assert old_connection.adapter.make_full_table_name(name, "scan") == scan
    for free in (dj.FreeTable(old_connection, session), *Scan.parents(as_objects=True)):
        assert (len(free), free.full_table_name) == (2, session)
    assert old_connection.query(f"SELECT max(session) FROM {session}").fetchone() == (2,)
    assert (Session & f"session NOT IN (SELECT max(session) FROM {session})").fetch("KEY") == [
        {"session": 1}
    ]


def test_what_is_declared_and_deleted_is_in_the_log(
    old_connection: dj.Connection, schema_prefix: str
) -> None:
    schema = dj.Schema(f"{schema_prefix}log", connection=old_connection)
    region, _ = tables(schema)
    region.definition += "note = null : varchar(8)"
    assert region.alter(prompt=False)
    (region & "region = 1" & {"acronym": "a"}).delete()
    old_connection.start_transaction()
    region.delete()
    old_connection.cancel_transaction()
    region.drop_quick()
    schema.log("moved")
    name = f"`{schema.name}`.`#region`"
    assert schema.log.fetch("event", order_by="id").tolist() == [
        "created",
        f"Declared {name}",
        f"Declared `{schema.name}`.`#cell`",
        f"Altered {name}",
        f"DELETE FROM {name} WHERE ( (`region`=1))",
        f"DROP TABLE {name}",
        "moved",
    ]
    assert len(schema.log & 'event LIKE "Declared%%"') == 2
    assert (schema.log & "event = 'moved'").delete() == 1
    assert set(schema.log.fetch("version")) == {"dj_dagster"}
    assert schema.list_tables() == ["#cell"]


def test_errors_that_are_due_to_the_era_name_the_way_back(schema: Any) -> None:
    region, cell = tables(schema)
    for query in (
        lambda: region & cell,
        lambda: region - cell,
        lambda: region * cell,
        lambda: dj.U("depth") * cell,
        lambda: cell * dj.U("depth"),
    ):
        with pytest.raises(dj.QueryError, match=r"replace_datajoint\(era='0\.14'\)"):
            query()


def test_packages_of_the_old_era(tmp_path: Path) -> None:
    code = f"""
import dj_dagster
dj_dagster.replace_datajoint(era="0.14")
import datajoint as dj
dj.config["database.url"] = "sqlite:///{tmp_path}/lab.sqlite"
schema = dj.schema("names")

@schema
class One(dj.Lookup):
    definition = "n : int"
    contents = [(1,), (2,)]

@schema
class Other(dj.Lookup):
    definition = "n : int"
    contents = [(2,), (3,)]

assert (One & Other).fetch("n").tolist() == [2]
assert One.head(1).dtype.names == ("n",)
try:
    dj_dagster.replace_datajoint(era="0.13")
except dj.errors.DataJointError as error:
    assert "0.13" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_new_schemas_of_old_code_are_in_its_layout(
    server_url: str, tmp_path: Path, server_prefix: str
) -> None:
    connection = dj.Connection(server_url, safemode=False, era="0.14")
    schema = dj.Schema(f"{server_prefix}laid_out", connection=connection)
    region, _ = tables(schema)
    with connection.cursor() as session:
        name = region.full_table_name
        text = session.exec_driver_sql(f"SHOW CREATE TABLE {name}").fetchall()[0][1]
    assert "varchar(8) NOT NULL" in text
    assert "COMMENT" not in text
    schema.drop()
    connection.close()


def test_external_objects_on_sqlite_are_those_that_rows_refer_to(tmp_path: Path) -> None:
    stores = {"raw": {"protocol": "file", "location": str(tmp_path / "raw")}}
    lab = dj.Instance(database__url="sqlite://", stores=stores, era="0.14", safemode=False)
    schema = lab.Schema("lab")
    assert list(schema.external) == []
    assert schema.external["raw"].fetch("hash", "filepath", as_dict=True) == []

    @schema
    class Movie(dj.Manual):
        definition = """
        movie : int
        ---
        frames = null : blob@raw
        file = null : filepath@raw
        """

    (tmp_path / "raw" / "own").mkdir(parents=True)
    (tmp_path / "raw" / "own" / "a.nwb").write_text("content")
    Movie.insert([{"movie": 1, "frames": 1}, {"movie": 2, "frames": 1}, {"movie": 3, "frames": 2}])
    Movie.insert1({"movie": 4, "file": str(tmp_path / "raw" / "own" / "a.nwb")})
    external = schema.external["raw"]
    assert list(schema.external) == ["raw"]
    assert external.full_table_name == "`lab`.`~external_raw`"
    assert external.spec["location"] == stores["raw"]["location"]
    columns = [(each["referencing_table"], each["column_name"]) for each in external.references]
    assert columns == [(Movie.full_table_name, "frames"), (Movie.full_table_name, "file")]
    assert (len(external), len(external.used()), len(external.unused())) == (3, 3, 0)
    file = (external & "filepath LIKE '%.nwb'" & {"size": 7}).fetch1()
    key = uuid.UUID(hashlib.md5(b"own/a.nwb").hexdigest())
    assert (file["hash"], file["filepath"]) == (key, "own/a.nwb")
    places = {str(path) for _, path in external.fetch_external_paths()}
    assert sum(Path(place).is_file() for place in places) == 3
    (Movie & "movie IN (1, 3)").delete()
    external = schema.external["raw"]
    assert (len(external), len(external.used()), len(external.unused())) == (3, 2, 1)
    assert external.unused().fetch1("filepath") is None
    # It is young.
    assert external.delete(delete_external_files=True, display_progress=False) == []
    assert len(schema.external["raw"].unused()) == 1
    with pytest.raises(dj.DataJointError, match="delete_external_files"):
        external.delete()
    with pytest.raises(dj.MissingTableError, match="'none'"):
        _ = schema.external["none"]
    with pytest.raises(dj.MissingTableError, match="gc"):
        _ = dj.Instance(database__url="sqlite://", stores=stores).Schema("lab").external["raw"]


def test_external_objects_of_a_schema(eras: Eras) -> None:
    schema = eras.schema(era="0.14")

    @schema
    class Movie(dj.Manual):
        definition = """
        movie : int
        ---
        frames = null : blob@main
        poster = null : attach@main
        raw = null : filepath@main
        """

    folder = eras.stores / "stage" / eras.name
    folder.mkdir()
    for name in ("poster", "raw"):
        (folder / f"{name}.txt").write_text(name)
    paths = {name: str(folder / f"{name}.txt") for name in ("poster", "raw")}
    Movie.insert([{"movie": 1, "frames": 1, **paths}, {"movie": 2, "frames": 2}])
    external = schema.external["main"]
    assert len(external) == 4
    assert (len(external.used()), len(external.unused())) == (4, 0)
    theirs = eras.old.run("""
        result = sorted(str(p) for _, p in schema.external["main"].fetch_external_paths())
    """)
    places = {str(path) for _, path in external.fetch_external_paths()}
    assert places == set(theirs)
    (Movie & "movie = 1").delete()
    assert len(external.unused()) == 3
    with pytest.raises(dj.DataJointError, match="delete_external_files"):
        external.delete()
    assert external.delete(delete_external_files=True) == []
    assert len(external) == 1
    assert sum(Path(place).exists() for place in places) == 1
    assert list(schema.external) == ["main"]
    with pytest.raises(dj.MissingTableError, match="'none'"):
        _ = dj.Schema(f"{eras.name}_new", connection=eras.connection).external["none"]

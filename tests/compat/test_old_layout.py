"""Tables that ours declares beside DataJoint 0.14, in a schema of that era, and their values."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dj_dagster as dj
from tests.compat.conftest import Eras

DEFINITIONS = {
    "Place": """
    # where it is
    place : int unsigned  # number
    token : uuid          # of the rig
    """,
    "Session": """
    # a session
    -> Place
    session : smallint    # counted
    ---
    -> [nullable] Place.proj(next_place="place", next_token="token")
    good=1 : bool         # whether it is
    rate=1.5 : float
    exact : double
    sex='U' : enum('M','F','U')
    name="x" : varchar(30)  # of it
    price=null : decimal(6,2)
    day : date
    began : datetime
    ended=null : timestamp
    data=null : longblob  # inside
    small=null : tinyblob
    usual=null : BLOB     # not long
    medium=null : mediumblob
    note=null : attach    # inside too
    movie=null : blob@main
    report=null : attach@main  # outside
    raw=null : filepath@main
    unique index (name, day)
    index (day)
    """,
}
ROW = {
    "place": 1, "session": 2, "good": 0, "rate": 0.25, "exact": 0.1, "sex": "F", "name": "it",
    "price": 2.5, "day": "2024-05-01", "began": "2024-05-01 10:11:12",
}  # fmt: skip
TOKEN = uuid.UUID("12345678-1234-1234-1234-123456789abc")


def declared(schema: Any, *names: str) -> list[Any]:
    """Return our classes of the definitions."""
    tables: dict[str, Any] = {}
    for name in names or DEFINITIONS:
        made = type(name, (dj.Manual,), {"definition": DEFINITIONS[name]})
        tables[name] = schema(made, context=tables) if tables else schema(made)
    return list(tables.values())


def classes(prefix: str = "") -> str:
    """Return the code of the same classes for 0.14."""
    return "".join(
        f"@schema\nclass {prefix}{name}(dj.Manual):\n    definition = '''{text}'''\n"
        for name, text in DEFINITIONS.items()
    )


@pytest.fixture
def tables(eras: Eras) -> tuple[Any, Any]:
    """Tables that ours has declared in a schema of 0.14, which knows them as well."""
    schema = eras.schema(era="0.14")
    place, session = declare_ours(schema)
    eras.old.run(classes())
    return place, session


def declare_ours(schema: Any) -> tuple[Any, Any]:
    @schema
    class Place(dj.Manual):
        definition = DEFINITIONS["Place"]

    @schema
    class Session(dj.Manual):
        definition = DEFINITIONS["Session"]

    return Place, Session


def created(eras: Eras, table: str, schema: str = "") -> list[str]:
    text = eras.sql(f"SHOW CREATE TABLE `{schema or eras.name}`.`{table}`")[0][1]
    text = re.sub(r"`t\w+`\.", "", text.replace(schema or eras.name, ""))
    return sorted(
        re.sub(r"CONSTRAINT `\w+`|,$| AUTO_INCREMENT=\d+", "", line).strip()
        for line in text.splitlines()
    )


def test_tables_are_declared_as_0_14_does(eras: Eras, tables: Any, server_url: str) -> None:
    other = f"{eras.name}_theirs"
    eras.old.run(f"schema = dj.schema({other!r})\n{classes()}")
    for table in ("place", "session", "~external_main", "~log"):
        assert created(eras, table) == created(eras, table, other)
    assert eras.sql("SHOW TABLES FROM {} LIKE '~lineage'") == []
    eras.old.run(f"schema.drop(force=True); schema = dj.schema({eras.name!r})")


def test_a_schema_stays_of_its_era(eras: Eras) -> None:
    eras.old.run(classes())
    eras.connection.catalog.forget(eras.name)
    schema = eras.schema()

    @schema
    class Kind(dj.Lookup):
        definition = """
        kind : varchar(8)  # a name
        ---
        weight : int32
        flag : bool
        data : <blob@>
        """

    theirs = eras.old.run("""
        module = dj.create_virtual_module("module", schema.database)
        result = {a.name: a.type for a in module.Kind.heading.attributes.values()}
    """)
    assert theirs == {
        "kind": "varchar(8)", "weight": "int", "flag": "tinyint", "data": "blob@main",
    }  # fmt: skip


def test_new_schemas_are_of_todays_era(eras: Eras) -> None:
    name = f"{eras.name}_new"
    schema = dj.Schema(name, connection=eras.connection)

    @schema
    class Plain(dj.Manual):
        definition = """
        plain : int
        """

    @schema
    class Kind(dj.Manual):
        definition = """
        kind : varchar(8)
        """

    assert "':varchar(8):'" in str(eras.sql(f"SHOW CREATE TABLE `{name}`.`kind`"))
    with pytest.raises(dj.ConfigurationError, match=r"'0\.13'"):
        dj.Schema(name, connection=eras.connection, era="0.13")


@pytest.mark.parametrize("kind", ["<npy@main>", "<object@main>", "<hash@main>", "bytes"])
def test_types_that_0_14_does_not_know_are_refused(eras: Eras, kind: str) -> None:
    schema = eras.schema(era="0.14")
    table = type("Odd", (dj.Manual,), {"definition": f"odd : int\n---\nvalue : {kind}"})
    with pytest.raises(dj.DefinitionError, match=r"odd\.value.*DataJoint 0\.14.*migrate"):
        schema(table)


def files(eras: Eras, word: str) -> dict[str, str]:
    """Return paths of files to attach and to place."""
    folder = eras.stores / "stage" / eras.name
    folder.mkdir(exist_ok=True)
    for name in ("note", "report", "raw"):
        (folder / f"{name}.{word}.txt").write_text(f"{name} {word}")
    return {name: str(folder / f"{name}.{word}.txt") for name in ("note", "report", "raw")}


def test_values_of_ours_are_read_by_0_14(eras: Eras, tables: Any) -> None:
    place, session = tables
    place.insert1((1, TOKEN))
    data = {"x": np.arange(3), "y": [1, None, "z"]}
    row = {**ROW, "token": TOKEN, "data": data, "movie": np.eye(200), **files(eras, "ours")}
    session.insert1(row)
    session.insert1({**ROW, "token": TOKEN, "session": 3, "name": "b", "data": b"raw"})
    found = eras.old.run("""
        row = (Session & "session = 2").fetch1()
        result = {
            "token": str(row["token"]), "good": row["good"], "rate": row["rate"],
            "data": [row["data"]["x"].tolist(), row["data"]["y"]],
            "movie": [row["movie"].shape, float(row["movie"].sum())],
            "files": [open(row[name]).read() for name in ("note", "report", "raw")],
            "raw": row["raw"], "bytes": (Session & "session = 3").fetch1("data").decode(),
            "unused": len(schema.external["main"].unused()),
        }
    """)
    assert found == {
        "token": str(TOKEN), "good": 0, "rate": 0.25, "data": [[0, 1, 2], [1, None, "z"]],
        "movie": [[200, 200], 200.0], "files": ["note ours", "report ours", "raw ours"],
        "raw": row["raw"], "bytes": "raw", "unused": 0,
    }  # fmt: skip
    ours = (session & "session = 2").fetch1()
    assert np.array_equal(ours["movie"], np.eye(200))
    assert [Path(ours[name]).read_text() for name in ("note", "report", "raw")] == found["files"]


def test_values_of_0_14_are_read_and_changed_by_ours(eras: Eras, tables: Any) -> None:
    _, session = tables
    row = {**ROW, **files(eras, "theirs")}
    eras.old.run(f"""
        import uuid
        token = uuid.UUID({str(TOKEN)!r})
        Place.insert1((1, token))
        Session.insert1(dict({row!r}, token=token, data=[1, "a"], movie=np.arange(5)))
    """)
    ours = session.fetch1()
    assert ours["data"] == [1, "a"]
    assert ours["movie"].tolist() == [0, 1, 2, 3, 4]
    assert [Path(ours[name]).read_text() for name in ("note", "report", "raw")] == [
        "note theirs", "report theirs", "raw theirs",
    ]  # fmt: skip
    key = session.fetch1("KEY")
    session.update1({**key, "movie": np.arange(7), "good": True})
    assert eras.old.run("result = [Session.fetch1('movie').size, int(Session.fetch1('good'))]") == [
        7,
        1,
    ]
    assert eras.old.run("result = len(schema.external['main'].unused())") == 1
    session.delete()
    assert eras.old.run("result = len(schema.external['main'].unused())") == 4


def test_objects_are_kept_once(eras: Eras, tables: Any) -> None:
    place, session = tables
    place.insert1((1, TOKEN))
    eras.old.run("schema.external['main'].put(dj.blob.pack(np.arange(4)))")
    rows = [{**ROW, "token": TOKEN, "session": n, "name": str(n)} for n in range(3)]
    session.insert({**row, "movie": np.arange(4)} for row in rows)
    assert len(eras.sql("SELECT hash FROM {}.`~external_main`")) == 1
    assert [movie.size for movie in session.fetch("movie")] == [4, 4, 4]


def test_files_that_cannot_be_placed_are_refused(eras: Eras, tables: Any, tmp_path: Path) -> None:
    place, session = tables
    place.insert1((1, TOKEN))
    row = {**ROW, "token": TOKEN}
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("")
    with pytest.raises(dj.InvalidValueError, match="lies in neither"):
        session.insert1({**row, "raw": str(elsewhere)})
    with pytest.raises(dj.InvalidValueError, match="There is no file"):
        session.insert1({**row, "raw": "nowhere.txt"})
    with pytest.raises(dj.InvalidValueError, match="cannot be attached"):
        session.insert1({**row, "report": str(tmp_path / "gone.txt")})
    with pytest.raises(dj.InvalidValueError, match="path of a file"):
        session.insert1({**row, "report": 3})
    paths = files(eras, "twice")
    session.insert1({**row, "raw": paths["raw"]})
    Path(paths["raw"]).write_text("another")
    with pytest.raises(dj.InvalidValueError, match="A different version"):
        session.insert1({**row, "session": 9, "name": "c", "raw": paths["raw"]})
    assert len(session) == 1


def test_rows_of_a_make_point_to_their_objects(eras: Eras) -> None:
    schema = eras.schema(era="0.14")

    @schema
    class Source(dj.Lookup):
        definition = "n : int"
        contents: ClassVar[Any] = [(n,) for n in range(3)]

    @schema
    class Made(dj.Computed):
        definition = """
        -> Source
        ---
        values : blob@main
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "values": np.full(3, key["n"])})

    Made.populate()
    module = 'dj.create_virtual_module("module", schema.database)'
    found = eras.old.run(
        f"result = [v.tolist() for v in {module}.Made.fetch('values', order_by='n')]"
    )
    assert found == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_tables_are_altered_in_their_layout(eras: Eras) -> None:
    eras.old.run(classes())
    eras.connection.catalog.forget(eras.name)
    schema = eras.schema()
    _, session = declare_ours(schema)
    before = created(eras, "session")
    session.alter(prompt=False)
    assert created(eras, "session") == before
    session.definition = session.definition.replace(
        "report=null : attach@main  # outside", "report=null : attach@main  # elsewhere"
    ).replace(
        "    unique index",
        '    more="" : varchar(8)\n    movie2=null : blob@main\n    unique index',
    )
    session.alter(prompt=False)
    new = [line for line in created(eras, "session") if line not in before]
    assert [line.split()[0] for line in new if line.startswith("`")] == [
        "`more`", "`movie2`", "`report`",
    ]  # fmt: skip
    assert not any(":varchar" in line for line in created(eras, "session"))
    session.definition = session.definition.replace("    movie=null : blob@main\n", "")
    session.alter(prompt=False)
    found = eras.old.run("""
        module = dj.create_virtual_module("module", schema.database)
        result = [str(module.Session.heading[name].type) for name in ("more", "movie2", "report")]
    """)
    assert found == ["varchar(8)", "blob@main", "attach@main"]
    assert "movie" not in session.heading.names

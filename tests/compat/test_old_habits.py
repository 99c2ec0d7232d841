"""What published code of the era of DataJoint 0.14 does, and its documentation does not mention."""

from __future__ import annotations

import datetime
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dj_dagster as dj


@pytest.fixture
def old_schema(database_url: str, schema_prefix: str, tmp_path: Path) -> Iterator[Any]:
    """A schema for code of that era, with a store in a folder of files."""
    (tmp_path / "files").mkdir()
    stores = dj.Stores({"files": {"protocol": "file", "location": str(tmp_path / "files")}})
    connection = dj.Connection(
        database_url, safemode=False, era="0.14", stores=stores, download_path=tmp_path / "copies"
    )
    yield dj.Schema(f"{schema_prefix}old", connection=connection)
    connection.close()


def test_a_reference_may_rename_attributes_that_it_leaves_out(schema: Any) -> None:
    @schema
    class Fit(dj.Manual):
        definition = """
        fit : int
        ---
        file : varchar(20)
        """

    @schema
    class Pair(dj.Manual):
        definition = """
        -> Fit.proj(left='fit', left_file='file')
        -> Fit.proj(right='fit', right_file='file')
        """

    assert Pair.heading.names == ["left", "right"]

    class Wrong(dj.Manual):
        definition = "-> Fit.proj(left='fitt')"

    with pytest.raises(dj.DefinitionError, match="renames 'fitt', which is not in its key"):
        schema(Wrong)


def test_a_class_may_write_its_definition_when_it_is_made(schema: Any) -> None:
    seen: list[tuple[str, bool]] = []

    class Managed:
        def __init__(self) -> None:
            super().__init__()
            seen.append((self.database, self.is_declared))
            self.definition = "number : int"

    @schema
    class Sample(Managed, dj.Manual):
        definition = "This is written elsewhere"

    assert seen[0] == (schema.name, False)
    assert Sample.heading.names == ["number"]
    assert not Sample.alter(prompt=False)

    class Failing(Managed, dj.Manual):
        def __init__(self) -> None:
            super().__init__()
            self.definition = "nothing of a definition"

    with pytest.raises(dj.DefinitionError, match="Failing"):
        schema(Failing)
    with pytest.raises(dj.DataJointError, match="Failing belongs to no schema yet"):
        Failing()


def test_methods_of_a_class_are_called_with_what_the_user_gave(schema: Any) -> None:
    calls: list[Any] = []

    class Watched:
        def insert(self, rows: Any, **options: Any) -> None:
            calls.append(options)
            super().insert([{**row, "note": "own"} for row in rows], **options)

        def restrict(self, restriction: Any) -> Any:
            calls.append(restriction)
            return super().restrict(restriction)

        def join(self, other: Any, **options: Any) -> Any:
            calls.append(options)
            return super().join(other, **options)

    @schema
    class Sample(Watched, dj.Manual):
        definition = """
        number : int
        ---
        note : varchar(8)
        """

    Sample.insert1({"number": 1, "note": "given"})
    Sample.insert1({"number": 1, "note": "given"}, skip_duplicates=True)
    assert calls == [{}, {"skip_duplicates": True}]
    assert Sample().fetch("note").tolist() == ["own"]
    calls.clear()
    assert len(Sample & {"number": 1}) == 1
    assert len(Sample - {"number": 1}) == 0
    assert len(Sample & dj.AndList([{"number": 1}, dj.Top(1)])) == 1
    assert calls[0] == {"number": 1}
    assert isinstance(calls[1], dj.Not)
    assert calls[3] == {"number": 1}
    calls.clear()
    Sample().extend(Sample().proj())
    assert calls == [{"left": True}]


def test_a_time_zone_is_left_out(old_schema: Any, schema: Any) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    row = {
        "number": 1,
        "start": datetime.datetime(2024, 5, 1, 12, 30, tzinfo=zone),
        "clock": datetime.time(9, 5, tzinfo=zone),
    }

    class Session(dj.Manual):
        definition = """
        number : int
        ---
        start : datetime
        clock : time
        """

    session = old_schema(Session)
    session.insert1(row)
    session.update1(row)
    assert session.fetch1("start") == datetime.datetime(2024, 5, 1, 12, 30)
    assert session.fetch1("clock") == datetime.timedelta(hours=9, minutes=5)

    @schema
    class Today(dj.Manual):
        definition = Session.definition

    with pytest.raises(dj.DataJointError, match="keeps no time zone"):
        Today.insert1(row)


def test_conditions_are_spelled_as_programs_look_for_them(schema: Any) -> None:
    @schema
    class Merge(dj.Manual):
        definition = """
        merge_id : uuid
        ---
        source : varchar(32)
        size : int
        weight = null : decimal(4,1)
        """

    keys = [uuid.uuid4() for _ in range(3)]
    names = ["It's", 'a "quote"', "back\\slash 5%"]
    Merge.insert(
        {"merge_id": key, "source": name, "size": number, "weight": [None, 1, 2][number]}
        for number, (key, name) in enumerate(zip(keys, names, strict=True))
    )

    def text(restriction: Any) -> Any:
        return dj.condition.make_condition(Merge(), restriction, set())

    assert '(`source`="It\'s")' in text({"source": "It's"})
    assert text({"size": 1, "weight": None}) == " (`size`=1)AND(`weight` IS NULL)"
    assert text({"elsewhere": 1}) is True
    for restriction in (
        *({"source": name} for name in names),
        {"merge_id": keys[1]},
        [{"merge_id": key} for key in keys[:2]],
        [{"merge_id": keys[0], "size": 0}, "size = 2"],
        dj.Not({"merge_id": keys[0]}),
        dj.Not({"weight": 1}),
        (Merge & {"merge_id": keys[0]}).proj(),
    ):
        found = (Merge & text(restriction)).fetch("size", order_by="size").tolist()
        assert found == (Merge & restriction).fetch("size", order_by="size").tolist()
        assert len(found) < 3


def test_what_restricts_a_query_restricts_another(schema: Any) -> None:
    @schema
    class Sample(dj.Manual):
        definition = """
        sample : int
        ---
        note : varchar(8)
        """

    Sample.insert([(1, "a"), (2, "b"), (3, "b")])
    query = Sample & {"note": "b"} & "sample > 2"
    assert query.restriction == [' (`note`="b")', " (sample > 2)"]
    assert (Sample & query.restriction).fetch("sample").tolist() == [3]
    assert not Sample().restriction
    assert not query.proj().restriction
    assert (Sample & False).restriction == ["FALSE"]
    assert len(Sample & (Sample & False).restriction) == 0


def test_the_version_is_that_of_the_era(tmp_path: Path) -> None:
    code = """
import dj_dagster as dj
dj.replace_datajoint(era="0.14")
import datajoint
assert datajoint.__version__ == datajoint.version.__version__ == "0.14.10"
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_sql_of_a_query_can_be_run(schema: Any) -> None:
    @schema
    class Sample(dj.Manual):
        definition = """
        sample : uuid
        ---
        raw : bytes
        """

    key = {"sample": uuid.uuid4()}
    Sample.insert1({**key, "raw": b"\x00'\xff"})
    query = Sample & key
    assert len(query.connection.query(query.make_sql()).fetchall()) == 1
    assert query.heading.as_sql(query.primary_key) == "`sample`"


def test_arguments_have_the_names_of_datajoint(schema: Any) -> None:
    again = dj.Schema(schema_name=schema.name, connection=schema.connection)

    @again
    class Sample(dj.Manual):
        definition = "sample : int"

    table = dj.FreeTable(conn=schema.connection, full_table_name=Sample.full_table_name)
    assert table.heading.names == ["sample"]


def test_the_log_tells_what_is_made(schema: Any, caplog: pytest.LogCaptureFixture) -> None:
    @schema
    class Number(dj.Lookup):
        definition = "number : int"
        contents: ClassVar[Any] = [(1,), (2,)]

    @schema
    class Half(dj.Computed):
        definition = "-> Number"

        def make(self, key: dict[str, Any]) -> None:
            if key["number"] % 2:
                raise ValueError("it is odd")
            self.insert1(key)

    name = Half.full_table_name
    with caplog.at_level("DEBUG", logger=dj.logger.name):
        Half.populate(suppress_errors=True)
    assert [m for m in caplog.messages if "aking" in m] == [
        f"Making {{'number': 1}} -> {name}",
        f"Error making {{'number': 1}} -> {name} - ValueError: it is odd",
        f"Making {{'number': 2}} -> {name}",
        f"Success making {{'number': 2}} -> {name}",
    ]


def test_where_a_heading_is_from(schema: Any) -> None:
    @schema
    class Sample(dj.Manual):
        definition = "sample : int"

    info = Sample.heading.table_info
    assert info == {"database": schema.name, "table_name": "sample", "context": None}
    assert Sample.proj(double="2 * sample").heading.table_info is None


def test_a_file_is_fetched_as_its_path(old_schema: Any, tmp_path: Path) -> None:
    @old_schema
    class Recording(dj.Manual):
        definition = """
        recording : int
        ---
        file : filepath@files
        """

    file = tmp_path / "files" / "day" / "one.txt"
    file.parent.mkdir()
    file.write_text("content")
    Recording.insert1((1, str(file)))
    assert Recording.fetch1("file") == str(file)
    file.write_text("changed")
    with pytest.raises(dj.DataJointError, match=r"one\.txt"):
        Recording.fetch1("file")


def test_the_default_connection_is_at_hand(tmp_path: Path) -> None:
    code = """
import dj_dagster as dj
assert not hasattr(dj.conn, "connection")
connection = dj.conn()
assert dj.conn.connection is connection
assert dj.conn(reset=True) is dj.conn.connection is not connection
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_nulls_of_named_floats_are_nan(old_schema: Any) -> None:
    @old_schema
    class Mouse(dj.Manual):
        definition = """
        mouse : int
        ---
        weight = null : float
        litter = null : int
        """

    Mouse.insert1({"mouse": 1})
    assert np.isnan(Mouse.fetch1("weight"))
    weight, litter = Mouse.fetch1("weight", "litter")
    assert np.isnan(weight)
    assert litter is None
    (row,) = Mouse.fetch("KEY", "weight", as_dict=True)
    assert (row["mouse"], np.isnan(row["weight"])) == (1, True)
    assert Mouse.fetch1() == {"mouse": 1, "weight": None, "litter": None}
    assert isinstance(Mouse.fetch("mouse", "weight"), list)
    assert Mouse.fetch(format="frame")["litter"].tolist() == [None]

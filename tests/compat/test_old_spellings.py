"""Calls and definitions in the spelling of DataJoint 0.13 and 0.14."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj


@pytest.fixture
def session(schema: Any) -> Any:
    @schema
    class Session(dj.Manual):
        definition = """  # an old definition
        subject : varchar(16)
        session : smallint unsigned
        ---
        rate = null : float
        good = 1 : boolean
        trace = null : longblob
        """

    Session.insert(
        [
            ("a", 1, 1.5, True, np.eye(1, 3)),
            {"subject": "a", "session": 2, "rate": None, "good": 0},
            ("b", 1, 2.5, 1, {"x": (1, None)}),
        ]
    )
    return Session


def test_fetch_of_whole_rows(session: Any) -> None:
    rows = session.fetch(order_by="KEY")
    assert isinstance(rows, np.ndarray)
    assert rows["session"].tolist() == [1, 2, 1]
    assert rows[0]["subject"] == "a"
    dicts = session.fetch(as_dict=True, order_by=("session DESC", "subject"), limit=2)
    assert [(d["subject"], d["session"]) for d in dicts] == [("a", 2), ("a", 1)]
    frame = session().fetch(format="frame", order_by="KEY", offset=1, limit=1)
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.tolist() == [("a", 2)]
    assert len(session.fetch("KEY", limit=2)) == 2
    with pytest.raises(dj.QueryError, match="format"):
        session.fetch("rate", format="frame")
    with pytest.raises(dj.QueryError, match="'frames'"):
        session.fetch(format="frames")


def test_fetch_of_attributes(session: Any) -> None:
    query = session & "rate is not null"
    assert query.fetch("rate", order_by="rate").tolist() == [1.5, 2.5]
    keys, rates = query.fetch("KEY", "rate", order_by="rate DESC")
    assert keys == [{"subject": "b", "session": 1}, {"subject": "a", "session": 1}]
    assert rates.tolist() == [2.5, 1.5]
    assert query.fetch(dj.key, order_by="KEY") == keys[::-1]
    assert query.fetch("KEY", "rate", as_dict=True, order_by="rate")[0] == {
        "subject": "a", "session": 1, "rate": 1.5,
    }  # fmt: skip
    assert query.fetch("rate", as_dict=True, order_by="rate") == [{"rate": 1.5}, {"rate": 2.5}]
    (trace,) = (session & {"subject": "a"} & "session = 1").fetch("trace", squeeze=True)
    assert trace.shape == (3,)


def test_fetch1(session: Any) -> None:
    one = session & {"subject": "b"}
    assert one.fetch1("KEY") == {"subject": "b", "session": 1}
    rate, key = one.fetch1("rate", "KEY")
    assert (rate, key) == (2.5, {"subject": "b", "session": 1})
    assert one.fetch1()["trace"] == {"x": (1, None)}
    with pytest.raises(dj.DataJointError, match="exactly one"):
        session.fetch1("KEY")


def test_rows_in_the_order_of_what_is_not_fetched(session: Any) -> None:
    by_rate = session.fetch("session", "subject", order_by="rate")
    rows = session.fetch("subject", "session", as_dict=True, order_by="rate")
    assert [row["session"] for row in rows] == by_rate[0].tolist()
    assert list(rows[0]) == ["subject", "session"]
    keys = session.fetch("KEY", as_dict=True, order_by="rate DESC", limit=1)
    assert keys == [{"subject": by_rate[1][-1], "session": by_rate[0][-1]}]


def test_head_and_tail(session: Any) -> None:
    assert session.head(1)[0]["subject"] == "a"
    assert session.head(2, as_dict=True)[1]["session"] == 2
    assert session.tail(1, format="frame").index.tolist() == [("b", 1)]


def test_operators_that_ask_no_meaning(schema: Any, session: Any) -> None:
    @schema
    class Room(dj.Lookup):
        definition = """
        subject : varchar(16)
        ---
        floor : int
        """
        contents = zip(["a", "c"], [1, 2], strict=True)

    assert (session ^ Room).fetch("session", order_by="session").tolist() == [1, 2]
    assert (session() ^ (Room & "floor = 2")).fetch("KEY") == []
    assert len(session @ Room) == 2
    with pytest.raises(dj.DataJointError):
        _ = session & Room


def test_algebra(session: Any) -> None:
    assert dj.U().aggr(session, n="max(session)").fetch1("n") == 2
    assert dj.U("subject").aggr(session, n="count(*)").fetch("n", order_by="subject").tolist() == [
        2,
        1,
    ]
    assert (dj.U("good") & session).fetch("good").tolist().count(True) == 1
    assert session.proj(..., "-trace").heading.names == ["subject", "session", "rate", "good"]
    assert session.proj("rate", animal="subject").fetch("animal", order_by="KEY")[0] == "a"
    assert len(session & dj.AndList([{"subject": "a"}, "session = 1"])) == 1
    assert len(session & dj.Not({"subject": "a"})) == len(session - {"subject": "a"}) == 1
    assert {"subject": "b"} in session()


def test_a_doubled_percent_sign_is_one(session: Any) -> None:
    computed = session.proj(month="date_format('2021-01-02', '%%Y-%%m')", odd="session %% 2")
    assert set(computed.fetch("month")) == {"2021-01"}
    assert {row["odd"] for row in computed} == {n % 2 for n in session.fetch("session")}
    total = dj.U("subject").aggr(session, odd="sum(session %% 2)")
    assert set(total.fetch("odd")) <= {0, 1, 2}
    assert len(session & "subject like '%%'") == len(session.fetch(order_by="session %% 2"))


def test_queries_as_sql(session: Any) -> None:
    query = (session & {"subject": "a"} & "session > 1") * session.proj(other="rate")
    assert session.is_declared
    assert len(session.connection.query(query.make_sql()).fetchall()) == 1
    assert "other" not in query.make_sql(["rate"])
    assert (session & {"trace": None}).make_sql()


def test_aggr_and_rows_that_match_nothing(schema: Any, session: Any) -> None:
    @schema
    class Trial(dj.Manual):
        definition = """
        -> session
        trial : int
        """

    Trial.insert1(("a", 1, 7))
    counts = {"n": "count(trial)"}
    assert len(session.aggr(Trial, **counts, keep_all_rows=False)) == 1
    assert len(session.aggr(Trial, **counts, keep_all_rows=True)) == 3
    assert session.aggregate(Trial, **counts, keep_all_rows=False).fetch1("n") == 1


def test_delete(schema: Any) -> None:
    @schema
    class Scan(dj.Manual):
        definition = """
        scan : int
        """

        class File(dj.Part):
            definition = """
            -> master
            file : varchar(16)
            """

    Scan.insert(zip([1, 2, 3]))
    Scan.File.insert([(scan, f"{n}.tif") for scan in (1, 2, 3) for n in (1, 2)])
    assert (Scan & "scan = 1").delete(safemode=False) == 1
    assert (Scan.File & {"scan": 2, "file": "1.tif"}).delete(force=True) == 1
    assert (Scan.File & {"scan": 2}).delete(force_masters=True, safemode=False) == 1
    assert Scan.fetch("scan").tolist() == [3]
    assert (Scan.File & {"scan": 3}).delete_quick(get_count=True) == 2
    Scan.File.drop(force=True, safemode=False)
    assert schema.list_tables() == ["scan"]


def test_computed_tables(schema: Any, session: Any) -> None:
    @schema
    class Method(dj.Lookup):
        definition = """
        method : varchar(16)
        """
        contents: ClassVar[Any] = zip(["mean", "max"])

    @schema
    class Unit(dj.Computed):
        definition = """  # rows and a key attribute of its own for each key
        -> session
        -> Method
        unit : tinyint unsigned
        ---
        score : decimal(6,2)
        """

        class Spike(dj.Part):
            definition = """
            -> master
            spike : int
            """

        @property
        def key_source(self) -> Any:
            return (session * Method).proj() & "subject = 'a'"

        def make(self, key: dict[str, Any]) -> None:
            good = (session & key).fetch1("good")
            self.insert({**key, "unit": unit, "score": unit / 4} for unit in range(2 + good))
            self.Spike().insert([dict(key, unit=0, spike=n) for n in range(3)])

    Unit.populate("session = 1", display_progress=False, limit=1, order="random")
    assert len(Unit()) == 3
    Unit().populate(order="reverse", suppress_errors=True, max_calls=10)
    assert Unit.progress(display=False) == (0, 4)
    assert len(Unit.Spike & {"subject": "a", "session": 2}) == 6
    Unit.insert1(("b", 1, "mean", 9, 1), allow_direct_insert=True)
    with pytest.raises(dj.DataJointError, match="allow_direct_insert"):
        Unit.insert1(("b", 1, "mean", 10, 1))
    assert "-> " in Unit.describe()


def test_jobs_of_a_schema(schema: Any, session: Any) -> None:
    @schema
    class Mean(dj.Computed):
        definition = """
        -> session
        """

        def make(self, key: dict[str, Any]) -> None:
            raise ValueError("no " + key["subject"])

    Mean.populate(reserve_jobs=True, suppress_errors=True)
    assert [queue.target.table_name for queue in schema.jobs] == [Mean.table_name]
    schema.jobs.ignore(Mean.table_name, {"subject": "b", "session": 1})
    failed = schema.jobs & 'status = "error"' & {"table_name": Mean.table_name}
    assert len(failed) == 2
    assert sorted(failed.fetch("error_message")) == ["ValueError: no a", "ValueError: no a"]
    key = {"subject": "a", "session": 1}
    (job,) = (schema.jobs & {"key_hash": dj.key_hash(key)}).fetch(as_dict=True)
    assert (job["table_name"], job["status"], job["key"]) == ("__mean", "error", key)
    assert "make" in job["error_stack"]
    names, keys = failed.fetch("table_name", "KEY")
    assert (names.tolist(), keys[0]["table_name"]) == (["__mean"] * 2, "__mean")
    assert (schema.jobs & {"key_hash": dj.key_hash(key)}).delete() == 1
    assert len(schema.jobs.fetch()) == 2
    assert (schema.jobs - "status = 'error'").fetch(format="frame")["status"].tolist() == ["ignore"]
    assert schema.jobs.delete() == 2
    schema.jobs.drop()
    key = {"subject": "b", "session": 1}
    assert schema.jobs.reserve(Mean.table_name, key)
    assert not schema.jobs.reserve(Mean.table_name, key)
    assert (schema.jobs & "status = 'reserved'").delete() == 1
    assert Mean.jobs.progress()["total"] == 0
    with pytest.raises(dj.PopulateError, match=r"__maen.*__mean"):
        schema.jobs.ignore("__maen", key)


def test_jobs_of_a_schema_are_a_query(schema: Any, session: Any) -> None:
    assert len(schema.jobs) == 0
    assert schema.jobs.fetch("KEY") == []

    @schema
    class Token(dj.Lookup):
        definition = """
        token : uuid
        rate : float64
        day : date
        good : bool
        """
        contents: ClassVar[Any] = [(uuid.UUID(int=7), 0.5, "2024-05-01", True)]

    @schema
    class Checked(dj.Computed):
        definition = """
        -> Token
        """

        def make(self, key: dict[str, Any]) -> None:
            raise ValueError("unchecked")

    @schema
    class Mean(dj.Computed):
        definition = """
        -> session
        """

        def make(self, key: dict[str, Any]) -> None:
            raise ValueError("no " + key["subject"])

    for table in (Checked, Mean):
        table.populate(reserve_jobs=True, suppress_errors=True)
    counts = dj.U("table_name").aggr(schema.jobs & "status = 'error'", n="count(*)")
    assert dict(zip(*counts.fetch("table_name", "n"), strict=True)) == {"__checked": 1, "__mean": 3}
    failed = dj.U("table_name").aggr(schema.jobs & "status = 'error'", failed="count(*)")
    assert (counts * failed & "n = failed").fetch("n", order_by="n").tolist() == [1, 3]
    last = schema.jobs.fetch("error_message", order_by="error_message desc", limit=1)
    assert last.tolist() == ["ValueError: unchecked"]
    key = (schema.jobs & {"table_name": "__checked"}).fetch1("key")
    assert key == (Checked.key_source).fetch1("KEY")
    assert key["good"] is True
    (found,) = schema.jobs & {"key_hash": dj.key_hash(key)}
    assert (found["table_name"], found["status"]) == ("__checked", "error")
    states = schema.jobs.proj(state="status") & "state = 'error' and table_name like '%mean'"
    assert len(states) == 3
    assert (schema.jobs & {"table_name": "__checked"}).delete() == 1
    assert Checked.progress() == (1, 1)
    assert len(schema.jobs) == 3


def test_deferred_activation(connection: dj.Connection, schema_prefix: str) -> None:
    schema = dj.schema()

    @schema
    class Probe(dj.Lookup):
        definition = """
        probe : varchar(8)
        """
        contents = zip(["A1"])

        class Site(dj.Part):
            definition = """
            -> master
            site : int
            """

    @schema
    class Recording(dj.Manual):
        definition = """
        -> Probe.Site
        -> Session
        """

    assert not schema.is_activated()
    lab = dj.schema(f"{schema_prefix}lab", locals(), connection=connection)

    @lab
    class Session(dj.Manual):
        definition = """
        session : int
        """

    schema.activate(
        f"{schema_prefix}ephys", connection=connection, add_objects={"Session": Session}
    )
    assert schema.is_activated()
    Session.insert1([1])
    Probe.Site.insert1(("A1", 3))
    Recording.insert1({"probe": "A1", "site": 3, "session": 1})

    virtual = dj.create_virtual_module("virtual", f"{schema_prefix}ephys", connection=connection)
    assert virtual.Recording.fetch1("KEY") == {"probe": "A1", "site": 3, "session": 1}
    assert len(virtual.Probe.Site()) == 1
    spawned: dict[str, Any] = {}
    dj.schema(f"{schema_prefix}lab", spawned, connection=connection).spawn_missing_classes()
    assert spawned["Session"].fetch("session").tolist() == [1]
    schema.drop(force=True)
    lab.drop(force=True)
    assert not [name for name in dj.list_schemas(connection) if name.startswith(schema_prefix)]


def test_types_in_stores(connection: dj.Connection, schema: Any, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("read me")

    @schema
    class Recording(dj.Manual):
        definition = """
        id : int auto_increment
        ---
        inside : attach
        outside : attach@local
        data : blob@local
        raw : filepath@local
        """

    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "raw.bin").write_bytes(b"raw")
    row = {"inside": note, "outside": str(note), "data": {"x": np.arange(3)}}
    Recording.insert1({**row, "raw": str(tmp_path / "store" / "raw.bin")})
    assert Recording.fetch1("raw").read() == b"raw"
    folder = tmp_path / "downloads"
    inside, outside = Recording.fetch1("inside", "outside", download_path=folder)
    assert Path(inside).parent == Path(outside).parent == folder
    assert Path(outside).read_text() == "read me"
    assert Recording.fetch("data")[0]["x"].tolist() == [0, 1, 2]
    assert Path(Recording.fetch("inside", download_path=str(folder))[0]).parent == folder


class Doubled(dj.AttributeAdapter):
    attribute_type = "longblob"

    def put(self, obj: complex) -> list[float]:
        return [obj.real, obj.imag]

    def get(self, value: list[float]) -> complex:
        return complex(*value)


doubled = Doubled()


def test_attribute_adapter(schema: Any) -> None:
    @schema
    class Point(dj.Manual):
        definition = """
        point : int
        ---
        place : <doubled>
        """

    Point.insert1((1, 2 + 3j))
    assert Point.fetch1("place") == 2 + 3j
    assert Point.fetch("place").tolist() == [2 + 3j]


def test_names() -> None:
    assert dj.hash.key_hash is dj.key_hash
    assert dj.errors.DataJointError is dj.DataJointError
    assert dj.blob.unpack(dj.blob.pack([1, "a"])) == [1, "a"]
    assert dj.utils.to_camel_case("spike_sorting") == "SpikeSorting"
    assert dj.table.Table is dj.Table
    assert issubclass(dj.Manual, dj.expression.QueryExpression)
    with pytest.raises(AttributeError, match="nosuch"):
        _ = dj.utils.nosuch


def test_numpy_scalars_in_sql_text(session: Any) -> None:
    numbers, words = tuple(np.array([1, 7])), tuple(np.array(["a", "c"]))
    assert len(session & f"session in {numbers} and subject in {words}") == 1
    assert len(session & f"session = {numbers[0]!r} and good = {np.True_!r}") == 2
    assert len(session & "subject <> 'np.int64(1)'") == 3
    assert set(session.proj(n=f"session + {numbers[0]!r}").fetch("n")) == {2, 3}

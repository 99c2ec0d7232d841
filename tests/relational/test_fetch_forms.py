"""Fetching as arrays and frames: dtypes by the heading, with and without rows."""

from __future__ import annotations

import sys
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dj_dagster as dj

WHEN = datetime(1000, 1, 2, 3, 4, 5, 678900)
NAME = uuid.UUID(int=7)


@pytest.fixture
def thing(schema: Any) -> Any:
    @schema
    class Thing(dj.Manual):
        definition = """
        id : int16
        ---
        n = null : int64
        x : float32
        price : decimal(6, 2)
        name : varchar(8)
        side = null : enum('left', 'right')
        flag : bool
        day : date
        moment = null : datetime(6)
        who : uuid
        extra = null : json
        raw = null : bytes
        b = null : <blob>
        """

    full = (1, 2**60 + 1, 0.5, "1.5", "a", "left", True, date(2026, 1, 2), WHEN, NAME, {"k": [1]})
    Thing.insert(
        [
            (*full, b"\0", np.ones((1, 2))),
            (2, None, 1.5, "2", "b", None, False, date(1999, 1, 1), None, NAME, None, None, None),
        ]
    )
    return Thing


def test_pandas_dtypes(thing: Any) -> None:
    frame = thing.to_pandas(order_by="KEY")
    empty = (thing & "id > 9").to_pandas()
    assert list(frame.columns) == list(empty.columns) == thing.heading.secondary_attributes
    assert (empty.index.name, empty.index.dtype) == ("id", np.int64)
    text = pd.Series(["a"]).dtype
    expected = {"n": object, "x": np.float64, "price": object, "name": text, "side": text}
    expected |= {"flag": np.bool, "day": object, "moment": "datetime64[us]", "b": object}
    for name, dtype in expected.items():
        assert (name, frame[name].dtype, empty[name].dtype) == (name, dtype, dtype)
    assert frame["n"].tolist() == [2**60 + 1, None]
    assert frame["moment"][1] == pd.Timestamp(WHEN)
    assert frame["moment"].isna().tolist() == [False, True]
    assert frame["price"].tolist() == [Decimal("1.50"), Decimal("2.00")]
    assert (thing & "n is not null").to_pandas()["n"].dtype == np.int64
    computed = thing.proj(twice="2 * id").to_pandas(order_by="twice DESC")
    assert (computed["twice"].dtype, computed["twice"].tolist()) == (np.int64, [4, 2])


def test_small_integers_beside_nulls_in_frames(schema: Any) -> None:
    @schema
    class Count(dj.Manual):
        definition = """
        id : int
        ---
        n = null : int
        flag = null : bool
        """

    Count.insert([{"id": 1, "n": 3, "flag": True}, {"id": 2}, {"id": 3, "n": 5, "flag": False}])
    frame = Count.to_pandas(order_by="KEY")
    assert (frame["n"].dtype, frame["flag"].dtype) == (np.float64, np.float64)
    assert (frame["n"].sum(), frame["flag"].sum(), frame["n"].isna().sum()) == (8, 1, 1)
    Count.delete()
    Count.insert(frame)
    assert Count.to_arrays("n", order_by="KEY").tolist() == [3, None, 5]
    assert isinstance(Count.fetch("id", "n"), tuple)


def test_polars_has_the_headings_schema(thing: Any) -> None:
    frame = thing.to_polars(order_by="KEY")
    assert frame.schema == (thing & "id > 9").to_polars().schema
    assert dict(frame.schema) == {
        "id": pl.Int64, "n": pl.Int64, "x": pl.Float64, "price": pl.Decimal(6, 2),
        "name": pl.String, "side": pl.String, "flag": pl.Boolean, "day": pl.Date,
        "moment": pl.Datetime("us"), "who": pl.String, "extra": pl.String, "raw": pl.Binary,
        "b": pl.Object,
    }  # fmt: skip
    first, second = frame.rows(named=True)
    assert (first["n"], first["moment"], first["who"]) == (2**60 + 1, WHEN, str(NAME))
    assert (first["extra"], first["raw"], first["b"].shape) == ('{"k": [1]}', b"\0", (1, 2))
    assert (second["price"], second["n"], second["b"]) == (Decimal("2.00"), None, None)
    assert thing.to_polars(squeeze=True, order_by="KEY")["b"][0].shape == (2,)


def test_arrow_has_the_headings_schema(thing: Any) -> None:
    plain = thing.proj(..., "-b")
    table = plain.to_arrow(order_by="KEY", limit=1)
    assert table.schema == (plain & "id > 9").to_arrow().schema
    fields = {field.name: field.type for field in table.schema}
    assert [fields[name] for name in ("id", "n", "x", "price", "flag", "day", "moment")] == [
        pa.int64(), pa.int64(), pa.float64(), pa.decimal128(6, 2), pa.bool_(), pa.date32(),
        pa.timestamp("us"),
    ]  # fmt: skip
    assert table.to_pylist()[0]["moment"] == WHEN
    assert thing.to_arrow(squeeze=True, order_by="KEY")["b"].to_pylist() == [[1.0, 1.0], None]
    with pytest.raises(dj.QueryError, match=r"b : <blob>.*proj\(\.\.\., '-b'\)"):
        thing.to_arrow()


def test_numbers_of_frames_can_be_computed_with(schema: Any) -> None:
    @schema
    class Narrow(dj.Manual):
        definition = """
        n : tinyint unsigned
        ---
        gain : float
        """

    Narrow.insert1({"n": 200, "gain": 0.1})
    frame = Narrow.to_polars()
    assert ((frame["n"] + frame["n"]).item(), frame["gain"].item()) == (400, 0.1)
    assert Narrow.to_arrow().to_pylist() == [{"n": 200, "gain": 0.1}]


def test_extras_that_are_not_installed(thing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(dj.DataJointError, match=r"pip install 'dj-dagster\[polars\]'"):
        thing.to_polars()
    with pytest.raises(dj.DataJointError, match=r"pip install 'dj-dagster\[arrow\]'"):
        thing.to_arrow()


def test_unsigned_integers_are_signed_where_they_fit(schema: Any) -> None:
    @schema
    class Pulse(dj.Manual):
        definition = """
        pulse : bigint unsigned
        ---
        at = null : bigint unsigned
        """

    assert Pulse().heading["pulse"].dtype == Pulse.to_arrays("pulse").dtype == np.int64
    Pulse.insert([(4, 7), (2, 9)])
    pulses, times = Pulse.to_arrays("pulse", "at", order_by="at")
    assert np.diff(pulses).tolist() == [-2]
    assert times.dtype == Pulse.to_pandas(order_by="at").index.dtype == np.int64
    assert Pulse.to_arrays().dtype["pulse"] == np.int64


def test_dtypes_of_arrays(thing: Any) -> None:
    none = thing & "id > 9"
    names = ("id", "n", "x", "price", "name", "flag", "day")
    assert [a.dtype.kind for a in thing.to_arrays(*names)] == list("iOfOObO")
    assert [a.dtype.kind for a in none.to_arrays(*names)] == list("iOfOObO")
    whole = thing.to_arrays(order_by="KEY")
    assert whole.dtype == none.to_arrays().dtype
    assert (whole.dtype["id"], whole.dtype["n"], whole.dtype["x"]) == (np.int64, object, np.float64)
    # One with nulls in the heading only stays the same type in a record array, whatever the rows.
    assert (thing & "n is not null").to_arrays().dtype == whole.dtype


def test_keys_beside_arrays(thing: Any) -> None:
    keys, x = thing.to_arrays("x", include_key=True, order_by="KEY")
    assert (keys, x.tolist()) == ([{"id": 1}, {"id": 2}], [0.5, 1.5])
    assert [row["x"] for row in (thing & keys[1:]).to_dicts()] == [1.5]
    x, keys = thing.to_arrays("x", "KEY", order_by="KEY", limit=1)
    assert (x.tolist(), keys) == ([0.5], [{"id": 1}])
    assert thing.to_arrays("x", "x", "id", limit=1, order_by="KEY")[1].tolist() == [0.5]
    with pytest.raises(dj.UnknownAttributeError, match="'nosuch'"):
        thing.to_arrays("nosuch")


def test_fetch1_of_the_key_and_squeezed(thing: Any) -> None:
    one = thing & {"id": 1}
    assert one.fetch1("KEY") == {"id": 1}
    assert one.fetch1("x", "KEY") == (0.5, {"id": 1})
    assert one.fetch1("b").shape == (1, 2)
    assert one.fetch1("b", squeeze=True).shape == (2,)
    assert one.fetch1(squeeze=True)["b"].shape == (2,)
    assert one.to_dicts(squeeze=True)[0]["b"].shape == (2,)
    assert one.to_pandas(squeeze=True)["b"][1].shape == (2,)


def test_order_by_what_a_query_computes(thing: Any) -> None:
    opposite = thing.proj("name", minus="-id")
    assert [row["id"] for row in opposite.to_dicts("minus")] == [2, 1]
    assert opposite.keys(["minus desc", "KEY"], limit=1) == [{"id": 1}]
    assert thing.to_dicts("`name` DESC", 1)[0]["id"] == 2
    assert thing.to_dicts(order_by=[], limit=0) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": -1}, "limit.*-1"),
        ({"limit": 1.5}, "limit.*1.5"),
        ({"limit": True}, "limit.*True"),
        ({"offset": "2"}, "offset.*'2'"),
        ({"order_by": 3}, "order_by.*3"),
        ({"order_by": [("id", "DESC")]}, "order_by"),
        ({"order_by": "nosuch"}, "nosuch"),
        ({"order_by": "id; DROP TABLE thing"}, "DROP"),
        ({"order_by": ""}, "order_by"),
    ],
)
def test_what_makes_no_sense_is_refused(thing: Any, options: dict[str, Any], message: str) -> None:
    for fetch in (thing.to_dicts, thing.keys, thing.to_pandas, thing.to_arrays):
        with pytest.raises(dj.QueryError, match=message):
            fetch(**options)


def test_values_that_differ_share_a_statement(thing: Any) -> None:
    for _ in range(2):
        assert [len(thing & {"id": n}) for n in (1, 2, 3)] == [1, 1, 0]
        assert [bool(thing & {"id": n}) for n in (1, 3)] == [True, False]
        assert [(thing & {"id": n, "name": s}).fetch1("x") for n, s in ((1, "a"), (2, "b"))] == [
            0.5,
            1.5,
        ]
        assert (thing & {"n": None}).fetch1("id") == 2
        assert (thing & {"n": 2**60 + 1}).fetch1("id") == 1
        assert (thing & {"who": NAME} & "id < 2" & {"flag": True}).fetch1("id") == 1
        renamed = thing.proj(number="id", other="name")
        assert (renamed & {"other": "b"} & {"number": 2}).to_dicts() == [
            {"number": 2, "other": "b"}
        ]
        assert (renamed & {"other": "b"} & {"number": 1}).to_dicts() == []
        assert (thing & {"id": 2}).to_dicts("id", 5, 0)[0]["name"] == "b"
        assert (thing & "id > 0").keys("KEY", 1, 1) == [{"id": 2}]


def test_time_of_day(schema: Any) -> None:
    @schema
    class Alarm(dj.Manual):
        definition = """
        at : time
        """

    Alarm.insert1({"at": time(7, 30)})
    assert Alarm.to_polars()["at"].to_list() == [timedelta(hours=7, minutes=30)]
    assert Alarm.to_arrow()["at"].to_pylist() == [timedelta(hours=7, minutes=30)]

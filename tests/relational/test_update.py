"""update1: one row, its key whole, everything checked before."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj


@pytest.fixture
def unit(schema: Any) -> Any:
    @schema
    class Unit(dj.Manual):
        definition = """
        probe : int32
        unit : varchar(8)
        ---
        depth : float64
        label = 'it''s %s \\\\' : varchar(40)
        rank = 3 : int32
        seen = CURRENT_TIMESTAMP : datetime
        wave = null : <blob>
        """

    Unit.insert([{"probe": 1, "unit": name, "depth": 1.5} for name in "ab"])
    return Unit


def test_given_attributes_change(unit: Any) -> None:
    assert unit.update1({"probe": 1, "unit": "a", "depth": 2, "wave": np.arange(2)}) is None
    row = (unit & {"unit": "a"}).fetch1()
    assert row["depth"] == 2.0
    assert row["rank"] == 3
    np.testing.assert_array_equal(row["wave"], np.arange(2))
    assert (unit & {"unit": "b"}).fetch1("depth") == 1.5


def test_none_is_the_default(unit: Any) -> None:
    key = {"probe": 1, "unit": "a"}
    default = (unit & key).fetch1("label")
    unit.update1(
        {**key, "label": "x'; DROP TABLE unit; --", "rank": 9, "wave": 1, "seen": "2001-02-03"}
    )
    assert (unit & key).fetch1("label", "rank") == ("x'; DROP TABLE unit; --", 9)
    unit.update1({**key, "label": None, "rank": None, "wave": None, "seen": None})
    assert (unit & key).fetch1("label", "rank", "wave") == (default, 3, None)
    assert datetime.now() - (unit & key).fetch1("seen") < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ({"probe": 1, "depth": 1}, dj.MissingAttributeError, "unit"),
        ({"probe": 1, "unit": "a", "dept": 1}, dj.UnknownAttributeError, "dept"),
        ({"probe": 1, "unit": "z", "depth": 1}, dj.QueryError, "unit has no row"),
        ({"probe": 1, "unit": "z"}, dj.QueryError, "unit has no row"),
        ({"probe": 1, "unit": "a", "depth": "x"}, dj.InvalidValueError, "float64.*'unit': 'a'"),
        ({"probe": 1, "unit": "a", "depth": None}, dj.MissingAttributeError, "depth"),
        ([1, "a", 3], dj.QueryError, "dict"),
    ],
)
def test_refused(unit: Any, row: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        unit.update1(row)
    assert unit.to_arrays("depth").tolist() == [1.5, 1.5]


def test_restricted_table_is_refused(unit: Any) -> None:
    with pytest.raises(dj.QueryError, match="without restriction"):
        (unit & {"unit": "a"}).update1({"probe": 1, "unit": "a", "depth": 2})


def test_same_value_is_no_error(unit: Any) -> None:
    for _ in range(2):
        unit.update1({"probe": 1, "unit": "a", "depth": 1.5})
    unit.update1({"probe": 1, "unit": "a"})


def test_a_unique_index_that_refuses_is_told_as_such(schema: Any) -> None:
    @schema
    class Label(dj.Manual):
        definition = "id : int32\n---\nname : varchar(9)\nunique index (name)"

    Label.insert([(1, "new"), (2, "b")])
    with pytest.raises(dj.DuplicateError, match=r"label cannot be updated.*'id': 2") as caught:
        Label.update1({"id": 2, "name": "new"})
    assert "skip_duplicates" not in str(caught.value)
    assert Label.to_arrays("name", order_by="id").tolist() == ["new", "b"]


def test_foreign_keys_hold(unit: Any, schema: Any) -> None:
    schema.context = {"Unit": unit}

    @schema
    class Note(dj.Manual):
        definition = """
        id : int32
        ---
        -> Unit
        """

    Note.insert1({"id": 1, "probe": 1, "unit": "a"})
    with pytest.raises(dj.IntegrityError, match="note"):
        Note.update1({"id": 1, "unit": "z"})
    Note.update1({"id": 1, "unit": "b"})
    assert Note.fetch1("unit") == "b"

"""Types of what is asked of a table's class: for the type checker, and for pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import pandas as pd
import pytest

import dj_dagster as dj
from dj_dagster.model.heading import Heading
from dj_dagster.relational.expression import QueryExpression

schema = dj.Schema()


@schema
class Session(dj.Manual):
    definition = """
    session_id : int32
    ---
    note : varchar(20)
    """


@schema
class Length(dj.Computed):
    definition = """
    -> Session
    ---
    length : int32
    """

    def make(self, key: dict[str, Any]) -> None:
        self.insert1({**key, "length": len((Session & key).fetch1("note"))})


@pytest.fixture(scope="module", autouse=True)
def rows() -> Iterator[None]:
    connection = dj.Connection("sqlite:///:memory:", safemode=False)
    schema.activate("lab", connection=connection)
    Session.insert([{"session_id": 1, "note": "a"}, {"session_id": 2, "note": "bc"}])
    yield
    connection.close()


def test_rows_of_a_class_have_the_types_of_those_of_a_table() -> None:
    frame = assert_type(Session.to_pandas(), pd.DataFrame)
    assert list(frame["note"]) == ["a", "bc"]
    rows = assert_type(Session.to_dicts(order_by="KEY"), list[dict[str, Any]])
    assert rows == assert_type(Session().to_dicts(order_by="KEY"), list[dict[str, Any]])
    assert assert_type(Session.keys(limit=1), list[dict[str, Any]]) == [{"session_id": 1}]
    assert assert_type(len(Session), int) == 2
    assert [assert_type(row, dict[str, Any])["note"] for row in Session] == ["a", "bc"]


def test_a_restricted_class_is_a_table_and_a_join_a_query() -> None:
    one = assert_type(Session & {"session_id": 2}, Session)
    assert assert_type(one.to_pandas(), pd.DataFrame).shape == (1, 1)
    assert len(assert_type(Session - one.proj(), Session)) == 1
    joined = assert_type(Session * Length, QueryExpression)
    assert assert_type(joined.to_dicts(), list[dict[str, Any]]) == []
    assert len(assert_type(Session.proj(), QueryExpression)) == 2


def test_what_a_class_says_of_itself() -> None:
    assert assert_type(Session.primary_key, list[str]) == ["session_id"]
    assert assert_type(Session.heading, Heading).names == ["session_id", "note"]
    assert "session_id" in assert_type(Session.describe(), str)
    assert assert_type(Session.full_table_name, str) == Session().full_table_name


def test_a_class_populates_as_a_table_does() -> None:
    done = assert_type(Length.populate(), dict[str, Any])
    assert done["success_count"] == 2
    assert sorted(Length.to_arrays("length")) == [1, 2]

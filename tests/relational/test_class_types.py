"""Types of what is asked of a table's class: for the type checker, and for pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import pandas as pd
import pytest

import dj_dagster as dj
from dj_dagster.model.heading import Heading
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.inserting.insertion import StagedInsert
from dj_dagster.relational.stored import ForeignKey

COMPAT = "dj_dagster.compat."

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
    assert assert_type(Session.connection, dj.Connection) is Session().connection
    assert assert_type(Session.class_name, str) == assert_type(Session().class_name, str)
    assert assert_type(Session.foreign_keys, tuple[ForeignKey, ...]) == ()
    assert assert_type(Session.head(1), list[dict[str, Any]]) == [{"session_id": 1, "note": "a"}]
    with assert_type(Session.staged_insert1, StagedInsert) as staged:
        staged.rec |= {"session_id": 3, "note": "d"}
    added = Session & {"session_id": 3}
    counts = assert_type(added.delete(dry_run=True), dict[str, int])
    assert counts[Session.full_table_name] == assert_type(added.delete(), int) == 1


def test_a_table_has_few_bases_and_inherits_from_none_of_old_spellings() -> None:
    assert len(dj.Computed.__mro__) <= 6
    for public in (dj.Computed, dj.Schema, dj.FreeTable, dj.Connection):
        assert not [base for base in public.__mro__ if base.__module__.startswith(COMPAT)]
    assert list(Session.fetch("note", order_by="KEY")) == ["a", "bc"]
    assert len(Session() ^ {"session_id": 1}) == 1


def test_a_class_populates_as_a_table_does() -> None:
    done = assert_type(Length.populate(), dict[str, Any])
    assert done["success_count"] == 2
    assert sorted(Length.to_arrays("length")) == [1, 2]

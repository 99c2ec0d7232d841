"""Iteration: rows come as they are needed, beside other queries, and see the transaction's own."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.relational.database.connection import Connection

ROWS = 2**16
"""As dicts about 25 MB."""


@pytest.fixture
def number(schema: Any) -> Any:
    @schema
    class Number(dj.Manual):
        definition = """
        id : int32
        ---
        text : varchar(40)
        """

    return Number


def fill(table: Any) -> None:
    """Double the rows until there are enough."""
    connection: Connection = table.connection
    name = connection.backend.sql_table(table.name)
    table.insert1((0, "a text of about thirty letters"))
    with connection.cursor() as session:
        quoted = session.dialect.identifier_preparer.format_table(name)
        rows = 1
        while rows < ROWS:
            session.execute(sa.text(f"INSERT INTO {quoted} SELECT id + {rows}, text FROM {quoted}"))
            rows *= 2


def test_memory_does_not_grow_with_the_rows(number: Any) -> None:
    fill(number)
    next(iter(number))
    tracemalloc.start()
    try:
        total = sum(1 for row in number if row["id"] >= 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == ROWS
    assert peak < 2_500_000
    # Dropped after a few rows, it neither reads the others nor keeps its connection.
    pool: Any = number.connection.engine.pool
    before = pool.checkedout()
    rows = iter(number)
    assert [row["text"][:6] for row in islice(rows, 3)] == ["a text"] * 3
    assert pool.checkedout() == before + 1
    del rows
    gc.collect()
    assert pool.checkedout() == before
    assert len(number) == ROWS


def test_other_queries_go_on_meanwhile(number: Any) -> None:
    number.insert((n, str(n)) for n in range(2500))
    seen = 0
    for row in number:
        assert (number & row).fetch1("text") == str(row["id"])
        if row["id"] % 500 == 0:
            assert sum(1 for _ in number) >= 2500
            number.insert1((row["id"] + 5000, "new"))
        seen += row["id"] < 2500
    assert seen == 2500
    assert len(number) == 2505


def test_the_transactions_own_rows(number: Any) -> None:
    number.insert((n, "") for n in range(10))
    with number.connection.transaction:
        number.insert((n, "") for n in range(10, 2500))
        assert [row["id"] for row in number & "id >= 0"] == list(range(2500))
        rows = iter(number)
        assert next(rows)
        assert len(number) == 2500
        assert sum(1 for _ in rows) == 2499


def test_rows_that_a_make_has_collected(number: Any, schema: Any) -> None:
    number.insert1((1, "one"))
    seen: list[Any] = []

    @schema
    class Seen(dj.Computed):
        definition = """
        -> Number
        """

        def make(self, key: dict[str, Any]) -> None:
            seen.extend(number)
            self.insert1(key)
            seen.extend(self)

    Seen.populate()
    assert seen == [{"id": 1, "text": "one"}, {"id": 1}]


def test_large_values_come_one_at_a_time(schema: Any) -> None:
    @schema
    class Movie(dj.Manual):
        definition = """
        id : int8
        ---
        frames : <blob>
        """

    Movie.insert((n, bytes([n]) * 2**20) for n in range(12))
    tracemalloc.start()
    try:
        first = [row["frames"][0] for row in Movie]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first == list(range(12))
    assert peak < 8 * 2**20


def test_errors_are_ours(number: Any) -> None:
    with pytest.raises(dj.QueryError):
        list(number & "nosuch_function(id) > 1")
    with pytest.raises(dj.QueryError):
        (number & "nosuch_function(id) > 1").fetch1()
    assert list(number) == []

"""A number that stands for the values of a row: another when one of them is, and the same twice."""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Any

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.relational.sql.lowering import Lowering

ROW = {
    "number": -(2**31),
    "name": "a",
    "big": 2**63 - 1,
    "ratio": 0.1,
    "small": 0.1,
    "price": "10.50",
    "flag": True,
    "side": "left",
    "day": "2026-01-01",
    "at": "2026-01-01 00:00:00",
    "clock": "01:00:00",
    "token": "00000000-0000-0000-0000-000000000007",
    "info": {"a": [1, None]},
    "note": None,
    "score": None,
    "data": b"bytes",
}

OTHERS: list[tuple[str, Any]] = [
    ("big", -(2**63)),
    ("ratio", 0.1 + 2**-50),
    ("small", 0.1 + 2**-24),
    ("price", "10.51"),
    ("flag", False),
    ("side", "right"),
    ("day", "2026-01-02"),
    ("at", "2026-01-01 00:00:01"),
    ("clock", "01:00:01"),
    ("token", "00000000-0000-0000-0000-000000000008"),
    ("info", {"a": [1, 0]}),
    ("note", ""),
    ("note", "-"),
    ("note", "None"),
    ("note", "ä,b' \\"),
    ("score", 0.0),
    ("data", b"byte"),
]


@pytest.fixture
def table(schema: Any) -> Any:
    @schema
    class Everything(dj.Manual):
        definition = """
        number : int32
        name : varchar(20)
        ---
        big : int64
        ratio : float64
        small : float32
        price : decimal(8, 2)
        flag : bool
        side : enum('left', 'right')
        day : date
        at : datetime
        clock : time
        token : uuid
        info : json
        note = null : varchar(20)
        score = null : float64
        data : <blob>
        """

    return Everything


def asked(table: Any, what: str) -> list[int]:
    """Return what the backend's expression gives over all attributes, in the key's order."""
    query = table()
    backend, heading = query.connection.backend, query.heading
    lowered = Lowering(backend).lower(query.node)
    columns = [(lowered.columns[name], heading[name]) for name in heading.names]
    select = sa.select(getattr(backend, what)(columns)).select_from(lowered.source)
    if what == "row_digest":
        select = select.order_by(*(lowered.columns[name] for name in heading.primary_key))
    return [int(value) for (value,) in query.connection.rows(select)]


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_another_value_gives_another_digest(table: Any, name: str, value: Any) -> None:
    table.insert1(ROW)
    (before,) = asked(table, "row_digest")
    assert [before] == asked(table, "row_digest")
    assert 0 <= before < 2**60
    table.update1({"number": ROW["number"], "name": "a", name: value})
    assert [before] != asked(table, "row_digest")
    table.update1({"number": ROW["number"], "name": "a", name: ROW[name]})
    assert [before] == asked(table, "row_digest")


def test_values_exchanged_between_rows_do_not_cancel(table: Any) -> None:
    table.insert([{**ROW, "number": n, "name": "ab"[n]} for n in range(2)])
    (before,) = asked(table, "digest_xor")
    assert reduce(xor, asked(table, "row_digest")) == before
    table.delete()
    table.insert([{**ROW, "number": n, "name": "ba"[n]} for n in range(2)])
    assert [before] != asked(table, "digest_xor")


def test_a_thousand_rows_have_as_many_digests(table: Any) -> None:
    table.insert({**ROW, "number": n // 30, "name": str(n % 30)} for n in range(1000))
    digests = asked(table, "row_digest")
    assert len(set(digests)) == 1000
    assert [reduce(xor, digests)] == asked(table, "digest_xor")


def test_more_attributes_than_a_function_of_sqlite_takes(schema: Any) -> None:
    @schema
    class Wide(dj.Manual):
        definition = "a : int32\n---\n" + "\n".join(f"b{n} : int32" for n in range(150))

    Wide.insert1([0] * 151)
    before = asked(Wide, "row_digest")
    for name in ("b0", "b149"):
        Wide.update1({"a": 0, name: 1})
        assert before != (before := asked(Wide, "row_digest"))

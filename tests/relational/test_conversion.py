"""Values of an attribute whose type is altered: equal ones of the new type, or a refusal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

import dj_dagster as dj
from dj_dagster.relational.user_sql import temporal
from tests.services.process import eventually

NOON = dt.datetime(2026, 2, 3, 12, 30, 1)
MIDNIGHT = dt.datetime(2026, 2, 3)
KEY = UUID(int=7)

Alter = Callable[[str, str, list[Any]], Any]


@pytest.fixture
def altered(schema: Any) -> Alter:
    """Give an attribute of a new table another type, once it has values; return the values."""

    def alter(old: str, new: str, values: list[Any]) -> list[Any]:
        @schema
        class Sample(dj.Manual):
            definition = f"sample : int32\n---\nx = null : {old}\ny = 1 : int32"

        Sample.insert([{"sample": n, "x": value} for n, value in enumerate([*values, None])])
        Sample.definition = f"sample : int32\n---\nx = null : {new}\ny = 1 : int32"
        Sample.alter(prompt=False)
        *found, null = Sample.to_dicts(order_by="KEY")
        assert null["x"] is None
        assert {row["y"] for row in found} <= {1}
        return [row["x"] for row in found]

    return alter


@pytest.mark.parametrize(
    ("old", "new", "good", "bad"),
    [
        ("bool", "enum('no', 'yes')", [], True),
        ("bool", "int8", [True, False], None),
        ("int32", "bool", [0, 1], 2),
        ("int32", "int8", [127, -128], 128),
        ("int32", "int unsigned", [5], -1),
        ("int unsigned", "int32", [5], 2**31),
        ("int32", "float32", [2**24], 2**24 + 1),
        ("int64", "float64", [2**53], 2**53 + 1),
        ("int32", "decimal(3,1)", [99], 100),
        ("int32", "varchar(3)", [-12], 1234),
        ("int32", "enum('2', '1')", [], 1),
        ("int32", "json", [], 5),
        ("float64", "int32", [3.0], 1.5),
        ("float64", "float32", [0.5], 0.1),
        ("float64", "decimal(5,2)", [0.1, 2.25], 1.005),
        ("float64", "double(5,2)", [1.25], 1.23456),
        ("double(7,4)", "float(5,2)", [1.25], 1.2345),
        ("float(5,2)", "double(7,3)", [0.1], None),
        ("float64", "varchar(20)", [], 0.1),
        ("decimal(6,3)", "decimal(5,2)", [Decimal("1.250")], Decimal("1.255")),
        ("decimal(6,3)", "float64", [Decimal("0.100")], None),
        ("decimal(6,3)", "int32", [Decimal("7.000")], Decimal("7.001")),
        ("decimal(6,3)", "varchar(9)", [Decimal("0.500")], None),
        ("varchar(20)", "int32", ["12", "-3"], "12 a"),
        ("varchar(20)", "int32", ["0"], "007"),
        ("varchar(20)", "decimal(5,2)", ["1.5"], "1.555"),
        ("varchar(20)", "varchar(4)", ["four"], "fives"),
        ("tinyint unsigned", "year", [], 70),
        ("smallint unsigned", "year", [2000], 3000),
        ("varchar(20)", "char(9)", ["x"], "x "),
        ("varchar(20)", "enum('a', 'b')", ["a"], "A"),
        ("varchar(20)", "date", ["2026-02-03"], "2026-2-3"),
        ("varchar(30)", "datetime", ["2026-02-03 12:30:01"], "soon"),
        ("varchar(40)", "uuid", [], str(KEY)),
        ("varchar(40)", "json", ['{"a": [1, null]}', "3"], "nope"),
        ("varchar(40)", "json", [], '{"a": 1, "a": 2}'),
        ("varchar(40)", "json", [], "[1e400]"),
        ("varchar(40)", "json", [], str(10**30)),
        ("varchar(40)", "json", [], r'"\ud800"'),
        ("enum('a', 'b')", "enum('b', 'a', 'c')", ["a", "b"], None),
        ("enum('a', 'b')", "enum('b')", ["b"], "a"),
        ("enum('a', 'b')", "varchar(3)", ["a"], None),
        ("enum('1', '2')", "int32", [], "2"),
        ("datetime", "date", [MIDNIGHT], NOON),
        ("date", "datetime", [NOON.date()], None),
        ("datetime(6)", "datetime(3)", [NOON], NOON.replace(microsecond=7)),
        ("datetime", "varchar(30)", [NOON], None),
        ("datetime", "time", [], NOON),
        ("time", "datetime", [], dt.timedelta(hours=10, minutes=11)),
        ("time", "date", [], dt.timedelta(days=1)),
        ("time(2)", "time", [dt.timedelta(hours=-30)], dt.timedelta(milliseconds=990)),
        ("uuid", "char(36)", [], KEY),
        ("uuid", "bytes", [], KEY),
        ("json", "int32", [], 5),
        ("json", "varchar(20)", [], {"a": 1}),
    ],
)
def test_values_become_equal_ones_or_are_refused(
    altered: Alter, schema: Any, old: str, new: str, good: list[Any], bad: Any
) -> None:
    if bad is not None:
        with pytest.raises(dj.DefinitionError, match="Nothing was changed") as refused:
            altered(old, new, [*good, bad])
        assert "Sample.x" in str(refused.value) or "sample.x" in str(refused.value)
        assert repr(bad) in str(refused.value)
        rows = schema["Sample"].to_dicts(order_by="KEY")
        assert [row["x"] for row in rows] == [*good, bad, None]
        schema["Sample"].drop(prompt=False)
    if good:
        found = altered(old, new, good)
        assert [_plain(value) for value in found] == [_plain(value) for value in good]


def _plain(value: Any) -> Any:
    """Return what two values of different types have in common when they are equal."""
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except ArithmeticError:
            return value.removesuffix(" 00:00:00").replace('{"a": [1, null]}', "{'a': [1, None]}")
    if isinstance(value, int | float | Decimal):
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return str(value).removesuffix(" 00:00:00")


TIMES = ["-01:00:00", "100:00:00", "01:30:15"]


@pytest.mark.parametrize(
    ("old", "new", "given"),
    [("time", "varchar(20)", TIMES), ("varchar(20)", "time", TIMES),
     ("time(2)", "varchar(20)", ["-00:00:00.50", "01:30:15.25"]),
     ("varchar(20)", "time(2)", ["-00:00:00.50", "01:30:15.25"])],
)  # fmt: skip
def test_times_become_the_texts_that_servers_write(
    altered: Alter, old: str, new: str, given: list[str]
) -> None:
    times = [temporal.duration(text) for text in given]
    from_times = old.startswith("time")
    found = altered(old, new, times if from_times else given)
    assert list(found) == (given if from_times else times)


def test_a_change_made_while_alter_asks_is_not_lost(schema: Any, database_url: str) -> None:
    @schema
    class Sample(dj.Manual):
        definition = "sample : int32\n---\nx : int32"

    Sample.insert1({"sample": 1, "x": 1})
    other = dj.Schema(schema.database, connection=dj.Connection(database_url))

    def meanwhile(question: str) -> bool:
        @other
        class Sample(dj.Manual):
            definition = "sample : int32\n---\nx : int32"

        Sample.definition += "\nnote = 'kept' : varchar(9)"
        Sample.alter(prompt=False)
        return True

    Sample.definition += "\nrate = 1 : int32"
    with pytest.raises(dj.QueryError, match="meanwhile"):
        Sample.alter(confirm=meanwhile)
    other.connection.close()
    (row,) = schema.connection.query(
        f"SELECT * FROM {Sample.full_table_name}", as_dict=True
    ).fetchall()
    assert row["note"] == "kept"
    assert "rate" not in row


def test_a_value_that_comes_while_alter_asks_is_looked_at(schema: Any, database_url: str) -> None:
    @schema
    class Sample(dj.Manual):
        definition = "sample : int32\n---\nx : float64"

    Sample.insert1({"sample": 1, "x": 1})

    def meanwhile(question: str) -> bool:
        other = dj.Schema(schema.database, connection=dj.Connection(database_url))
        other["Sample"].insert1({"sample": 2, "x": 1.5})
        other.connection.close()
        return True

    Sample.definition = "sample : int32\n---\nx : int32"
    with pytest.raises(dj.DefinitionError, match=r"1\.5"):
        Sample.alter(confirm=meanwhile)
    assert sorted(schema["Sample"].to_arrays("x").tolist()) == [1.0, 1.5]


def test_what_others_commit_before_alter_begins_is_looked_at(
    server_url: str, server_prefix: str
) -> None:
    """Rows and columns are read again under a lock, which waits for open transactions."""
    definition = "sample : int32\n---\nx = null : decimal(8,4)"
    connections = [dj.Connection(server_url) for _ in range(2)]
    schemas: list[Any] = [dj.Schema(f"{server_prefix}lab", connection=c) for c in connections]
    made = [schema(type("Sample", (dj.Manual,), {"definition": definition})) for schema in schemas]
    waiting = (
        "SELECT COUNT(*) FROM information_schema.processlist "
        f"WHERE state LIKE '%%metadata lock' AND info LIKE '%%{server_prefix}lab%%'"
    )

    def altered_behind_transaction(definitions: list[str]) -> list[Any]:
        """Return the results or errors of the tables' `alter`, all waiting for one transaction."""
        with dj.Connection(server_url) as holder, ThreadPoolExecutor(2) as pool:
            with holder.transaction():
                dj.Schema(schemas[0].database, connection=holder)["Sample"].insert1((1, "1.2345"))
                runs = []
                for table, text in zip(made, definitions, strict=False):
                    table.definition = text
                    runs.append(pool.submit(table.alter, prompt=False))
                eventually(lambda: holder.query(waiting).fetchone()[0] == len(runs))
            return [run.exception(60) or run.result() for run in runs]

    (error,) = altered_behind_transaction([definition.replace("(8,4)", "(8,2)")])
    assert isinstance(error, dj.DefinitionError)
    assert "1.2345" in str(error)
    (made[0] & {"sample": 1}).delete(prompt=False)
    added = [f"{definition}\n{name} = null : int32" for name in "bc"]
    results = altered_behind_transaction(added)
    assert True in results
    assert [error for error in results if "altered by someone else" in str(error)]
    for connection in connections:
        connection.close()

"""No two rows of a database have one partition key; keys that nobody could find are named."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

import dj_dagster as dj
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import key_pages
from dj_dagster.relational.fetching import fetch

TEXTS = (
    *("a", "A", "a ", " a", "\u00e4", "a\u0308", "\u00df", "ss", "SS", "", "."),
    *(
        "a/b",
        "a%2Fb",
        "a%2fb",
        "...",
        "%2E",
        "a=b",
        "1",
        "01",
        "1.0",
        "\u0131",
        "i",
        "I",
        "\t",
        "\0",
    ),
    *("\U0001f600", "\U0001f608", "\uff41", "\u2126", "\u03a9", "a,b", "*", "\u200b", "\ufeff"),
)
KEYS: dict[str, tuple[Any, ...]] = {
    "varchar(9)": TEXTS,
    "char(9)": TEXTS,
    "int64": (0, -1, 1, 10, 2**53, 2**53 + 1, -(2**63), 2**63 - 1),
    "float64": (0.1, 0.1 + 2**-56, 1e22, 1e-7, 1.0, 1e16, 1e16 + 2, -1.5),
    "decimal(20,3)": tuple(map(Decimal, ("0", "0.001", "1", "10", "-1", "12345678901234567.891"))),
    "date": (dt.date(1, 1, 1), dt.date(2026, 1, 2), dt.date(2026, 2, 1), dt.date(9999, 12, 31)),
    "datetime(6)": (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, 0, 0, 0, 1), dt.datetime.max),
    "time(6)": (dt.time(), dt.time(1), dt.time(0, 0, 1), dt.timedelta(hours=25), dt.timedelta(-1)),
    "uuid": (UUID(int=0), UUID(int=1), UUID(int=2**127)),
    "enum('a', 'b', 'ab')": ("a", "b", "ab"),
    "bool": (False, True),
}


def insert(table: Any, row: tuple[Any, ...]) -> None:
    """Insert a row, unless the database takes its key for one that is there."""
    with contextlib.suppress(dj.errors.DuplicateError):
        table.insert1(row)


def test_rows_have_partition_keys_of_their_own(schema: Any) -> None:
    source = random.Random(7)
    for number, (kind, values) in enumerate(KEYS.items()):
        other = source.choice(list(KEYS))
        definition = f"one : {kind}\nother : {other}"
        table = schema(type(f"Key{number}Table", (dj.Manual,), {"definition": definition}))
        for value in values:
            insert(table, (value, KEYS[other][0]))
        for _ in range(10):
            insert(table, (source.choice(values), source.choice(KEYS[other])))
        query = table()
        grain = Grain("lab.Key", tuple(query.heading.attributes.values()))
        rows = fetch.keys(query.connection, query.node, grain.names)
        assert len(rows) == len(query) >= 2
        partitions = list(map(grain.encode, query.keys()))
        assert len(set(partitions)) == len(rows)
        assert sorted(grain.encode_rows(rows)) == sorted(partitions)
        for key, partition in zip(query.keys(), partitions, strict=True):
            assert grain.decode(partition) == key
            assert len(query & grain.decode(partition)) == 1


@pytest.mark.parametrize(
    ("kind", "value", "literals"),
    [
        ("date", dt.date(2026, 1, 5), ["'20260105'", "'2026-W02-1'"]),
        ("datetime", dt.datetime(2026, 1, 5), ["'2026-01-05T00:00:00'", "'2026-01-05'"]),
        ("time", dt.timedelta(hours=9, minutes=5), ["'09:05'", "'09:05:00.000'", "'9:05:00'"]),
        ("uuid", UUID(int=10), ["'0000000000000000000000000000000A'"]),
        ("int32", 1, ["1.5", "'x'", "x'31'"]),
        ("bool", True, ["2", "-1"]),
        ("decimal(9,2)", Decimal("1.50"), ["1.501", "'y'"]),
        ("varchar(9)", "a", ["x'61'"]),
        ("varchar(9)", "a", ["cast(x'ff' as text)", "cast(x'61ff' as text)"]),
    ],
)
def test_keys_that_another_program_spelled_are_named(
    tmp_path: Any, caplog: Any, kind: str, value: Any, literals: list[str]
) -> None:
    connection = dj.Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    table: Any = dj.Schema("lab", connection=connection)(
        type("Key", (dj.Manual,), {"definition": f"one : {kind}\ntwo : int8"})
    )
    table.insert1((value, 1))
    for literal in literals:
        connection.query(f"INSERT INTO `lab.key` VALUES ({literal}, 1)")
    query = table()
    names = ["one", "two"]
    rows, errors = fetch.readable(connection, query.node, names)
    assert rows == [(value, 1)]
    assert len(errors) == len(literals)
    assert all("lab.key.one" in str(error) for error in errors)
    for part in (names, names[:1]):
        pages = [row for page in key_pages(query, part) for row in page]
        assert pages == [(value, 1)[: len(part)]]
    assert fetch.keys(connection, query.node, names) == rows
    assert "lab.key.one" in caplog.text
    connection.close()

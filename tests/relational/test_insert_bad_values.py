"""One bad value among ten thousand rows: named, and nothing written; and what `validate` says."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj


class Side(StrEnum):
    LEFT = "left"


GOOD: dict[str, Any] = {
    "n": 5,
    "small": 3,
    "x": 0.5,
    "f": 0.25,
    "name": "ok",
    "side": "left",
    "day": date(2026, 1, 2),
    "at": datetime(2026, 1, 2, 3, 4, 5),
    "price": Decimal("1.50"),
    "flag": True,
    "uid": UUID(int=7),
    "raw": b"\x00'\\",
    "data": {"a": [1]},
    "memo": "text",
}


@pytest.fixture
def reading(schema: Any) -> Any:
    @schema
    class Reading(dj.Manual):
        definition = """
        id : int32
        ---
        n : int32
        small : int8
        x : float64
        f : float32
        name : varchar(5)
        side : enum('left', 'right')
        day : date
        at : datetime
        price : decimal(5,2)
        flag : bool
        uid : uuid
        raw : bytes
        data : json
        memo : tinytext
        """

    return Reading


BAD: list[tuple[str, Any, str]] = [
    ("n", 2**31, "int32"),
    ("n", 1.5, "whole"),
    ("n", "1_0", "int32"),
    ("n", None, "default"),
    ("small", 128, "-128 and 127"),
    ("x", math.inf, "finite"),
    ("x", math.nan, "default"),
    ("x", -math.inf, "finite"),
    ("f", 1e39, "float32"),
    ("name", "sixsix", "6 characters"),
    ("name", "üüüüüü", "6 characters"),
    ("name", b"ab", "text"),
    ("side", "up", "'left', 'right'"),
    ("day", "2026-02-30", "day"),
    ("at", datetime(2026, 1, 1, tzinfo=UTC), "time zone"),
    ("at", "later", "datetime"),
    ("price", 1000, "3 digits"),
    ("flag", 2, "True"),
    ("uid", "no", "uuid"),
    ("raw", "text", "bytes"),
    ("data", {1, 2}, "json"),
    ("memo", "ü" * 200, "400 bytes"),
    ("memo", "x" * 256, "256 bytes"),
]


def test_one_bad_value_among_ten_thousand(reading: Any) -> None:
    good = [{"id": n, **GOOD} for n in range(10_000)]
    for name, value, words in BAD:
        given = list(good)
        given[7_000] = {**good[7_000], name: value}
        with pytest.raises(dj.QueryError, match=words) as caught:
            reading.insert(given)
        message = str(caught.value)
        assert f"{reading().name}" in message, name
        assert name in message
        assert "'id': 7000" in message
    assert len(reading) == 0
    reading.insert(good)
    assert len(reading) == 10_000
    row = (reading & "id = 9999").fetch1()
    assert row == {"id": 9999, **GOOD}


def test_a_bad_row_at_the_server_leaves_nothing(reading: Any) -> None:
    good = [{"id": n, **GOOD} for n in range(10_000)]
    with pytest.raises(dj.DuplicateError):
        reading.insert([*good, good[0]])
    assert len(reading) == 0


def test_values_of_other_kinds_are_converted(reading: Any) -> None:
    other = {
        "n": np.int16(5),
        "small": 3.0,
        "x": np.float32(0.5),
        "f": 1,
        "name": np.str_("ok"),
        "side": Side.LEFT,
        "day": pd.Timestamp("2026-01-02"),
        "at": "2026-01-02T03:04:05",
        "price": 1.5,
        "flag": np.bool_(True),
        "uid": str(UUID(int=7)),
        "raw": bytearray(b"\x00'\\"),
        "memo": "ü",
    }
    expected = {**GOOD, "f": 1.0, "memo": "ü"}
    reading.insert([{"id": 1, **GOOD}, {"id": 2, **GOOD, **other}])
    reading.insert1({"id": 3, **GOOD, **other, "side": "LEFT"})
    assert (reading & "id = 1").fetch1() == {"id": 1, **GOOD}
    assert (reading & "id = 2").fetch1() == {"id": 2, **expected}
    assert (reading & "id = 3").fetch1() == {"id": 3, **expected}


def test_insert1_checks_as_insert_does(reading: Any) -> None:
    for name, value, words in BAD:
        with pytest.raises(dj.QueryError, match=words):
            reading.insert1({"id": 1, **GOOD, name: value})
    with pytest.raises(dj.UnknownAttributeError, match="'extra'"):
        reading.insert1({"id": 1, **GOOD, "extra": 1})
    with pytest.raises(dj.MissingAttributeError, match="'n'"):
        reading.insert1({"id": 1})
    assert len(reading) == 0


def test_objects_are_written_after_all_checks(schema: Any, tmp_path: Path) -> None:
    @schema
    class Kept(dj.Manual):
        definition = """
        id : int32
        ---
        big : <blob@local>
        n : int8
        """

    with pytest.raises(dj.InvalidValueError):
        Kept.insert([{"id": 1, "big": [1], "n": 1}, {"id": 2, "big": [2], "n": 999}])
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    result = Kept.validate([{"id": 1, "big": [1], "n": 1}])
    assert result.is_valid
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_validate_finds_every_error(reading: Any) -> None:
    given: list[dict[str, Any]] = [{"id": n, **GOOD} for n in range(5)]
    given[1]["n"] = 2**40
    given[1]["name"] = "too long"
    given[3]["colour"] = "red"
    del given[4]["x"]
    result = reading.validate(given)
    assert not result
    assert result.rows_checked == 5
    assert [(row, name) for row, name, _ in result.errors] == [
        (1, "n"),
        (1, "name"),
        (3, None),
        (4, "x"),
    ]
    assert "4 error(s) in 5 rows" in result.summary()
    with pytest.raises(dj.DataJointError, match=r"Row 1, n: .*int32"):
        result.raise_if_invalid()
    assert len(reading) == 0


def test_validate_of_good_rows(reading: Any) -> None:
    result = reading.validate([{"id": 1, **GOOD, "extra": 1}], ignore_extra_fields=True)
    assert result
    assert result.is_valid
    assert result.errors == []
    result.raise_if_invalid()
    assert "1 rows checked" in result.summary()
    assert not reading.validate([(1, 2)])
    assert not reading.validate([5])


def test_strings_are_data_everywhere(schema: Any) -> None:
    @schema
    class Text(dj.Manual):
        definition = """
        code : varchar(60)
        ---
        value : varchar(60)
        memo : text
        data : json
        raw : bytes
        """

    nasty = [
        "'",
        "''",
        '"',
        "\\",
        "\\'",
        "'; DROP TABLE text; --",
        "%s %(a)s %%",
        "`",
        "\x00\x1a",
        "\n\r\t",
        "),(",
        "DEFAULT",
        "NULL",
        ":x ?",
        "/*",
        "日本🧠",
        "{}",
        "$1",
    ]
    given = [
        {"code": f"{n}{s}", "value": s, "memo": s, "data": {s: s}, "raw": s.encode() + b"\xff"}
        for n, s in enumerate(nasty)
    ]
    Text.insert(given[::2])
    for row in given[1::2]:
        Text.insert1(row)
    found = {row["code"]: row for row in Text.to_dicts()}
    assert found == {row["code"]: row for row in given}


def test_an_infinite_number_is_looked_for_where_there_may_be_one(
    schema: Any, connection: dj.Connection
) -> None:
    @schema
    class Level(dj.Manual):
        definition = "level : float64"

    Level.insert([{"level": 1.5}, {"level": 2.5}])
    wanted = [{"level": math.inf}, {"level": 1.5}]
    if connection.backend.has_infinity:
        assert len(Level & wanted) == 1
        return
    for restriction in (wanted, wanted[0], {"level": -math.inf}):
        with pytest.raises(dj.DataJointError, match=r"level cannot be compared with -?inf"):
            len(Level & restriction)

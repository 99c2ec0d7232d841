"""Values of every type on their way in and out, and those that do not fit."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj
from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import parse_type
from dj_dagster.relational.values import checked


def table_of(schema: Any, *lines: str) -> Any:
    class Value(dj.Manual):
        definition = "\n".join(["id : int32", "---", *lines])

    return schema(Value)


UID = UUID("12345678-1234-5678-1234-567812345678")
ROUND_TRIPS: list[tuple[str, list[Any]]] = [
    ("int8", [(-128, -128), (127, 127), (np.int64(3), 3), (2.0, 2), ("7", 7)]),
    ("int16", [(-(2**15), -(2**15)), (2**15 - 1, 2**15 - 1)]),
    ("int32", [(-(2**31), -(2**31)), (2**31 - 1, 2**31 - 1)]),
    ("int64", [(-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1)]),
    ("int unsigned", [(0, 0), (2**32 - 1, 2**32 - 1)]),
    ("float64", [(0.1, 0.1), (-1e308, -1e308), (5e-324, 5e-324), (math.pi, math.pi)]),
    (
        "float32",
        [(0.1, 0.1), (16777217.0, 16777216.0), (1234567.8, 1234567.8), (-2.3e-20, -2.3e-20)],
    ),
    ("bool", [(True, True), (0, False), (np.bool_(True), True)]),
    (
        "decimal(10, 3)",
        [
            ("-1.5", Decimal("-1.500")),
            (Decimal("1234567.8915"), Decimal("1234567.892")),
            (2, Decimal(2)),
        ],
    ),
    ("decimal(4, 1)", [(True, "1.0"), (np.bool_(False), "0.0")]),
    ("decimal(30, 5)", [("1234567890123456789012345.12345",) * 2]),
    ("decimal(40, 30)", [(f"-{'9' * 10}.{'9' * 30}",) * 2, (f"0.{'1' * 30}",) * 2]),
    ("decimal(30, 30)", [(f"0.{'9' * 30}",) * 2]),
    (
        "varchar(20)",
        [('it\'s "q" \\ % %s :x ?', None), ("日本 🧠", None), ("", None), (5, "5"), (True, "1")],
    ),
    ("enum('a:b', 'it''s', '50%')", [("a:b", None), ("it's", None), ("50%", None)]),
    (
        "date",
        [
            (date(1, 1, 1), None),
            (date(9999, 12, 31), None),
            ("2026-02-28", date(2026, 2, 28)),
            (datetime(2026, 1, 2, 3), date(2026, 1, 2)),
            (np.datetime64("2026-01-02"), date(2026, 1, 2)),
        ],
    ),
    (
        "datetime",
        [
            (datetime(999, 1, 1), None),
            (datetime(2026, 1, 1, 0, 0, 0, 499_999), datetime(2026, 1, 1)),
            ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
            (date(2026, 1, 2), datetime(2026, 1, 2)),
            (pd.Timestamp("2026-01-02 03:04:05"), datetime(2026, 1, 2, 3, 4, 5)),
        ],
    ),
    ("datetime(3)", [(datetime(2026, 1, 1, 0, 0, 0, 1400), datetime(2026, 1, 1, 0, 0, 0, 1000))]),
    ("datetime(6)", [(datetime(2026, 1, 1, 0, 0, 0, 123_456), None)]),
    (
        "time",
        [
            (time(23, 59, 59, 400_000), timedelta(hours=23, minutes=59, seconds=59)),
            (timedelta(hours=2), None),
            ("9:05", timedelta(hours=9, minutes=5)),
            (np.timedelta64(90, "m"), timedelta(minutes=90)),
            (timedelta(hours=-1), None),
            (timedelta(hours=-838, minutes=-59), None),
        ],
    ),
    ("double(5,2)", [(1.225, 1.23), (-1.225, -1.23), (999.994, 999.99), (3, 3.0), (1.93, None)]),
    ("float(5,2)", [(1.23456, 1.23), (999.99, None)]),
    ("float(53)", [(1.23456789, None)]),
    ("time(3)", [(timedelta(hours=30, milliseconds=5), None)]),
    ("time(6)", [(time(1, 2, 3), timedelta(hours=1, minutes=2, seconds=3))]),
    ("uuid", [(UID, None), (str(UID), UID)]),
    ("json", [({"a": [1, None, "ü%s"]}, None), ([], None), ("text", None), (1.5, None)]),
    ("bytes", [(b"\x00\xff%s'", None), (bytearray(b"x"), b"x"), (b"", None)]),
    ("text", [("x" * 3000, None)]),
    ("year", [(2026, None)]),
    ("<blob>", [([1, "a", None], None), ("text", None), ({"k": (1, 2)}, None)]),
    ("<blob@local>", [({"big": b"x" * 2000}, None)]),
]


ROUNDED = {"decimal(10, 3)", "double(5,2)", "float(5,2)"}
"""Types whose rows are not found by a number of more digits, which equals none of them."""


@pytest.mark.parametrize(("kind", "values"), ROUND_TRIPS, ids=[kind for kind, _ in ROUND_TRIPS])
def test_values_round_trip(schema: Any, kind: str, values: list[tuple[Any, Any]]) -> None:
    table = table_of(schema, f"value : {kind}", f"other = null : {kind}")
    for number, (given, _) in enumerate(values):
        table.insert1({"id": number, "value": given})
    for number, (given, expected) in enumerate(values):
        wanted = given if expected is None else expected
        if kind.startswith("decimal"):
            wanted = Decimal(wanted)
        row = (table & {"id": number}).fetch1()
        assert row["value"] == wanted
        assert type(row["value"]) is type(wanted)
        assert row["other"] is None
        if kind not in ("json", "<blob>", "<blob@local>"):
            found = kind not in ROUNDED or float(given) == float(wanted)
            assert len(table & {"id": number, "value": given}) == found
            assert len(table & [{"id": number, "value": given}]) == found


@pytest.mark.parametrize("kind", ["decimal(6,2)", "decimal(34,30)", "decimal(20,2)"])
def test_a_decimal_with_more_digits_finds_no_row(schema: Any, kind: str) -> None:
    table = table_of(schema, f"value : {kind}")
    table.insert1({"id": 1, "value": "1.50"})
    for beside in (1.5 + 1e-15, f"1.5{'0' * 30}1", f"1.4{'9' * 30}5", Decimal("1.501")):
        given = {"value": beside}
        if kind != "decimal(34,30)" or isinstance(beside, str):
            assert (table & given).delete(prompt=False) == 0
            assert not table & [given, given]
    for same in (1.5, "1.500", Decimal("1.5"), np.float32(1.5)):
        assert len(table & {"value": same}) == len(table & [{"value": same}]) == 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int8", 128),
        ("int8", -129),
        ("int8", 1.5),
        ("int8", "x"),
        ("int8", [1]),
        ("int8", math.inf),
        ("int unsigned", -1),
        ("int64", 2**63),
        ("float64", math.inf),
        ("float64", "nan"),
        ("float64", "x"),
        ("float64", np.complex128(1 + 2j)),
        ("float32", np.complex64(1)),
        ("float32", 1e39),
        ("double(5,2)", 999.995),
        ("float(5,2)", -1000),
        ("float(10,4)", 999_999.9999),
        ("bool", 2),
        ("bool", "yes"),
        ("decimal(5, 2)", 1000),
        ("decimal(5, 2)", "x"),
        ("decimal(5, 2)", "inf"),
        ("decimal(5, 2)", Decimal("sNaN")),
        ("varchar(3)", "four"),
        ("varchar(3)", b"abc"),
        ("varchar(3)", ["a"]),
        ("varchar(3)", "\ud800"),
        ("enum('a', 'b')", "c"),
        ("enum('a', 'b')", ""),
        ("date", "2026-02-30"),
        ("date", 5),
        ("date", "yesterday"),
        ("datetime", datetime(2026, 1, 1, tzinfo=UTC)),
        ("datetime", pd.Timestamp("2026-01-01", tz="UTC")),
        ("date", datetime(2026, 1, 1, tzinfo=UTC)),
        ("date", pd.Timestamp("2026-01-01", tz="UTC")),
        ("datetime", "2026-01-01 25:00:00"),
        ("time", timedelta(hours=839)),
        ("time(6)", "-838:59:59.000001"),
        ("time", "25:00"),
        ("uuid", "no uuid"),
        ("uuid", 5),
        ("json", {"a": math.nan}),
        ("json", {1, 2}),
        ("json", np.zeros(2)),
        ("json", [{1: "lost", "1": "kept"}]),
        ("json", {"name": "\ud800"}),
        ("bytes", "text"),
        ("bytes", 5),
    ],
)
def test_values_that_do_not_fit_are_refused(schema: Any, kind: str, value: Any) -> None:
    table = table_of(schema, f"value : {kind}")
    if isinstance(value, Decimal):
        with pytest.raises(dj.MissingAttributeError):  # a NaN stands for no value
            table.insert1({"id": 1, "value": value})
        return
    with pytest.raises(dj.InvalidValueError) as caught:
        table.insert([{"id": 1, "value": value}])
    message = str(caught.value)
    assert f"{table().name}.value" in message
    assert "'id': 1" in message
    assert len(table) == 0


def test_defaults_and_missing_values(schema: Any) -> None:
    table = table_of(
        schema,
        "n = 5 : int32",
        "x = null : float64",
        "s = 'a''b' : varchar(5)",
        "f = True : bool",
        "d = '2026-01-02' : date",
        "t = CURRENT_TIMESTAMP : datetime",
        "t3 = CURRENT_TIMESTAMP : datetime(3)",
        "t6 = CURRENT_TIMESTAMP(6) : datetime(6)",
    )
    before = datetime.now() - timedelta(seconds=2)
    table.insert([{"id": 1}, {"id": 2, "n": math.nan, "x": "", "s": None, "f": pd.NA, "d": pd.NaT}])
    table.insert1({"id": 4, "n": np.ma.masked, "x": np.ma.masked, "d": np.ma.masked})
    table.insert1({"id": 3, "n": 1, "x": np.float64("nan"), "t": np.datetime64("NaT")})
    after = datetime.now() + timedelta(seconds=2)
    for row in table.to_dicts(order_by="KEY"):
        assert all(before < row[name] < after for name in ("t", "t3", "t6"))
        assert (row["x"], row["s"], row["f"], row["d"]) == (None, "a'b", True, date(2026, 1, 2))
        assert row["n"] == (1 if row["id"] == 3 else 5)
    assert not table.alter(prompt=False)


DEFAULTS: dict[str, tuple[str, Any]] = {
    "single = 0.1 : float": ("single", 0.1),
    "many = 16777217 : float32": ("many", 16777216.0),
    "rounded = 1.239 : double(5,2)": ("rounded", 1.24),
    "shown = 1.93 : double(5,2)": ("shown", 1.93),
    "zero = -0.0 : float64": ("zero", 0.0),
    "price = 1.005 : decimal(6,2)": ("price", Decimal("1.01")),
    "nothing = -0.001 : decimal(6,2)": ("nothing", Decimal("0.00")),
    "long = 1.5 : decimal(30,10)": ("long", Decimal("1.5")),
    "padded = 'ab  ' : char(6)": ("padded", "ab"),
    "text = 'null' : varchar(8)": ("text", "null"),
    "quoted = \"'x'\" : varchar(8)": ("quoted", "'x'"),
    "word = 'CURRENT_TIMESTAMP' : varchar(20)": ("word", "CURRENT_TIMESTAMP"),
    "count = 007 : int16": ("count", 7),
}


def test_a_default_is_stored_as_such_a_value_is(schema: Any) -> None:
    table = table_of(schema, *DEFAULTS)
    table.insert1({"id": 1})
    # Read as another process would.
    schema.connection.catalog.forget_all()
    table.insert1({"id": 2})
    table.insert1({"id": 3, "single": 2, "many": 2, "zero": 2, "price": 2, "long": 2, "text": "x"})
    table.update1({"id": 3, **dict.fromkeys(dict(DEFAULTS.values()))})
    for name, value in DEFAULTS.values():
        assert table.to_arrays(name, order_by="id").tolist() == [value] * 3, name
        assert math.copysign(1, value if isinstance(value, float) else 1) == 1
        assert len(table & {name: value}) == 3, name
    assert not table.alter(prompt=False)


def test_a_default_beyond_the_integers_of_sqlite(connection: dj.Connection, schema: Any) -> None:
    line = f"n = {2**64 - 1} : bigint unsigned"
    if connection.backend.name == "sqlite":
        with pytest.raises(dj.DefinitionError, match=r"value\.n .*64 bits"):
            table_of(schema, line)
        table = table_of(schema, "n : bigint unsigned")
        for rows in ([{"id": 1, "n": 2**63}], [{"id": 0, "n": 5}, {"id": 1, "n": 2**63}]):
            with pytest.raises(dj.InvalidValueError, match=r"value\.n : .*64 bits.*'id': 1"):
                table.insert(rows)
    else:
        table = table_of(schema, line)
        table.insert1({"id": 1})
        assert table.fetch1("n") == 2**64 - 1
        numbers = table.to_arrays("n")
        assert (numbers.dtype, numbers.tolist()) == (np.uint64, [2**64 - 1])


def test_an_update_drops_the_sign_of_zero_as_an_insert_does(schema: Any) -> None:
    table = table_of(schema, "x : float64")
    table.insert([{"id": 1, "x": -0.0}, {"id": 2, "x": 1.0}])
    table.update1({"id": 2, "x": -0.0})
    assert [math.copysign(1, x) for x in table.to_arrays("x")] == [1, 1]


@pytest.mark.parametrize("kind", ["decimal(6,2)", "decimal(20,0)", "decimal(30,2)"])
def test_zero_of_a_decimal_has_one_form(schema: Any, kind: str) -> None:
    zero = schema(type("Zero", (dj.Manual,), {"definition": f"n : {kind}\n---\nx : {kind}"}))
    for value in ("-0", -0.0, Decimal("-0.004")):
        zero.insert1({"n": value, "x": value})
        assert [each.is_signed() for each in zero.fetch1("n", "x")] == [False, False]
        with pytest.raises(dj.DuplicateError):
            zero.insert1({"n": 0, "x": 1})
        assert len(zero & {"n": 0, "x": "-0"}) == 1
        zero.delete_quick()


def test_blanks_at_the_end_of_an_enums_value_do_not_count(schema: Any) -> None:
    table = table_of(schema, "side : enum('left ', 'right')")
    table.insert1({"id": 1, "side": "left"})
    assert (table & {"side": "left"}).fetch1("side") == "left"
    with pytest.raises(dj.DefinitionError, match="repeats a value"):
        schema(type("Twice", (dj.Manual,), {"definition": "side : enum('left', 'left ')"}))


def test_uuid_is_inherited_as_a_key(schema: Any) -> None:
    @schema
    class Animal(dj.Manual):
        definition = """
        animal : uuid
        """

    @schema
    class Weight(dj.Manual):
        definition = """
        -> Animal
        ---
        -> [nullable] Animal.proj(mother='animal')
        """

    one, two = uuid4(), uuid4()
    Animal.insert([(one,), (two,)])
    Weight.insert([(one, None), (two, one)])
    assert (Weight & {"animal": two}).fetch1("mother") == one
    assert (Weight & [{"mother": str(one)}, {"mother": uuid4()}]).fetch1("animal") == two
    assert {row["animal"] for row in Animal & Weight} == {one, two}
    assert "WHERE" in (Animal & {"animal": one}).make_sql()


def test_auto_increment_numbers_rows(schema: Any) -> None:
    @schema
    class Counted(dj.Manual):
        definition = """
        id : int auto_increment
        ---
        name : varchar(8)
        """

    Counted.insert([{"name": "a"}, {"name": "b"}])
    Counted.insert1({"id": 9, "name": "c"})
    Counted.insert1({"name": "d"})
    assert Counted.to_arrays("id", order_by="KEY").tolist() == [1, 2, 9, 10]
    Counted.insert1({"id": 0, "name": "e"})
    Counted.insert([(0, "f"), ("0", "g"), (20, "h"), (np.int8(0), "i")])
    assert (Counted & "id > 10").to_arrays("id", order_by="KEY").tolist() == [11, 12, 13, 20, 21]


def test_default_in_the_key_is_no_row_number(schema: Any) -> None:
    @schema
    class Defaulted(dj.Manual):
        definition = """
        id = 7 : int32
        """

    Defaulted.insert1({})
    assert Defaulted.keys() == [{"id": 7}]


def test_blob_column_refuses_comparison(schema: Any) -> None:
    table = table_of(schema, "value : <blob>", "j : json")
    for restriction in ({"value": np.zeros(3)}, {"j": {"a": 1}}, {"id": "x"}):
        with pytest.raises(dj.InvalidValueError, match="cannot be compared"):
            len(table & restriction)


def test_too_large_row_says_what_to_do(schema: Any, connection: dj.Connection) -> None:
    table = table_of(schema, "value : <blob>")
    on_sqlite = connection.backend.name == "sqlite"
    limit = 0 if on_sqlite else connection.query("SELECT @@max_allowed_packet").fetchone()[0]
    random = np.random.default_rng(0).bytes(max(limit, 16 * 2**20) + 1)
    if on_sqlite:
        table.insert1((1, random))
        assert table.fetch1("value") == random
    else:
        with pytest.raises(dj.DataJointError, match="max_allowed_packet"):
            table.insert1((1, random))
        assert len(table) == 0


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("datetime", datetime(2026, 12, 31, 23, 59, 59, 700_000)),
        ("datetime(3)", datetime(2026, 1, 1, 0, 0, 0, 1500)),
        ("time", timedelta(hours=23, minutes=59, seconds=59, milliseconds=500)),
        ("time(1)", timedelta(hours=-30, milliseconds=-250)),
    ],
)
def test_parts_of_a_second_are_cut_or_rounded_as_the_server_does(
    schema: Any, connection: dj.Connection, kind: str, given: Any
) -> None:
    table = table_of(schema, f"value : {kind}", f"own : {kind}")
    table.insert1({"id": 1, "value": given, "own": given})
    if connection.backend.name == "sqlite":
        cut = {"datetime": datetime(2026, 12, 31, 23, 59, 59)}
        assert table.fetch1("value") == cut.get(kind, table.fetch1("value"))
    else:
        text = str(given) if isinstance(given, datetime) else SERVER_TIMES[kind]
        connection.query(f"UPDATE {table.full_table_name} SET own = %s", (text,))
    value, own = table.fetch1("value", "own")
    assert value == own
    assert len(table & {"value": given}) == 1


SERVER_TIMES = {"time": "23:59:59.500000", "time(1)": "-30:00:00.250000"}


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("int8", "abc", "not a whole number"),
        ("int8", [1], "not a whole number"),
        ("int8", float("inf"), "not a whole number"),
        ("float64", "x", "not a number"),
        ("decimal(5,2)", "x", "not a number"),
        ("date", "x", "2026-01-31"),
        ("date", "2026-02-31", "day is out of range"),
        ("datetime", "x", "2026-01-31 12:30:00"),
        ("time", "x", "12:30:00"),
    ],
)
def test_errors_say_what_a_value_is_not(kind: str, value: object, said: str) -> None:
    with pytest.raises(dj.InvalidValueError, match=said):
        checked(value, Attribute("value", parse_type(kind)))

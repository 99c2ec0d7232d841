"""Types of computed values: their digits and bytes, and whether rows are found by them."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj


def test_uuids_are_bytes_in_sql(schema: dj.Schema) -> None:
    """Their texts equal nothing on servers, so that SQLite does not compare them."""

    @schema
    class Probe(dj.Manual):
        definition = """
        serial : uuid
        """

    serial, other = uuid.UUID(int=1), uuid.UUID(int=2)
    Probe.insert([{"serial": serial}, {"serial": other}])
    assert (Probe & f"serial = unhex('{serial.hex}')").to_dicts() == [{"serial": serial}]
    for text in (f"in (0x{serial.hex}, 0x00)", f"= x'{serial.hex}'", f"< X'{other.hex}'"):
        assert (Probe & f"serial {text}").to_dicts() == [{"serial": serial}]
    found = Probe.proj(found="concat(length(serial), lower(hex(serial)))").to_arrays("found")
    assert sorted(found) == [f"16{serial.hex}", f"16{other.hex}"]
    text = Probe & f"serial = '{serial}'"
    if schema.connection.backend.name == "sqlite":
        with pytest.raises(dj.errors.QueryError, match="UUID with a text"):
            text.to_dicts()
    else:
        assert text.to_dicts() == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("decimal(5,2)", Decimal("1.50")),
        ("decimal(5,2)", Decimal("0.10")),
        ("decimal(30,10)", Decimal("0.1")),
        ("uuid", uuid.UUID(int=7)),
        ("datetime(3)", datetime.datetime(2026, 1, 2, 3, 4, 5, 600_000)),
    ],
)
def test_rows_are_found_by_what_is_computed(schema: dj.Schema, kind: str, value: Any) -> None:
    @schema
    class Value(dj.Manual):
        definition = f"number : int32\n---\nvalue = null : {kind}"

    Value.insert([(1, value), (2, None)])
    same = Value.proj(same="coalesce(value, value)")
    greatest = dj.U().aggr(Value, greatest="max(value)")
    for query in (same & {"same": value}, same & [{"same": value}], same - {"same": value}):
        assert len(query) == 1
    assert len(greatest & {"greatest": value}) == 1


@pytest.mark.parametrize("kind", ["decimal(5,2)", "decimal(30,10)"])
def test_a_decimal_beyond_64_bits_finds_no_row(schema: dj.Schema, kind: str) -> None:
    @schema
    class Value(dj.Manual):
        definition = f"number : int32\n---\nvalue = null : {kind}"

    Value.insert1((1, Decimal("1.50")))
    for far in (Decimal("1e30"), Decimal("-1e30"), Decimal(2**63)):
        assert len(Value & {"value": far}) == 0
        assert len(Value.proj(same="coalesce(value, value)") & {"same": far}) == 0


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("coalesce(gain, gain)", [0.1, 16777216.0]),
        ("case when number < 9 then gain end", [0.1, 16777216.0]),
        ("nullif(gain, 5)", [0.1, 16777216.0]),
        ("-gain", [-0.1, -16777216.0]),
        # Servers write six digits.
        ("concat(gain)", ["0.1", "16777200"]),
        # They calculate with 64 bits.
        ("gain + 1", [1.1000000014901161, 16777217.0]),
        ("abs(gain)", [0.10000000149011612, 16777216.0]),
        ("coalesce(gain, 1.5e0)", [0.10000000149011612, 16777216.0]),
        # MySQL has 32 bits of some of these.
        ("ifnull(gain, 0)", [0.10000000149011612, 16777216.0]),
        ("ifnull(gain, tries)", [0.10000000149011612, 16777216.0]),
        ("coalesce(gain, 0, tries)", [0.10000000149011612, 16777216.0]),
        ("if(number < 9, gain, 0)", [0.10000000149011612, 16777216.0]),
        ("case when number < 9 then gain else 0 end", [0.10000000149011612, 16777216.0]),
        ("greatest(gain, 0)", [0.10000000149011612, 16777216.0]),
        ("greatest(gain, gain)", [0.1, 16777216.0]),
        ("ifnull(gain, null)", [0.1, 16777216.0]),
    ],
)
def test_floats_of_32_bits_in_expressions(
    schema: dj.Schema, expression: str, values: list[Any]
) -> None:
    @schema
    class Channel(dj.Manual):
        definition = "number : int32\n---\ngain = null : float32\ntries = 1 : int8"

    Channel.insert([(1, 0.1, 1), (2, 16777216.0, 1)])
    computed = Channel.proj(found=expression)
    assert computed.to_arrays("found", order_by="KEY").tolist() == values
    assert (computed & {"found": values[1]}).fetch1("number") == 2


@pytest.fixture
def dose(schema: dj.Schema) -> Any:
    @schema
    class Dose(dj.Manual):
        definition = """
        dose : int32
        ---
        amount : decimal(8,2)
        many : decimal(30,2)
        info : json
        """

    digits = Decimal("12345678901234567890.10")
    Dose.insert([(1, "10.25", digits, {"s": "a"}), (2, "9.5", -digits, {"s": 5})])
    return Dose


def test_what_is_computed_keeps_its_kind_in_the_next_step(dose: Any) -> None:
    for before, text, value in [
        ("amount * 1", "round(c, 1)", 10.3),
        ("amount * 2", "concat(c)", "20.50"),
        ("amount * 4", "hex(c)", "29"),
        ("amount * 4", "c like '%.00'", 1),
        ("dose / 2", "c / 3", 0.16666667),
        ("many * 1", "concat(c)", "12345678901234567890.10"),
        ("json_extract(info, '$.s')", "c = 'a'", 1),
        ("info.s", "length(c)", 1),
    ]:
        query = (dose & "dose = 1").proj(made=before).proj(c="made")
        assert query.proj(found=text).fetch1("found") == value, text
        assert (dose.proj() * query).proj(found=text).fetch1("found") == value, text


def test_it_keeps_its_kind_out_of_subqueries(dose: Any) -> None:
    made = dose.proj(c="amount * 2")
    groups = dj.U("dose").aggr(dose, c="avg(amount)")
    for query, text, value in [
        (made & dj.Top(1) & "c > 0", "concat(c)", "20.50"),
        (dose.proj().extend(made & dj.Top(2)) & "dose = 1", "concat(c)", "20.50"),
        (dj.U("c") & made & "c > 20", "concat(c + 0)", "20.50"),
        (groups & "c like '%0000'" & "dose = 1", "concat(c + 0.05)", "10.300000"),
        (dj.U().aggr(groups, c="max(c)"), "concat(c)", "10.250000"),
        (dj.U().aggr(made, c="group_concat(c order by dose)"), "c", "20.50,19.00"),
        (dj.U().aggr(groups, c="sum(c)"), "concat(c)", "19.750000"),
    ]:
        assert query.proj(found=text).fetch1("found") == value, text


def test_values_are_compared_with_what_is_computed_as_on_servers(dose: Any) -> None:
    for text, value, numbers in [
        ("dose + 1", "2", [1]),
        ("amount * 2", "20.50 mg", [1]),
        ("dose = 1", "1", [1]),
        ("concat(dose)", 1, [1]),
        ("concat(dose)", "1", [1]),
        ("concat(amount)", 9.5, [2]),
        ("concat(amount)", Decimal("9.50"), [2]),
        ("dose / 8", "0.1250", [1]),
        ("concat('d', dose)", b"d2", [2]),
        ("unhex(dose * 61)", "a", [1]),
        ("info.s", 5, [2]),
        ("json_extract(info, '$.s')", "a", [1]),
        ("json_extract(info, '$.s')", 5, [2]),
        ("json_extract(info, '$.s')", 6, []),
    ]:
        made = dose.proj(made=text)
        for query in (made & {"made": value}, made & [{"made": value}]):
            assert query.to_arrays("dose").tolist() == numbers, (text, value)
        rest = [number for number in (1, 2) if number not in numbers]
        assert (made - {"made": value}).to_arrays("dose").tolist() == rest, (text, value)
    many = [{"made": number} for number in range(30)]
    assert len(dose.proj(made="concat(dose)") & many) == 2


def test_what_sqlite_cannot_do_with_computed_attributes_is_told(tmp_path: Path) -> None:
    with dj.Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}") as opened:

        @dj.Schema("lab", connection=opened)
        class Dose(dj.Manual):
            definition = "dose : int32\n---\nmany : decimal(30,2)"

        Dose.insert1((1, "12345678901234567890.10"))
        made = Dose.proj(c="many * 1") & dj.Top(1) & "dose = 1"
        with pytest.raises(dj.QueryError, match="'c' may have more digits"):
            made.proj(found="concat(c)").to_dicts()
        with pytest.raises(dj.QueryError, match="'made' with texts and numbers"):
            (Dose.proj(made="concat(dose)") & [{"made": 1}, {"made": "2"}]).to_dicts()


def test_bytes_that_are_no_text_are_told_on_sqlite(tmp_path: Path) -> None:
    with dj.Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}") as opened:

        @dj.Schema("lab", connection=opened)
        class Raw(dj.Manual):
            definition = "number : int32\n---\nraw : bytes"

        Raw.insert([(1, b"abc"), (2, b"\xff")])
        assert (Raw & "number = 1").proj(text="cast(raw as char)").fetch1("text") == "abc"
        with pytest.raises(dj.QueryError, match="UTF-8"):
            Raw.proj(text="cast(raw as char)").to_dicts()

"""Partition keys: reversible for every key type, and never what Dagster forbids."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from dagster import DynamicPartitionsDefinition
from dagster._core.definitions.partitions.utils.base import (  # the rule that Dagster applies
    INVALID_PARTITION_SUBSTRINGS,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import parse_type
from dj_dagster.orchestration import decode_key, encode_key
from dj_dagster.orchestration.tables.grains import decode_shared

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bigint unsigned": st.integers(0, 2**64 - 1),
    "varchar(255)": st.text(),
    "char(8)": st.text(max_size=8),
    "enum('left', 'right/…', 'a=b')": st.sampled_from(["left", "right/…", "a=b"]),
    "date": st.dates(),
    "datetime(6)": st.datetimes(),
    "time(6)": st.timedeltas(-dt.timedelta(hours=838), dt.timedelta(hours=838)),
    "uuid": st.uuids(),
    "decimal(12, 3)": st.decimals(-(10**8), 10**8, places=3),
    "decimal(50, 10)": st.integers(-(10**50), 10**50).map(lambda n: Decimal(f"{n}e-10")),
    "bool": st.booleans(),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
}
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a busy machine drawing examples is slow, which says nothing of them."""

TYPES = st.sampled_from(list(VALUES))


@st.composite
def keys(draw: st.DrawFn) -> tuple[list[Attribute], dict[str, Any]]:
    types = draw(st.lists(TYPES, min_size=1, max_size=4))
    heading = [Attribute(f"a{n}", parse_type(text), in_key=True) for n, text in enumerate(types)]
    return heading, {f"a{n}": draw(VALUES[text]) for n, text in enumerate(types)}


def text_key(value: str) -> tuple[list[Attribute], dict[str, Any]]:
    return [Attribute("a0", parse_type("varchar(99)"), in_key=True)], {"a0": value}


@PATIENT
@given(keys())
@example(text_key("a/b=c%2F|d...e....f,\x00\n\"[*]' "))
@example(text_key("\ud800"))
@example(text_key(""))
def test_a_key_comes_back_as_it_went(case: tuple[list[Attribute], dict[str, Any]]) -> None:
    heading, key = case
    text = encode_key(heading, key)
    decoded = decode_key(heading, text)
    assert decoded == key
    assert [type(value) for value in decoded.values()] == [type(value) for value in key.values()]
    assert encode_key(heading, decoded) == text


@PATIENT
@given(keys())
@example(text_key("...\x07\x08|"))
def test_dagster_takes_every_partition_key(case: tuple[list[Attribute], dict[str, Any]]) -> None:
    heading, key = case
    text = encode_key(heading, key)
    assert not any(forbidden in text for forbidden in INVALID_PARTITION_SUBSTRINGS)
    assert text.isprintable()
    assert "|" not in text
    assert text.count("/") == len(heading) - 1


@PATIENT
@given(keys(), keys())
def test_different_keys_have_different_spellings(
    one: tuple[list[Attribute], dict[str, Any]], other: tuple[list[Attribute], dict[str, Any]]
) -> None:
    heading, key = one
    same_heading = [a.type for a in heading] == [a.type for a in other[0]]
    if same_heading and key != other[1]:
        assert encode_key(heading, key) != encode_key(heading, other[1])


@pytest.mark.parametrize(
    ("type_text", "value", "spelled"),
    [
        ("int32", 7, "x=7"),
        ("date", dt.date(2026, 1, 31), "x=2026-01-31"),
        ("date", "2026-01-31", "x=2026-01-31"),
        ("datetime", dt.datetime(2026, 1, 31, 8, 5), "x=2026-01-31T08:05:00"),
        ("uuid", UUID(int=1), "x=00000000-0000-0000-0000-000000000001"),
        ("decimal(9, 2)", Decimal("1.5"), "x=1.50"),
        ("decimal(9, 2)", Decimal("-0"), "x=0.00"),
        ("decimal(20, 0)", Decimal("1e12"), "x=1000000000000"),
        ("varchar(20)", "left eye", "x=left eye"),
        ("varchar(20)", "a/b", "x=a%2Fb"),
        ("bool", True, "x=1"),
    ],
)
def test_spellings_people_can_read(type_text: str, value: object, spelled: str) -> None:
    assert encode_key([Attribute("x", parse_type(type_text))], {"x": value}) == spelled


def test_attributes_come_in_the_order_of_the_heading_and_others_are_left_out() -> None:
    heading = [Attribute("b", parse_type("int32")), Attribute("a", parse_type("int32"))]
    assert encode_key(heading, {"a": 1, "b": 2, "note": "x"}) == "b=2/a=1"


def test_a_part_of_the_key_is_read_for_another_table() -> None:
    heading = {"a": Attribute("a", parse_type("int32"))}
    assert decode_shared(heading, "a=1/b=2") == {"a": 1}
    assert decode_shared(heading, "2026-11-20") == {}


@pytest.mark.parametrize("text", ["", "a=1", "b=1/a=2", "a=1/b=2/c=3", "a=x/b=2"])
def test_a_text_that_is_no_key_says_what_to_write(text: str) -> None:
    heading = [Attribute("a", parse_type("int32")), Attribute("b", parse_type("int32"))]
    with pytest.raises(InvalidValueError, match=r"a=\.\.\./b=\.\.\.|not a value of int32"):
        decode_key(heading, text)


@pytest.mark.parametrize(
    ("key", "message"), [({}, "lacks a"), ({"a": "x"}, "a = 'x' is not a value of int32")]
)
def test_a_key_that_does_not_fit_names_the_attribute(key: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        encode_key([Attribute("a", parse_type("int32"))], key)


def test_partitions_definitions_accept_the_keys() -> None:
    heading = [Attribute("a", parse_type("varchar(9)"))]
    texts = [encode_key(heading, {"a": value}) for value in ("a...b", "x\ny", "1|2")]
    assert DynamicPartitionsDefinition(lambda _: texts).get_partition_keys() == texts


@pytest.mark.parametrize(
    ("type_text", "odd"),
    [
        ("time(6)", [dt.timedelta(hours=-1), dt.timedelta(hours=30), dt.timedelta(hours=6)]),
        ("time(6)", [dt.timedelta(microseconds=-1), dt.timedelta(0), dt.timedelta(days=1)]),
        ("date", ["0000-00-00", "2026-00-00", "2026-01-00", dt.date(2026, 1, 1)]),
        ("datetime", ["0000-00-00 00:00:00", dt.datetime(1, 1, 1), dt.datetime(2026, 1, 1)]),
        ("char(4)", ["a", "a ", "A", " a", "", ".", "e\u0301", "\u00e9"]),
        ("year", [0, 1901, 2026]),
        ("bigint unsigned", [0, 2**63, 2**64 - 1]),
    ],
)
def test_what_only_a_server_can_hold_has_a_spelling_of_its_own(
    type_text: str, odd: list[Any]
) -> None:
    heading = [Attribute("x", parse_type(type_text))]
    spelled = [encode_key(heading, {"x": value}) for value in odd]
    assert len(set(spelled)) == len(odd)
    assert [decode_key(heading, text)["x"] for text in spelled] == odd

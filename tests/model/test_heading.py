"""What a heading tells about its attributes."""

import numpy as np
import pytest

from dj_dagster.model.heading import Attribute, Default, Heading
from dj_dagster.model.types import parse_type

HEADING = Heading(
    [
        Attribute("subject", parse_type("varchar(12)"), in_key=True, comment="who"),
        Attribute("number", parse_type("int unsigned auto_increment"), in_key=True),
        Attribute("weight", parse_type("float64"), default=Default("1.5")),
        Attribute("side", parse_type("enum('left', 'right')"), default=Default("left")),
        Attribute("age", parse_type("int8"), nullable=True),
        Attribute("born", parse_type("date")),
        Attribute("uid", parse_type("uuid")),
        Attribute("settings", parse_type("json")),
        Attribute("raw", parse_type("bytes")),
        Attribute("trace", parse_type("<blob@raw>")),
        Attribute("notes", parse_type("<attach>")),
        Attribute("total", None),
        Attribute("_hidden", parse_type("int8")),
    ],
    comment="of a test",
)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("numeric", ["number", "weight", "age"]),
        ("string", ["subject", "side", "born"]),
        ("uuid", ["uid"]),
        ("json", ["settings"]),
        ("is_blob", ["raw", "trace"]),
        ("holds_bytes", ["raw", "notes"]),
        ("is_attachment", ["notes"]),
        ("is_external", ["trace"]),
        ("autoincrement", ["number"]),
        ("nullable", ["age"]),
    ],
)
def test_kinds_of_attributes(asked, names):
    found = [name for name, attribute in HEADING.attributes.items() if getattr(attribute, asked)]
    assert found == names


def test_names():
    assert HEADING.primary_key == ["subject", "number"]
    assert HEADING.blobs == ["raw", "trace"]
    others = ["subject", "number", "weight", "side", "age", "born", "uid", "total"]
    assert HEADING.non_blobs == others
    assert HEADING.has_autoincrement
    assert HEADING.table_status["comment"] == "of a test"
    assert HEADING["trace"].codec == "blob"
    assert HEADING["trace"].store == "raw"
    assert HEADING["total"].codec is None


def test_numpy_type():
    fields = HEADING.as_dtype
    assert fields["number"] == np.int64
    assert fields["weight"] == np.float64
    assert fields["age"] == fields["subject"] == fields["total"] == np.dtype(object)


@pytest.mark.parametrize(
    ("written", "spellings", "others"),
    [
        ("int auto_increment", ["int"], ["int unsigned"]),
        ("enum('x', 'y')", ["enum('x','y')"], ["enum('x', 'y')"]),
        ("enum('a'', ''b', 'c')", ["enum('a'', ''b','c')"], []),
        ("longblob", ["longblob", "<blob>"], ["mediumblob"]),
        ("blob@raw", ["blob@raw", "<blob@raw>"], ["longblob", "blob@main"]),
        ("attach", ["attach", "<attach>"], ["longblob"]),
    ],
)
def test_types_compare_as_texts_of_datajoint(written, spellings, others):
    kind = parse_type(written)
    assert [text for text in spellings if kind != text] == []
    assert [text for text in others if kind == text] == []


def test_attributes_as_dicts():
    weight = Attribute("weight", parse_type("float64"), nullable=True, table="lab.mouse")
    found = weight.todict()
    assert (found["name"], found["default"], found["database"]) == ("weight", "null", "lab")
    assert found["dtype"] == weight._asdict()["dtype"] == np.float64
    assert HEADING["uid"].sql == '`uid` binary(16) NOT NULL COMMENT ":uuid:"'
    side = Default("abc", quoted=True)
    assert (side, side.value, side == Default("abc")) == ('"abc"', "abc", True)
    assert Heading([weight, HEADING["total"]]).new_attributes == ["total"]


def test_one_heading_determines_another():
    part = Heading([HEADING["subject"]])
    assert HEADING.determines(part)
    assert not part.determines(HEADING)


def test_text():
    lines = repr(HEADING).splitlines()
    assert lines[:4] == [
        "# of a test",
        "subject : varchar(12)  # who",
        "number : int unsigned auto_increment",
        "---",
    ]
    assert "weight = 1.5 : float64" in lines
    assert "side = 'left' : enum('left', 'right')" in lines
    assert "age = null : int8" in lines

"""Types as definitions write them."""

import pickle
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dj_dagster.errors import DefinitionError
from dj_dagster.model.types import AttributeType, Family, parse_type, read_type


def same(found, expected):
    """Types that are written alike are equal; these are in all that is known of them."""
    assert asdict(found) == asdict(expected)


@pytest.mark.parametrize(
    ("text", "family", "size"),
    [
        *((f"int{bits}", Family.INTEGER, bits) for bits in (8, 16, 32, 64)),
        *((f"float{bits}", Family.FLOAT, bits) for bits in (32, 64)),
        ("bool", Family.BOOL, None),
        ("date", Family.DATE, None),
        ("datetime", Family.DATETIME, None),
        ("datetime(6)", Family.DATETIME, 6),
        ("uuid", Family.UUID, None),
        ("json", Family.JSON, None),
        ("bytes", Family.BYTES, None),
        ("char(8)", Family.STRING, 8),
        ("varchar(255)", Family.STRING, 255),
    ],
)
def test_core_types_keep_their_spelling(text, family, size):
    same(parse_type(text), AttributeType(text, family, core=True, size=size))


@pytest.mark.parametrize(
    ("text", "family", "size"),
    [
        ("tinyint", Family.INTEGER, 8),
        ("smallint", Family.INTEGER, 16),
        ("mediumint", Family.INTEGER, 24),
        ("int", Family.INTEGER, 32),
        ("integer", Family.INTEGER, 32),
        ("bigint", Family.INTEGER, 64),
        ("float", Family.FLOAT, 32),
        ("double", Family.FLOAT, 64),
        ("real", Family.FLOAT, 64),
        *((text, Family.STRING, None) for text in ("tinytext", "text", "mediumtext", "longtext")),
        ("time", Family.TIME, None),
        ("time(3)", Family.TIME, 3),
        ("timestamp", Family.DATETIME, None),
        ("timestamp(6)", Family.DATETIME, 6),
    ],
)
def test_native_types_pass_through(text, family, size):
    same(parse_type(text), AttributeType(text, family, core=False, size=size))


def test_digits_of_floats():
    kinds = [parse_type(text) for text in ("float(24)", "FLOAT(25) unsigned", "double ( 5, 02 )")]
    assert [kind.text for kind in kinds] == ["float", "double unsigned", "double(5,2)"]
    assert [(kind.size, kind.digits, kind.scale) for kind in kinds] == [
        (32, None, None), (64, None, None), (64, 5, 2),
    ]  # fmt: skip
    for text in ("double(2,3)", "real(256,2)", "float(60,31)"):
        with pytest.raises(DefinitionError, match="impossible precision"):
            parse_type(text)


def test_year_and_serial_are_unsigned_integers():
    assert parse_type("year").family is Family.INTEGER
    serial = parse_type("serial")
    assert (serial.size, serial.unsigned, serial.auto_increment) == (64, True, True)


@pytest.mark.parametrize(
    ("written", "text", "unsigned", "counted"),
    [
        ("int unsigned", "int unsigned", True, False),
        ("INT(11)  UNSIGNED", "int unsigned", True, False),
        ("tinyint(1)", "tinyint", False, False),
        ("bigint unsigned auto_increment", "bigint unsigned auto_increment", True, True),
        ("int auto_increment", "int auto_increment", False, True),
    ],
)
def test_native_integers_lose_only_their_width(written, text, unsigned, counted):
    kind = parse_type(written)
    assert (kind.text, kind.unsigned, kind.auto_increment) == (text, unsigned, counted)


@pytest.mark.parametrize(
    ("written", "text", "size", "scale", "core"),
    [
        ("decimal(5,2)", "decimal(5,2)", 5, 2, True),
        ("decimal( 5, 2 )", "decimal(5,2)", 5, 2, True),
        ("decimal", "decimal(10,0)", 10, 0, True),
        ("decimal(4)", "decimal(4,0)", 4, 0, True),
        ("numeric(6,3)", "numeric(6,3)", 6, 3, False),
        ("decimal(5,2) unsigned", "decimal(5,2) unsigned", 5, 2, False),
    ],
)
def test_decimals(written, text, size, scale, core):
    kind = parse_type(written)
    assert kind.family is Family.DECIMAL
    assert (kind.text, kind.size, kind.scale, kind.core) == (text, size, scale, core)


def test_enum_values_may_hold_anything():
    kind = parse_type("""enum('left', "a:b", 'it''s # 1', "Say \\"hi\\", you")""")
    assert kind.values == ("left", "a:b", "it's # 1", 'Say "hi", you')
    assert kind.text == """enum('left', 'a:b', 'it''s # 1', 'Say "hi", you')"""


@pytest.mark.parametrize(
    ("written", "codec", "store"),
    [
        ("<blob>", "blob", None),
        ("<blob@>", "blob", ""),
        ("<blob@raw>", "blob", "raw"),
        ("<npy@cold-store.1>", "npy", "cold-store.1"),
        ("<MyCodec>", "MyCodec", None),
    ],
)
def test_codecs(written, codec, store):
    same(parse_type(written), AttributeType(written, Family.CODEC, codec=codec, store=store))


@pytest.mark.parametrize(
    ("old", "modern"),
    [
        *((blob, "<blob>") for blob in ("tinyblob", "blob", "mediumblob", "longblob", "LongBlob")),
        ("attach", "<attach>"),
        ("blob@raw", "<blob@raw>"),
        ("attach@Raw", "<attach@Raw>"),
        ("filepath@raw", "<filepath@raw>"),
        ("external-raw", "<blob@raw>"),
        ("external", "<blob@>"),
        ("boolean", "bool"),
        ("jsonb", "json"),
        ("VARCHAR(32)", "varchar(32)"),
        ("ENUM('A', 'b')", "enum('A', 'b')"),
        ("double precision", "double"),
    ],
)
def test_old_spellings_are_read_with_a_note(old, modern):
    kind, note = read_type(old)
    assert kind == parse_type(modern)
    assert note is not None
    assert repr(old) in note
    assert modern in note


@pytest.mark.parametrize(
    "text", ["int64", "enum( 'a','b' )", "decimal( 5, 2)", "int(11)", "<blob>"]
)
def test_todays_spellings_have_no_note(text):
    assert read_type(text)[1] is None


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("uint32", "int64, or the native 'int unsigned'"),
        ("int32 unsigned", "int64, or the native 'int unsigned'"),
        ("string", "varchar(255)"),
        ("strng", "varchar(255)"),
        ("varchar", "varchar(255)"),
        ("datetme", "datetime"),
        ("flaot64", "float64"),
        ("binary(16)", "bytes"),
        ("set('a', 'b')", "json"),
        ("geometry", "json"),
        ("char(256)", "from 1 to 255"),
        ("varchar(0)", "from 1 to 65535"),
        ("datetime(7)", "datetime(6)"),
        ("decimal(3,5)", "decimal(p,s)"),
        ("enum('a', 'a')", "once"),
        ("enum()", "enum('left', 'right')"),
        ("quaternion", "<blob>"),
        ("", "core type"),
        ("int32; drop table x", "int32"),
    ],
)
def test_what_is_no_type_is_told_what_to_write(text, instead):
    with pytest.raises(DefinitionError) as caught:
        parse_type(text)
    problem, advice = str(caught.value).split("\n")
    assert repr(text) in problem
    assert advice.startswith("write")
    assert instead in advice


@given(st.text())
def test_any_text_is_a_type_or_a_definition_error(text):
    try:
        kind = parse_type(text)
    except DefinitionError:
        return
    assert parse_type(kind.text) == kind


texts = st.text(max_size=8).map(lambda text: text.rstrip(" "))


@given(st.lists(texts, min_size=1, max_size=5, unique=True))
def test_enum_text_reads_back_to_its_values(values):
    quoted = ", ".join("'" + v.replace("\\", "\\\\").replace("'", "''") + "'" for v in values)
    kind = parse_type(f"enum({quoted})")
    assert kind.values == tuple(values)
    assert parse_type(kind.text) == kind


def test_a_type_is_the_text_that_it_is_written_as():
    kind = parse_type("VARCHAR(20)")
    assert kind == "varchar(20)"
    assert kind.startswith("varchar")
    assert kind in {"varchar(20)"}
    same(pickle.loads(pickle.dumps(kind)), kind)

"""Attribute types that a definition may write after the colon, today's and older ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum
from typing import Any, Self

from dj_dagster.errors import DefinitionError

STRING = r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\""""
"""Regular expression of a quoted string; quotes inside are doubled or follow a backslash."""


def unquote(literal: str) -> str:
    r"""Return the text inside a quoted string.

    Examples
    --------
    >>> unquote("'it''s'"), unquote('"a # b"')
    ("it's", 'a # b')
    """
    mark = literal[0]
    return re.sub(
        rf"\\(['\"\\])|{mark}{mark}", lambda found: found[1] or mark, literal[1:-1], flags=re.DOTALL
    )


def quote(value: str) -> str:
    """Return `value` as a single-quoted string that `unquote` reads back.

    Examples
    --------
    >>> quote("it's")
    "'it''s'"
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


class Family(Enum):
    """The kind of value that a type holds; most code looks at nothing else of a type."""

    INTEGER = "integer"
    FLOAT = "float"
    DECIMAL = "decimal"
    BOOL = "bool"
    STRING = "string"
    ENUM = "enum"
    DATE = "date"
    DATETIME = "datetime"
    TIME = "time"
    UUID = "uuid"
    JSON = "json"
    BYTES = "bytes"
    CODEC = "codec"


_BETWEEN = re.compile(rf"({STRING}), ")
_OLD_BLOBS = {"<blob>": "longblob"}


@dataclass(frozen=True, slots=True, eq=False)
class AttributeType(str):
    """A parsed attribute type, which is also a string: the type as DataJoint's headings have it.

    Programs written for DataJoint compare ``heading["name"].type == "varchar(20)"``. The string is
    the text without ``auto_increment`` and without blanks between the values of an enum. It is
    equal to old spellings too: ``"<blob>"`` to ``"longblob"``, ``"<blob@raw>"`` to ``"blob@raw"``.
    Two types are equal when their texts are.

    Attributes
    ----------
    text
        Today's spelling, in lower case where case does not matter: ``"int32"``, ``"varchar(255)"``,
        ``"enum('left', 'right')"``, ``"<blob@raw>"``, ``"int unsigned"``.
    family
        The kind of value; `Family.CODEC` for codec types of any stored form.
    core
        True for DataJoint's core types and codecs, which leave a ``:type:`` marker in the column
        comment; False for native MySQL types, which are passed through and leave none.
    size
        Length of ``char(n)``/``varchar(n)``, bits of integers and floats, fractional digits of
        ``datetime(n)``/``time(n)``/``timestamp(n)``, precision of ``decimal(p, s)``; None where
        the type has none.
    scale
        Scale of ``decimal(p, s)``, and digits after the point of ``double(m, d)``; None for floats
        that are not rounded.
    unsigned
        Whether an integer is unsigned (native types only).
    values
        The permitted values of an enum, in order.
    codec, store
        Name of the codec and of its store for codec types; `store` is None without ``@`` and the
        empty string for ``@`` without a name, which means the default store.
    auto_increment
        Whether the native type carries ``auto_increment``.
    rounds
        Whether the server rounds the digits of a second that it does not keep, instead of cutting
        them off.
    native
        The MySQL type that a blob was written as, ``"mediumblob"``; empty for ``<blob>``.
    digits
        All digits of ``float(m, d)`` and ``double(m, d)``, before and after the point.
    """

    text: str
    family: Family
    core: bool = True
    size: int | None = None
    scale: int | None = None
    unsigned: bool = False
    values: tuple[str, ...] = ()
    codec: str | None = None
    store: str | None = None
    auto_increment: bool = False
    rounds: bool = field(default=False, repr=False)
    native: str = field(default="", repr=False)
    digits: int | None = field(default=None, repr=False)

    def __new__(cls, text: str, *facts: Any, **named: Any) -> Self:
        """Make the string; the rest are fields."""
        # Not super(): with slots the class is made twice, and it would mean the first.
        del facts, named
        if text.startswith("enum("):
            text = _BETWEEN.sub(r"\1,", text)
        return str.__new__(cls, text.removesuffix(" auto_increment"))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AttributeType):
            return self.text == other.text
        if type(other) is str and self.codec is not None:
            return other in (self.text, self.text[1:-1], self.native or _OLD_BLOBS.get(self.text))
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @property
    def is_single(self) -> bool:
        """Whether values are floats of 32 bits, of which servers write six digits."""
        return self.family is Family.FLOAT and self.size == 32


_CORE = {
    **{f"int{bits}": (Family.INTEGER, bits) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": (Family.FLOAT, bits) for bits in (32, 64)},
    "bool": (Family.BOOL, None),
    "date": (Family.DATE, None),
    "datetime": (Family.DATETIME, None),
    "uuid": (Family.UUID, None),
    "json": (Family.JSON, None),
    "bytes": (Family.BYTES, None),
}
_TEXTS = ("tinytext", "text", "mediumtext", "longtext")
_INTEGERS = {
    "tinyint": 8,
    "smallint": 16,
    "mediumint": 24,
    "int": 32,
    "integer": 32,
    "bigint": 64,
}
_REALS = {"float": 32, "double": 64, "real": 64}
_TEMPORAL = {"datetime": Family.DATETIME, "timestamp": Family.DATETIME, "time": Family.TIME}
_LONGEST = {"char": 255, "varchar": 65535}
_KNOWN = [
    *_CORE,
    *_TEXTS,
    *_INTEGERS,
    *_REALS,
    *_TEMPORAL,
    *("varchar(255)", "char(1)", "decimal(10,2)", "enum('left', 'right')"),
    *("numeric", "year", "serial", "<blob>", "<attach>", "<filepath@store>"),
]

_CODEC = re.compile(r"<\s*([A-Za-z_]\w*)\s*(?:@\s*([\w.-]*)\s*)?>", re.ASCII)
_SIZED = re.compile(r"(char|varchar) ?\( ?([0-9]{1,6}) ?\)")
_FRACTIONAL = re.compile(r"(datetime|timestamp|time)(?: ?\( ?([0-9]) ?\))?")
_DECIMAL = re.compile(
    r"(decimal|numeric)(?: ?\( ?([0-9]{1,3}) ?(?:, ?([0-9]{1,3}) ?)?\))?( unsigned)?"
)
_INTEGER = re.compile(
    rf"({'|'.join(_INTEGERS)})(?: ?\( ?[0-9]+ ?\))?( unsigned)?(?: ?(auto_increment))?"
)
_REAL = re.compile(
    rf"({'|'.join(_REALS)})(?: ?\( ?([0-9]{{1,3}}) ?(?:, ?([0-9]{{1,3}}) ?)?\))?( unsigned)?"
)
_ENUM = re.compile(rf"enum\(\s*((?:{STRING})(?:\s*,\s*(?:{STRING}))*)\s*\)", re.DOTALL)


def parse_type(text: str) -> AttributeType:
    """Return the type that a definition writes as `text`.

    Raises
    ------
    DefinitionError
        When the type is unknown; the second line of the message says what to write instead.

    Examples
    --------
    >>> parse_type("longblob").text
    '<blob>'
    >>> parse_type("INT UNSIGNED")
    AttributeType(text='int unsigned', family=<Family.INTEGER: 'integer'>, core=False, size=32, \
scale=None, unsigned=True, values=(), codec=None, store=None, auto_increment=False)
    """
    return read_type(text)[0]


def read_type(text: str) -> tuple[AttributeType, str | None]:
    """Return the type, and a sentence about its spelling when that is an old one.

    Raises
    ------
    DefinitionError
        As `parse_type`.

    Examples
    --------
    >>> read_type("blob@raw")[1]
    "'blob@raw' is an old spelling: write '<blob@raw>'"
    """
    written, modern = text.strip(), modernise(text)
    for parse in _PARSERS:
        found = parse(modern)
        if found is not None:
            same = "".join(written.split()) == "".join(modern.split())
            old = None if same else f"{written!r} is an old spelling: write {modern!r}"
            if ALIASES.get(written.lower()) == "<blob>":
                found = replace(found, native=written.lower())
            return found, old
    raise DefinitionError(f"there is no type {written!r}\n{advice(modern, _KNOWN)}")


def without_counter(kind: AttributeType) -> AttributeType:
    """Return the type for a foreign key to an attribute: the same without auto-increment.

    Examples
    --------
    >>> without_counter(parse_type("serial")).text
    'bigint unsigned'
    """
    if not kind.auto_increment:
        return kind
    plain = "bigint unsigned" if kind.text == "serial" else kind.text
    return parse_type(plain.removesuffix("auto_increment"))


def _refuse(text: str, reason: str, instead: str) -> DefinitionError:
    return DefinitionError(f"the type {text!r} {reason}\nwrite {instead}")


def _plain(text: str) -> AttributeType | None:
    if text in _CORE:
        family, size = _CORE[text]
        return AttributeType(text, family, size=size)
    if text in _TEXTS:
        return AttributeType(text, Family.STRING, core=False)
    if text in ("year", "year(4)"):
        return AttributeType("year", Family.INTEGER, core=False, size=16, unsigned=True)
    if text == "serial":
        return AttributeType(
            text, Family.INTEGER, core=False, size=64, unsigned=True, auto_increment=True
        )
    return None


def _codec(text: str) -> AttributeType | None:
    match = _CODEC.fullmatch(text)
    if match is None:
        return None
    name, store = match.groups()
    spelled = f"<{name}>" if store is None else f"<{name}@{store}>"
    return AttributeType(spelled, Family.CODEC, codec=name, store=store)


def _sized_string(text: str) -> AttributeType | None:
    match = _SIZED.fullmatch(text)
    if match is None:
        return None
    kind, size = match[1], int(match[2])
    if not 1 <= size <= _LONGEST[kind]:
        instead = f"{kind}(n) with n from 1 to {_LONGEST[kind]}, or <blob> for a longer text"
        raise _refuse(text, "has an impossible length", instead)
    return AttributeType(f"{kind}({size})", Family.STRING, size=size)


def _fractional(text: str) -> AttributeType | None:
    match = _FRACTIONAL.fullmatch(text)
    if match is None:
        return None
    kind, digits = match[1], None if match[2] is None else int(match[2])
    if digits is not None and digits > 6:
        raise _refuse(text, "has too many fractional digits", f"{kind}(6), microseconds")
    spelled = kind if digits is None else f"{kind}({digits})"
    return AttributeType(spelled, _TEMPORAL[kind], core=kind == "datetime", size=digits)


def _decimal(text: str) -> AttributeType | None:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    kind, unsigned = match[1], match[4] or ""
    # Without a written precision, MySQL's own default.
    size, scale = int(match[2] or 10), int(match[3] or 0)
    if not (1 <= size <= 65 and scale <= min(size, 30)):
        instead = f"{kind}(p,s) with p from 1 to 65 digits, s of them (at most 30) after the point"
        raise _refuse(text, "has an impossible precision", instead)
    return AttributeType(
        f"{kind}({size},{scale}){unsigned}",
        Family.DECIMAL,
        core=kind == "decimal" and not unsigned,
        size=size,
        scale=scale,
        unsigned=bool(unsigned),
    )


def _enum(text: str) -> AttributeType | None:
    match = _ENUM.fullmatch(text)
    if match is None:
        return None
    # Servers drop blanks at the end of the values.
    found = [unquote(text[0]) for text in re.finditer(STRING, match[1], re.DOTALL)]
    values = tuple(value.rstrip(" ") for value in found)
    if len(set(values)) < len(values):
        raise _refuse(text, "repeats a value", "each value of an enum once")
    return AttributeType(f"enum({', '.join(map(quote, values))})", Family.ENUM, values=values)


def _integer(text: str) -> AttributeType | None:
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    kind, unsigned, counted = match.groups()
    return AttributeType(
        # Without the display width of old servers, which says nothing about the values.
        " ".join(part.strip() for part in match.groups() if part),
        Family.INTEGER,
        core=False,
        size=_INTEGERS[kind],
        unsigned=bool(unsigned),
        auto_increment=bool(counted),
    )


def _real(text: str) -> AttributeType | None:
    match = _REAL.fullmatch(text)
    if match is None:
        return None
    kind, digits, places, unsigned = match.groups()
    width = scale = None
    if places is not None:
        width, scale = int(digits), int(places)
        if not scale <= width <= 255 or scale > 30:
            instead = (
                f"{kind}(m,d) with m from 1 to 255 digits, d of them (at most 30) after the point"
            )
            raise _refuse(text, "has an impossible precision", instead)
    elif kind == "float" and int(digits or 0) > 24:
        # The digits alone say only how many bits a float has.
        kind = "double"
    rounded = "" if width is None else f"({width},{scale})"
    return AttributeType(
        f"{kind}{rounded}{unsigned or ''}",
        Family.FLOAT,
        core=False,
        size=_REALS[kind],
        scale=scale,
        unsigned=bool(unsigned),
        digits=width,
    )


_PARSERS = (_plain, _codec, _sized_string, _fractional, _decimal, _enum, _integer, _real)


ALIASES = {
    "boolean": "bool",
    "jsonb": "json",
    "char": "char(1)",
    "double precision": "double",
    "tinyblob": "<blob>",
    "blob": "<blob>",
    "mediumblob": "<blob>",
    "longblob": "<blob>",
    "attach": "<attach>",
    "external": "<blob@>",
}
"""Types that are read as another type."""

_STORED = re.compile(
    r"(?P<codec>blob|attach|filepath|external)[@-](?P<store>[\w.-]*)", re.ASCII | re.I
)

_REPLACEMENTS = {
    "uint8": "int16, or the native 'tinyint unsigned'",
    "uint16": "int32, or the native 'smallint unsigned'",
    "uint32": "int64, or the native 'int unsigned'",
    "uint64": "decimal(20,0), or the native 'bigint unsigned'",
    "float16": "float32",
    "string": "varchar(255)",
    "str": "varchar(255)",
    "varchar": "varchar(255)",
    "enum": "enum('left', 'right')",
    "number": "decimal(10,2), int64 or float64",
    "dec": "decimal(10,2)",
    "binary": "bytes, or uuid for a 16-byte identifier",
    "varbinary": "bytes",
    "bit": "bool, or an integer type such as int64",
    "set": "json for a list of words, or a part table with one row for each",
    "geometry": "json, or <blob> for any Python object",
    "point": "two float64 attributes, or <blob> for any Python object",
    "polygon": "json, or <blob> for any Python object",
    "array": "<blob>",
    "ndarray": "<blob>",
    "list": "json or <blob>",
    "dict": "json or <blob>",
    "file": "<attach>, or <filepath@store> for a file that stays where it is",
    "filepath": "<filepath@store>, naming the store that the file is in",
    "hash": "<hash@store>",
    "npy": "<npy@store>",
    "object": "<object@store>",
    "timestamptz": "datetime, in UTC",
}


def modernise(written: str) -> str:
    """Return today's spelling of a type; most types are returned unchanged.

    Examples
    --------
    >>> modernise("LONGBLOB"), modernise("blob@raw"), modernise("int  unsigned")
    ('<blob>', '<blob@raw>', 'int unsigned')
    """
    text = written.strip()
    if text.startswith("<"):
        return text
    if stored := _STORED.fullmatch(text):
        codec = stored["codec"].lower()
        return f"<{'blob' if codec == 'external' else codec}@{stored['store']}>"
    if values := re.match(r"enum\s*\(", text, re.IGNORECASE):
        return "enum(" + text[values.end() :]
    text = " ".join(text.lower().split())
    return ALIASES.get(text, text)


def advice(text: str, known: list[str]) -> str:
    """Return advice on what to write instead of a type that is not among the `known` ones."""
    word = re.match(r"\w*", text.lower())
    name = word[0] if word else ""
    if "unsigned" in text:
        # Core integers are all signed.
        name = f"u{name}" if f"u{name}" in _REPLACEMENTS else name
    close = get_close_matches(name, [*_REPLACEMENTS, *known], n=1)
    if close:
        return f"write {_REPLACEMENTS.get(close[0], close[0])}"
    return (
        "write a core type (int64, float64, varchar(255), datetime, ...) or a codec (<blob>, ...)"
    )

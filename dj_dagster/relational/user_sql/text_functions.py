"""MySQL's functions of texts, in Python, with pattern matching by LIKE and REGEXP."""

from __future__ import annotations

import hashlib
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache, partial
from textwrap import wrap
from typing import TYPE_CHECKING, TypeVar

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql.arithmetic import round_to
from dj_dagster.relational.user_sql.kinds import (
    BYTES,
    INT,
    MAX_SCALE,
    TEXT,
    Kind,
    Number,
    SqlValue,
    check_zero,
    rounded,
    text,
)
from dj_dagster.relational.user_sql.programs import (
    Call,
    CallForm,
    Form,
    Function,
    Program,
    ProgramOf,
    Untranslatable,
    argument,
    both,
    collation,
    heeds_case,
    pair,
    strict,
)

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

T = TypeVar("T", str, bytes)


def matches(pattern: str, value: str, *, heeds_case: bool = False) -> bool:
    """Whether a text has a match of a regular expression, usually regardless of case.

    Raises
    ------
    QueryError
        If Python and MySQL may read the expression differently, or it is not valid.
    """
    return _search(pattern, value, heeds_case=heeds_case) is not None


def _search(pattern: str, value: str, *, heeds_case: bool) -> re.Match[str] | None:
    compiled, doubtful = _compiled(pattern, heeds_case)
    dotless = not heeds_case and ("İ" in value or "ı" in value)
    if (doubtful and doubtful.search(value)) or (dotless and _takes_dotless(compiled, value)):
        raise QueryError(
            f"SQL on SQLite: servers and SQLite may differ in what REGEXP {pattern!r} finds in "
            f"{value!r:.60}. Use LIKE, or restrict in Python."
        )
    return compiled.search(value)


@lru_cache(maxsize=1000)
def _compiled(pattern: str, heeds_case: bool) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """Return a regular expression in Python's form, and one of the values that it cannot judge.

    Raises
    ------
    QueryError
        If servers and Python may read it differently, or it is not valid.
    """
    pieces = [found[0] for found in _PATTERN_PIECE.finditer(pattern)]
    classes = {name for piece in pieces if piece[0] == "[" for name in _CLASS.findall(piece)}
    unlike = any(map(_is_unlike, pieces)) or not classes <= _CLASSES.keys()
    # Servers differ in whether [:upper:] heeds case where nothing else does.
    if unlike or (not heeds_case and classes & {"upper", "lower"}):
        raise QueryError(
            f"SQL on SQLite: servers and SQLite may read the regular expression {pattern!r} "
            "differently. Write it without nested brackets, other classes than [:digit:] and "
            "[:alpha:], and { } that are not a number of repetitions."
        )
    try:
        found = re.compile("".join(map(_in_python, pieces)), 0 if heeds_case else re.IGNORECASE)
    except re.error as error:
        raise QueryError(
            f"SQL on SQLite: {pattern!r} is not a regular expression: {error}"
        ) from error
    doubtful = "|".join(sorted({_CLASSES[name][1] for name in classes} - {""}))
    return found, re.compile(doubtful) if doubtful else None


_PATTERN_PIECE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\{[0-9]+(?:,[0-9]*)?\}|.", re.DOTALL
)
_CLASS = re.compile(r"\[:(\^?\w+):\]")
_NOT_ASCII = r"[^\x00-\x7f]"
_CLASSES = {
    "digit": (r"\d", ""),
    "space": (r" \t-\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000", ""),
    "blank": (r" \t", _NOT_ASCII),
    "alpha": ("a-zA-Z", _NOT_ASCII),
    "alnum": ("a-zA-Z0-9", _NOT_ASCII),
    "upper": ("A-Z", _NOT_ASCII),
    "lower": ("a-z", _NOT_ASCII),
    "xdigit": ("0-9a-fA-F", _NOT_ASCII),
    "punct": (r"!-#%-*,-/:;?@\[-\]_{}", _NOT_ASCII + r"|[$+<=>^`|~]"),
}
"""Classes of characters in Python's form, and the values in which servers may see others."""


def _is_unlike(piece: str) -> bool:
    """Whether servers read a part of a regular expression in different ways."""
    if piece[0] != "[":
        return piece in ("{", "}")
    inside = re.sub(r"\\.", "x", piece[1:])
    if re.search(r"&&|--|-\[:|:\]-(?!\])", inside) or re.fullmatch(r":.*:\]", inside, re.DOTALL):
        return True
    return "[" in _CLASS.sub("", inside)


def _in_python(piece: str) -> str:
    if piece in ("\\Z", "\\z"):
        return r"(?=\n?\Z)" if piece == "\\Z" else r"\Z"
    return _CLASS.sub(lambda found: _CLASSES[found[1]][0], piece) if piece[0] == "[" else piece


def _takes_dotless(compiled: re.Pattern[str], value: str) -> bool:
    """Whether a match depends on Python's taking İ and ı for i, which servers do not."""
    others = str.maketrans("İı", "ªº")
    apart = re.compile(compiled.pattern.translate(others), compiled.flags)
    return [found.span() for found in compiled.finditer(value)] != [
        found.span() for found in apart.finditer(value.translate(others))
    ]


def like_pattern(pattern: str, escape: str, *, heeds_case: bool = False) -> re.Pattern[str]:
    """Return the expression that matches texts LIKE a pattern, usually regardless of case."""
    parts: list[str] = []
    escaped = False
    for char in pattern:
        if escaped or char not in ("%", "_", escape):
            parts.append(re.escape(char))
            escaped = False
        elif char == escape:
            escaped = True
        else:
            parts.append(".*" if char == "%" else ".")
    flags = re.S if heeds_case else re.I | re.S
    return re.compile("".join(parts) + (re.escape(escape) if escaped else ""), flags)


def _like(program_of: ProgramOf, node: Expr) -> Program:
    from sqlglot import exp

    escape = "\\"
    if isinstance(node, exp.Escape):
        escape = program_of(node.expression).literal
        node = node.this
        if not isinstance(node, exp.Like) or not isinstance(escape, str) or len(escape) > 1:
            raise Untranslatable("ESCAPE")
    one, other = both(program_of, node)
    negate = bool(node.args.get("negate"))
    is_bytes = "bytes" in (one.kind.family, other.kind.family)
    case = is_bytes or heeds_case("LIKE", one, other)

    def run(a: SqlValue, b: SqlValue) -> int:
        pattern = like_pattern(text(b, other.kind), escape, heeds_case=case)
        return int((pattern.fullmatch(text(a, one.kind)) is not None) is not negate)

    return pair(one, other, run, INT)


def _regexp(program_of: ProgramOf, node: Expr) -> Program:
    return _matched(*both(program_of, node))


def _matched(one: Program, other: Program) -> Program:
    if "bytes" in (one.kind.family, other.kind.family):
        raise Untranslatable("REGEXP of bytes")
    case = heeds_case("REGEXP", one, other)

    def run(a: SqlValue, b: SqlValue) -> int:
        return int(matches(text(b, other.kind), text(a, one.kind), heeds_case=case))

    return pair(one, other, run, INT)


def _regexp_call(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    if len(given) != 2:
        raise Untranslatable("REGEXP_LIKE() with a match type")
    one, other = (program_of(part) for part in given)
    return _matched(one, other)


def _regexp_part(program_of: ProgramOf, given: Sequence[Expr], name: str) -> Program:
    """Return the program of a function that takes a text and a regular expression."""
    count = 3 if name == "REGEXP_REPLACE" else 2
    if len(given) != count:
        raise Untranslatable(f"{name}() with {len(given)} arguments")
    values = [program_of(part) for part in given]
    case = heeds_case(name, *values[:2])
    call = partial(_REGEXP_PARTS[name], heeds_case=case)
    kind = INT if name == "REGEXP_INSTR" else replace(TEXT, tag=collation(values[:1]))
    return strict([argument(value, "t") for value in values], call, kind)


def _regexp_instr(value: str, pattern: str, *, heeds_case: bool) -> int:
    found = _search(pattern, value, heeds_case=heeds_case)
    return found.start() + 1 if found else 0


def _regexp_substr(value: str, pattern: str, *, heeds_case: bool) -> str:
    found = _search(pattern, value, heeds_case=heeds_case)
    if found is None:
        raise QueryError(
            f"SQL on SQLite: servers differ in what REGEXP_SUBSTR() gives without a match, as of "
            f"{pattern!r} in {value!r:.60}. Restrict by REGEXP first."
        )
    return found[0]


def _regexp_replace(value: str, pattern: str, new: str, *, heeds_case: bool) -> str:
    found = _search(pattern, value, heeds_case=heeds_case)
    if "$" in new or "\\" in new or (found and not found[0]):
        raise QueryError(
            f"SQL on SQLite: servers differ in what REGEXP_REPLACE() makes of $ and \\ in {new!r}, "
            f"and of an expression that matches nothing ({pattern!r})."
        )
    if found is None:
        return value
    # The pattern is valid, and in Python's form once its classes are spelled out.
    return re.sub(found.re, lambda match: new, value)


_REGEXP_PARTS: Mapping[str, Call] = {
    "REGEXP_INSTR": _regexp_instr, "REGEXP_SUBSTR": _regexp_substr,
    "REGEXP_REPLACE": _regexp_replace,
}  # fmt: skip

FORMS: Mapping[str, Form] = {"Like": _like, "Escape": _like, "RegexpLike": _regexp}
CALLS: Mapping[str, CallForm] = {
    "REGEXP_LIKE": _regexp_call,
    **{name: partial(_regexp_part, name=name) for name in _REGEXP_PARTS},
}


def _upper(char: str) -> str:
    """Return a letter in upper case, if that is a single letter."""
    return char.upper() if len(char.upper()) == 1 else char


def _lower(char: str) -> str:
    return char.lower() if len(char.lower()) == 1 else char


def _left(value: str, count: int) -> str:
    return value[: max(count, 0)]


def _right(value: str, count: int) -> str:
    return value[-count:] if count > 0 else ""


def substring(value: T, start: int, length: int | None = None) -> T:
    """Return part of a text or bytes; positions count from 1, negative ones from the end."""
    if start == 0 or (length is not None and length <= 0):
        return value[:0]
    first = start - 1 if start > 0 else len(value) + start
    if first < 0:
        return value[:0]
    return value[first:] if length is None else value[first : first + length]


def _padded(value: str, length: int, pad: str, *, left: bool) -> str | None:
    if length < 0:
        return None
    if length <= len(value):
        return value[:length]
    if not pad:
        raise QueryError(
            "SQL on SQLite: servers differ in what LPAD() and RPAD() give where the text to pad "
            "with is empty."
        )
    missing = length - len(value)
    filling = (pad * (missing // len(pad) + 1))[:missing]
    return filling + value if left else value + filling


def _substring_index(value: str, between: str, count: int) -> str:
    if not between or not count:
        return ""
    parts = value.split(between)
    return between.join(parts[:count] if count > 0 else parts[count:])


def locate(part: str, value: str, start: int = 1, *, heeds_case: bool = False) -> int:
    """Return the position of a text in another from 1, 0 if absent, usually regardless of case."""
    if start < 1:
        return 0
    if not part and start > len(value):
        raise QueryError("SQL on SQLite: servers differ in where LOCATE() finds '' past the end.")
    if not heeds_case:
        part, value = part.lower(), value.lower()
    return value.find(part, start - 1) + 1


def _insert(value: str, start: int, length: int, new: str) -> str:
    if not 1 <= start <= len(value):
        return value
    end = len(value) if length < 0 else start - 1 + length
    return value[: start - 1] + new + value[end:]


def _find_in_set(value: str, choices: str) -> int:
    found = choices.split(",")
    return found.index(value) + 1 if value in found and choices else 0


def _elt(place: int | None, *values: str | None) -> str | None:
    return values[place - 1] if place is not None and 1 <= place <= len(values) else None


def _concat_ws(between: str | None, *values: str | None) -> str | None:
    return None if between is None else between.join(v for v in values if v is not None)


def _hex(value: SqlValue) -> str:
    if isinstance(value, int | float | Decimal):
        if isinstance(value, float) and abs(value) % 1 == 0.5:
            raise QueryError(f"SQL on SQLite: servers round {value} differently in HEX().")
        whole = round(value) if isinstance(value, float) else int(rounded(Decimal(value), 0))
        return f"{whole & (2**64 - 1):X}"
    return (value if isinstance(value, bytes) else text(value).encode()).hex().upper()


def _unhex(value: str) -> bytes | None:
    try:
        return bytes.fromhex(value if len(value) % 2 == 0 else f"0{value}")
    except ValueError:
        return None


def _format(value: Number, places: int) -> str:
    check_zero(value)
    if places > MAX_SCALE:
        raise QueryError(f"SQL on SQLite: FORMAT() with {places} digits after the point.")
    places = max(places, 0)
    if isinstance(value, float):
        value = Decimal(repr(round_to(value, places)))
    return f"{rounded(Decimal(value), places):,f}"


def _strcmp(one: str, other: str, *, heeds_case: bool = False) -> int:
    a, b = (one, other) if heeds_case else (one.casefold(), other.casefold())
    return (a > b) - (a < b)


def _instr(value: str, part: str, *, heeds_case: bool = False) -> int:
    return locate(part, value, heeds_case=heeds_case)


def _ascii(value: bytes) -> int:
    return value[0] if value else 0


def _ord(value: str) -> int:
    return int.from_bytes(value[:1].encode(), "big")


def _base64(value: bytes) -> str:
    # Servers break it into lines.
    return "\n".join(wrap(b64encode(value).decode(), 76))


_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def _unbase64(value: str) -> bytes | None:
    packed = "".join(value.split())
    return b64decode(packed) if _BASE64.fullmatch(packed) else None


def _sha2(value: bytes, bits: int) -> str | None:
    name = {0: "sha256", 224: "sha224", 256: "sha256", 384: "sha384", 512: "sha512"}.get(bits)
    return hashlib.new(name, value, usedforsecurity=False).hexdigest() if name else None


def _uuid_text(value: bytes) -> str:
    if len(value) != 16:
        raise QueryError(f"SQL on SQLite: BIN_TO_UUID() of {len(value)} bytes: a UUID has 16.")
    return str(uuid.UUID(bytes=value))


def _uuid_bytes(value: str) -> bytes:
    try:
        return uuid.UUID(value).bytes
    except ValueError:
        raise QueryError(f"SQL on SQLite: UUID_TO_BIN() of {value!r:.60}.") from None


def _quote(value: str | None) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


TEXT_FUNCTIONS: Mapping[str, Function] = {
    "ASCII": Function(_ascii, "b", INT),
    "ORD": Function(_ord, "t", INT),
    "BIT_LENGTH": Function(lambda v: 8 * len(v), "b", INT),
    "CHAR_LENGTH": Function(len, "t", INT),
    "LENGTH": Function(len, "b", INT),
    "CONCAT": Function(lambda *v: "".join(v), "t*", TEXT),
    "CONCAT_WS": Function(_concat_ws, "t*", TEXT, nulls=True),
    "ELT": Function(_elt, "it*", TEXT, nulls=True),
    "FIND_IN_SET": Function(_find_in_set, "tt", INT),
    "FORMAT": Function(_format, "ni", TEXT),
    "FROM_BASE64": Function(_unbase64, "t", BYTES),
    "HEX": Function(_hex, "r", Kind("text", tag="unclear")),
    "INSERT": Function(_insert, "tiit", TEXT),
    "INSTR": Function(_instr, "tt", INT),
    "LEFT": Function(_left, "ti", TEXT),
    "LOCATE": Function(locate, "tt|i", INT),
    "LOWER": Function(lambda v: "".join(map(_lower, v)), "t", TEXT),
    "LPAD": Function(lambda v, n, p=" ": _padded(v, n, p, left=True), "ti|t", TEXT),
    "LTRIM": Function(lambda v: v.lstrip(" "), "t", TEXT),
    "MD5": Function(lambda v: hashlib.md5(v, usedforsecurity=False).hexdigest(), "b", TEXT),
    "QUOTE": Function(_quote, "t", TEXT, nulls=True),
    "REPEAT": Function(lambda v, n: v * max(n, 0), "ti", TEXT),
    "REPLACE": Function(lambda v, old, new: v.replace(old, new) if old else v, "ttt", TEXT),
    "REVERSE": Function(lambda v: v[::-1], "t", TEXT),
    "RIGHT": Function(_right, "ti", TEXT),
    "RPAD": Function(lambda v, n, p=" ": _padded(v, n, p, left=False), "ti|t", TEXT),
    "RTRIM": Function(lambda v: v.rstrip(" "), "t", TEXT),
    "SHA2": Function(_sha2, "bi", TEXT),
    "BIN_TO_UUID": Function(_uuid_text, "b", TEXT),
    "UUID_TO_BIN": Function(_uuid_bytes, "t", BYTES),
    "SHA1": Function(lambda v: hashlib.sha1(v, usedforsecurity=False).hexdigest(), "b", TEXT),
    "SPACE": Function(lambda n: " " * max(n, 0), "i", TEXT),
    "STRCMP": Function(_strcmp, "tt", INT),
    "SUBSTRING_INDEX": Function(_substring_index, "tti", TEXT),
    "TO_BASE64": Function(_base64, "b", TEXT),
    "UNHEX": Function(_unhex, "t", BYTES),
    "UPPER": Function(lambda v: "".join(map(_upper, v)), "t", TEXT),
    "UUID": Function(lambda: str(uuid.uuid1()), "", TEXT, pure=False),
}

"""Functions of MySQL's SQL in Python: what they take, what they give."""

from __future__ import annotations

import hashlib
import math
import random
import re
import uuid
import zlib
from base64 import b64decode, b64encode
from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from dj_dagster.relational.user_sql import formats, json_functions, temporal
from dj_dagster.relational.user_sql.values import (
    BINARY,
    BYTES,
    DATE,
    EXACT,
    FLOAT,
    INT,
    JSON,
    MAX_SCALE,
    TEXT,
    UNSIGNED,
    Kind,
    check_zero,
    cut,
    decimal_kind,
    fixed,
    floating,
    integer,
    rounded,
    text,
)

KindOf = Callable[[Sequence[Kind], Sequence[Any]], Kind]


@dataclass(frozen=True, slots=True)
class Function:
    """A function.

    Attributes
    ----------
    takes
        A letter for each argument: ``t`` text, ``i`` integer, ``n`` number, ``f`` float, ``d``
        moment, ``h`` time, ``b`` bytes, ``r`` the value as it is. After a bar those that may be
        left out; a star repeats the last.
    gives
        The kind of its values, or what tells it from the kinds of the arguments and their values
        where they are literals.
    nulls
        Whether it is called with null arguments; else null is the answer.
    pure
        Whether the same arguments give the same value.
    """

    call: Callable[..., Any]
    takes: str
    gives: Kind | KindOf
    nulls: bool = False
    pure: bool = True


def _upper(char: str) -> str:
    """Return a letter in upper case, if there is one letter for it."""
    return char.upper() if len(char.upper()) == 1 else char


def _lower(char: str) -> str:
    return char.lower() if len(char.lower()) == 1 else char


def _left(value: str, count: int) -> str:
    return value[: max(count, 0)]


def _right(value: str, count: int) -> str:
    return value[-count:] if count > 0 else ""


def substring(value: Any, start: int, length: int | None = None) -> Any:
    """Return part of a text or bytes; places count from 1, negative ones from the end."""
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
        return ""
    missing = length - len(value)
    filling = (pad * (missing // len(pad) + 1))[:missing]
    return filling + value if left else value + filling


def _substring_index(value: str, between: str, count: int) -> str:
    if not between or not count:
        return ""
    parts = value.split(between)
    return between.join(parts[:count] if count > 0 else parts[count:])


def locate(part: str, value: str, start: int = 1, *, heeds_case: bool = False) -> int:
    """Return where a text has another, usually whatever the case, from 1 on; 0 for nowhere."""
    if start < 1:
        return 0
    if not heeds_case:
        part, value = part.lower(), value.lower()
    return value.find(part, start - 1) + 1


def _insert(value: str, start: int, length: int, new: str) -> str:
    if not 1 <= start <= len(value):
        return value
    end = len(value) if length < 0 else start - 1 + length
    return value[: start - 1] + new + value[end:]


def _field(value: Any, *others: Any) -> int:
    if value is None:
        return 0
    numbers = all(not isinstance(each, str) for each in (value, *others))
    for place, other in enumerate(others, 1):
        same = other is not None and (other == value if numbers else text(other) == text(value))
        if same:
            return place
    return 0


def _find_in_set(value: str, choices: str) -> int:
    found = choices.split(",")
    return found.index(value) + 1 if value in found and choices else 0


def _elt(place: int | None, *values: str | None) -> str | None:
    return values[place - 1] if place is not None and 1 <= place <= len(values) else None


def _concat_ws(between: str | None, *values: str | None) -> str | None:
    return None if between is None else between.join(v for v in values if v is not None)


def _hex(value: Any) -> str:
    if isinstance(value, int | float | Decimal):
        whole = round(value) if isinstance(value, float) else int(rounded(Decimal(value), 0))
        return f"{whole & (2**64 - 1):X}"
    return (value if isinstance(value, bytes) else text(value).encode()).hex().upper()


def _unhex(value: str) -> bytes | None:
    try:
        return bytes.fromhex(value if len(value) % 2 == 0 else f"0{value}")
    except ValueError:
        return None


def _format(value: Any, places: int) -> str:
    check_zero(value)
    places = min(max(places, 0), MAX_SCALE)
    if isinstance(value, float):
        value = Decimal(repr(_round(value, places)))
    return f"{rounded(Decimal(value), places):,}"


def _round(value: Any, places: int = 0) -> Any:
    if isinstance(value, float):
        if abs(places) > 300:
            return value if places > 0 else 0.0
        scale = 10.0 ** abs(places)
        big = value * scale if places >= 0 else value / scale
        if big - big != 0:
            return value
        return round(big) / scale if places >= 0 else round(big) * scale
    return _exact_round(value, places, rounded)


def _truncate(value: Any, places: int) -> Any:
    if isinstance(value, float):
        scale = 10.0 ** min(abs(places), 300)
        big = value * scale if places >= 0 else value / scale
        if big - big != 0:
            return value
        return math.trunc(big) / scale if places >= 0 else math.trunc(big) * scale
    return _exact_round(value, places, cut)


def _exact_round(value: Any, places: int, how: Callable[[Decimal, int], Decimal]) -> Any:
    places = max(min(places, MAX_SCALE), -80)
    found = how(Decimal(value), places)
    return integer(int(found)) if isinstance(value, int) else found


def _round_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    kind = kinds[0]
    if kind.family == "decimal":
        places = literals[1] if len(kinds) > 1 else 0
        return decimal_kind(kind.scale if places is None else max(0, min(places, MAX_SCALE)))
    if kind.family == "int":
        return kind
    places = literals[1] if len(kinds) > 1 else 0
    return FLOAT if places is None else fixed(max(0, places))


def _same_number(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    del literals
    return kinds[0] if kinds[0].is_exact or kinds[0].tag == "fixed" else FLOAT


def _whole_number(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    del literals
    if not kinds[0].is_exact:
        return fixed(0)
    return kinds[0] if kinds[0].family == "int" else INT


def _power(base: float, exponent: float) -> float:
    try:
        found = base**exponent
    except (OverflowError, ZeroDivisionError):
        found = math.inf
    return floating(math.nan if isinstance(found, complex) else found)


def _log(first: float, second: float | None = None) -> float | None:
    if second is None:
        return math.log(first) if first > 0 else None
    if first <= 0 or first == 1 or second <= 0:
        return None
    return math.log(second) / math.log(first)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return floating(math.inf)


def _conv(value: str, old: int, new: int) -> str | None:
    if not (2 <= abs(old) <= 36 and 2 <= abs(new) <= 36):
        return None
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    known = digits[: abs(old)]
    match = re.match(rf"\s*(-?)([{known}]+)", value, re.IGNORECASE)
    left = int(match[2], abs(old)) if match else 0
    left = min(left, 2**64 - 1)
    left = (-left if match and match[1] else left) & (2**64 - 1)
    negative = new < 0 and left >= 2**63
    left = 2**64 - left if negative else left
    shown = ""
    while left:
        left, digit = divmod(left, abs(new))
        shown = digits[digit] + shown
    return f"{'-' if negative else ''}{shown or '0'}"


def _rand(seed: int | None = None) -> float:
    return random.random() if seed is None else random.Random(seed).random()


def _strcmp(one: str, other: str, *, heeds_case: bool = False) -> int:
    a, b = (one, other) if heeds_case else (one.casefold(), other.casefold())
    return (a > b) - (a < b)


def _instr(value: str, part: str, *, heeds_case: bool = False) -> int:
    return locate(part, value, heeds_case=heeds_case)


def _absolute(value: Any) -> Any:
    if isinstance(value, Decimal):
        return EXACT.abs(value)
    return integer(abs(value)) if isinstance(value, int) else abs(value)


def _ascii(value: bytes) -> int:
    return value[0] if value else 0


def _ord(value: str) -> int:
    return int.from_bytes(value[:1].encode(), "big")


def _unbase64(value: str) -> bytes | None:
    try:
        return b64decode(value)
    except ValueError:
        return None


def _quote(value: str | None) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _makedate(year: int, day: int) -> date | None:
    try:
        return date(year, 1, 1) + timedelta(days=day - 1) if day > 0 else None
    except (ValueError, OverflowError):
        return None


def _maketime(hour: int, minute: int, second: int) -> timedelta | None:
    if not (0 <= minute < 60 and 0 <= second < 60):
        return None
    sign = -1 if hour < 0 else 1
    found = timedelta(hours=abs(hour), minutes=minute, seconds=second)
    return sign * min(found, timedelta(hours=838, minutes=59, seconds=59))


def _from_days(days: int) -> date | None:
    return date.fromordinal(days - 365) if 366 <= days <= 3652424 else None


def _sec_to_time(seconds: Any) -> timedelta:
    longest = timedelta(hours=838, minutes=59, seconds=59)
    try:
        found = timedelta(microseconds=int(Decimal(str(seconds)) * 1_000_000))
    except OverflowError:
        found = longest if seconds > 0 else -longest
    return max(min(found, longest), -longest)


def _from_unixtime(seconds: Any, form: str | None = None) -> Any:
    if not 0 <= seconds < 2**31:
        return None
    at = datetime.fromtimestamp(int(seconds))
    at += timedelta(microseconds=int((Decimal(str(seconds)) % 1) * 1_000_000))
    return at if form is None else formats.formatted(at, form)


def _unix_timestamp(at: datetime | None = None) -> Any:
    if at is None:
        return int(datetime.now().timestamp())
    found = Decimal(int(at.replace(microsecond=0).timestamp())) + Decimal(at.microsecond) / 1000000
    return max(found, Decimal(0))


def _timestamp_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    del literals
    return decimal_kind(_places(kinds[0])) if kinds and _places(kinds[0]) else INT


def _places(kind: Kind) -> int:
    """Return how many digits a second has, of what is taken for a moment or a time."""
    if kind.is_temporal or kind.family == "decimal":
        return min(kind.scale, 6)
    return 0 if kind.family == "int" else 6


def _now_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    return Kind("datetime", literals[0] or 0 if kinds else 0)


def _curtime_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    return Kind("time", literals[0] or 0 if kinds else 0)


def _now(places: int = 0) -> datetime:
    return temporal.round_to(datetime.now(), places)


def _utc(places: int = 0) -> datetime:
    from datetime import UTC

    return temporal.round_to(datetime.now(UTC).replace(tzinfo=None), places)


def _moment_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    """Return the kind of a moment with the digits of its first argument."""
    if isinstance(literals[0], str):
        _, dot, fraction = literals[0].rpartition(".")
        return Kind("datetime", min(len(fraction), 6) if dot else 0)
    return Kind("datetime", _places(kinds[0]))


def _sum_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    scales = [_moment_kind([k], [v]).scale for k, v in zip(kinds, literals, strict=False)]
    return Kind("datetime", max(scales))


def _time_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    return Kind("time", _moment_kind(kinds, literals).scale)


def _str_to_date_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    del kinds
    form = literals[1]
    if not isinstance(form, str) or not formats.can_read(form):
        return Kind("null", -1)
    has_date, has_time, fraction = formats.parts_of(form)
    scale = 6 if fraction else 0
    if has_date:
        return Kind("datetime", scale) if has_time else DATE
    return Kind("time", scale)


def _timestamp(at: datetime, extra: timedelta | None = None) -> datetime | None:
    return temporal.moved(at, 0, extra or timedelta())


def _period(value: int) -> int:
    year, month = divmod(value, 100)
    year += (2000 if year < 70 else 1900) if year < 100 else 0
    return year * 12 + month - 1


def _period_add(value: int, months: int) -> int:
    year, month = divmod(_period(value) + months, 12)
    return year * 100 + month + 1


_TIME = timedelta
_MICRO = timedelta(microseconds=1)


def _part(at: timedelta, size: timedelta, limit: int | None) -> int:
    found = abs(at) // size
    return found if limit is None else found % limit


def _f(call: Callable[..., Any], takes: str, gives: Kind | KindOf, **more: bool) -> Function:
    return Function(call, takes, gives, **more)


_MATHS: dict[str, Function] = {
    "ABS": _f(_absolute, "n", _same_number),
    "SIGN": _f(lambda v: (v > 0) - (v < 0), "n", INT),
    "CEIL": _f(lambda v: float(math.ceil(v)) if isinstance(v, float) else math.ceil(v), "n",
               _whole_number),
    "FLOOR": _f(lambda v: float(math.floor(v)) if isinstance(v, float) else math.floor(v), "n",
                _whole_number),
    "ROUND": _f(_round, "n|i", _round_kind),
    "TRUNCATE": _f(_truncate, "ni", _round_kind),
    "POW": _f(_power, "ff", FLOAT),
    "SQRT": _f(lambda v: math.sqrt(v) if v >= 0 else None, "f", FLOAT),
    "EXP": _f(_exp, "f", FLOAT),
    "LN": _f(_log, "f", FLOAT),
    "LOG": _f(_log, "f|f", FLOAT),
    "LOG2": _f(lambda v: math.log(v) / math.log(2) if v > 0 else None, "f", FLOAT),
    "LOG10": _f(lambda v: math.log10(v) if v > 0 else None, "f", FLOAT),
    "PI": _f(lambda: math.pi, "", FLOAT),
    "SIN": _f(math.sin, "f", FLOAT),
    "COS": _f(math.cos, "f", FLOAT),
    "TAN": _f(math.tan, "f", FLOAT),
    "COT": _f(lambda v: 1 / math.tan(v) if v else floating(math.inf), "f", FLOAT),
    "ASIN": _f(lambda v: math.asin(v) if -1 <= v <= 1 else None, "f", FLOAT),
    "ACOS": _f(lambda v: math.acos(v) if -1 <= v <= 1 else None, "f", FLOAT),
    "ATAN": _f(lambda a, b=None: math.atan(a) if b is None else math.atan2(a, b), "f|f", FLOAT),
    "DEGREES": _f(lambda v: v * (180 / math.pi), "f", FLOAT),
    "RADIANS": _f(lambda v: v * (math.pi / 180), "f", FLOAT),
    "CRC32": _f(zlib.crc32, "b", UNSIGNED),
    "RAND": _f(_rand, "|i", FLOAT, pure=False, nulls=True),
    "CONV": _f(_conv, "tii", TEXT),
    "BIN": _f(lambda v: f"{v & (2**64 - 1):b}", "i", TEXT),
    "OCT": _f(lambda v: f"{v & (2**64 - 1):o}", "i", TEXT),
    "BIT_COUNT": _f(lambda v: (v & (2**64 - 1)).bit_count(), "i", INT),
}  # fmt: skip

_TEXTS: dict[str, Function] = {
    "ASCII": _f(_ascii, "b", INT),
    "ORD": _f(_ord, "t", INT),
    "BIT_LENGTH": _f(lambda v: 8 * len(v), "b", INT),
    "CHAR_LENGTH": _f(len, "t", INT),
    "LENGTH": _f(len, "b", INT),
    "CONCAT": _f(lambda *v: "".join(v), "t*", TEXT),
    "CONCAT_WS": _f(_concat_ws, "t*", TEXT, nulls=True),
    "ELT": _f(_elt, "it*", TEXT, nulls=True),
    "FIELD": _f(_field, "r*", INT, nulls=True),
    "FIND_IN_SET": _f(_find_in_set, "tt", INT),
    "FORMAT": _f(_format, "ni", TEXT),
    "FROM_BASE64": _f(_unbase64, "t", BYTES),
    "HEX": _f(_hex, "r", TEXT),
    "INSERT": _f(_insert, "tiit", TEXT),
    "INSTR": _f(_instr, "tt", INT),
    "LEFT": _f(_left, "ti", TEXT),
    "LOCATE": _f(locate, "tt|i", INT),
    "LOWER": _f(lambda v: "".join(map(_lower, v)), "t", TEXT),
    "LPAD": _f(lambda v, n, p=" ": _padded(v, n, p, left=True), "ti|t", TEXT),
    "LTRIM": _f(lambda v: v.lstrip(" "), "t", TEXT),
    "MD5": _f(lambda v: hashlib.md5(v, usedforsecurity=False).hexdigest(), "b", TEXT),
    "QUOTE": _f(_quote, "t", TEXT, nulls=True),
    "REPEAT": _f(lambda v, n: v * max(n, 0), "ti", TEXT),
    "REPLACE": _f(lambda v, old, new: v.replace(old, new) if old else v, "ttt", TEXT),
    "REVERSE": _f(lambda v: v[::-1], "t", TEXT),
    "RIGHT": _f(_right, "ti", TEXT),
    "RPAD": _f(lambda v, n, p=" ": _padded(v, n, p, left=False), "ti|t", TEXT),
    "RTRIM": _f(lambda v: v.rstrip(" "), "t", TEXT),
    "SHA1": _f(lambda v: hashlib.sha1(v, usedforsecurity=False).hexdigest(), "b", TEXT),
    "SPACE": _f(lambda n: " " * max(n, 0), "i", TEXT),
    "STRCMP": _f(_strcmp, "tt", INT),
    "SUBSTRING_INDEX": _f(_substring_index, "tti", TEXT),
    "TO_BASE64": _f(lambda v: b64encode(v).decode(), "b", TEXT),
    "UNHEX": _f(_unhex, "t", BYTES),
    "UPPER": _f(lambda v: "".join(map(_upper, v)), "t", TEXT),
    "UUID": _f(lambda: str(uuid.uuid1()), "", TEXT, pure=False),
}

_DATES: dict[str, Function] = {
    "DATE": _f(lambda at: at.date(), "d", DATE),
    "TIME": _f(lambda at: at, "h", _time_kind),
    "TIMESTAMP": _f(_timestamp, "d|h", _sum_kind),
    "YEAR": _f(lambda at: at.year, "d", INT),
    "QUARTER": _f(lambda at: (at.month + 2) // 3, "d", INT),
    "MONTH": _f(lambda at: at.month, "d", INT),
    "MONTHNAME": _f(lambda at: formats.formatted(at, "%M"), "d", TEXT),
    "DAY": _f(lambda at: at.day, "d", INT),
    "DAYOFYEAR": _f(lambda at: at.timetuple().tm_yday, "d", INT),
    "DAYOFWEEK": _f(lambda at: at.isoweekday() % 7 + 1, "d", INT),
    "DAYNAME": _f(lambda at: formats.formatted(at, "%W"), "d", TEXT),
    "WEEKDAY": _f(lambda at: at.weekday(), "d", INT),
    "WEEK": _f(lambda at, mode=0: temporal.week(at, mode)[1], "d|i", INT),
    "WEEKOFYEAR": _f(lambda at: temporal.week(at, 3)[1], "d", INT),
    "YEARWEEK": _f(lambda at, mode=0: (lambda w: w[0] * 100 + w[1])(temporal.week(at, mode | 2)),
                   "d|i", INT),
    "HOUR": _f(lambda at: _part(at, _TIME(hours=1), None), "h", INT),
    "MINUTE": _f(lambda at: _part(at, _TIME(minutes=1), 60), "h", INT),
    "SECOND": _f(lambda at: _part(at, _TIME(seconds=1), 60), "h", INT),
    "MICROSECOND": _f(lambda at: _part(at, _MICRO, 1_000_000), "h", INT),
    "DATEDIFF": _f(lambda end, start: (end.date() - start.date()).days, "dd", INT),
    "DATE_FORMAT": _f(formats.formatted, "dt", Kind("text", tag="whole")),
    "TIME_FORMAT": _f(formats.formatted_time, "ht", Kind("text", tag="moment")),
    "STR_TO_DATE": _f(formats.parsed, "tt", _str_to_date_kind),
    "LAST_DAY": _f(lambda at: at.date().replace(day=monthrange(at.year, at.month)[1]), "d", DATE),
    "MAKEDATE": _f(_makedate, "ii", DATE),
    "MAKETIME": _f(_maketime, "iii", Kind("time")),
    "TO_DAYS": _f(lambda at: at.toordinal() + 365, "d", INT),
    "FROM_DAYS": _f(_from_days, "i", DATE),
    "TO_SECONDS": _f(lambda at: (at.toordinal() + 365) * 86400
                     + int(temporal.time_of(at).total_seconds()), "d", INT),
    "TIME_TO_SEC": _f(lambda at: int(at.total_seconds()), "h",
                      lambda kinds, _: Kind("null", -1) if _places(kinds[0]) else INT),
    "SEC_TO_TIME": _f(_sec_to_time, "n", lambda kinds, _: Kind("time", _places(kinds[0]))),
    "FROM_UNIXTIME": _f(_from_unixtime, "n|t", lambda kinds, _: TEXT if len(kinds) > 1
                        else Kind("datetime", _places(kinds[0])), pure=False),
    "UNIX_TIMESTAMP": _f(_unix_timestamp, "|d", _timestamp_kind, pure=False),
    "PERIOD_ADD": _f(_period_add, "ii", INT),
    "PERIOD_DIFF": _f(lambda one, other: _period(one) - _period(other), "ii", INT),
    "NOW": _f(_now, "|i", _now_kind, pure=False),
    "CURDATE": _f(lambda: _now().date(), "", DATE, pure=False),
    "CURTIME": _f(lambda n=0: temporal.time_of(_now(n)), "|i", _curtime_kind, pure=False),
    "UTC_TIMESTAMP": _f(_utc, "|i", _now_kind, pure=False),
    "UTC_DATE": _f(lambda: _utc().date(), "", DATE, pure=False),
    "UTC_TIME": _f(lambda n=0: temporal.time_of(_utc(n)), "|i", _curtime_kind, pure=False),
}  # fmt: skip

_JSON: dict[str, Function] = {
    "JSON_EXTRACT": _f(json_functions.extract, "tt*", JSON),
    "JSON_UNQUOTE": _f(json_functions.unquote, "t", BINARY),
    "JSON_VALUE": _f(json_functions.value, "tt", BINARY),
    "JSON_LENGTH": _f(json_functions.length, "t|t", INT),
    "JSON_CONTAINS_PATH": _f(json_functions.contains_path, "ttt*", INT),
    "JSON_VALID": _f(json_functions.is_valid, "t", INT),
    "JSON_TYPE": _f(json_functions.type_of, "t", Kind("text", tag="mixed")),
}

KEEPING = frozenset((
    "CONCAT", "CONCAT_WS", "ELT", "INSERT", "LEFT", "LOWER", "LPAD", "LTRIM", "QUOTE", "REPEAT",
    "REPLACE", "REVERSE", "RIGHT", "RPAD", "RTRIM", "SUBSTRING_INDEX", "UPPER",
))  # fmt: skip
"""Functions in whose texts case counts if it does in what they are given."""

COMPARING = frozenset(("INSTR", "LOCATE", "STRCMP"))
"""Functions that compare texts, and take ``heeds_case``."""

FUNCTIONS: Mapping[str, Function] = {**_MATHS, **_TEXTS, **_DATES, **_JSON}

SPELLINGS: Mapping[str, str] = {
    "CEILING": "CEIL", "POWER": "POW", "ATAN2": "ATAN", "CHARACTER_LENGTH": "CHAR_LENGTH",
    "OCTET_LENGTH": "LENGTH", "LCASE": "LOWER", "UCASE": "UPPER", "SHA": "SHA1",
    "DAYOFMONTH": "DAY", "CURRENT_DATE": "CURDATE", "CURRENT_TIME": "CURTIME",
    "CURRENT_TIMESTAMP": "NOW", "LOCALTIME": "NOW", "LOCALTIMESTAMP": "NOW", "SYSDATE": "NOW",
    "SUBSTR": "SUBSTRING", "MID": "SUBSTRING",
}  # fmt: skip
"""Other names of functions."""

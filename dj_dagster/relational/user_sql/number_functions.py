"""MySQL's functions of numbers, in Python."""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql.arithmetic import signed
from dj_dagster.relational.user_sql.kinds import (
    EXACT,
    FLOAT,
    INT,
    MAX_SCALE,
    TEXT,
    UNSIGNED,
    Kind,
    cut,
    decimal_kind,
    fixed,
    floating,
    integer,
    rounded,
)
from dj_dagster.relational.user_sql.programs import Function


def round_to(value: Any, places: int = 0) -> Any:
    """Return a number rounded to a number of digits after the point, as servers round."""
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
        if big - big != 0 or (places >= 0 and abs(big) >= 2**53):
            return value
        return math.trunc(big) / scale if places >= 0 else math.trunc(big) * scale
    return _exact_round(value, places, cut)


def _exact_round(value: Any, places: int, how: Callable[[Decimal, int], Decimal]) -> Any:
    places = max(min(places, MAX_SCALE), -80)
    found = how(Decimal(value), places)
    return integer(int(found)) if isinstance(value, int) else found


def _round_kind(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    kind = kinds[0]
    if len(kinds) > 1 and kinds[1].family == "null":
        literals = [None, 0]
    if kind.family == "decimal":
        places = literals[1] if len(kinds) > 1 else 0
        return decimal_kind(kind.scale if places is None else max(0, min(places, MAX_SCALE)))
    if kind.family == "int":
        return kind
    places = literals[1] if len(kinds) > 1 else 0
    return kinds[0] if places is None else fixed(max(0, places))


def _same_number(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    del literals
    return kinds[0] if kinds[0].is_exact or kinds[0].tag == "fixed" else FLOAT


def _whole_number(kinds: Sequence[Kind], literals: Sequence[Any]) -> Kind:
    del literals
    if not kinds[0].is_exact:
        return fixed(0)
    return kinds[0] if kinds[0].family == "int" else INT


def _ceil(value: Any) -> Any:
    return float(math.ceil(value)) if isinstance(value, float) else math.ceil(value)


def _floor(value: Any) -> Any:
    return float(math.floor(value)) if isinstance(value, float) else math.floor(value)


def _atan(one: float, other: float | None = None) -> float:
    return math.atan(one) if other is None else math.atan2(one, other)


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
    if not value or not (2 <= abs(old) <= 36 and 2 <= abs(new) <= 36):
        return None
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    known = digits[: abs(old)]
    match = re.match(rf"\s*([+-]?)([{known}]+)", value, re.IGNORECASE)
    left = int(match[2], abs(old)) if match else 0
    left = min(left, 2**64 - 1)
    left = (-left if match and match[1] == "-" else left) & (2**64 - 1)
    negative = new < 0 and left >= 2**63
    left = 2**64 - left if negative else left
    shown = ""
    while left:
        left, digit = divmod(left, abs(new))
        shown = digits[digit] + shown
    return f"{'-' if negative else ''}{shown or '0'}"


def _bit_count(value: Any) -> int:
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 2**63):
        raise QueryError(
            f"SQL on SQLite: servers round {value} to different integers before they count its "
            f"bits. Use ROUND() or FLOOR()."
        )
    whole = int(rounded(Decimal(value), 0))
    return (whole & (2**64 - 1)).bit_count()


def _rand(seed: int | None = None) -> float:
    return random.random() if seed is None else random.Random(seed).random()


def _absolute(value: Any) -> Any:
    if isinstance(value, Decimal):
        return EXACT.abs(value)
    if isinstance(value, int):
        return value if value >= 0 else signed(-value)
    return abs(value)


NUMBER_FUNCTIONS: Mapping[str, Function] = {
    "ABS": Function(_absolute, "n", _same_number),
    "SIGN": Function(lambda v: (v > 0) - (v < 0), "n", INT),
    "CEIL": Function(_ceil, "n", _whole_number),
    "FLOOR": Function(_floor, "n", _whole_number),
    "ROUND": Function(round_to, "n|i", _round_kind),
    "TRUNCATE": Function(_truncate, "ni", _round_kind),
    "POW": Function(_power, "ff", FLOAT),
    "SQRT": Function(lambda v: math.sqrt(v) if v >= 0 else None, "f", FLOAT),
    "EXP": Function(_exp, "f", FLOAT),
    "LN": Function(_log, "f", FLOAT),
    "LOG": Function(_log, "f|f", FLOAT),
    "LOG2": Function(lambda v: math.log(v) / math.log(2) if v > 0 else None, "f", FLOAT),
    "LOG10": Function(lambda v: math.log10(v) if v > 0 else None, "f", FLOAT),
    "PI": Function(lambda: math.pi, "", FLOAT),
    "SIN": Function(math.sin, "f", FLOAT),
    "COS": Function(math.cos, "f", FLOAT),
    "TAN": Function(math.tan, "f", FLOAT),
    "COT": Function(lambda v: 1 / math.tan(v) if v else floating(math.inf), "f", FLOAT),
    "ASIN": Function(lambda v: math.asin(v) if -1 <= v <= 1 else None, "f", FLOAT),
    "ACOS": Function(lambda v: math.acos(v) if -1 <= v <= 1 else None, "f", FLOAT),
    "ATAN": Function(_atan, "f|f", FLOAT),
    "DEGREES": Function(lambda v: v * (180 / math.pi), "f", FLOAT),
    "RADIANS": Function(lambda v: v * (math.pi / 180), "f", FLOAT),
    "CRC32": Function(zlib.crc32, "b", UNSIGNED),
    "RAND": Function(_rand, "|i", FLOAT, pure=False, nulls=True),
    "CONV": Function(_conv, "tii", TEXT),
    "BIN": Function(lambda v: _conv(v, 10, 2), "t", TEXT),
    "OCT": Function(lambda v: _conv(v, 10, 8), "t", TEXT),
    "BIT_COUNT": Function(_bit_count, "n", INT),
}  # fmt: skip

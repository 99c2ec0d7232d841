"""Random values for each type of the table in ``docs/values.md``, and what each must come back as.

A value is made together with what the documentation says of it, so that nothing of the package
decides what is right.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
import uuid
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

REFUSED = object()
"""Stands for a value that must be an error."""

Pair = tuple[Any, Any]
Maker = Callable[[Random], Pair]

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "values.md"
_TYPE = re.compile(r"`([^`]+)`")
_LETTERS = "aB z09_%\\'\"`:;,?\n\t\u00df\u00e9\u0301\u65e5\U0001f600\U0001f9e0\uffff{}<>"
_DECIMALS = Context(prec=80, rounding=ROUND_HALF_UP)
_LONGEST = dt.timedelta(hours=838, minutes=59, seconds=59)


def documented_types() -> set[str]:
    """Return the types that the documentation's table tells of."""
    text = DOCUMENTATION.read_text(encoding="utf-8")
    rows = text.partition("| type |")[2].split("\n\n")[0].splitlines()[2:]
    return {kind for row in rows for kind in _TYPE.findall(row.split("|")[1])}


def _integers(low: int, high: int) -> Maker:
    edges = (low, high, low + 1, high - 1, 0, 1, -1, 2**53 + 1)

    def make(source: Random) -> Pair:
        number = source.choice((source.choice(edges), source.randint(low, high)))
        if not low <= number <= high:
            return number, REFUSED
        forms: list[Any] = [number, number, str(number), Decimal(number), f" {number} "]
        if abs(number) < 2**53:
            forms += [float(number), np.float64(number)]
        if -(2**63) <= number < 2**63:
            forms.append(np.int64(number))
        wrong = (low - 1, high + 1, 1.5, math.inf, "x", "1_0", "\u0661", [number], 1j, b"1", "1.5")
        return (
            (source.choice(wrong), REFUSED)
            if source.random() < 0.2
            else (source.choice(forms), number)
        )

    return make


def _float64(source: Random) -> Pair:
    (bits,) = struct.unpack("<d", source.randbytes(8))
    edges = (0.0, -0.0, 0.1, 5e-324, -1.7976931348623157e308, 1e22, 2.0**53 + 2, 1 / 3)
    number = source.choice((bits, source.choice(edges), source.uniform(-1e6, 1e6)))
    if math.isnan(number) or math.isinf(number) or source.random() < 0.1:
        return source.choice((math.inf, -math.inf, "nan", "inf", "x", "1_0", [1.0], 1j)), REFUSED
    return source.choice((number, number, repr(number), np.float64(number))), number


def _float32(source: Random) -> Pair:
    number = source.choice((source.uniform(-1e6, 1e6), 0.1, 16777217.0, 3.4e38, 1e-45, -1e-30))
    if source.random() < 0.1:
        return source.choice((1e39, -1e300, math.inf, "x")), REFUSED
    kept = np.float32(number)
    texts = (f"{float(kept):.{digits}g}" for digits in (6, 7, 8, 9))
    shortest = next(float(text) for text in texts if np.float32(text) == kept)
    return source.choice((number, kept, repr(number))), shortest


def _rounded_float(source: Random) -> Pair:
    if source.random() < 0.1:
        return source.choice((1000, -999.996, math.inf, "x")), REFUSED
    kept = source.randint(-99_999, 99_999) / 100
    number = kept + source.choice((0, source.uniform(-0.0049, 0.0049)))
    return source.choice((number, repr(number), np.float64(number))), kept


def _bool(source: Random) -> Pair:
    if source.random() < 0.2:
        return source.choice((2, -1, "yes", 0.5, [True])), REFUSED
    value = source.random() < 0.5
    return source.choice((value, int(value), float(value), np.bool_(value))), value


def _decimals(digits: int, scale: int) -> Maker:
    limit = Decimal(10) ** (digits - scale)

    def make(source: Random) -> Pair:
        number = Decimal(source.randint(-(10**digits), 10**digits)).scaleb(
            -source.randint(0, scale + 3), _DECIMALS
        )
        if source.random() < 0.1:
            return source.choice((Decimal("Infinity"), math.inf, "x", "1_0", b"1", [])), REFUSED
        kept = _DECIMALS.quantize(number, Decimal(1).scaleb(-scale))
        form = source.choice((number, str(number)))
        return form, kept if abs(kept) < limit else REFUSED

    return make


def _text(source: Random, longest: int) -> str:
    return "".join(source.choices(_LETTERS, k=source.randint(0, longest)))


def _texts(longest: int, *, cut: bool = False) -> Maker:
    def make(source: Random) -> Pair:
        if source.random() < 0.1:
            return source.choice(("x" * (longest + 1), "\ud800", b"x", ["x"])), REFUSED
        text = source.choice(("", "  x  ", _text(source, longest), "\U0001f600" * longest))[
            :longest
        ]
        return text, text.rstrip(" ") if cut else text

    return make


def _long_text(source: Random) -> Pair:
    if source.random() < 0.1:
        return source.choice(("\u00e9" * 32_768, "\ud800", b"x")), REFUSED
    return (text := source.choice((_text(source, 300), "x" * 65_535))), text


def _enum(source: Random) -> Pair:
    if source.random() < 0.2:
        return source.choice(("", "LEFTS", "left ", 1, b"left", ["left"])), REFUSED
    kept = source.choice(("left", "it's", "50%:b", "\u00e9"))
    return source.choice((kept, kept.upper() if kept.isascii() else kept)), kept


def _day(source: Random) -> dt.date:
    edges = (dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 2, 29), dt.date(1582, 10, 10))
    return source.choice((source.choice(edges), dt.date.fromordinal(source.randint(1, 3_652_059))))


def _date(source: Random) -> Pair:
    if source.random() < 0.2:
        return source.choice(("2024-02-30", "soon", 5, 20240101, [], "0000-00-00", b"x")), REFUSED
    day = _day(source)
    forms: list[Any] = [day, day.isoformat(), np.datetime64(day, "D"), dt.datetime(*_parts(day), 9)]
    return source.choice(forms), day


def _parts(day: dt.date) -> tuple[int, int, int]:
    return day.year, day.month, day.day


def _in_digits(span: dt.timedelta, digits: int, *, rounds: bool) -> dt.timedelta:
    step = dt.timedelta(microseconds=10 ** (6 - digits))
    return (span + step / 2 if rounds else span) // step * step


def _moments(digits: int, day: Callable[[Random], dt.date] = _day, *, rounds: bool) -> Maker:

    def make(source: Random) -> Pair:
        if source.random() < 0.15:
            zone = dt.timezone(dt.timedelta(hours=2))
            wrong = (dt.datetime(2024, 1, 1, tzinfo=zone), "2024-01-01 10:00:00+02:00", "x", 7.5)
            return source.choice(wrong), REFUSED
        moment = dt.datetime.combine(day(source), _clock(source))
        span = _in_digits(moment - dt.datetime.min, digits, rounds=rounds)
        try:
            kept = dt.datetime.min + span
        except OverflowError:
            return moment, REFUSED
        forms: list[Any] = [moment, moment.isoformat(), moment.isoformat(" ")]
        forms.append(np.datetime64(moment, "us"))
        if 1700 < moment.year < 2200:
            forms.append(pd.Timestamp(moment))
        return source.choice(forms), kept

    return make


def _since_1970(source: Random) -> dt.date:
    return dt.date(1970, 1, 2) + dt.timedelta(days=source.randrange(24_000))


def _clock(source: Random) -> dt.time:
    micros = source.choice((0, 500_000, 999_999, source.randrange(1_000_000)))
    return dt.time(source.randrange(24), source.randrange(60), source.randrange(60), micros)


def _times(digits: int, *, rounds: bool) -> Maker:
    def make(source: Random) -> Pair:
        if source.random() < 0.2:
            zone = dt.timezone(dt.timedelta(hours=2))
            wrong = (dt.time(1, tzinfo=zone), "25:61:00", "noon", 7, dt.timedelta(hours=840))
            return source.choice((*wrong, -dt.timedelta(hours=839))), REFUSED
        if source.random() < 0.3:
            seconds = source.choice((-(839 * 3600 - 1), 839 * 3600 - 1, source.randint(-(9**6), 0)))
            span = dt.timedelta(seconds=seconds)
            return span, span
        clock = _clock(source)
        within = dt.datetime.combine(dt.date.min, clock) - dt.datetime.min
        kept = _in_digits(within, digits, rounds=rounds)
        return source.choice((clock, clock.isoformat(), within)), kept

    return make


def _uuid(source: Random) -> Pair:
    if source.random() < 0.2:
        return source.choice(("x", 5, b"x" * 16, "1234")), REFUSED
    value = uuid.UUID(int=source.getrandbits(128))
    return source.choice((value, str(value), value.hex, str(value).upper())), value


def _json_value(source: Random, depth: int = 3) -> Any:
    if depth and source.random() < 0.5:
        items = [_json_value(source, depth - 1) for _ in range(source.randrange(4))]
        return items if source.random() < 0.5 else {_text(source, 5): item for item in items}
    numbers = (0, -1, 2**53 + 1, -(2**63), 2**64 - 1, source.randint(-(10**9), 10**9))
    floats = (0.1, -2.5, 1e300, 1e16, 5e-324, 1 / 3, source.uniform(-1, 1))
    return source.choice((*numbers, *floats, _text(source, 9), True, False, None))


def _json(source: Random) -> Pair:
    if source.random() < 0.1:
        deep: list[Any] = []
        for _ in range(5000):
            deep = [deep]
        wrong = (math.inf, [math.nan], {"a": 2**70}, [-(2**64)], {1}, b"x", [object()], deep)
        return source.choice(wrong), REFUSED
    value = _json_value(source)
    return (value, value) if value is not None else ([None], [None])


def _bytes(source: Random) -> Pair:
    if source.random() < 0.1:
        return source.choice(("text", 5, ["x"])), REFUSED
    data = source.randbytes(source.randrange(40)) + source.choice((b"", b"\0", b"\\'\"%s"))
    return source.choice((data, bytearray(data), memoryview(data))), data


def _year(source: Random) -> Pair:
    if source.random() < 0.2:
        return source.choice((0, 1900, 2156, "x", 1999.5)), REFUSED
    year = source.randint(1901, 2155)
    return source.choice((year, str(year), np.int16(year))), year


def _packed(source: Random, depth: int = 3) -> Any:
    if depth and source.random() < 0.5:
        items = [_packed(source, depth - 1) for _ in range(source.randrange(4))]
        keys = [source.choice((n, str(n), (n, "x"), n * 0.5)) for n in range(len(items))]
        return source.choice((items, tuple(items), dict(zip(keys, items, strict=True)), set(keys)))
    array = np.array([source.uniform(-9, 9) for _ in range(source.randrange(5))])
    dtype = source.choice(("f8", "f4", "i8", "u1", "?", "c16", "M8[ms]"))
    zero = source.choice((0.0, -0.0, math.nan, math.inf, 1 / 3))
    return source.choice(
        (
            *(2**70, -(2**53) - 1, True, None, zero, np.float32(zero), complex(zero, -0.0)),
            *(_text(source, 20), source.randbytes(9), _day(source), _clock(source)),
            *(dt.datetime.combine(_day(source), _clock(source)), Decimal("1.50")),
            *(uuid.UUID(int=source.getrandbits(128)), array.astype("f8").astype(dtype)),
            np.arange(6.0).reshape(2, 3)[:, ::-1],
        )
    )


def _blob(source: Random) -> Pair:
    if source.random() < 0.1:
        zone = dt.timezone(dt.timedelta(hours=1))
        wrong = (dt.datetime(2024, 1, 1, tzinfo=zone), {"at": dt.time(1, tzinfo=zone)}, object())
        return source.choice((*wrong, [lambda: 0], np.longdouble(1))), REFUSED
    value = _packed(source)
    return (value, value) if value is not None else ([None], [None])


_MAKERS: dict[str, Maker] = {
    "int8": _integers(-(2**7), 2**7 - 1),
    "int16": _integers(-(2**15), 2**15 - 1),
    "int32": _integers(-(2**31), 2**31 - 1),
    "int64": _integers(-(2**63), 2**63 - 1),
    "int unsigned": _integers(0, 2**32 - 1),
    "float32": _float32,
    "float64": _float64,
    "double(5,2)": _rounded_float,
    "float(5,2)": _rounded_float,
    "bool": _bool,
    "decimal(12,3)": _decimals(12, 3),
    "decimal(40,9)": _decimals(40, 9),
    "char(7)": _texts(7, cut=True),
    "varchar(20)": _texts(20),
    "text": _long_text,
    "enum('left', 'it''s', '50%:b', '\u00e9')": _enum,
    "date": _date,
    "uuid": _uuid,
    "json": _json,
    "bytes": _bytes,
    "year": _year,
    "<blob>": _blob,
    "<blob@local>": _blob,
}


def makers(*, rounds: bool) -> dict[str, Maker]:
    """Return by type what makes a value and tells what it comes back as, or that it is refused.

    Parameters
    ----------
    rounds
        Whether the server rounds parts of a second, as MySQL does, where others cut.
    """
    return _MAKERS | {
        "datetime": _moments(0, rounds=rounds),
        "datetime(3)": _moments(3, rounds=rounds),
        "datetime(6)": _moments(6, rounds=rounds),
        "timestamp": _moments(0, _since_1970, rounds=rounds),
        "time": _times(0, rounds=rounds),
        "time(3)": _times(3, rounds=rounds),
    }

"""Conversion of values for the database: to their attribute's type, within its bounds."""

from __future__ import annotations

import json
import math
import numbers
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from math import isfinite
from pathlib import PurePath
from struct import Struct
from typing import TYPE_CHECKING, TypeGuard, TypeVar
from uuid import UUID

import numpy as np

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.heading import Attribute, Value
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.backends.common import as_time, is_odd

if TYPE_CHECKING:
    import pandas as pd

_MASKED: object = np.ma.masked
_LONG_NUMBER = re.compile(r"[0-9]{19}")

T = TypeVar("T")
Coerce = Callable[[Value], Value]

NUMERIC = {Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.BOOL}
_MISFITS = (TypeError, ValueError, InvalidOperation, OverflowError, RecursionError)
_MOMENT = re.compile(
    r"(?P<day>\d{4}-\d{1,2}-\d{1,2})?((?<=\d)[ T](?=\d)|(?<!\d)|$)"
    r"(?P<clock>\d{1,2}:\d{1,2}(:\d{1,2}(\.\d+)?)?)?"
)


def is_null(value: Value) -> bool:
    """Return whether a value stands for null: None, NaN, or a mark for a missing value."""
    return value is None or is_mark(value) or _is_nan(value)


def is_missing(value: Value, attribute: Attribute) -> bool:
    """Whether a value stands for "not given": None, a mark for a missing value, "" for a number."""
    if value is None or is_mark(value):
        return True
    family = attribute.type.family if attribute.type else None
    if isinstance(value, str):
        return not value and family in NUMERIC
    return family is not Family.CODEC and _is_nan(value)


_LONGEST_TIME = timedelta(hours=838, minutes=59, seconds=59)


def checked(value: Value, attribute: Attribute) -> Value:
    """Return a value as its attribute's Python type.

    Raises
    ------
    InvalidValueError
        If it does not fit; the message names the table, the attribute, the value and the bounds.
    """
    kind = attribute.type
    if kind is None:
        return value
    try:
        return bounded(_stored(value, kind), kind)
    except _MISFITS as error:
        raise InvalidValueError(
            f"{attribute.table}.{attribute.name} : {kind.text} cannot hold "
            f"{shown(value)} ({type(value).__name__}): {error}"
        ) from error


def is_only_found(value: Value, family: Family) -> bool:
    """Whether a value of another client can be found in a table, though not entered.

    Examples are a zero date, and an infinite number in a SQLite file.
    """
    if family is Family.FLOAT:
        return isinstance(value, float) and math.isinf(value)
    return is_odd(value, family)


def comparable(value: Value, attribute: Attribute) -> Value:
    """Return a value to compare an attribute with: moments, times and 32-bit floats as stored.

    A value of the right kind that is too long or too large is not an error, nor is a number of more
    digits than a decimal keeps; it finds no row.

    Raises
    ------
    InvalidValueError
        For a value of another kind.
    """
    return _compared(value, attribute, _sought)


def as_fetched(value: Value, attribute: Attribute) -> Value:
    """Return a value as it is fetched after insertion; errors are the same as in `comparable`.

    >>> from dj_dagster.model.types import parse_type
    >>> as_fetched(1 / 3, Attribute("gain", parse_type("float32")))
    0.33333334
    """
    return _fetched(_compared(value, attribute, _stored), attribute.type)


def as_inserted(value: Value, attribute: Attribute) -> Value:
    """Return a value to be inserted as it is fetched afterwards; errors are those of `checked`."""
    return _fetched(checked(value, attribute), attribute.type)


def _fetched(value: Value, kind: AttributeType | None) -> Value:
    if kind is not None and kind.family is Family.BOOL:
        return value if value is None else bool(value)
    return shortest_single(value) if kind is not None and kind.is_single else value


def _compared(
    value: Value, attribute: Attribute, convert: Callable[[Value, AttributeType], Value]
) -> Value:
    if attribute.type is None:
        return value.item() if isinstance(value, np.generic) else value
    try:
        if attribute.type.family in (Family.CODEC, Family.JSON):
            raise TypeError("rows cannot be found by such a value; leave it out")
        if is_only_found(value, attribute.type.family):
            return value
        return convert(value, attribute.type)
    except _MISFITS as error:
        raise InvalidValueError(
            f"{attribute.table}.{attribute.name} : {attribute.type.text} cannot be compared with "
            f"{shown(value)} ({type(value).__name__}): {error}"
        ) from error


def without_zone(value: Value) -> Value:
    """Return a date or time without its time zone, as local clock time; anything else as it is.

    DataJoint 0.14 writes a date or time with a time zone in this way; otherwise it is refused.
    """
    return value.replace(tzinfo=None) if getattr(value, "tzinfo", None) is not None else value


def _stored(value: Value, kind: AttributeType) -> Value:
    """Return a value as it is read back from its column."""
    coerced = _COERCE[kind.family](value)
    match kind.family:
        case Family.FLOAT:
            found = coerced if kind.scale is None else in_places(coerced, kind.scale)
            return single(found) if kind.is_single else found
        case Family.DECIMAL:
            return with_scale(coerced, kind.scale or 0)
        case Family.DATETIME:
            if not coerced.microsecond:
                return coerced
            return datetime.min + in_digits(coerced - datetime.min, kind)
        case Family.TIME:
            return in_digits(coerced, kind)
        case Family.STRING if cuts_blanks(kind):
            return coerced.rstrip(" ")
        case Family.ENUM:
            return declared_spelling(coerced, kind)
        case _:
            return coerced


def _sought(value: Value, kind: AttributeType) -> Value:
    """Return a value as it is found in its column; a number of too many digits equals none."""
    match kind.family:
        case Family.DECIMAL:
            number, found = _decimal(value), _stored(value, kind)
            beyond = Decimal(10) ** ((kind.size or 10) - (kind.scale or 0))
            return found if found == number else beyond
        case Family.FLOAT if kind.scale is not None:
            return single(_float(value)) if kind.is_single else _float(value)
        case _:
            return _stored(value, kind)


def _is_nan(value: Value) -> bool:
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, numbers.Real) and bool(value != value)


def shown(value: Value) -> str:
    """Return a value as Python writes it, shortened, for messages."""
    try:
        text = repr(value)
    except RecursionError:
        return "a value inside values inside values"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _integer(value: Value) -> int:
    try:
        number = int(_number_text(value) if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(_NOT_WHOLE) from None
    if not isinstance(value, str) and number != value:
        raise ValueError(_NOT_WHOLE)
    return number


_TOO_LONG = "it must not be longer than 838:59:59"
_NOT_WHOLE, _NO_NUMBER = "it is not a whole number", "it is not a number"


def _number_text(text: str) -> str:
    # Python reads 1_000 and other scripts' digits, which no database does.
    if "_" in text or not text.isascii():
        raise ValueError(_NO_NUMBER)
    return text


def _float(value: Value) -> float:
    if isinstance(value, np.complexfloating):
        # float() would take the real part.
        raise TypeError(_NO_NUMBER)
    try:
        number = float(_number_text(value) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise ValueError(_NO_NUMBER) from None
    if not math.isfinite(number):
        raise ValueError("only finite numbers fit; declare the attribute as <blob>")
    return number


def _decimal(value: Value) -> Decimal:
    try:
        if isinstance(value, bool | np.bool_):
            # As for all other numbers, and as servers take it.
            value = int(value)
        number = value if isinstance(value, Decimal) else Decimal(_number_text(str(value)))
    except InvalidOperation:
        raise ValueError(_NO_NUMBER) from None
    if not number.is_finite():
        raise ValueError("only finite numbers fit")
    return number


def _bool(value: Value) -> int:
    if value in (0, 1):
        return int(value)
    raise ValueError("write True, False, 0 or 1")


def _string(value: Value) -> str:
    if isinstance(value, bool | np.bool_):
        value = int(value)  # the database's text for it, which DataJoint has too
    if not isinstance(value, str | numbers.Number | PurePath | UUID | date | time):
        raise TypeError("it is not text")
    # str() of a text enum's member would be the member's name.
    text = str.__str__(value) if isinstance(value, str) else str(value)
    text.encode()  # raises UnicodeError for half a surrogate pair, which no database takes
    return text


def _date(value: Value) -> date:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        return _zoneless(value).date()
    return value if isinstance(value, date) else _read(date.fromisoformat, value, "2026-01-31")


def _read(parse: Callable[[str], T], value: Value, example: str) -> T:
    text = _padded(value)
    try:
        return parse(text)
    except ValueError as error:
        # Other errors tell which part of it is out of range.
        if not str(error).startswith("Invalid isoformat"):
            raise
    raise ValueError(f"write it as {example}")


def _padded(text: Value) -> str:
    """Return a date or time in padded ISO form; like a server, it also takes 2026-1-5 and 9:05."""
    if not isinstance(text, str):
        raise TypeError("write a date or time, or its text")
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        return text
    day, clock = found["day"], found["clock"]
    parts = [] if day is None else ["-".join(part.zfill(2) for part in day.split("-"))]
    if clock is not None:
        whole, point, fraction = clock.partition(".")
        numbers = ":".join(part.zfill(2) for part in whole.split(":"))
        parts.append(numbers + point + fraction)
    return " ".join(parts)


def _datetime(value: Value) -> datetime:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    elif hasattr(value, "to_pydatetime"):
        # pandas keeps nanoseconds.
        value = value.floor("us").to_pydatetime()
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    moment = value
    if not isinstance(moment, datetime):
        moment = _read(datetime.fromisoformat, value, "2026-01-31 12:30:00")
    return _zoneless(moment)


def _zoneless(moment: datetime) -> datetime:
    if moment.tzinfo is not None:
        raise ValueError("the database keeps no time zone; convert it and drop tzinfo")
    return moment


def _time(value: Value) -> timedelta:
    """Return a time of day, or a longer or negative duration as MySQL's type TIME allows."""
    if isinstance(value, np.timedelta64):
        value = value.astype("timedelta64[us]").item()
    is_read = isinstance(value, time | timedelta)
    moment = as_time(value) if is_read else _read(as_time, value, "12:30:00")
    if abs(moment) >= _LONGEST_TIME + timedelta(seconds=1):
        raise ValueError(_TOO_LONG)
    return moment


def _uuid(value: Value) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise TypeError("write a uuid.UUID or its text")
    return UUID(value)


def _json(value: Value) -> Value:
    text = json.dumps(value, allow_nan=False)
    if _LONG_NUMBER.search(text):
        _check_integers(value)
    if "\\ud" in text:
        # Raises UnicodeError for half a surrogate pair, which servers refuse.
        json.dumps(value, ensure_ascii=False).encode()
    if "{" in text:
        json.loads(text, object_pairs_hook=_check_keys)
    return value


def _check_keys(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    """Refuse keys that are one text in JSON, such as 1 and "1", of which one would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"several of its keys are the text {twice!r} in JSON")
    return found


def read_json(text: str) -> Value:
    """Return the value of a text in JSON.

    Raises
    ------
    ValueError
        If it is not JSON, repeats a key in an object, or has too many levels to be read.
    """
    try:
        return json.loads(text, object_pairs_hook=_check_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it has too many levels") from None


def _check_integers(value: Value) -> None:
    """Refuse integers of more than 64 bits in JSON, which MySQL turns into floats."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(
            f"MySQL's JSON holds integers between {-(2**63)} and {2**64 - 1}: write larger ones as "
            "texts, or declare the attribute as <blob>"
        )
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            _check_integers(part)


def _bytes(value: Value) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError("it is not bytes; declare the attribute as <blob> to keep Python objects")


def _as_is(value: Value) -> Value:
    return value


_COERCE: Mapping[Family, Coerce] = {
    Family.INTEGER: _integer,
    Family.FLOAT: _float,
    Family.DECIMAL: _decimal,
    Family.BOOL: _bool,
    Family.STRING: _string,
    Family.ENUM: _string,
    Family.DATE: _date,
    Family.DATETIME: _datetime,
    Family.TIME: _time,
    Family.UUID: _uuid,
    Family.JSON: _json,
    Family.BYTES: _bytes,
    Family.CODEC: _as_is,
}


_TEXT_BYTES = {"tinytext": 2**8 - 1, "text": 2**16 - 1, "mediumtext": 2**24 - 1}
_TIMESTAMPS = datetime(1970, 1, 1), datetime(2038, 1, 19, 3, 14, 7)
_SINGLE = Struct("<f")
# As many digits as MySQL's decimals can have, rounded as it rounds.
_DECIMALS = Context(prec=65, rounding=ROUND_HALF_UP)


def bounded(value: Value, kind: AttributeType) -> Value:
    """Return a value of the right Python type as its attribute's type holds it.

    Raises
    ------
    ValueError
        If it does not fit; the message states the bounds.
    """
    match kind.family:
        case Family.FLOAT if kind.unsigned and value < 0:
            raise ValueError("it must not be negative")
        case Family.FLOAT if kind.digits is not None:
            return _in_digits_of(value, kind, kind.digits)
        case Family.INTEGER:
            return _in_range(value, kind)
        case Family.STRING if kind.size is None and len(value.encode()) > byte_limit(kind):
            raise ValueError(f"it has {len(value.encode())} bytes, {byte_limit(kind)} fit")
        case Family.STRING if kind.size is not None and len(value) > kind.size:
            raise ValueError(f"it has {len(value)} characters, {kind.size} fit")
        case Family.ENUM if value not in kind.values:
            raise ValueError(f"write one of {', '.join(map(repr, kind.values))}")
        case Family.DECIMAL:
            return _fitting_decimal(value, kind)
        case Family.TIME if abs(value) > _LONGEST_TIME:
            raise ValueError(_TOO_LONG)
        case Family.DATETIME if is_timestamp(kind):
            return _timestamp(value)
        case _:
            return value


def integer_range(kind: AttributeType) -> tuple[int, int]:
    """Return the least and the largest integer of a type."""
    if kind.text == "year":
        return 1901, 2155
    bits = kind.size or 64
    return (0, 2**bits - 1) if kind.unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def byte_limit(kind: AttributeType) -> int:
    """Return the number of bytes of UTF-8 that a text type without a length holds."""
    return _TEXT_BYTES.get(kind.text, 2**32 - 1)


def is_timestamp(kind: AttributeType) -> bool:
    """Return whether a type counts seconds since 1970, as a server's timestamps do."""
    return kind.text.startswith("timestamp")


def in_timestamps(value: datetime) -> bool:
    """Return whether a timestamp can hold a moment."""
    return _TIMESTAMPS[0] < value.replace(microsecond=0) <= _TIMESTAMPS[1]


def cuts_blanks(kind: AttributeType) -> bool:
    """Return whether a type drops trailing blanks, as texts of a fixed length do."""
    return kind.text.startswith("char(")


def _in_range(value: int, kind: AttributeType) -> int:
    low, high = integer_range(kind)
    if not low <= value <= high:
        raise ValueError(f"it must lie between {low} and {high}")
    return value


def declared_spelling(value: str, kind: AttributeType) -> str:
    """Return the value of an enum as written in its definition, ignoring case as in MySQL."""
    if value in kind.values:
        return value
    same = [known for known in kind.values if known.lower() == value.lower()]
    return same[0] if len(same) == 1 else value


def _fitting_decimal(value: Decimal, kind: AttributeType) -> Decimal:
    digits = (kind.size or 10) - (kind.scale or 0)
    # `abs` would round to 28 digits.
    if value.copy_abs() >= Decimal(10) ** digits:
        raise ValueError(f"at most {digits} digits fit before the point")
    if kind.unsigned and value < 0:
        raise ValueError("it must not be negative")
    return value


def _in_digits_of(value: float, kind: AttributeType, digits: int) -> float:
    scale = kind.scale or 0
    largest = float(f"1e{digits - scale}") - float(f"1e-{scale}")
    if abs(in_places(value, scale)) > largest:
        raise ValueError(f"it must lie between {-largest} and {largest}")
    return value


def is_bounded(kind: AttributeType) -> bool:
    """Whether a float type refuses or rounds numbers beyond what its bits do."""
    return kind.unsigned or kind.scale is not None


def in_places(value: float, scale: int) -> float:
    """Return the float nearest to the decimal to which a server rounds a value.

    >>> in_places(1.005, 2), in_places(-1.225, 2), in_places(1.93, 2)
    (1.0, -1.23, 1.93)
    """
    return round(in_column(value, scale), scale)


def in_column(value: float, scale: int) -> float:
    """Return a float as a server keeps it in ``double(m, d)``: its fraction is rounded alone.

    The server shows it with `scale` digits, so that it is not always what a client reads.

    >>> in_column(1.93, 2)
    1.9300000000000002
    """
    whole, power = float(math.floor(value)), float(f"1e{scale}")
    return whole + round((value - whole) * power) / power


def _timestamp(value: datetime) -> datetime:
    """Refuse moments out of the range of servers, which count seconds since 1970 in 31 bits."""
    if not in_timestamps(value):
        raise ValueError(
            f"a timestamp lies after {_TIMESTAMPS[0]} and not after {_TIMESTAMPS[1]}; declare the "
            "attribute as datetime"
        )
    return value


def in_digits(value: timedelta, kind: AttributeType) -> timedelta:
    """Return a time, or a moment since any midnight, with the digits that its column keeps.

    MariaDB truncates further digits towards zero. MySQL rounds, which can lead into the next day.
    """
    step = timedelta(microseconds=10 ** (6 - (kind.size or 0)))
    size = abs(value)
    kept = (size + step / 2 if kind.rounds else size) // step * step
    return -kept if value < timedelta(0) else kept


def single(value: float) -> float:
    """Return a number with the precision that 32 bits keep.

    Raises
    ------
    OverflowError
        If it is too large.
    """
    return _SINGLE.unpack(_SINGLE.pack(value))[0]


def shortest_single(value: Value) -> Value:
    """Return the shortest number that 32 bits keep as they keep this one.

    >>> shortest_single(0.10000000149011612)
    0.1
    """
    if not isinstance(value, float) or not isfinite(value):
        return value
    kept = _SINGLE.pack(value)
    shortened = (float(f"{value:.{digits}g}") for digits in (6, 7, 8, 9))
    return next((number for number in shortened if _SINGLE.pack(number) == kept), value)


def with_scale(value: Decimal, scale: int) -> Decimal:
    """Return a decimal rounded to a number of digits after the point; zero is without a sign."""
    found = _DECIMALS.quantize(value, Decimal(1).scaleb(-scale))
    return found if found else abs(found)


def is_data_frame(value: object) -> TypeGuard[pd.DataFrame]:
    """Whether a value is a pandas DataFrame; pandas is not imported for the test."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def is_series(value: object) -> TypeGuard[pd.Series]:
    """Whether a value is a pandas Series."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.Series)


def is_mark(value: object) -> bool:
    """Whether a value is a mark for a missing one: pandas' ``NA`` and ``NaT``, numpy's masked."""
    if value is _MASKED:
        return True
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)

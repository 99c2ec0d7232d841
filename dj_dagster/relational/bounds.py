"""How much an attribute's type holds: ranges, lengths, digits."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from math import isfinite
from struct import Struct
from typing import Any

from dj_dagster.model.types import AttributeType, Family

_TEXT_BYTES = {"tinytext": 2**8 - 1, "text": 2**16 - 1, "mediumtext": 2**24 - 1}
_TIMESTAMPS = datetime(1970, 1, 1), datetime(2038, 1, 19, 3, 14, 7)
_SINGLE = Struct("<f")
# As many digits as MySQL's decimals can have, rounded as it rounds.
_DECIMALS = Context(prec=65, rounding=ROUND_HALF_UP)


def bounded(value: Any, kind: AttributeType) -> Any:
    """Return a value of the right Python type as its attribute's type holds it.

    Raises
    ------
    ValueError
        Saying what would fit.
    """
    match kind.family:
        case Family.FLOAT if kind.unsigned and value < 0:
            raise ValueError("it must not be negative")
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
    """Return how many bytes of UTF-8 a text type without a length holds."""
    return _TEXT_BYTES.get(kind.text, 2**32 - 1)


def is_timestamp(kind: AttributeType) -> bool:
    """Return whether a type counts seconds since 1970, as a server's timestamps do."""
    return kind.text.startswith("timestamp")


def in_timestamps(value: datetime) -> bool:
    """Return whether a timestamp can hold a moment."""
    return _TIMESTAMPS[0] < value.replace(microsecond=0) <= _TIMESTAMPS[1]


def cuts_blanks(kind: AttributeType) -> bool:
    """Return whether a type keeps no blanks at the end, as texts of a fixed length do not."""
    return kind.text.startswith("char(")


def _in_range(value: int, kind: AttributeType) -> int:
    low, high = integer_range(kind)
    if not low <= value <= high:
        raise ValueError(f"it must lie between {low} and {high}")
    return value


def declared_spelling(value: str, kind: AttributeType) -> str:
    """Return the value of an enum as its definition spells it: case does not count, as in MySQL."""
    if value in kind.values:
        return value
    same = [known for known in kind.values if known.lower() == value.lower()]
    return same[0] if len(same) == 1 else value


def _fitting_decimal(value: Decimal, kind: AttributeType) -> Decimal:
    digits = (kind.size or 10) - (kind.scale or 0)
    if abs(value) >= Decimal(10) ** digits:
        raise ValueError(f"at most {digits} digits fit before the point")
    if kind.unsigned and value < 0:
        raise ValueError("it must not be negative")
    return value


def _timestamp(value: datetime) -> datetime:
    """Refuse what servers cannot keep: they count the seconds since 1970 in 31 bits."""
    if not in_timestamps(value):
        raise ValueError(
            f"a timestamp lies after {_TIMESTAMPS[0]} and not after {_TIMESTAMPS[1]}; declare the "
            "attribute as datetime"
        )
    return value


def in_digits(value: timedelta, kind: AttributeType) -> timedelta:
    """Return a time, or a moment since any midnight, with the digits that its column keeps.

    MariaDB cuts the others off, towards zero. MySQL rounds, which can lead into the next day.
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


def shortest_single(value: Any) -> Any:
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
    """Return a decimal with so many digits after the point."""
    return _DECIMALS.quantize(value, Decimal(1).scaleb(-scale))

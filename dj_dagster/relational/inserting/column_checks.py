"""Checks of whole columns at C speed, and of single values that need no conversion.

A check returns the column as the driver takes it, or None when its values have to be checked one
by one with `dj_dagster.relational.values`. It may give up on valid values, but never accepts a
value that would be refused there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from uuid import UUID

import numpy as np

from dj_dagster.model.heading import Attribute, Value
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.values import (
    byte_limit,
    cuts_blanks,
    in_timestamps,
    integer_range,
    is_bounded,
    is_timestamp,
)

Column = Sequence[Value]
Kinds = set[type]
Fits = Callable[[Value], bool]
Check = Callable[[Column, Kinds], Column | None]

_USUAL = {int, float, str, bytes, bool, type(None), date, datetime, UUID, Decimal, dict, list}
_NUMPY = (np.number, np.bool_, np.str_)
_MICROSECOND = attrgetter("microsecond")
_TIME_ZONE = attrgetter("tzinfo")


def check_of(attribute: Attribute) -> Check:
    """Return the check of an attribute's columns; its second argument is the set of their types."""
    kind = attribute.type
    make = _CHECKS.get(kind.family) if kind is not None else None
    return _unchecked if kind is None or make is None else make(kind)


def checked_column(values: Column, check: Check, *, nullable: bool) -> Column | None:
    """Return a column as the driver takes it, or None if each value has to be checked on its own.

    Parameters
    ----------
    nullable
        Whether None and NaN are null; otherwise they are checked on their own.
    """
    kinds = set(map(type, values))
    if not kinds <= _USUAL:
        values = [_plain(value) for value in values]
        kinds = set(map(type, values))
    if type(None) not in kinds:
        found = check(values, kinds)
        return _without_nan(values, check, kinds) if found is None and nullable else found
    if not nullable:
        return None
    present = [value for value in values if value is not None]
    return _with_nulls(values, present, checked_column(present, check, nullable=True))


def _plain(value: Value) -> Value:
    """Return a value, converted from numpy's scalar types to Python's."""
    # numpy counts timedelta64 among the integers.
    number = isinstance(value, _NUMPY) and not isinstance(value, np.timedelta64)
    return value.item() if number else value


def _without_nan(values: Column, check: Check, kinds: Kinds) -> Column | None:
    if float not in kinds:
        return None
    present = [value for value in values if value == value]
    if len(present) == len(values):
        return None
    nulls = [value if value == value else None for value in values]
    return _with_nulls(nulls, present, check(present, set(map(type, present))))


def _with_nulls(values: Column, present: Column, found: Column | None) -> Column | None:
    if found is None or found is present:
        return None if found is None else values
    given = iter(found)
    return [None if value is None else next(given) for value in values]


def _unchecked(values: Column, kinds: Kinds) -> Column | None:
    del values, kinds
    return None


def _integers(kind: AttributeType) -> Check:
    low, high = integer_range(kind)

    def check(values: Column, kinds: Kinds) -> Column | None:
        if kinds == {float}:
            # A data frame returns integers as floats if some are missing.
            try:
                whole = list(map(int, values))
            except (ValueError, OverflowError):
                return None
            values = whole if whole == list(values) else ()
        elif not kinds <= {int, bool}:
            return None
        fits = bool(values) and min(values) >= low and max(values) <= high
        return values if fits else None

    return check


def _floats(kind: AttributeType) -> Check:
    if is_bounded(kind):
        return _unchecked
    if kind.size == 32:
        return _singles

    def check(values: Column, kinds: Kinds) -> Column | None:
        if kinds == {float}:
            return values if _finite(values) else None
        return list(map(float, values)) if kinds <= {float, int} and _exact(values) else None

    return check


def _finite(values: Column) -> bool:
    # The sum is finite only if all values are; an infinite sum may also come from an overflow.
    return math.isfinite(sum(values)) or all(map(math.isfinite, values))


def _exact(values: Column) -> bool:
    return bool(values) and max(values) < 2**53 and min(values) > -(2**53)


def _singles(values: Column, kinds: Kinds) -> Column | None:
    if kinds != {float}:
        return None
    with np.errstate(over="ignore"):
        rounded = np.array(values).astype(np.float32)
    return rounded.astype(float).tolist() if np.isfinite(rounded).all() else None


def _bools(kind: AttributeType) -> Check:
    del kind

    def check(values: Column, kinds: Kinds) -> Column | None:
        return list(map(int, values)) if kinds <= {bool, int} and set(values) <= {0, 1} else None

    return check


def _strings(kind: AttributeType) -> Check:
    limit = kind.size if kind.size is not None else byte_limit(kind)

    def check(values: Column, kinds: Kinds) -> Column | None:
        if kinds != {str}:
            return None
        text = "".join(values)
        if not text.isascii() and (kind.size is None or _has_surrogate(text)):
            return None
        if cuts_blanks(kind) and any(value.endswith(" ") for value in values):
            return None
        return values if len(max(values, key=len)) <= limit else None

    return check


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return True
    return False


def _enums(kind: AttributeType) -> Check:
    permitted = frozenset(kind.values)

    def check(values: Column, kinds: Kinds) -> Column | None:
        return values if kinds == {str} and permitted.issuperset(values) else None

    return check


def _exactly(wanted: type) -> Callable[[AttributeType], Check]:
    def make(kind: AttributeType) -> Check:
        del kind
        return lambda values, kinds: values if kinds == {wanted} else None

    return make


def _datetimes(kind: AttributeType) -> Check:
    step = 10 ** (6 - (kind.size or 0))

    def check(values: Column, kinds: Kinds) -> Column | None:
        if kinds != {datetime} or any(map(_TIME_ZONE, values)):
            return None
        if is_timestamp(kind) and not (in_timestamps(min(values)) and in_timestamps(max(values))):
            return None
        parts = set(map(_MICROSECOND, values))
        return values if not any(part % step for part in parts) else None

    return check


_CHECKS: dict[Family, Callable[[AttributeType], Check]] = {
    Family.INTEGER: _integers,
    Family.FLOAT: _floats,
    Family.BOOL: _bools,
    Family.STRING: _strings,
    Family.ENUM: _enums,
    Family.DATE: _exactly(date),
    Family.DATETIME: _datetimes,
    Family.UUID: _exactly(UUID),
    Family.BYTES: _exactly(bytes),
}


def fits_of(attribute: Attribute) -> Fits | None:
    """Return a test whether a value can be passed to the driver as it is, None without a test.

    It is used for single rows, for which the handling of columns would take most of the time.
    """
    kind = attribute.type
    if kind is None or kind.auto_increment:
        return None
    if kind.family is Family.INTEGER:
        low, high = integer_range(kind)
        return lambda value: type(value) is int and low <= value <= high
    if kind.family is Family.FLOAT and kind.size == 64 and not is_bounded(kind):
        return lambda value: type(value) is float and math.isfinite(value)
    if kind.family is Family.STRING:
        limit = kind.size if kind.size is not None else byte_limit(kind)
        if cuts_blanks(kind):
            return None
        return lambda value: type(value) is str and len(value) <= limit and value.isascii()
    if kind.family is Family.ENUM:
        permitted = frozenset(kind.values)
        return lambda value: type(value) is str and value in permitted
    return None

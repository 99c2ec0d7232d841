"""Conversion of values of an attribute whose type changes: each to an equal value, or refused.

The possible conversions and their results are the same on all backends. Servers convert more, but
lose values silently: MySQL takes a number for the position of an enum's value and the bytes of a
UUID for text, and it rounds. Such a change is refused if there are values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from dj_dagster.errors import DefinitionError, InvalidValueError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.user_sql import temporal
from dj_dagster.relational.values import checked

_NUMBERS = (Family.INTEGER, Family.BOOL, Family.FLOAT, Family.DECIMAL)
_TEXTS = (Family.STRING, Family.ENUM)
_MOMENTS = (Family.DATE, Family.DATETIME)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

Convert = Callable[[Any], Any]


def changes_values(old: AttributeType | None, new: AttributeType | None) -> bool:
    """Return whether some value of the old type is not a value of the new type unchanged."""
    if old is None or new is None or old == new:
        return False
    if old.family is not new.family:
        return True
    sizes = (old.size or 0, old.scale or 0), (new.size or 0, new.scale or 0)
    match old.family:
        case Family.INTEGER | Family.FLOAT:
            wider = sizes[0] <= sizes[1] and not (new.unsigned and not old.unsigned)
            return not wider or (old.unsigned and not new.unsigned and sizes[0] >= sizes[1])
        case Family.DECIMAL:
            whole = [size - scale for size, scale in sizes]
            return whole[0] > whole[1] or sizes[0][1] > sizes[1][1] or new.unsigned
        case Family.ENUM:
            return not set(old.values) <= set(new.values)
        case Family.DATETIME | Family.TIME:
            return sizes[0] > sizes[1] or old.text.split("(")[0] != new.text.split("(")[0]
        case Family.STRING:
            return True
        case _:
            return False


def converted(values: Iterator[Any], old: Attribute, new: Attribute) -> Mapping[Any, Any]:
    """Return the new value of each value, by the old one.

    Parameters
    ----------
    values
        Values of the old attribute, without nulls.

    Raises
    ------
    DefinitionError
        If a value lacks an equal of the new type; the message names the attribute and the first
        such value.
    """
    convert: Convert | None = None
    found: dict[Any, Any] = {}
    for value in values:
        # Values of JSON are not hashable, and are not converted.
        if isinstance(value, Hashable) and value in found:
            continue
        try:
            convert = convert or _conversion(old, new)
            found[value] = convert(value)
        except (InvalidValueError, ValueError) as error:
            raise DefinitionError(
                f"The values of {old.table}.{old.name} cannot be turned from {type_text(old)} into "
                f"{type_text(new)} without loss, such as {value!r}: {_reason(error)}. Nothing was "
                "changed. Correct the values, or add a second attribute, fill it from the first "
                "and drop that one."
            ) from None
    return found


def _conversion(old: Attribute, new: Attribute) -> Convert:
    """Return the function that converts a value; it raises ValueError for one without an equal."""
    one, other = _kind(old), _kind(new)
    match one.family, other.family:
        case (a, b) if a in _NUMBERS and b in _NUMBERS:
            return lambda value: _equal_number(value, checked(value, new))
        case (Family.INTEGER | Family.BOOL | Family.DECIMAL, Family.STRING):
            return lambda value: _kept(_number_text(value), new)
        case (Family.STRING, b) if b in _NUMBERS:
            return lambda value: _equal_number(_read_number(value), checked(value, new))
        case (a, b) if a in _TEXTS and b in _TEXTS:
            return lambda value: _kept(value, new)
        case (a, b) if a in _MOMENTS and b in _MOMENTS:
            return lambda value: _equal_moment(value, checked(value, new))
        case (Family.TIME, Family.TIME):
            return lambda value: _equal_moment(value, checked(value, new))
        case (Family.DATE | Family.DATETIME | Family.TIME, Family.STRING):
            return lambda value: _kept(moment_text(value, one), new)
        case (Family.STRING, Family.DATE | Family.DATETIME | Family.TIME):
            return lambda value: _read_moment(value, checked(value, new), other)
        case (Family.STRING, Family.JSON):
            return _read_json
        case (a, b) if a is b:
            return lambda value: _same(value, checked(value, new))
        case _:
            raise ValueError("no value of the one type equals one of the other")


def _same(value: Any, found: Any) -> Any:
    if found != value:
        raise ValueError(f"it would become {found!r}")
    return found


def _kept(text: str, new: Attribute) -> str:
    """Return a text that the new attribute keeps unchanged, including trailing blanks."""
    if _kind(new).text.startswith("char") and text.endswith(" "):
        raise ValueError("the blanks at its end would be lost")
    return _same(text, checked(text, new))


def _equal_number(value: Any, found: Any) -> Any:
    # A decimal and a float are equal if they are written alike, since 0.1 lacks an exact float.
    exact = not isinstance(value, float) and not isinstance(found, float)
    same = found == value if exact or not isinstance(value, Decimal) else None
    if isinstance(value, Decimal) and isinstance(found, float):
        same = Decimal(repr(found)) == value
    elif isinstance(value, float) and isinstance(found, Decimal):
        same = float(found) == value
    if not same:
        raise ValueError(f"it would become {found!r}")
    return found


def _number_text(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(int(value))


def _read_number(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError("it is not a number in its usual form")
    return Decimal(text)


def _equal_moment(value: date | time, found: Any) -> Any:
    if isinstance(value, datetime) and not isinstance(found, datetime):
        found_whole = datetime(found.year, found.month, found.day)
        return found if _same(value, found_whole) else None
    if isinstance(found, datetime) and not isinstance(value, datetime | time):
        return found
    return _same(value, found)


def moment_text(value: Any, kind: AttributeType) -> str:
    """Return a moment as a server writes it."""
    if kind.family is Family.DATE:
        return value.isoformat()
    if isinstance(value, time):
        value = datetime.combine(date.min, value) - datetime.min
    return temporal.text(value, kind.size or 0)


def _read_moment(text: str, found: Any, kind: AttributeType) -> Any:
    if moment_text(found, kind) != text:
        raise ValueError(f"it is not written as {moment_text(found, kind)}")
    return found


def _read_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        raise ValueError("it is not JSON") from None


def _kind(attribute: Attribute) -> AttributeType:
    return attribute.type or AttributeType("bytes", Family.BYTES)


def type_text(attribute: Attribute) -> str:
    """Return the type of an attribute as it is written, for messages."""
    return attribute.type.text if attribute.type else "?"


def _reason(error: Exception) -> str:
    """Return the reason from an error's message, without the attribute and value before it."""
    cause = error.__cause__ if isinstance(error, InvalidValueError) else error
    return str(cause or error).removesuffix(".")

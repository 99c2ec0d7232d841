"""How SQLite holds values: what it has no type for is text."""

from __future__ import annotations

import json
from decimal import Decimal
from uuid import UUID

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.declaration import Default
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.backends import temporal
from dj_dagster.relational.backends.base import Convert
from dj_dagster.relational.bounds import shortest_single, with_scale
from dj_dagster.relational.user_sql.sqlite_values import EXACT_DIGITS

_COLUMN_TYPES = {
    Family.INTEGER: "INTEGER",
    Family.BOOL: "INTEGER",
    Family.FLOAT: "REAL",
    Family.STRING: "TEXT",
    Family.ENUM: "TEXT",
    Family.DATE: "TEXT",
    Family.DATETIME: "TEXT",
    Family.TIME: "TEXT",
    Family.UUID: "TEXT",
    Family.JSON: "TEXT",
    Family.BYTES: "BLOB",
}


def column_type(attribute_type: AttributeType, default: Default | None = None) -> str:
    """Return a column type with the wanted affinity."""
    if default is not None and _COLUMN_TYPES.get(attribute_type.family) == "INTEGER":
        # SQLite would number the rows of an INTEGER PRIMARY KEY, whatever its default.
        return "INT"
    if attribute_type.family is Family.DECIMAL:
        return "NUMERIC" if (attribute_type.size or 0) <= EXACT_DIGITS else "TEXT"
    return _COLUMN_TYPES[attribute_type.family]


def encoder(attribute_type: AttributeType) -> Convert | None:
    """Return what turns a checked Python value into the driver's, None for nothing to do."""
    digits = attribute_type.size or 0
    match attribute_type.family:
        case Family.INTEGER:
            return _int64
        case Family.DECIMAL | Family.UUID:
            return str
        case Family.DATE:
            return lambda value: value if isinstance(value, str) else value.isoformat()
        case Family.DATETIME:
            return lambda value: temporal.datetime_text(value, digits)
        case Family.TIME:
            return lambda value: temporal.time_text(value, digits)
        case Family.JSON:
            return json.dumps
        case _:
            return None


def decoder(attribute_type: AttributeType) -> Convert | None:
    """Return what undoes `encoder`."""
    match attribute_type.family:
        case Family.DECIMAL:
            return lambda value: with_scale(Decimal(str(value)), attribute_type.scale or 0)
        case Family.UUID:
            return UUID
        case Family.DATE:
            return temporal.date_or_zero
        case Family.DATETIME:
            return temporal.datetime_or_zero
        case Family.TIME:
            return temporal.as_time
        case Family.FLOAT if attribute_type.size == 32:
            return shortest_single
        case Family.JSON:
            return json.loads
        case Family.BOOL:
            return bool
        case _:
            return None


def _int64(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise InvalidValueError(f"SQLite holds no integer of more than 64 bits: {value}")

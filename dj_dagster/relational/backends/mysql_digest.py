"""One number that stands for the values of a row, computed by the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import Family

_AS_HEX = (Family.STRING, Family.ENUM, Family.UUID, Family.JSON, Family.CODEC)


def row_digest(columns: Sequence[tuple[sa.ColumnElement[Any], Attribute]]) -> sa.Function[Any]:
    """Return a checksum of the checksum's digits.

    A checksum alone is linear: exchange two values between rows, and those of both rows together
    come out as before. MD5 costs more, and MySQL 9.6 and later lack it.
    """
    text = sa.func.concat_ws(",", *(_text(column, attribute) for column, attribute in columns))
    return sa.func.crc32(sa.func.crc32(text))


def _text(column: sa.ColumnElement[Any], attribute: Attribute) -> sa.ColumnElement[Any]:
    family = attribute.family
    if attribute.holds_bytes:
        value = sa.func.length(column)
    elif family in _AS_HEX or family is None:
        # Texts of two collations cannot be joined, and a comma in one would read as two.
        value = sa.func.hex(column)
    elif family is Family.FLOAT:
        # A float of 32 bits would be written with six digits.
        value = column + sa.literal_column("0e0")
    else:
        value = column
    return sa.func.ifnull(value, "-") if attribute.nullable else value

"""What the launchpad asks for when rows are entered: a typed field for each attribute."""

from __future__ import annotations

from typing import Any

from dagster import Any as AnyConfig
from dagster import Array, Bool, Enum, EnumValue, Field, Float, Int, Noneable, Shape, String

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family

PLAIN: dict[Family, Any] = {
    Family.INTEGER: Int,
    Family.BOOL: Bool,
    Family.FLOAT: Float,
    Family.STRING: String,
    Family.DATE: String,
    Family.DATETIME: String,
    Family.TIME: String,
    Family.UUID: String,
}
"""Fields by kind; others take anything: numbers or texts for decimals, lists for blobs."""

HINTS = {
    Family.DATE: "YYYY-MM-DD",
    Family.DATETIME: "YYYY-MM-DD hh:mm:ss",
    Family.TIME: "hh:mm:ss",
    Family.UUID: "32 hexadecimal digits",
    Family.BYTES: "a text, of which the bytes in UTF-8 are kept",
    Family.JSON: "any value",
}


def rows_field(heading: Heading, title: str, *, leave_out: frozenset[str] = frozenset()) -> Field:
    """Return the field for a list of rows.

    Parameters
    ----------
    title
        A name for the table that can be part of a type's name.
    leave_out
        Attributes that are known without asking.
    """
    shape = Shape(
        {
            attribute.name: attribute_field(attribute, title)
            for attribute in heading.attributes.values()
            if attribute.name not in leave_out
        }
    )
    return Field(Array(shape), default_value=[], description="Rows to insert, all or none.")


def attribute_field(attribute: Attribute, title: str) -> Field:
    """Return the field for one attribute: its type, choices, default, and whether it is needed."""
    scalar = _scalar(attribute, title)
    kind = attribute.type
    needless = attribute.nullable or attribute.default is not None
    generated = kind is not None and kind.auto_increment
    options: dict[str, Any] = {"is_required": not (needless or generated)}
    default = _default(attribute)
    if default is not None:
        options = {"default_value": default}
    return Field(
        Noneable(scalar) if attribute.nullable and scalar is not AnyConfig else scalar,
        description=_description(attribute),
        **options,
    )


def _scalar(attribute: Attribute, title: str) -> Any:
    kind = attribute.type
    if kind is None:
        return AnyConfig
    if kind.family is Family.ENUM:
        return Enum(f"{title}__{attribute.name}", [EnumValue(value) for value in kind.values])
    return PLAIN.get(kind.family, AnyConfig)


def _default(attribute: Attribute) -> Any:
    """Return a default that the launchpad can show; others are the database's affair."""
    kind, default = attribute.type, attribute.default
    if kind is None or default is None or default.is_expression:
        return None
    try:
        match kind.family:
            case Family.INTEGER:
                return int(default.value)
            case Family.FLOAT:
                return float(default.value)
            case Family.BOOL:
                return default.value.lower() in ("1", "true")
            case Family.STRING:
                return default.value
            case Family.ENUM:
                return default.value if default.value in kind.values else None
            case _:
                return None
    except ValueError:
        return None


def _description(attribute: Attribute) -> str:
    kind = attribute.type
    hint = HINTS.get(kind.family) if kind else None
    text = kind.text if kind else ""
    said = [attribute.comment, f"{text}: {hint}" if hint else text]
    if attribute.default is not None and _default(attribute) is None:
        said.append(f"default {attribute.default.value}")
    return "; ".join(filter(None, said))

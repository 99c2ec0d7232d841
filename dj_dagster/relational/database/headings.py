"""From what the database reports to a heading: types by comment marker, lineage by foreign key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from dj_dagster.errors import DefinitionError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type, without_counter
from dj_dagster.objects.external_pointer import pointer_type
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn, StoredTable

EXTERNAL_PREFIX = "~external_"
"""What the tables are called in which DataJoint 0.14 says where its objects lie."""

FindTable = Callable[[TableName], StoredTable | None]

# The quoted values of an enum may hold colons.
_MARKER = re.compile(r":((?:'(?:[^'\\]|\\.)*'|[^:'])+):(.*)", re.DOTALL)
_WIDTH = re.compile(r"\b((?:tiny|small|medium|big)?int|year)\(\d+\)")


def resolve(
    raw: RawTable, find: FindTable, *, rounds: Callable[[], bool] = lambda: False
) -> StoredTable:
    """Give a reported table its attribute types and lineages.

    Inherited columns carry no type of their own: type and lineage come from the parent, which
    `find` returns (None where it is out of sight).

    Parameters
    ----------
    rounds
        Returns whether the server rounds the digits of a second that it does not keep. It is asked
        for tables that hold moments or durations.
    """
    origins = _origins(raw.foreign_keys)
    attributes = [_attribute(column, raw, origins.get(column.name), find) for column in raw.columns]
    if any(map(_holds_seconds, attributes)) and rounds():
        attributes = [_rounding(each) if _holds_seconds(each) else each for each in attributes]
    # The key comes first and in its own order, whatever the order of the columns.
    ranked = {name: position for position, name in enumerate(raw.primary_key)}
    attributes.sort(key=lambda attribute: ranked.get(attribute.name, len(ranked)))
    return StoredTable(raw.name, Heading(attributes, raw.comment), raw.foreign_keys, raw.is_view)


def without_hidden_parents(raw: RawTable) -> RawTable:
    """Leave out the foreign keys to hidden tables, and note which columns point into stores."""
    hidden = [key for key in raw.foreign_keys if key.parent.table.startswith("~")]
    if not hidden:
        return raw
    external = {
        column: key.parent.table.removeprefix(EXTERNAL_PREFIX)
        for key in hidden
        for column in key.attributes
        if key.parent.table.startswith(EXTERNAL_PREFIX)
    }
    shown = tuple(key for key in raw.foreign_keys if key not in hidden)
    return replace(raw, foreign_keys=shown, external=external)


def marker(attribute_type: AttributeType, comment: str) -> str:
    """Return the column comment that carries a type: ``:int32:the comment``."""
    return f":{attribute_type.text}:{comment}" if attribute_type.core else comment


def _origins(foreign_keys: tuple[ForeignKey, ...]) -> dict[str, tuple[TableName, str]]:
    origins: dict[str, tuple[TableName, str]] = {}
    for foreign_key in foreign_keys:
        for child, parent in foreign_key.attributes.items():
            if (foreign_key.parent, parent) != (foreign_key.child, child):
                origins.setdefault(child, (foreign_key.parent, parent))
    return origins


def _attribute(
    column: StoredColumn, raw: RawTable, origin: tuple[TableName, str] | None, find: FindTable
) -> Attribute:
    attribute_type, comment = split_comment(column.comment)
    if store := _external_store(column, attribute_type, raw):
        codec = attribute_type.codec if attribute_type and attribute_type.codec else "blob"
        attribute_type = pointer_type(codec, store)
    lineage = str(raw.name) + "." + column.name if column.name in raw.primary_key else None
    if origin is not None:
        parent = _parent_attribute(raw, origin, find)
        lineage = f"{origin[0]}.{origin[1]}"
        if parent is not None:
            attribute_type = attribute_type or (parent.type and without_counter(parent.type))
            lineage = parent.lineage or lineage
    return Attribute(
        column.name,
        attribute_type or _native_type(column),
        in_key=column.name in raw.primary_key,
        nullable=column.nullable,
        default=column.default,
        comment=comment,
        lineage=lineage,
        table=str(raw.name),
    )


def _holds_seconds(attribute: Attribute) -> bool:
    kind = attribute.type
    return kind is not None and kind.family in (Family.DATETIME, Family.TIME)


def _rounding(attribute: Attribute) -> Attribute:
    kind = attribute.type
    return attribute if kind is None else replace(attribute, type=replace(kind, rounds=True))


def _external_store(
    column: StoredColumn, marked: AttributeType | None, raw: RawTable
) -> str | None:
    """Return the store that a column of DataJoint 0.14 points into, None for other columns."""
    if column.name in raw.external:
        return raw.external[column.name]
    # 2.x keeps such values in json: a uuid with a codec is a pointer whatever its foreign key.
    if marked is None or marked.codec is None or column.sql_type.lower() != "binary(16)":
        return None
    return marked.store


def _parent_attribute(
    raw: RawTable, origin: tuple[TableName, str], find: FindTable
) -> Attribute | None:
    table, name = origin
    stored = (
        resolve(RawTable(raw.name, "", raw.columns, raw.primary_key, ()), find)
        if table == raw.name
        else find(table)
    )
    return stored.heading.all_attributes.get(name) if stored else None


def split_comment(text: str) -> tuple[AttributeType | None, str]:
    """Return the type that a column comment carries, None if it carries none, and the rest."""
    match = _MARKER.match(text)
    if not match:
        return None, text
    try:
        return parse_type(match[1]), match[2]
    except DefinitionError:
        # A type of an adapter or a version unknown here: the column itself can still be read.
        return None, match[2]


def _native_type(column: StoredColumn) -> AttributeType | None:
    if not column.sql_type:
        # What a view computes has no type.
        return None
    text = _WIDTH.sub(r"\1", column.sql_type)
    try:
        return parse_type(f"{text} auto_increment" if column.auto_increment else text)
    except DefinitionError:
        binary = "blob" in text.lower() or "binary" in text.lower()
        return AttributeType(text, Family.BYTES if binary else Family.STRING, core=False)

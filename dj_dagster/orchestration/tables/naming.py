"""Names of tables in Dagster, and their columns as Dagster shows them."""

from __future__ import annotations

import re

from dagster import (
    AssetKey,
    TableColumn,
    TableColumnConstraints,
    TableConstraints,
    TableSchema,
)

from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import TableName, snake_case
from dj_dagster.model.selection import class_path
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.stored import ForeignKey
from dj_dagster.relational.table import Table


def asset_key(name: TableName) -> AssetKey:
    """Return ``[schema, table]``, or ``[schema, master, part]``, in snake case of the class names.

    Examples
    --------
    >>> asset_key(TableName("lab", "__processed")).path
    ['lab', 'processed']
    >>> asset_key(TableName("lab", "session__trial")).path
    ['lab', 'session', 'trial']
    """
    return AssetKey([name.schema, *map(snake_case, class_path(name))])


def class_name(name: TableName) -> str:
    """Return a table's name for users: ``"lab.Session.Trial"``."""
    return f"{name.schema}.{'.'.join(class_path(name))}"


def op_name(key: AssetKey) -> str:
    """Return the name of the op that fills a table; Dagster allows letters, digits and ``_``."""
    return "__".join(_word(part) for part in key.path)


def group_name(schema: str) -> str:
    """Return the asset group of a schema's tables."""
    return _word(schema)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


# The UI chooses an icon by a word in the type: `str`, `arr`, `int`, `float`, `bool`, `time`, ...
# (an enum would get the icon of numbers, for the `num` in it).
_ICON_WORDS = {Family.ENUM: "str ", Family.BYTES: "arr ", Family.CODEC: "arr ", Family.JSON: "str "}


def column_schema(table: Table) -> TableSchema:
    """Return the columns of a table with their types, keys, constraints and parents."""
    return TableSchema(
        columns=[_column(table, attribute) for attribute in table.heading.attributes.values()],
        constraints=TableConstraints(other=_table_constraints(table)),
    )


def type_name(kind: AttributeType | None) -> str:
    """Return a type as in its definition, after a word that gives it an icon in the UI.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> type_name(parse_type("int32")), type_name(parse_type("longblob"))
    ('int32', 'arr <blob>')
    """
    if kind is None:
        return "?"
    return _ICON_WORDS.get(kind.family, "") + kind.text


def _column(table: Table, attribute: Attribute) -> TableColumn:
    parents = [key for key in table.foreign_keys if attribute.name in key.attributes]
    return TableColumn(
        name=attribute.name,
        type=type_name(attribute.type),
        description=_description(table, attribute),
        constraints=TableColumnConstraints(
            nullable=attribute.nullable,
            unique=_alone_unique(table, attribute.name),
            other=_constraints(attribute, parents),
        ),
        tags=_tags(attribute, parents),
    )


def _tags(attribute: Attribute, parents: list[ForeignKey]) -> dict[str, str]:
    return ({"key": ""} if attribute.in_key else {}) | ({"foreign_key": ""} if parents else {})


def _constraints(attribute: Attribute, parents: list[ForeignKey]) -> list[str]:
    key = ["primary key"] if attribute.in_key else []
    default = [f"default {attribute.default.value}"] if attribute.default is not None else []
    # The UI cuts constraints at 30 characters: the schema is in the description.
    return key + [f"-> {_short(parent)}" for parent in parents] + default


def _description(table: Table, attribute: Attribute) -> str | None:
    here = f"{table.name}.{attribute.name}"
    sentences = [attribute.comment] if attribute.comment else []
    if attribute.lineage and attribute.lineage != here:
        sentences.append(f"(from {_origin(attribute.lineage)})")
    return " ".join(sentences) or None


def _origin(lineage: str) -> str:
    schema, table, name = lineage.split(".", 2)
    return f"{class_name(TableName(schema, table))}.{name}"


def _short(foreign_key: ForeignKey) -> str:
    return class_name(foreign_key.parent).split(".", 1)[1]


def _alone_unique(table: Table, name: str) -> bool:
    alone = [name]
    return table.primary_key == alone or any(
        foreign_key.unique and list(foreign_key.attributes) == alone
        for foreign_key in table.foreign_keys
    )


def _table_constraints(table: Table) -> list[str]:
    key = [f"primary key ({', '.join(table.primary_key)})"] if table.primary_key else []
    return key + [_foreign_key_text(foreign_key) for foreign_key in table.foreign_keys]


def _foreign_key_text(foreign_key: ForeignKey) -> str:
    options = [word for word in ("unique", "nullable") if getattr(foreign_key, word)]
    listed = f" [{', '.join(options)}]" if options else ""
    return f"({', '.join(foreign_key.attributes)}) -> {class_name(foreign_key.parent)}{listed}"

"""What changes in a schema of DataJoint 0.14 when it gets the layout of 2.x; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import MAX_NAME, TableName
from dj_dagster.model.types import Family
from dj_dagster.objects.external_pointer import KINDS, ExternalPointerType
from dj_dagster.relational.database.catalog import MIGRATION
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.stored import RawTable, StoredColumn

ASIDE = "_external_"
"""What the columns are called, with their own name after it, that hold pointers until confirmed."""

_LINE = re.compile(r"  `((?:[^`]|``)+)` (.*?)(?: COMMENT '((?:[^'\\]|''|\\.)*)')?,?$")


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that gets another comment, or other content.

    Attributes
    ----------
    definition
        As SHOW CREATE TABLE has it now, without the comment, and that.
    type_text
        The type that its comment is to carry.
    store
        The store that it points into; its pointers become references then.
    """

    table: TableName
    name: str
    definition: str
    old_comment: str
    comment: str
    type_text: str
    store: str | None = None
    nullable: bool = False

    @property
    def new_comment(self) -> str:
        """The comment with its type in front, in SQL."""
        return f":{self.type_text.replace(chr(39), chr(39) * 2)}:{self.comment}"

    def __str__(self) -> str:
        if self.store is None:
            return f"{self.table}.{self.name}: is marked as {self.type_text}"
        return f"{self.table}.{self.name}: its pointers become references, {self.type_text}"


def migration_changes(connection: Connection, schema: str) -> list[ColumnChange]:
    """Return what is to change in a schema.

    Raises
    ------
    DataJointError
        If the schema is not of the old era.
    """
    connection.catalog.forget(schema)
    if not connection.catalog.is_old(schema):
        raise DataJointError(
            f"The schema {schema} has no tables in the layout of DataJoint 0.14: there is nothing "
            "to migrate."
        )
    return [
        change
        for name in connection.catalog.names(schema)
        if not name.table.startswith("~") and (raw := connection.catalog.raw(name)) is not None
        for change in _changes(connection, raw)
    ]


def column_lines(connection: Connection, name: TableName) -> dict[str, tuple[str, str]]:
    """Return each column's definition and comment in SQL, as the server shows them."""
    with connection.cursor() as session:
        quoted = connection.backend.full_name(name).replace("%", "%%")
        text = session.exec_driver_sql(f"SHOW CREATE TABLE {quoted}").fetchall()[0][1]
    found = (match for line in text.splitlines() if (match := _LINE.match(line)))
    return {match[1]: (match[2], match[3] or "") for match in found}


def _changes(connection: Connection, raw: RawTable) -> Iterator[ColumnChange]:
    stored = connection.catalog.find(raw.name)
    if stored is None:
        return
    inherited = {name for key in raw.foreign_keys for name in key.attributes}
    lines: dict[str, tuple[str, str]] = {}
    for column in raw.columns:
        attribute = stored.heading.all_attributes[column.name]
        kind = _new_type(column, attribute)
        if column.name in inherited or kind is None:
            continue
        lines = lines or column_lines(connection, raw.name)
        definition, old_comment = lines[column.name]
        store = attribute.type.store if isinstance(attribute.type, ExternalPointerType) else None
        if store is not None and len(ASIDE + column.name) > MAX_NAME:
            raise DataJointError(f"{raw.name}.{column.name} has too long a name to be migrated.")
        comment = re.sub(r"^:[^:]*:", "", old_comment)
        yield ColumnChange(
            raw.name, column.name, definition, old_comment, comment, kind, store, column.nullable
        )


def _new_type(column: StoredColumn, attribute: Attribute) -> str | None:
    """Return the type that a column's comment is to carry, None where it is well as it is."""
    kind, marked = attribute.type, column.comment.startswith(":")
    if kind is None or column.name.startswith("_"):
        return None
    if isinstance(kind, ExternalPointerType):
        return f"<{kind.codec}@{kind.store}>"
    if kind.family is Family.CODEC:
        return kind.text if kind.codec in KINDS and not column.comment.startswith(":<") else None
    if marked:
        return None
    if column.sql_type.lower() == "tinyint(1)":
        return "bool"
    # DataJoint reads a type up to the first colon.
    return kind.text if kind.core and ":" not in kind.text else None


def is_migrated(connection: Connection, schema: str) -> bool:
    """Whether a migration of a schema has begun, or was confirmed."""
    connection.catalog.forget(schema)
    return connection.catalog.raw(TableName(schema, MIGRATION)) is not None

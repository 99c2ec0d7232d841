"""INSERT … SELECT: the rows of a query copied inside the server."""

from __future__ import annotations

import sqlalchemy as sa

from dj_dagster.errors import MissingAttributeError, UnknownAttributeError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.external_pointer import ExternalPointerType
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.backends.insert_statement import InsertMode
from dj_dagster.relational.bounds import integer_range
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.write_buffer import EncodedRows
from dj_dagster.relational.inserting.insert_columns import required_names
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.values import NUMERIC


def copied_names(table: StoredTable, source: Heading, *, ignore_extra_fields: bool) -> list[str]:
    """Return the attributes that a query gives a table, matched by name.

    Raises
    ------
    UnknownAttributeError, MissingAttributeError
        If the table does not have one of the query's, or the query lacks one that has no default.
    """
    known = table.heading.attributes
    extra = [name for name in source.names if name not in known]
    if extra and not ignore_extra_fields:
        raise UnknownAttributeError(
            f"{table.name} has no attribute {extra[0]!r}, which the query has. It has: "
            f"{', '.join(known)}. Leave it out with .proj(), or pass ignore_extra_fields=True."
        )
    for name in required_names(table.heading):
        if name not in source.attributes:
            raise MissingAttributeError(
                f"{table.name} needs a value for {name!r}, which the query does not have: add it "
                f"with .proj(..., {name}='…')."
            )
    return [name for name in known if name in source.attributes]


def can_copy(connection: Connection, table: StoredTable, source: Heading, name: str) -> bool:
    """Whether the server may copy a column as it is stored.

    What it would store wrongly is to be decoded and encoded by us instead: values of another
    codec, and all that a server without strict types takes.
    """
    mine, theirs = table.heading[name], source[name]
    strict = connection.backend.checks_values
    if mine.type is None or theirs.type is None:
        # Of a computed attribute only the server knows the type.
        return strict and _is_plain(mine)
    if isinstance(mine.type, ExternalPointerType) or isinstance(theirs.type, ExternalPointerType):
        return mine.type == theirs.type and _schema(mine) == _schema(theirs)
    if mine.type.text == theirs.type.text:
        return not theirs.nullable or mine.nullable or strict
    if mine.type.family is Family.CODEC or theirs.type.family is Family.CODEC:
        return False
    if not strict:
        return _is_wider(mine.type, theirs.type) and (mine.nullable or not theirs.nullable)
    numeric = mine.type.family in NUMERIC and theirs.type.family in NUMERIC
    return numeric or mine.type.family is theirs.type.family


def _schema(attribute: Attribute) -> str:
    return attribute.table.partition(".")[0]


def _is_plain(attribute: Attribute) -> bool:
    kind = attribute.type
    return kind is not None and kind.family in {*NUMERIC, Family.STRING, Family.ENUM}


def _is_wider(mine: AttributeType, theirs: AttributeType) -> bool:
    if mine.family is not theirs.family:
        return False
    if mine.family is Family.INTEGER:
        (low, high), (least, largest) = integer_range(mine), integer_range(theirs)
        return low <= least and largest <= high
    if mine.family is Family.STRING and mine.size is not None:
        return theirs.size is not None and theirs.size <= mine.size
    return mine.family is Family.FLOAT and mine.size == 64 and not mine.unsigned


def insert_select(
    connection: Connection,
    table: StoredTable,
    source: Node,
    names: list[str],
    mode: InsertMode,
) -> int:
    """Copy rows in one statement; the number that the database reports is returned."""
    if all(PROVENANCE.name in h.all_attributes for h in (table.heading, source.heading)):
        # The rows come from where those came from that are copied.
        names = [*names, PROVENANCE.name]
    select = Lowering(connection.backend).lower(source).select(*names)
    key = tuple(name for name, attr in table.heading.all_attributes.items() if attr.in_key)
    target = connection.backend.sql_table(table.name, *map(sa.column, {*names, *key}))
    statement = connection.backend.insert_from(target, names, select, key, mode)
    described = EncodedRows(table.name, tuple(names), (), 0, key, mode)
    with write.explained(described):
        count = max(write.change(connection, lambda: connection.execute(statement)), 0)
    if connection.write_buffer is not None:
        connection.write_buffer.note(table.name, count)
    return count

"""Which keys a computed table has to make: those of its parents, less those it holds."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from dj_dagster.errors import PopulateError
from dj_dagster.model.heading import Heading
from dj_dagster.model.table_name import TableName
from dj_dagster.relational.algebra import (
    Base,
    Matches,
    Negated,
    Node,
    Projected,
    all_rows,
    join,
    restrict,
)
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.stored import ForeignKey
from dj_dagster.relational.table import Table


def default_key_source(table: Table) -> QueryExpression:
    """Return the join of the keys of all parents in the table's primary key.

    Raises
    ------
    PopulateError
        If no foreign key is part of the primary key.
    """
    parents = [_projected(table.connection, key) for key in table.foreign_keys if key.primary]
    if not parents:
        raise PopulateError(
            f"{table.name} has no foreign key in its primary key, so nothing tells which keys to "
            "make. Add one above ---, or define key_source as a property."
        )
    return QueryExpression(table.connection, reduce(join, parents))


def checked_key_source(table: Table, source: QueryExpression) -> QueryExpression:
    """Return a key source with its key alone.

    Raises
    ------
    PopulateError
        If its key has attributes that the table's key has not.
    """
    extra = [name for name in source.primary_key if name not in table.primary_key]
    if extra:
        raise PopulateError(
            f"The key_source of {table.name} has {', '.join(extra)} in its key, which the table's "
            f"key ({', '.join(table.primary_key)}) has not: leave it out of the key_source, or add "
            "it to the table."
        )
    return source.proj()


def without(source: Node, other: Node) -> Node:
    """Return the rows of a key source whose key is not in another query."""
    return restrict(source, Negated(Matches(tuple(source.heading.primary_key), other)))


def base(connection: Connection, name: TableName) -> Base | None:
    """Return the query over all rows of a table, None if it does not exist."""
    stored = connection.catalog.find(name)
    return all_rows(name, stored.heading) if stored else None


def _projected(connection: Connection, foreign_key: ForeignKey) -> Node:
    parent = base(connection, foreign_key.parent)
    if parent is None:
        raise PopulateError(f"{foreign_key.child}: its parent {foreign_key.parent} is gone.")
    columns = foreign_key.attributes
    heading = Heading(replace(parent.heading[old], name=new) for new, old in columns.items())
    return Projected(heading, parent.tables, parent, dict(columns))

"""Foreign keys must lead to no circle, neither between tables nor between schemas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dj_dagster.errors import DefinitionError
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection

Step = tuple[TableName, TableName]
"""A foreign key: the child and its parent."""


def check_acyclic(connection: Connection, name: TableName, parents: Iterable[TableName]) -> None:
    """Refuse foreign keys that a table is about to get when they would close a circle.

    Only what is known of the database is walked, so that it is asked for nothing but schemas that
    have not been read yet; a foreign key within its schema of a table that is new needs no walk.

    Parameters
    ----------
    parents
        The tables that the foreign keys refer to.

    Raises
    ------
    DefinitionError
        Naming the circle, of schemas (``lab → ephys → lab``) or of tables, and what makes it.
    """
    exists = connection.catalog.find(name) is not None
    for parent in dict.fromkeys(parents):
        if parent.schema != name.schema:
            path = _schema_path(connection, parent.schema, name.schema)
            if path is not None:
                raise _refusal([(name, parent), *path], schemas=True)
        elif exists and parent != name:
            path = _table_path(connection, parent, name)
            if path is not None:
                raise _refusal([(name, parent), *path], schemas=False)


def _schema_path(connection: Connection, start: str, goal: str) -> list[Step] | None:
    """Return the foreign keys that lead from one schema up to another, None if none do."""
    paths: dict[str, list[Step]] = {start: []}
    waiting = [start]
    # The list grows while it is walked.
    for schema in waiting:
        for child, parent in _outward(connection, schema):
            path = [*paths[schema], (child, parent)]
            if parent.schema == goal:
                return path
            if parent.schema not in paths:
                paths[parent.schema] = path
                waiting.append(parent.schema)
    return None


def _outward(connection: Connection, schema: str) -> Iterator[Step]:
    for name in connection.catalog.names(schema):
        raw = connection.catalog.raw(name)
        for key in raw.foreign_keys if raw else ():
            if key.parent.schema != schema:
                yield name, key.parent


def _table_path(connection: Connection, start: TableName, goal: TableName) -> list[Step] | None:
    """Return the foreign keys that lead from one table up to another, None if none do."""
    paths: dict[TableName, list[Step]] = {start: []}
    waiting = [start]
    for name in waiting:
        raw = connection.catalog.raw(name)
        keys = raw.foreign_keys if raw else ()
        for parent in dict.fromkeys(key.parent for key in keys):
            path = [*paths[name], (name, parent)]
            if parent == goal:
                return path
            if parent not in paths:
                paths[parent] = path
                waiting.append(parent)
    return None


def _refusal(steps: list[Step], *, schemas: bool) -> DefinitionError:
    """Return the error about a circle of foreign keys, the new one first."""
    child, parent = steps[0]
    what = "schemas" if schemas else "tables"
    # From parent to child, as data flows and diagrams are drawn.
    stops = [start.schema if schemas else str(start) for start, _ in steps]
    circle = " → ".join([stops[0], *reversed(stops)])
    reasons = "; ".join(f"{start} refers to {end}" for start, end in steps)
    return DefinitionError(
        f"the foreign key of {child} to {parent} closes a circle of {what}: {circle} ({reasons})\n"
        f"leave one of these foreign keys out, or move a table to the other schema"
    )

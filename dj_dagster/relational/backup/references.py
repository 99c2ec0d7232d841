"""The objects that the rows of a snapshot refer to, wherever their stores keep them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.objects.external_pointer import external_path
from dj_dagster.objects.layout import object_root
from dj_dagster.objects.stores.store import checked_path
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.headings import EXTERNAL_PREFIX
from dj_dagster.relational.fetching.external import all_external_objects
from dj_dagster.relational.garbage.marking import (
    Reference,
    ReferenceColumn,
    column_values,
)


@dataclass
class Referenced:
    """What rows refer to.

    Attributes
    ----------
    objects
        Store, path and schema of each.
    problems
        References that cannot be followed.
    """

    objects: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    problems: dict[str, None] = field(default_factory=dict[str, None])

    def add(self, connection: Connection, schema: str, place: str, found: Reference) -> None:
        """Note a reference, by its store's own name."""
        path, name = found
        name = name or connection.stores.default
        if name is None or name not in connection.stores:
            self.problems[f"{place} refers to store {name!r}, which is not set up here."] = None
            return
        settings = connection.stores.get(name).settings
        root = object_root(checked_path(path), schema, settings)
        self.objects.add((name, root or path, schema))


def referenced(
    session: SAConnection,
    connection: Connection,
    columns: Iterable[ReferenceColumn],
    schemas: Collection[str],
) -> Referenced:
    """Read the references of some schemas in a session's snapshot."""
    found = Referenced()
    for column in columns:
        if column.table.schema not in schemas:
            continue
        for value in column_values(session, connection, column.table, column.name):
            try:
                for reference in column.read(value):
                    found.add(connection, column.table.schema, column.place, reference)
            except Exception as error:
                # A codec of somebody else's may fail in any way.
                problem = f"{column.place} holds what cannot be followed: {value!r:.100} ({error})"
                found.problems[problem] = None
    for schema in schemas:
        for place, reference in _old_references(session, connection, schema):
            found.add(connection, schema, place, reference)
    return found


def _old_references(
    session: SAConnection, connection: Connection, schema: str
) -> Iterator[tuple[str, Reference]]:
    """Yield what the hidden tables of DataJoint 0.14 name, with the table."""
    for raw in connection.backend.reflect(session, schema):
        if not raw.name.table.startswith(EXTERNAL_PREFIX):
            continue
        name = raw.name.table.removeprefix(EXTERNAL_PREFIX)
        place = str(raw.name)
        if name not in connection.stores:
            yield place, ("", name)
            continue
        store = connection.stores.get(name)
        for one in all_external_objects(session, connection, schema, name):
            yield place, (one.filepath or external_path(store, schema, one), name)

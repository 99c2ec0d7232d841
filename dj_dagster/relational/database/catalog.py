"""What is known of the database's tables: read a schema at a time, kept until it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import ConnectionFailedError
from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.names import TableName
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.database.eras import Era, is_of_old_era
from dj_dagster.relational.database.headings import resolve, without_hidden_parents
from dj_dagster.relational.stored import RawTable, StoredTable

Cursor = Callable[[], AbstractContextManager[SAConnection]]

PAUSE = 30.0
"""Seconds until a server that could not be reached is asked again how it rounds."""


class Catalog:
    """The tables of a database by schema, resolved on demand; shared between threads.

    Parameters
    ----------
    era
        Returns the era of schemas that have no tables yet.
    """

    def __init__(
        self, backend: Backend, cursor: Cursor, era: Callable[[], Era] = lambda: "2.3"
    ) -> None:
        self._backend = backend
        self._cursor = cursor
        self._era = era
        self._raw: dict[str, dict[TableName, RawTable]] = {}
        self._views: dict[str, dict[TableName, RawTable]] = {}
        self._stored: dict[TableName, StoredTable] = {}
        self._resolving: set[TableName] = set()
        self._eras: dict[str, Era] = {}
        self._found_old: dict[str, bool | None] = {}
        self._rounds: bool | None = None
        self._ask_again = 0.0
        self._is_unsure = False
        self._lock = threading.RLock()

    def tables(self, schema: str) -> dict[TableName, StoredTable]:
        """Return a schema's tables, hidden ones too, in order of their creation."""
        with self._lock:
            return {name: self._resolved(raw) for name, raw in self._schema(schema).items()}

    def names(self, schema: str) -> list[TableName]:
        """Return the names of a schema's tables, hidden ones too, in order of their creation."""
        with self._lock:
            return list(self._schema(schema))

    def view_names(self, schema: str) -> list[TableName]:
        """Return the names of a schema's views, which are not among its tables."""
        with self._lock:
            self._schema(schema)
            return list(self._views.get(schema, ()))

    def find(self, name: TableName) -> StoredTable | None:
        """Return a table or view, None when the database does not have it."""
        with self._lock:
            if self._is_unsure and self._server_rounds() is not None:
                self._is_unsure = False
                self._stored.clear()
            found = self._stored.get(name)
            if found is not None:
                return found
            raw = self.raw(name)
            return self._resolved(raw) if raw else None

    def raw(self, name: TableName) -> RawTable | None:
        """Return a table or view as the database reports it, None when it does not have it."""
        with self._lock:
            table = self._schema(name.schema).get(name)
            return table or self._views.get(name.schema, {}).get(name)

    def read(self, session: SAConnection, name: TableName) -> RawTable | None:
        """Return a table as it is now for a session's transaction; nothing is kept of it."""
        tables = self._backend.reflect(session, name.schema)
        return next((without_hidden_parents(raw) for raw in tables if raw.name == name), None)

    def put(self, raw: RawTable) -> None:
        """Take in a table that was just declared, as the database will report it."""
        with self._lock:
            if raw.name.schema in self._raw:
                self._raw[raw.name.schema][raw.name] = raw
            self._stored.pop(raw.name, None)

    def is_old(self, schema: str) -> bool:
        """Whether a schema is of the era of DataJoint 0.14; see `is_of_old_era`.

        Only servers have such: DataJoint of that era knows no other databases.
        """
        if not self._backend.keeps_lineage:
            return False
        with self._lock:
            if schema in self._eras:
                return self._eras[schema] == "0.14"
            if schema not in self._found_old:
                self._found_old[schema] = is_of_old_era(self._schema(schema).values())
            found = self._found_old[schema]
            return self._era() == "0.14" if found is None else found

    def set_era(self, schema: str, era: Era | None) -> None:
        """Say of which era a schema is; None to find it out from its tables."""
        with self._lock:
            self._eras.pop(schema, None)
            if era is not None:
                self._eras[schema] = era

    def load(self, schema: str, tables: Iterable[RawTable]) -> None:
        """Take in a schema as it was read before, in place of asking the database."""
        with self._lock:
            self.forget(schema)
            self._raw[schema] = {raw.name: raw for raw in tables}

    def forget(self, schema: str) -> None:
        """Read a schema anew when it is next asked for."""
        with self._lock:
            self._raw.pop(schema, None)
            self._views.pop(schema, None)
            self._found_old.pop(schema, None)
            self._stored = {name: t for name, t in self._stored.items() if name.schema != schema}

    def forget_all(self) -> None:
        """Read every schema anew when it is next asked for."""
        with self._lock:
            self._raw.clear()
            self._views.clear()
            self._found_old.clear()
            self._stored.clear()

    def related(self, schema: str, *, fresh: bool = False) -> list[RawTable]:
        """Return the tables of a schema and of all schemas that depend on it.

        Parameters
        ----------
        fresh
            Whether they are read anew: others may have added tables.
        """
        with self._lock:
            names = self._dependents(schema)
            if fresh:
                for name in names:
                    self.forget(name)
            return [raw for name in names for raw in self._schema(name).values()]

    def _schema(self, schema: str) -> dict[TableName, RawTable]:
        if schema not in self._raw:
            with self._cursor() as session:
                tables = self._backend.reflect(session, schema)
            self._raw[schema] = {
                raw.name: without_hidden_parents(raw) for raw in tables if not raw.is_view
            }
            self._views[schema] = {raw.name: raw for raw in tables if raw.is_view}
        return self._raw[schema]

    def _resolved(self, raw: RawTable) -> StoredTable:
        if raw.name in self._resolving:
            # Foreign keys in a circle: what refers back to it needs its own attributes alone.
            return resolve(replace(raw, foreign_keys=()), self.find, rounds=self._rounds_seconds)
        if raw.name not in self._stored:
            self._resolving.add(raw.name)
            try:
                self._stored[raw.name] = resolve(raw, self.find, rounds=self._rounds_seconds)
            finally:
                self._resolving.discard(raw.name)
        return self._stored[raw.name]

    def _rounds_seconds(self) -> bool:
        rounds = self._server_rounds()
        self._is_unsure |= rounds is None
        return bool(rounds)

    def _server_rounds(self) -> bool | None:
        """Return what the server does with digits of a second, None while it cannot be asked.

        Tables that were read before are known while it is away.
        """
        if self._rounds is None and time.monotonic() >= self._ask_again:
            try:
                with self._cursor() as session:
                    self._rounds = self._backend.rounds_seconds(session)
            except ConnectionFailedError:
                self._ask_again = time.monotonic() + PAUSE
        return self._rounds

    def _dependents(self, schema: str) -> list[str]:
        """Return a schema and all that reach it by foreign keys, directly or not."""
        with self._cursor() as session:
            edges = sorted(self._backend.schema_edges(session))
        found = [schema]
        for parent in found:
            found += [child for child, of in edges if of == parent and child not in found]
        return found


def dependency_graph(tables: Iterable[RawTable]) -> DependencyGraph:
    """Return the graph of tables by their foreign keys.

    Foreign keys to the table itself are left out, and so are hidden tables.
    """
    graph = DependencyGraph()
    for raw in tables:
        if raw.name.table.startswith("~"):
            continue
        graph.add_table(raw.name)
        for foreign_key in raw.foreign_keys:
            if foreign_key.parent != raw.name:
                graph.add_edge(foreign_key.parent, raw.name)
    return graph

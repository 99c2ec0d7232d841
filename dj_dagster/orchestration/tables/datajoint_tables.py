"""Tables of DataJoint itself, orchestrated with its own `make` and its own job queues.

The tables are read through a connection of ours to the same server, and filled by DataJoint's own
`populate`, which reserves each key in the job queue, so that its workers elsewhere go on sharing
the work. The pipeline itself is not changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from itertools import islice
from typing import Any

from dj_dagster.model.heading import Key, Value, Values
from dj_dagster.model.names import TableName, Tier
from dj_dagster.objects.stores.stores import Stores
from dj_dagster.orchestration.tables.table_node import TableSource, described, of_name
from dj_dagster.relational.backends import server_url
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.table import Table
from dj_dagster.workflow.collation import keys_respelled, respelled
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import blaming
from dj_dagster.workflow.populate import KeyOutcome

CHUNK = 20
"""Keys of one call of DataJoint's `populate`, which returns their outcomes only at its end."""

HELD = ("reserved", "error", "ignore")


def of_schema(schema: Any) -> list[TableSource]:
    """Return the tables of a schema of DataJoint; those of its declared classes can be filled.

    Parameters
    ----------
    schema
        A ``datajoint.Schema``, activated.
    """
    connection = connection_of(schema)
    present = connection.catalog.names(schema.database)
    names = [name for name in present if not name.table.startswith("~")]
    texts, classes = described(connection, names), _classes(schema)
    return [_source(of_name(connection, name, texts[name]), classes.get(name)) for name in names]


def connection_of(schema: Any) -> Connection:
    """Return a connection of ours to the server of a schema of DataJoint."""
    info = schema.connection.conn_info
    server = server_url(info["host"], int(info["port"]))
    url = server.set(username=info["user"], password=info["passwd"])
    stores = getattr(getattr(schema.connection, "_config", None), "stores", None) or {}
    return Connection(url.render_as_string(hide_password=False), stores=Stores(dict(stores)))


class DataJointPopulator:
    """A `Populator` that fills a table through DataJoint.

    Parameters
    ----------
    table
        An instance of the table's class.
    ours
        The same table, read by us.
    inherited
        Whether a foreign key is part of the primary key.
    """

    def __init__(self, table: Any, ours: Table, *, inherited: bool) -> None:
        self._table = table
        self._ours = ours
        self._inherited = inherited

    @property
    def source(self) -> type:
        """The class that has `make`."""
        return type(self._table)

    @property
    def key_names(self) -> list[str]:
        """The attributes of the table's key that the key source has."""
        with blaming(self._ours):
            given = self._table.key_source.primary_key
        return [name for name in self._table.primary_key if name in given]

    @property
    def reservable(self) -> bool:
        """Whether DataJoint keeps a job queue for the table."""
        return self._inherited

    def keys(self) -> list[Key]:
        """Return the keys of the key source."""
        return self._table.key_source.keys(order_by="KEY")

    def pending(
        self, *restrictions: object, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """Return the keys of the key source that are neither in the table nor held by a job."""
        found = (self._restricted(restrictions) - self._table.proj()).keys(order_by="KEY")
        held = self._held(("reserved", "ignore") if retry_errors else HELD)
        free = (key for key in keys_respelled(self._ours, found) if self._values(key) not in held)
        return list(islice(free, limit))

    def progress(self) -> tuple[int, int]:
        """Return the number of keys that remain to be made, and the number of all keys."""
        remaining, total = self._table.progress(display=False)
        return remaining, total

    def failed(self) -> int:
        """Count the jobs that are in error."""
        return len(self._jobs.errors) if self._inherited else 0

    def make(
        self, keys: Iterable[Mapping[str, Value]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """Make keys by DataJoint's `populate`, a few a call; cancelling stops between the calls."""
        wanted = self.pending(retry_errors=retry_errors) if keys is None else keys
        given = [{name: key[name] for name in self.key_names} for key in wanted]
        named = iter(keys_respelled(self._ours, given))
        while chunk := list(islice(named, CHUNK)):
            if retry_errors and self._inherited:
                (self._jobs.errors & chunk).delete_quick()
            yield from self._make(chunk)

    def release_dead(self) -> int:
        """Make jobs pending again whose worker ran on this machine and is gone; return the number.

        DataJoint itself leaves them reserved until somebody deletes them.
        """
        if not self._inherited:
            return 0
        _ = self._table.jobs  # DataJoint declares its queue when it is first asked for
        return JobQueue(self._ours).release_dead()

    def _make(self, chunk: list[Key]) -> Iterator[KeyOutcome]:
        present = self._present(chunk)
        todo = [key for key in chunk if self._values(key) not in present]
        began = time.perf_counter()
        errors = self._populate(todo) if todo else {}
        seconds = (time.perf_counter() - began) / max(len(todo), 1)
        made = self._present(todo) if todo else set[Values]()
        known = self._keys_of(self._restricted([todo])) if todo else set[Values]()
        for key in chunk:
            values = self._values(key)
            if values in present:
                yield KeyOutcome(key, "present")
            elif values in made:
                yield KeyOutcome(key, "made", seconds, rows=1)
            elif values in errors:
                error = errors[values]
                failed = KeyOutcome(key, "failed", seconds, error=error)
                text = getattr(error, "__notes__", None) or [failed.message]
                yield replace(failed, traceback="\n".join(text))
            else:
                yield KeyOutcome(key, "reserved" if values in known else "missing")

    def _populate(self, keys: list[Key]) -> dict[Values, BaseException]:
        result = self._table.populate(
            keys,
            reserve_jobs=self._inherited,
            suppress_errors=True,
            return_exception_objects=True,
        )
        rows = self._rows(key for key, _ in result["error_list"])
        return {row: error for row, (_, error) in zip(rows, result["error_list"], strict=True)}

    def _restricted(self, restrictions: Iterable[object]) -> Any:
        query = self._table.key_source
        for restriction in restrictions:
            query = query & restriction
        return query.proj()

    def _present(self, keys: list[Key]) -> set[Values]:
        return self._keys_of(self._table & keys)

    def _keys_of(self, query: Any) -> set[Values]:
        return set(self._rows(query.keys()))

    def _held(self, statuses: tuple[str, ...]) -> set[Values]:
        if not self._inherited:
            return set()
        jobs = self._jobs & [{"status": status} for status in statuses]
        return set(self._rows(j for j in jobs.to_dicts() if set(self.key_names) <= set(j)))

    def _rows(self, keys: Iterable[Mapping[str, Value]]) -> list[Values]:
        """Return the values of keys of any query of DataJoint's, spelled as partitions are."""
        return respelled(self._ours, self.key_names, list(map(self._values, keys)))

    def _values(self, key: Mapping[str, Value]) -> Values:
        return tuple(key[name] for name in self.key_names)

    @property
    def _jobs(self) -> Any:
        return self._table.jobs


def _source(source: TableSource, cls: Any) -> TableSource:
    fills = source.table.tier in (Tier.IMPORTED, Tier.COMPUTED)
    if cls is None or not fills:
        return source
    inherited = any(key.primary for key in source.table.foreign_keys)
    populator = DataJointPopulator(cls(), source.table, inherited=inherited)
    return TableSource(source.table, source.master, populator, source.definition)


def _classes(schema: Any) -> dict[TableName, Any]:
    """Return the classes of a schema's tables; for each table the one that was declared last."""
    found: dict[TableName, Any] = {}
    for cls in _subclasses(_user_table()):
        if cls._connection is schema.connection and cls.database == schema.database:
            found[TableName(schema.database, cls.table_name)] = cls
    return found


def _user_table() -> type:
    # DataJoint is an extra, which is installed if a schema of it is given.
    return import_module("datajoint.user_tables").UserTable


def _subclasses(cls: type) -> Iterator[Any]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)

"""The garbage collector, which moves objects without references into the trash of their store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import ConfigurationError, ObjectError, counted
from dj_dagster.objects.collection import (
    Registration,
    Trash,
    collecting,
    is_backed_up,
    sweep,
    sweep_unfinished,
)
from dj_dagster.objects.layout import FoundObject, object_root, schema_folders, schema_objects
from dj_dagster.objects.stores.store import Stat, Store, in_flight
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.references import Marks, check_owner, claim_schema, marks
from dj_dagster.relational.schemas.schema import Schema

__all__ = ["ALL_STORES", "GRACE", "KEEP", "GarbageCollector", "GarbageReport", "collect_garbage"]

GRACE = 86_400.0
"""Seconds for which objects without a row are kept: a writer may be about to commit the row."""

KEEP = 30 * 86_400.0
"""Seconds for which removed objects stay in the trash."""

ALL_STORES = "all"
"""The only value that stands for all stores of a connection."""


@dataclass
class _Sorted:
    """The objects of one schema; `elsewhere` has stores that are not set up here, by path."""

    kept: list[FoundObject] = field(default_factory=list[FoundObject])
    young: list[FoundObject] = field(default_factory=list[FoundObject])
    garbage: list[FoundObject] = field(default_factory=list[FoundObject])
    missing: list[str] = field(default_factory=list[str])
    elsewhere: dict[str, str] = field(default_factory=dict[str, str])
    deleted: list[FoundObject] = field(default_factory=list[FoundObject])
    restored: list[Stat] = field(default_factory=list[Stat])
    trash: list[Stat] = field(default_factory=list[Stat])
    freed: int = 0


class GarbageCollector:
    """Finds the objects of some schemas in one store that no row refers to, and removes them.

    All rows of the database are read, including those of other schemas and of columns whose codec
    is not known here. Objects of other schemas, users' files, the stores of DataJoint 0.14 and
    files that do not look like objects are kept. The collector may be killed at any time, and may
    run beside writers: objects that were written within the grace period are kept, and a writer
    that uses an old object again renews its time first, see `dj_dagster.objects.codecs.bytes`.
    DataJoint's own writers do not renew it: stop them meanwhile, or content that they store again
    at that moment, after its last row was deleted, may end up in the trash.

    Removed objects go to a trash in the store, see `restore`. The next collection brings back those
    that rows refer to again, and permanently deletes those that have been there for long.

    An object is removed or listed only if it is certain that no row refers to it:

    - The user may read all tables that may hold references, and is shown all schemas. On MySQL and
      MariaDB this requires SELECT on ``*.*`` or equivalent privileges.
    - No other database has registered with the store for the schema. Each database registers when
      it first writes there. Two databases with schemas of one name in one store cannot be
      collected.
    - All objects are from writers that register. Objects of DataJoint, and of versions without
      registration, are kept until `claim` assigns them to this database. DataJoint's writes beside
      a registered database cannot be detected: do not let DataJoint keep a schema of the same name
      of another server there.

    A database that is restored or moved counts as another database, like a copy, and must `claim`
    its schemas. MySQL is identified by its ``server_uuid``, MariaDB by a hidden table and the time
    of its creation, SQLite by a row in its file and the file's number on the disk.

    Parameters
    ----------
    *schemas
        One or more, on one connection.
    store
        The name of the store; the default store without one.

    Examples
    --------
    ::

        GarbageCollector(schema, store="raw").collect()
    """

    def __init__(self, *schemas: Schema, store: str | None = None) -> None:
        self._connection = _connection_of(schemas)
        self._schemas = tuple(schema.name for schema in schemas)
        self.store: Store = self._connection.stores.get(store)

    def scan(self, *, grace: float = GRACE, ignore_unreadable: bool = False) -> GarbageReport:
        """Return the report of what `collect` would remove, without writing anything."""
        return self.collect(dry_run=True, grace=grace, ignore_unreadable=ignore_unreadable)

    def collect(
        self,
        dry_run: bool = True,
        *,
        grace: float = GRACE,
        keep: float = KEEP,
        ignore_unreadable: bool = False,
    ) -> GarbageReport:
        """Find the garbage and move it to the trash.

        Parameters
        ----------
        dry_run
            Whether to report only, as by default.
        grace
            Seconds for which an object without a row is kept, by the clock of the store. It must be
            longer than any `make` takes from its first insert to its end; use less than an hour
            only while there are no writers.
        keep
            Seconds for which removed objects stay in the trash; 0 deletes them at once, with
            everything in the trash. While a backup is running the trash is not emptied.
        ignore_unreadable
            Whether to proceed in spite of values whose references are unknown, or of tables that
            the user may not read. Objects that they refer to are then removed.

        Raises
        ------
        ObjectError
            If there are such values or tables, or other databases use the store, all of which the
            message names; or while another collector is running on a schema. Nothing of that schema
            has been removed then.
        """
        done: list[_Sorted] = []
        for schema in self._schemas:
            if dry_run:
                found = self._sorted(schema, time.time() - grace, ignore_unreadable)
                found.trash = Trash(self.store, schema).files()
            else:
                found = self._swept(schema, grace, keep, ignore_unreadable)
            done.append(found)
        return self._report(done, deleting=not dry_run)

    def restore(self) -> GarbageReport:
        """Move all objects in the trash of the schemas back to their places.

        They then count as just written: rows that refer to them can be restored within the grace
        period. Objects that have been written anew meanwhile are not replaced.

        Raises
        ------
        ObjectError
            While a collector is running on a schema.
        """
        done: list[_Sorted] = []
        for schema in self._schemas:
            trash = Trash(self.store, schema)
            with collecting(self.store, schema):
                restored = trash.files()
                trash.put_back(restored)
            done.append(_Sorted(restored=restored))
        return self._report(done, deleting=False)

    def claim(self) -> list[Registration]:
        """Register this database as the only one whose rows refer to the schemas in the store.

        Use it only if this is certain: for objects of programs that do not register, and after the
        database was restored or moved. It does not remove objects.

        Returns
        -------
        list
            The other databases, which are forgotten until they write there again.
        """
        return [
            other
            for schema in self._schemas
            for other in claim_schema(self._connection, schema, self.store)
        ]

    def _swept(self, schema: str, grace: float, keep: float, ignore_unreadable: bool) -> _Sorted:
        # The sign is written first, then objects are listed, then rows are read: a change in
        # between can only save an object.
        with collecting(self.store, schema) as sign:
            cutoff = sign.started - grace
            found = self._sorted(schema, cutoff, ignore_unreadable)
            trash = Trash(self.store, schema)
            # Restored first, so that objects that rows refer to again are not deleted.
            found.restored = trash.of_objects(found.missing)
            sign.confirm()
            trash.put_back(found.restored)
            if found.restored:
                found.missing = self._missing(schema, found.missing)
            found.deleted += sweep(self.store, sign, found.garbage, cutoff)
            found.freed += sweep_unfinished(self.store, schema, cutoff)
            end = sign.now() - keep
            over = [] if is_backed_up(self.store, sign.now()) else trash.files()
            over = [file for file in over if file.modified <= end]
            sign.confirm()
            trash.empty(over)
            found.freed += sum(file.size for file in over)
            found.trash = trash.files()
        # The folder of the sign may be empty now.
        for folder in schema_folders(self.store, schema):
            self.store.tidy(folder)
        return found

    def _sorted(self, schema: str, cutoff: float, ignore_unreadable: bool) -> _Sorted:
        objects = list(schema_objects(self.store, schema))
        rows = marks(self._connection, self.store)
        if (rows.unreadable or rows.unseen) and not ignore_unreadable:
            raise _unreadable(rows, self.store, self._connection)
        if objects:
            check_owner(self._connection, schema, self.store)
        roots = {object_root(path, schema, self.store.settings) for path in rows.paths}
        used = rows.paths | roots
        found = _Sorted()
        for one in objects:
            if one.path in used:
                found.kept.append(one)
            elif one.modified >= cutoff:
                found.young.append(one)
            else:
                found.garbage.append(one)
        there = {one.path for one in objects}
        found.missing = self._missing(schema, roots - there)
        for path, name in rows.elsewhere.items():
            found.elsewhere[object_root(path, schema, self.store.settings)] = name
        return found

    def _missing(self, schema: str, paths: Iterable[str]) -> list[str]:
        """Return the paths of a schema that are not in the store, even after a second look."""
        settings = self.store.settings
        # Objects named after rows of other schemas lack a root here.
        sections = (
            f"{settings.hash_prefix.strip('/')}/{schema}",
            settings.schema_prefix.strip("/"),
        )
        folders = tuple(f"{section}/" for section in sections)
        own = sorted(path for path in paths if path.startswith(folders))

        def is_there(path: str) -> bool:
            return self.store.exists(path) or any(True for _ in self.store.list(path))

        present = in_flight(is_there, own)
        return [path for path, there in zip(own, present, strict=True) if not there]

    def _report(self, done: Sequence[_Sorted], *, deleting: bool) -> GarbageReport:
        kept = [one for found in done for one in found.kept]
        young = [one for found in done for one in found.young]
        deleted = [one for found in done for one in found.deleted]
        restored = [file for found in done for file in found.restored]
        trash = [file for found in done for file in found.trash]
        elsewhere = {
            found.elsewhere[path]
            for found in done
            for path in found.missing
            if path in found.elsewhere
        }
        return GarbageReport(
            store=self.store.name,
            schemas=self._schemas,
            deleting=deleting,
            kept=len(kept),
            kept_bytes=sum(one.size for one in kept),
            young=len(young),
            young_bytes=sum(one.size for one in young),
            garbage=tuple(one for found in done for one in found.garbage),
            deleted=len(deleted),
            deleted_bytes=sum(one.size for one in deleted),
            missing=tuple(p for found in done for p in found.missing if p not in found.elsewhere),
            elsewhere=tuple(sorted(elsewhere)),
            restored=len(restored),
            restored_bytes=sum(file.size for file in restored),
            trash=len(trash),
            trash_bytes=sum(file.size for file in trash),
            freed_bytes=sum(found.freed for found in done),
        )


def garbage_collectors(
    *schemas: Schema, stores: str | Iterable[str] = ALL_STORES
) -> Iterator[GarbageCollector]:
    """Yield the collectors of some schemas in several stores; see `collect_garbage`."""
    names = _store_names(_connection_of(schemas), stores)
    return (GarbageCollector(*schemas, store=name) for name in names)


def collect_garbage(
    *schemas: Schema,
    stores: str | Iterable[str] = ALL_STORES,
    delete: bool = False,
    grace: float = GRACE,
    keep: float = KEEP,
    ignore_unreadable: bool = False,
) -> list[GarbageReport]:
    """Collect the garbage of some schemas in several stores; see `GarbageCollector`.

    Parameters
    ----------
    stores
        The names of the stores; by default ``"all"``, all stores of the schemas' connection.
    delete
        Whether garbage is moved to the trash; by default it is only listed and counted.
    grace, keep, ignore_unreadable
        As for `GarbageCollector.collect`.

    Raises
    ------
    ConfigurationError
        If no store is named, or a named one does not exist.

    Examples
    --------
    ::

        for report in collect_garbage(schema):
            print(report)
    """
    return [
        collector.collect(not delete, grace=grace, keep=keep, ignore_unreadable=ignore_unreadable)
        for collector in garbage_collectors(*schemas, stores=stores)
    ]


def _store_names(connection: Connection, stores: str | Iterable[str]) -> list[str]:
    given = [stores] if isinstance(stores, str) else stores or ()
    names = [name for name in given if name]
    if ALL_STORES in names:
        names = connection.stores.names
    if not names:
        raise ConfigurationError(
            f"No store is named: write their names, or '{ALL_STORES}' for all that are set up. "
            f"There are {', '.join(connection.stores.names) or 'none'}."
        )
    return [connection.stores.resolve(name) for name in dict.fromkeys(names)]


def _connection_of(schemas: Sequence[Schema]) -> Connection:
    given: Sequence[Any] = schemas
    for each in given:
        if not isinstance(each, Schema):
            raise ConfigurationError(f"{each!r} is not a schema: give each as a dj.Schema.")
    connections = {id(schema.connection): schema.connection for schema in schemas}
    if len(connections) != 1:
        raise ConfigurationError("At least one schema must be provided, all of one connection.")
    return next(iter(connections.values()))


def _unreadable(rows: Marks, store: Store, connection: Connection) -> ObjectError:
    parts = [f"Nothing was deleted from store '{store.name}'."]
    if rows.unreadable:
        places = "; ".join(f"{place}: {value}" for place, value in rows.unreadable.items())
        parts.append(
            f"What rows refer to cannot be read from {places}. Import the codecs' modules, mend "
            "the rows, or pass ignore_unreadable=True to take these for no reference."
        )
    if rows.unseen:
        parts.append(
            f"{connection.get_user()} may not read what may refer to objects there: "
            f"{', '.join(rows.unseen)}. Run the collector as a user with SELECT on *.*, or pass "
            "ignore_unreadable=True if you know that nothing in there does."
        )
    return ObjectError(" ".join(parts))


@dataclass(frozen=True)
class GarbageReport:
    """The objects that a collector found and removed in one store.

    Attributes
    ----------
    store
        The name of the store.
    schemas
        The schemas whose objects were examined.
    deleting
        Whether garbage was removed; else it was only listed.
    kept, kept_bytes
        Number and bytes of the objects that rows refer to.
    young, young_bytes
        Objects without a row that are within the grace period.
    garbage
        The objects without a row that were found.
    deleted, deleted_bytes
        Number and bytes of those that were moved to the trash.
    missing
        Paths that rows refer to but the store lacks: data were lost.
    elsewhere
        Stores that are not set up here, and have, by their rows, objects that are not in this one.
    restored, restored_bytes
        Number and bytes of files that came back out of the trash, including those of missing
        objects.
    trash, trash_bytes
        Number and bytes of files that are in the trash now.
    freed_bytes
        Bytes deleted permanently: from the trash, and unfinished files of killed writers.
    """

    store: str
    schemas: tuple[str, ...]
    deleting: bool
    kept: int = 0
    kept_bytes: int = 0
    young: int = 0
    young_bytes: int = 0
    garbage: tuple[FoundObject, ...] = field(default=(), repr=False)
    deleted: int = 0
    deleted_bytes: int = 0
    missing: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    restored: int = 0
    restored_bytes: int = 0
    trash: int = 0
    trash_bytes: int = 0
    freed_bytes: int = 0

    @property
    def garbage_bytes(self) -> int:
        """Bytes of the garbage."""
        return sum(found.size for found in self.garbage)

    def __str__(self) -> str:
        done = (
            f"moved {self.deleted} ({_bytes(self.deleted_bytes)}) to the trash"
            if self.deleting
            else "nothing removed in this dry run"
        )
        back = (
            f"; restored {counted(self.restored, 'file')} ({_bytes(self.restored_bytes)})"
            if self.restored
            else ""
        )
        lost = f"; {len(self.missing)} MISSING: {self.missing[0]} …" if self.missing else ""
        if self.elsewhere:
            lost += (
                f"; objects in {', '.join(self.elsewhere)}, not set up here, were not looked for"
            )
        return (
            f"store {self.store}, {', '.join(self.schemas)}: {counted(self.kept, 'object')} in use "
            f"({_bytes(self.kept_bytes)}), {self.young} young ({_bytes(self.young_bytes)}), "
            f"{len(self.garbage)} garbage ({_bytes(self.garbage_bytes)}); {done}{back}; "
            f"{counted(self.trash, 'file')} in the trash ({_bytes(self.trash_bytes)}), "
            f"{_bytes(self.freed_bytes)} freed{lost}"
        )


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"

"""The garbage collector: what no row refers to any more is deleted from the stores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dj_dagster.errors import ConfigurationError, ObjectError
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.layout import FoundObject, object_root, schema_folders, schema_objects
from dj_dagster.objects.store import Store
from dj_dagster.objects.sweeping import collecting, sweep, sweep_unfinished
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.marking import Marks, marks
from dj_dagster.relational.schemas.schema import Schema

GRACE = 86_400.0
"""Seconds for which objects without a row are left alone: a writer may be about to commit it."""


@dataclass(frozen=True)
class GarbageReport:
    """What a collector found in one store, and what it deleted.

    Attributes
    ----------
    store
        The name of the store.
    schemas
        Whose objects were looked at.
    deleting
        Whether garbage was deleted; else it was only listed.
    kept, kept_bytes
        Number and bytes of the objects that rows refer to.
    young, young_bytes
        Objects without a row that are within the grace period.
    garbage
        Objects without a row, as they were found.
    deleted, deleted_bytes
        What was deleted of them, and of what killed writers had left.
    missing
        Paths that rows refer to and the store does not have: data was lost.
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

    @property
    def garbage_bytes(self) -> int:
        """Bytes of the garbage."""
        return sum(found.size for found in self.garbage)

    def __str__(self) -> str:
        done = (
            f"deleted {self.deleted} ({_bytes(self.deleted_bytes)})"
            if self.deleting
            else "nothing deleted in this dry run"
        )
        lost = f"; {len(self.missing)} MISSING: {self.missing[0]} …" if self.missing else ""
        return (
            f"store {self.store}, {', '.join(self.schemas)}: {self.kept} objects in use "
            f"({_bytes(self.kept_bytes)}), {self.young} young ({_bytes(self.young_bytes)}), "
            f"{len(self.garbage)} garbage ({_bytes(self.garbage_bytes)}); {done}{lost}"
        )


@dataclass
class _Sorted:
    """The objects of one schema."""

    kept: list[FoundObject] = field(default_factory=list[FoundObject])
    young: list[FoundObject] = field(default_factory=list[FoundObject])
    garbage: list[FoundObject] = field(default_factory=list[FoundObject])
    missing: list[str] = field(default_factory=list[str])
    deleted: list[FoundObject] = field(default_factory=list[FoundObject])
    freed: int = 0


class GarbageCollector:
    """Finds the objects of some schemas in one store that no row refers to, and deletes them.

    All rows of the database are asked, of other schemas too, and of columns whose codec is not
    known here. Objects of other schemas, users' files and whatever does not look like an object
    stay. It may be killed at any time, and may run beside writers: objects that were written within
    the grace period stay, and a writer that uses an old object again makes it young first, see
    `dj_dagster.objects.content`. DataJoint's own writers do not do this: let them rest, or accept
    that content which they store again in that very moment, after its last row was deleted, can be
    lost.

    Two databases must not keep schemas of one name in one store: neither knows of the other's rows.

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
        """Return what `collect` would delete, writing nothing at all."""
        return self.collect(dry_run=True, grace=grace, ignore_unreadable=ignore_unreadable)

    def collect(
        self, dry_run: bool = True, *, grace: float = GRACE, ignore_unreadable: bool = False
    ) -> GarbageReport:
        """Find the garbage and delete it.

        Parameters
        ----------
        dry_run
            Whether to look only, as by default.
        grace
            Seconds for which an object without a row stays, by the clock of the store. It must be
            longer than any `make` takes from its first insert to its end; less than an hour is for
            times when nobody writes.
        ignore_unreadable
            Whether to go on although values were found of which it is not known what they refer to.
            What they do refer to is then deleted.

        Raises
        ------
        ObjectError
            For such values, or while another collector is at work on a schema. Nothing has been
            deleted of that schema.
        """
        done: list[_Sorted] = []
        for schema in self._schemas:
            if dry_run:
                done.append(self._sorted(schema, time.time() - grace, ignore_unreadable))
            else:
                done.append(self._swept(schema, grace, ignore_unreadable))
        return self._report(done, deleting=not dry_run)

    def _swept(self, schema: str, grace: float, ignore_unreadable: bool) -> _Sorted:
        # The sign comes before the list, and the list before the rows: what happens in between
        # can only save an object.
        with collecting(self.store, schema) as sign:
            cutoff = sign.started - grace
            found = self._sorted(schema, cutoff, ignore_unreadable)
            for gone in sweep(self.store, sign, found.garbage, cutoff):
                found.deleted.append(gone)
                found.freed += gone.size
            found.freed += sweep_unfinished(self.store, schema, cutoff)
        # The sign's own folder may be empty now.
        for folder in schema_folders(self.store, schema):
            self.store.tidy(folder)
        return found

    def _sorted(self, schema: str, cutoff: float, ignore_unreadable: bool) -> _Sorted:
        objects = list(schema_objects(self.store, schema))
        rows = marks(self._connection, self.store)
        if rows.unreadable and not ignore_unreadable:
            raise _unreadable(rows)
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
        return found

    def _missing(self, schema: str, paths: Iterable[str]) -> list[str]:
        """Return which paths of a schema are not in the store, objects written meanwhile aside."""
        settings = self.store.settings
        # Of row objects those of other schemas have no root here.
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
        return GarbageReport(
            self.store.name,
            self._schemas,
            deleting,
            len(kept),
            sum(one.size for one in kept),
            len(young),
            sum(one.size for one in young),
            tuple(one for found in done for one in found.garbage),
            sum(len(found.deleted) for found in done),
            sum(found.freed for found in done),
            tuple(path for found in done for path in found.missing),
        )


def collect_garbage(
    *schemas: Schema,
    stores: Iterable[str] | None = None,
    delete: bool = False,
    grace: float = GRACE,
    ignore_unreadable: bool = False,
) -> list[GarbageReport]:
    """Collect the garbage of some schemas in several stores; see `GarbageCollector`.

    Parameters
    ----------
    stores
        Their names; all stores of the schemas' connection by default.
    delete
        Whether garbage is deleted; by default it is only listed and added up.

    Examples
    --------
    ::

        for report in collect_garbage(schema):
            print(report)
    """
    names = _connection_of(schemas).stores.names if stores is None else stores
    collectors = [GarbageCollector(*schemas, store=name) for name in names]
    return [
        collector.collect(not delete, grace=grace, ignore_unreadable=ignore_unreadable)
        for collector in collectors
    ]


def _connection_of(schemas: Sequence[Schema]) -> Connection:
    connections = {id(schema.connection): schema.connection for schema in schemas}
    if len(connections) != 1:
        raise ConfigurationError("Name one or more schemas, all of one connection.")
    return next(iter(connections.values()))


def _unreadable(rows: Marks) -> ObjectError:
    places = "; ".join(f"{place}: {value}" for place, value in rows.unreadable.items())
    return ObjectError(
        f"Nothing was deleted: what rows refer to cannot be read from {places}. Import the codecs' "
        "modules, mend the rows, or pass ignore_unreadable=True to take these for no reference."
    )


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"

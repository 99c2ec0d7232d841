"""Restoration of a backup into an empty database and empty stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dj_dagster.errors import ChecksumError, ConfigurationError, QueryError
from dj_dagster.objects.collection import registrations
from dj_dagster.objects.copies import Copies, give_back
from dj_dagster.objects.layout import schema_objects
from dj_dagster.objects.stores.store import Store, in_flight
from dj_dagster.relational.backup import contents
from dj_dagster.relational.backup.contents import Backup, open_backup
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.references import claim_schema

Say = Callable[[str], object]
_SHOWN = 20
"""The most damages that an error names."""


@dataclass(frozen=True)
class RestoreReport:
    """The result of a restoration.

    Attributes
    ----------
    objects
        Number of files of stores that were written.
    kept
        Number of files that already existed with the same content.
    damaged
        The objects that were left out because their copies are damaged.
    foreign
        Schema and store of objects that other databases have registered for, whose ownership the
        collector requires to be settled.
    """

    backup: Backup
    objects: int
    kept: int
    damaged: tuple[str, ...]
    foreign: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        kept = f", {self.kept} were there" if self.kept else ""
        lost = f"; {len(self.damaged)} DAMAGED were left out" if self.damaged else ""
        return (
            f"{self.backup.name}: {', '.join(self.backup.schemas)} restored; {self.objects} files "
            f"of stores written{kept}{lost}"
        )


def restore_backup(
    connection: Connection,
    folder: str | Path,
    name: str | None = None,
    *,
    keep_objects: bool = False,
    ignore_damaged: bool = False,
    say: Say = lambda _: None,
) -> RestoreReport:
    """Bring back the tables and objects of a backup.

    The whole backup is read and compared with its checksums first; then the objects are written,
    then the tables. On a server the restored rows are compared too.

    Parameters
    ----------
    connection
        A database without tables, of the kind that was backed up, with stores of the same names.
    name
        The name of the backup; by default the latest.
    keep_objects
        Whether stores may already have objects of the schemas, which are kept if they are the same.
        Use it if only the database was lost, or a restoration was interrupted.
    ignore_damaged
        Whether to continue without objects whose copies are damaged.

    Raises
    ------
    ConfigurationError
        If existing tables or objects prevent it; the message names them. Nothing has been written.
    ChecksumError
        If the backup is damaged; the message names the damages. Nothing has been written.
    """
    if connection.in_transaction:
        raise QueryError("A backup is restored outside of transactions: leave this one first.")
    backup = open_backup(Path(folder).expanduser().absolute(), name)
    _check_target(connection, backup, keep_objects=keep_objects)
    say(f"reading {backup.place}")
    _refuse(backup, backup.damaged_files())
    damaged = dict(backup.damaged_objects())
    _refuse(backup, () if ignore_damaged else damaged.values())
    say("objects")
    unowned = _unowned(connection, backup)
    copies = Copies(backup.folder / "objects")
    files = (file for file in backup.objects() if file not in damaged)
    written = kept = 0
    for is_new in in_flight(lambda f: give_back(copies, connection.stores.get(f.store), f), files):
        written, kept = written + is_new, kept + (not is_new)
        if (written + kept) % 1000 == 0:
            say(f"{written + kept} files of stores")
    say("tables")
    with connection.session_apart() as session:
        place = backup.place / contents.DATABASE
        connection.backend.load(session, place, backup.schemas, backup.tables)
    connection.catalog.forget_all()
    foreign = _claimed(connection, backup, unowned)
    return RestoreReport(backup, written, kept, tuple(damaged.values()), tuple(foreign))


def _refuse(backup: Backup, damages: Iterable[str]) -> None:
    found = list(damages)
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    if found:
        raise ChecksumError(
            f"{backup.place} is damaged, and nothing was restored: "
            f"{'; '.join(found[:_SHOWN])}{more}."
        )


def _check_target(connection: Connection, backup: Backup, *, keep_objects: bool) -> None:
    """Refuse a target that is not empty, or that cannot hold the contents of the backup."""
    if not connection.backend.loads(backup.backend):
        raise ConfigurationError(
            f"{backup.place} is of {backup.url}: restore it into a database of that kind, not into "
            f"{connection.url}."
        )
    if missing := [name for name in backup.stores if name not in connection.stores]:
        raise ConfigurationError(
            f"{backup.place} has objects of store '{missing[0]}', which is not set up here: add "
            f"its settings under stores.{missing[0]}; it was {backup.stores[missing[0]]}."
        )
    with connection.session_apart() as session:
        occupied = connection.backend.occupied(session, backup.schemas)
    if occupied:
        raise ConfigurationError(
            f"{connection.url} has tables already, {occupied[0]} among them, and a backup is "
            "restored into an empty database only: name another one, or drop them first."
        )
    if keep_objects:
        return
    for store, schema in _places(connection, backup):
        if (found := next(schema_objects(store, schema), None)) is not None:
            raise ConfigurationError(
                f"Store '{store.name}' has objects of {schema} already: {store.url(found.path)}. "
                "Restore into an empty store, or say that those stay that are the same: "
                "--keep-objects, or keep_objects=True."
            )


def _places(connection: Connection, backup: Backup) -> Iterator[tuple[Store, str]]:
    for name in backup.stores:
        for schema in backup.schemas:
            yield connection.stores.get(name), schema


def _unowned(connection: Connection, backup: Backup) -> list[tuple[Store, str]]:
    """Return the schemas for which no database has registered with a store."""
    places = _places(connection, backup)
    return [(store, schema) for store, schema in places if not registrations(store, schema)]


def _claimed(
    connection: Connection, backup: Backup, unowned: Sequence[tuple[Store, str]]
) -> Iterator[tuple[str, str]]:
    """Register the database for the restored objects, and yield those of other databases."""
    for store, schema in _places(connection, backup):
        if next(schema_objects(store, schema), None) is None:
            continue
        if (store, schema) in unowned:
            claim_schema(connection, schema, store)
        else:
            yield schema, store.name

"""Removal of objects beside writers, and the databases that use a store.

One collector at a time works on a schema. It puts a sign into the store, and never removes objects
that have become young again. An object in the trash lies at ``.dj_dagster/trash/{schema}/`` under
its former path; its age there counts from its removal. Writers never look into the trash: a writer
that needs the same content stores it anew.

A record lies at ``.dj_dagster/databases/{schema}/{identity}``, outside the sections that DataJoint
knows, so that neither its readers nor its collector find it. Each database has a file of its own,
which is written whole, so that several may register at once.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from dj_dagster.errors import DataJointError, MissingExternalFile, ObjectError
from dj_dagster.objects.checksums import manifest_path
from dj_dagster.objects.codecs import bytes as hashed
from dj_dagster.objects.codecs.bytes import collecting_path
from dj_dagster.objects.codecs.codec import Reference
from dj_dagster.objects.layout import FoundObject, schema_folders, schema_objects
from dj_dagster.objects.stores.store import OWN_FOLDER, Stat, Store, in_flight
from dj_dagster.objects.stores.stores import Stores


@dataclass(frozen=True, slots=True)
class Registration:
    """A database that writes objects of a schema into a store.

    Attributes
    ----------
    identity
        A text that differs for each database, copies of a database included.
    place
        The database's address when it registered, for people.
    since
        The time of the registration.
    found_objects
        Whether the store then already held objects of the schema, of unknown origin.
    """

    identity: str
    place: str
    since: str
    found_objects: bool = False

    def __str__(self) -> str:
        return f"{self.place} (since {self.since[:10]})"


def registrations(store: Store, schema: str) -> list[Registration]:
    """Return the databases that have registered for a schema, in the order of their identities.

    Raises
    ------
    ObjectError
        If a record cannot be read.
    """
    found = []
    for path in sorted(store.list(registry_folder(schema))):
        # Another process may remove a record after the listing; see `claim`.
        with suppress(MissingExternalFile):
            found.append(_read(store, path))
    return found


def register(store: Store, schema: str, identity: str, place: str) -> None:
    """Write a database's record, unless it is there."""
    path = _path(schema, identity)
    if store.exists(path):
        return
    first = next(iter(store.list(registry_folder(schema))), None) is None
    found = first and _has_objects(store, schema)
    # Another process of this database may have registered, and written objects, meanwhile.
    if not (found and store.exists(path)):
        _write(store, schema, Registration(identity, place, _now(), found))


def claim(store: Store, schema: str, identity: str, place: str) -> list[Registration]:
    """Make a database the only one registered for a schema; return the others, now removed."""
    others = [one for one in registrations(store, schema) if one.identity != identity]
    _write(store, schema, Registration(identity, place, _now()))
    for one in others:
        store.delete(_path(schema, one.identity))
    return others


def _has_objects(store: Store, schema: str) -> bool:
    """Whether a schema has objects; for a new schema, without folders, the answer is quick."""
    content, *rows = schema_folders(store, schema)
    if not rows and schema not in store.folders(content.rpartition("/")[0]):
        return False
    # The folder may hold just the sign of a collector.
    return next(schema_objects(store, schema), None) is not None


def registry_folder(schema: str) -> str:
    """Return the path of the folder of a schema's records."""
    return f"{OWN_FOLDER}/databases/{schema}"


def _path(schema: str, identity: str) -> str:
    return f"{registry_folder(schema)}/{identity}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(store: Store, schema: str, record: Registration) -> None:
    fields = {name: value for name, value in asdict(record).items() if name != "identity"}
    store.put(_path(schema, record.identity), json.dumps(fields, indent=2).encode())


def _read(store: Store, path: str) -> Registration:
    try:
        fields = json.loads(store.get(path))
        return Registration(
            path.rpartition("/")[2],
            str(fields["place"]),
            str(fields["since"]),
            bool(fields["found_objects"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectError(
            f"{store.url(path)} in store '{store.name}' is not a record of a database that uses "
            "it. Nothing is collected until it is mended or deleted."
        ) from error


BATCH = 200
"""Number of objects that are checked once more and then removed together."""

SILENT = 600.0
"""Seconds after which a collector or backup that has not renewed its sign is taken for dead."""

_BACKUPS = f"{OWN_FOLDER}/backups"
"""The folder of the signs of backups that are at work."""


class Collecting:
    """A collector's sign that it is at work on a schema; see `dj_dagster.objects.codecs.bytes`.

    Attributes
    ----------
    schema
        The name of the schema.
    started
        The time at which the collector began, by the clock of the store.
    """

    def __init__(self, store: Store, schema: str) -> None:
        self._store = store
        self.schema = schema
        self._path = collecting_path(schema, store.settings)
        self._token = secrets.token_hex(8).encode()
        self._said = 0.0
        self._refuse_another()
        self._say()
        self._began = time.monotonic()
        self.started = store.stat(self._path).modified

    def now(self) -> float:
        """Return the time by the store's clock plus one second, as stores round times."""
        return self.started + time.monotonic() - self._began + 1

    def confirm(self) -> None:
        """Make sure that no other collector has begun, and renew the sign.

        Raises
        ------
        ObjectError
            If another collector has begun; this one must not remove anything from then on.
        """
        if self._store.get(self._path) != self._token:
            raise self._busy("has taken over")
        if time.monotonic() - self._said > SILENT / 10:
            self._say()

    def end(self) -> None:
        """Remove the sign; if the store cannot be reached, the sign expires after `SILENT`."""
        with suppress(DataJointError):
            if self._store.get(self._path) == self._token:
                self._store.delete(self._path)

    def _say(self) -> None:
        self._store.put(self._path, self._token)
        self._said = time.monotonic()

    def _refuse_another(self) -> None:
        try:
            found = self._store.stat(self._path)
        except MissingExternalFile:
            return
        if store_time(self._store) - found.modified < SILENT:
            raise self._busy("is at work")

    def _busy(self, doing: str) -> ObjectError:
        return ObjectError(
            f"Another collector {doing} on {self.schema} in store '{self._store.name}'. If it was "
            f"killed, wait {SILENT / 60:.0f} minutes or delete {self._store.url(self._path)}."
        )


@contextmanager
def collecting(store: Store, schema: str) -> Generator[Collecting]:
    """Show a sign that a collector is at work, as long as the block runs.

    Raises
    ------
    ObjectError
        If another collector is at work on the schema.
    """
    sign = Collecting(store, schema)
    try:
        yield sign
    finally:
        sign.end()


@contextmanager
def backing_up(stores: Iterable[Store]) -> Generator[None]:
    """Keep collectors from emptying the trash of stores, as long as the block runs.

    An object that goes to the trash before a backup has copied it is copied from there. If a store
    cannot be written to, its trash is kept only for the ordinary time.
    """
    path = f"{_BACKUPS}/{secrets.token_hex(8)}"
    signed: list[Store] = []
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(SILENT / 10):
            for store in signed:
                with suppress(DataJointError):
                    store.put(path, b"")

    for store in stores:
        with suppress(DataJointError):
            store.put(path, b"")
            signed.append(store)
    thread = threading.Thread(target=say, name="dj-backing-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for store in signed:
            with suppress(DataJointError):
                store.delete(path)
                store.tidy(_BACKUPS)


def is_backed_up(store: Store, now: float) -> bool:
    """Whether a backup of a store has renewed its sign within `SILENT` seconds.

    Parameters
    ----------
    now
        The time by the store's clock.
    """
    return any(sign.modified > now - SILENT for sign in store.scan(_BACKUPS))


def store_time(store: Store) -> float:
    """Return the time by a store's clock, which may differ from this machine's."""
    path = f"{OWN_FOLDER}/clock-{secrets.token_hex(8)}"
    store.put(path, b"")
    try:
        return store.stat(path).modified
    finally:
        store.delete(path)


def sweep(
    store: Store, sign: Collecting, garbage: Sequence[FoundObject], cutoff: float
) -> Iterator[FoundObject]:
    """Move objects that are still older than `cutoff` to the trash, and yield those moved.

    To writers, an object in the trash is as good as deleted.
    """
    trash = Trash(store, sign.schema)
    for start in range(0, len(garbage), BATCH):
        batch = garbage[start : start + BATCH]
        sign.confirm()
        fresh = list(in_flight(lambda found: _is_old(store, found, cutoff), batch))
        gone = [found for found, old in zip(batch, fresh, strict=True) if old]
        trash.take([file.path for found in gone for file in found.files])
        yield from gone


def sweep_unfinished(store: Store, schema: str, cutoff: float) -> int:
    """Remove empty folders, and files that killed writers left before `cutoff`; return bytes."""
    freed = 0
    for folder in (*schema_folders(store, schema), registry_folder(schema), trash_folder(schema)):
        for file in list(store.unfinished(folder)):
            if file.modified < cutoff:
                store.remove_unfinished(file.path)
                freed += file.size
        store.tidy(folder)
    return freed


def _is_old(store: Store, found: FoundObject, cutoff: float) -> bool:
    """Whether an object is still there and all of its files are older than `cutoff`."""
    try:
        if len(found.files) == 1:
            return store.stat(found.files[0].path).modified < cutoff
        return all(file.modified < cutoff for file in store.scan(found.path))
    except MissingExternalFile:
        # A writer may be storing it anew.
        return False


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The references of objects that a writer has just written, or found in their store."""

    references: tuple[Reference, ...]
    since: float = field(default_factory=time.monotonic)

    def keep(self, stores: Stores) -> None:
        """Make the objects young again if they were written long ago; call before inserting rows.

        Raises
        ------
        ObjectError
            If an object is gone. Inserting the row again stores it again.
        """
        if time.monotonic() - self.since <= hashed.RENEW_AFTER:
            return
        for _ in in_flight(lambda reference: _keep(stores, reference), self.references):
            pass


def _keep(stores: Stores, reference: Reference) -> None:
    store = stores.get(reference.get("store"))
    path = str(reference["path"])
    if not is_managed(store, path):
        return
    try:
        store.renew(_file_of(store, path, is_folder=bool(reference.get("is_dir"))))
    except MissingExternalFile as error:
        raise ObjectError(
            f"{store.url(path)} has vanished since it was written for a row that is not committed "
            "yet. Was a collector run with too short a grace period? Insert the row again."
        ) from error


def is_managed(store: Store, path: str) -> bool:
    """Whether an object is managed with its row, rather than a user's own file."""
    settings = store.settings
    folders = (settings.hash_prefix, settings.schema_prefix)
    return path.startswith(tuple(f"{folder.strip('/')}/" for folder in folders))


def _file_of(store: Store, path: str, *, is_folder: bool) -> str:
    """Return a file of an object that keeps the whole object while it is young."""
    if not is_folder:
        return path
    manifest = manifest_path(path)
    if store.exists(manifest):
        return manifest
    # Folders that were staged lack a manifest.
    found = next(store.list(path), None)
    if found is None:
        raise store.missing(path)
    return found


class Trash:
    """The trash of one schema.

    Change it only within `dj_dagster.objects.collection.collecting`.
    """

    def __init__(self, store: Store, schema: str) -> None:
        self._store = store
        self._folder = trash_folder(schema)

    def files(self) -> list[Stat]:
        """Return the files in the trash; `modified` is the time of their removal."""
        return list(self._store.scan(self._folder))

    def original(self, file: Stat) -> str:
        """Return the path that a file had before it was removed."""
        return file.path.removeprefix(f"{self._folder}/")

    def take(self, paths: Iterable[str]) -> None:
        """Move files of the store into the trash; skip files that are gone."""

        def move(path: str) -> None:
            with suppress(MissingExternalFile):
                self._store.move(path, f"{self._folder}/{path}")

        for _ in in_flight(move, paths):
            pass

    def put_back(self, files: Sequence[Stat]) -> None:
        """Move files to their former paths, where they are as young as newly written ones.

        A file that has been written anew meanwhile stays, and the one in the trash is deleted.
        """

        def move(file: Stat) -> None:
            path = self.original(file)
            if self._store.exists(path):
                self._store.delete(file.path)
            else:
                self._store.move(file.path, path)

        for _ in in_flight(move, files):
            pass
        self._store.tidy(self._folder)

    def empty(self, files: Sequence[Stat]) -> None:
        """Delete files for good."""
        self._store.delete_many([file.path for file in files])
        self._store.tidy(self._folder)

    def of_objects(self, paths: Collection[str]) -> list[Stat]:
        """Return the files in the trash that belong to objects, manifests included."""
        wanted = set(paths)
        if not wanted:
            return []
        return [
            file for file in self.files() if not wanted.isdisjoint(_owners(self.original(file)))
        ]


def trash_folder(schema: str) -> str:
    """Return the path of the trash of a schema."""
    return f"{OWN_FOLDER}/trash/{schema}"


def _owners(path: str) -> set[str]:
    """Return the objects that a file may belong to: itself, a folder above, or its manifest's."""
    parts = path.split("/")
    folders = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return folders | {path.removesuffix(manifest_path(""))}

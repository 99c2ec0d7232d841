"""Removal of objects beside writers: the collector's sign, young objects, the trash.

One collector at a time shows a sign in the store, and never takes what has become young. An object
in the trash lies at ``.dj_dagster/trash/{schema}/`` under the path that it had, and is as old as it
has been there. Nothing else looks there: who needs content again writes it anew, beside or before
the copy in the trash.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import DataJointError, MissingExternalFile, ObjectError
from dj_dagster.objects import content
from dj_dagster.objects.checksums import manifest_path
from dj_dagster.objects.content import collecting_path
from dj_dagster.objects.layout import FoundObject, schema_folders
from dj_dagster.objects.store_users import registry_folder
from dj_dagster.objects.stores.store import OWN_FOLDER, Stat, Store, in_flight
from dj_dagster.objects.stores.stores import Stores

BATCH = 200
"""Objects that are looked at once more and then removed, at a time."""

SILENT = 600.0
"""Seconds after which a collector that has not said anything is taken for dead."""

_BACKUPS = f"{OWN_FOLDER}/backups"
"""Where backups that are at work say so."""


class Collecting:
    """A collector's sign that it is at work on a schema; see `dj_dagster.objects.content`.

    Attributes
    ----------
    schema
        Its name.
    started
        When, by the clock of the store.
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
        """Return the time by the clock of the store, or a second more, as stores round it."""
        return self.started + time.monotonic() - self._began + 1

    def confirm(self) -> None:
        """Make sure that no other collector has begun, and stay in sight.

        Raises
        ------
        ObjectError
            If one has: this one must not remove any more.
        """
        if self._store.get(self._path) != self._token:
            raise self._busy("has taken over")
        if time.monotonic() - self._said > SILENT / 10:
            self._say()

    def end(self) -> None:
        """Take the sign away; one that stays, as the store is gone, is soon taken for dead."""
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
        # Store and machine may disagree on the time: what is from the future is as good as new.
        if time.time() - found.modified < SILENT:
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

    What a backup is about to copy may go to the trash meanwhile, and is taken from there. Where a
    store cannot be written, only the time for which objects stay in its trash keeps them.
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


def is_backed_up(store: Store) -> bool:
    """Whether a backup of a store is at work; one that has not said anything for long is dead."""
    since = time.time() - SILENT
    return any(sign.modified > since for sign in store.scan(_BACKUPS))


def sweep(
    store: Store, sign: Collecting, garbage: Sequence[FoundObject], cutoff: float
) -> Iterator[FoundObject]:
    """Move objects that are still older than `cutoff` to the trash, and yield them as they go.

    To writers this is as if they were deleted: an object is at its place or it is not.
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
    """Remove what killed writers left before `cutoff`, and empty folders; return the bytes."""
    freed = 0
    for folder in (*schema_folders(store, schema), registry_folder(schema), trash_folder(schema)):
        for file in list(store.unfinished(folder)):
            if file.modified < cutoff:
                store.remove_unfinished(file.path)
                freed += file.size
        store.tidy(folder)
    return freed


def _is_old(store: Store, found: FoundObject, cutoff: float) -> bool:
    """Whether nothing of an object has been written since it was found, and it is still there."""
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

    references: tuple[Mapping[str, Any], ...]
    since: float = field(default_factory=time.monotonic)

    def keep(self, stores: Stores) -> None:
        """Make the objects young again, if that is long ago; to be called before their rows go in.

        Raises
        ------
        ObjectError
            If one is gone. Running the same again stores it again.
        """
        if time.monotonic() - self.since <= content.RENEW_AFTER:
            return
        for _ in in_flight(lambda reference: _keep(stores, reference), self.references):
            pass


def _keep(stores: Stores, reference: Mapping[str, Any]) -> None:
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
    """Whether an object comes and goes with its row; others are users' own files."""
    settings = store.settings
    folders = (settings.hash_prefix, settings.schema_prefix)
    return path.startswith(tuple(f"{folder.strip('/')}/" for folder in folders))


def _file_of(store: Store, path: str, *, is_folder: bool) -> str:
    """Return a file whose youth keeps the whole object."""
    if not is_folder:
        return path
    manifest = manifest_path(path)
    if store.exists(manifest):
        return manifest
    # One that was staged has none.
    found = next(store.list(path), None)
    if found is None:
        raise store.missing(path)
    return found


class Trash:
    """The trash of one schema.

    Whoever changes it shows the sign of `dj_dagster.objects.collection.collecting` meanwhile.
    """

    def __init__(self, store: Store, schema: str) -> None:
        self._store = store
        self._folder = trash_folder(schema)

    def files(self) -> list[Stat]:
        """Return what is there; `modified` tells when it came."""
        return list(self._store.scan(self._folder))

    def original(self, file: Stat) -> str:
        """Return the path that a file had, and gets back."""
        return file.path.removeprefix(f"{self._folder}/")

    def take(self, paths: Iterable[str]) -> None:
        """Move files of the store here, those that are still there."""

        def move(path: str) -> None:
            with suppress(MissingExternalFile):
                self._store.move(path, f"{self._folder}/{path}")

        for _ in in_flight(move, paths):
            pass

    def put_back(self, files: Sequence[Stat]) -> None:
        """Move files to where they were; they are as young there as if they were just written.

        What has been written anew meanwhile stays.
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
        """Return the files that belong to objects, a folder's with the list of them."""
        wanted = set(paths)
        if not wanted:
            return []
        return [
            file for file in self.files() if not wanted.isdisjoint(_owners(self.original(file)))
        ]


def trash_folder(schema: str) -> str:
    """Return where the trash of a schema lies."""
    return f"{OWN_FOLDER}/trash/{schema}"


def _owners(path: str) -> set[str]:
    """Return the objects that a file may belong to: itself, a folder, or what it lists."""
    parts = path.split("/")
    folders = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return folders | {path.removesuffix(manifest_path(""))}

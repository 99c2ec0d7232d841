"""The trash of a store: what a collector has removed, until its time is over.

An object lies at ``.dj_dagster/trash/{schema}/`` under the path that it had, and is as old as it
has been there. Nothing else looks there: who needs content again writes it anew, beside or before
the copy in the trash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from dj_dagster.errors import MissingExternalFile
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.manifest import manifest_path
from dj_dagster.objects.store import OWN_FOLDER, Stat, Store


class Trash:
    """The trash of one schema.

    Whoever changes it shows the sign of `dj_dagster.objects.sweeping.collecting` meanwhile.
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

"""Handles on files and folders in a store, which are read where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dj_dagster.errors import ChecksumError, MissingExternalFile, ObjectError
from dj_dagster.objects.store import Store, checked_path


@dataclass(frozen=True, eq=False)
class ObjectRef:
    """A file or folder in a store; nothing is read before it is asked for.

    Attributes
    ----------
    path
        Relative to the store.
    size
        Bytes, of a folder all its files together.
    ext
        Extension with its dot, None for none.
    is_dir
        Whether it is a folder.
    item_count
        Number of files in a folder, None for a file.
    timestamp
        When it was written, UTC in ISO 8601.
    """

    path: str
    location: Store
    size: int | None = None
    ext: str | None = None
    is_dir: bool = False
    item_count: int | None = None
    timestamp: str | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any], store: Store) -> ObjectRef:
        """Return the handle that a reference in a row describes."""
        return cls(
            checked_path(fields["path"]),
            store,
            fields.get("size"),
            fields.get("ext"),
            bool(fields.get("is_dir")),
            fields.get("item_count"),
            fields.get("timestamp"),
        )

    @property
    def store(self) -> str:
        """The name of the store."""
        return self.location.name

    @property
    def fs(self) -> Any:
        """The fsspec file system that `full_path` belongs to."""
        return self.location.filesystem

    @property
    def full_path(self) -> str:
        """The path in `fs`."""
        return self.location.full_path(self.path)

    @property
    def fsmap(self) -> Any:
        """The folder as a mapping of paths to bytes, which Zarr opens."""
        return self.fs.get_mapper(self.full_path)

    def read(self, subpath: str | None = None) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        MissingExternalFile
            If it is not there.
        ObjectError
            For a folder without `subpath`.
        """
        return self.location.get(self._file(subpath))

    def open(self, subpath: str | None = None, mode: str = "rb") -> IO[Any]:
        """Open a file for reading, in place.

        Parameters
        ----------
        subpath
            Of a file in the folder.
        """
        if set(mode) - set("rbt"):
            raise ObjectError(f"Objects are never changed: open {self.path} for reading, 'rb'.")
        path = self._file(subpath)
        self.location.size(path)
        return self.fs.open(self.location.full_path(path), mode)

    def listdir(self, subpath: str = "") -> list[str]:
        """Return the names in the folder, sorted."""
        inside = self._inside(subpath)
        return sorted(
            {PurePosixPath(path).relative_to(inside).parts[0] for path in self._files(inside)}
        )

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield each folder below with the names of its folders and files, as `os.walk`."""
        files = [PurePosixPath(path).relative_to(self.path) for path in self._files(self.path)]
        folders = {parent for file in files for parent in file.parents}
        for folder in sorted(folders):
            inside = sorted(f.name for f in folders if f != folder and f.parent == folder)
            name = "" if folder == PurePosixPath() else str(folder)
            yield name, inside, sorted(file.name for file in files if file.parent == folder)

    def exists(self, subpath: str | None = None) -> bool:
        """Whether the file or folder is there."""
        path = self._inside(subpath or "")
        return self.location.exists(path) or any(True for _ in self.location.list(path))

    def download(self, destination: str | Path, subpath: str | None = None) -> Path:
        """Copy the file or folder into a local folder and return the copy's path."""
        source = self._inside(subpath or "")
        target = Path(destination) / PurePosixPath(source).name
        single = self.location.exists(source)
        files = [source] if single else list(self._files(source))
        for file in files:
            place = target if single else target / PurePosixPath(file).relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(self.location.full_path(file), str(place))
        return target

    def verify(self) -> bool:
        """Check that all is there with the size that was written.

        Raises
        ------
        MissingExternalFile, ChecksumError
            Naming the first file that is not.
        """
        for path, size in self._expected():
            found = self.location.size(path)
            if size is not None and found != size:
                raise ChecksumError(
                    f"{self.location.url(path)} in store '{self.store}' has {found} bytes, "
                    f"{size} were written."
                )
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the reference that a row holds."""
        return {
            "path": self.path,
            "store": self.store,
            "size": self.size,
            "ext": self.ext,
            "is_dir": self.is_dir,
            "item_count": self.item_count,
            "timestamp": self.timestamp,
        }

    def __fspath__(self) -> str:
        if local := self.location.local_path(self.path):
            return str(local)
        raise ObjectError(
            f"{self.location.url(self.path)} is no local file: use open(), read() or download()."
        )

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        kind = "folder" if self.is_dir else "file"
        return f"ObjectRef({kind}: {self.path}, size={self.size})"

    def _inside(self, subpath: str) -> str:
        return checked_path(f"{self.path}/{subpath}" if subpath else self.path)

    def _file(self, subpath: str | None) -> str:
        if self.is_dir and not subpath:
            raise ObjectError(f"{self.path} is a folder: name one of its files, see listdir().")
        return self._inside(subpath or "")

    def _files(self, folder: str) -> Iterator[str]:
        found = False
        for path in self.location.list(folder):
            found = True
            yield path
        if not found and self.item_count != 0:
            raise self.location.missing(folder)

    def _expected(self) -> Iterator[tuple[str, int | None]]:
        if not self.is_dir:
            yield self.path, self.size
            return
        try:
            manifest = json.loads(self.location.get(manifest_path(self.path)))
        except MissingExternalFile:
            # Staged folders have none.
            yield from ((path, None) for path in self._files(self.path))
            return
        for file in manifest["files"]:
            yield self._inside(file["path"]), file["size"]


class StagedObject(ObjectRef):
    """What was written in place and waits for its row; a codec takes it as it is."""


def manifest_path(folder: str) -> str:
    """Return where the list of a folder's files lies."""
    return f"{folder}.manifest.json"

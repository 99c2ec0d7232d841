"""Handles on files and folders in a store, which are read where they are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fsspec import AbstractFileSystem, FSMap

from dj_dagster.errors import ChecksumError, MissingExternalFile, ObjectError
from dj_dagster.objects.checksums import Manifest, Written, files_crc32, get_manifest, placed, told
from dj_dagster.objects.codecs.codec import Reference, read_reference
from dj_dagster.objects.codecs.verified_file import VerifiedFile
from dj_dagster.objects.stores.store import Store, checked_path, in_flight


@dataclass(frozen=True, eq=False)
class ObjectRef:
    """A file or folder in a store, which is read only on request.

    Attributes
    ----------
    path
        Relative to the store.
    size
        Bytes of the file, or of all files of the folder together.
    ext
        The extension with its dot; None without one.
    is_dir
        Whether it is a folder.
    item_count
        Number of files in a folder, None for a file.
    timestamp
        The time of writing, UTC in ISO 8601.
    crc32
        Checksum of the file, or of a folder's manifest; None where DataJoint wrote it.
    files_crc32
        Checksum of all files of a folder without a manifest.
    listed
        Whether a folder has a manifest beside it.
    place
        Table, attribute and key of the row, for errors.
    hash
        A hash of the content, if the program that wrote it recorded one.
    folders
        The paths of the empty folders in a folder without a manifest.
    """

    path: str
    location: Store | None = None
    size: int | None = None
    ext: str | None = None
    is_dir: bool = False
    item_count: int | None = None
    timestamp: str | datetime | None = None
    crc32: str | None = None
    files_crc32: str | None = None
    listed: bool = True
    place: str = ""
    hash: str | None = None
    folders: tuple[str, ...] = ()

    @classmethod
    def from_json(
        cls, json_data: str | Mapping[str, Any], backend: Store | None = None
    ) -> ObjectRef:
        """Return the handle that a reference, as a mapping or text, describes.

        Parameters
        ----------
        backend
            The store; without it, only the facts in the reference are known.
        """
        return cls.of(read_reference(json_data), backend)

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Any],
        store: Store | None,
        place: str = "",
        *,
        listed: bool = True,
    ) -> ObjectRef:
        """Return the handle that a reference in a row describes."""
        return cls(
            checked_path(fields["path"]),
            store,
            fields.get("size"),
            fields.get("ext"),
            bool(fields.get("is_dir")),
            fields.get("item_count"),
            fields.get("timestamp"),
            fields.get("crc32"),
            fields.get("files_crc32"),
            listed,
            place,
            fields.get("hash"),
            tuple(map(checked_path, fields.get("folders") or ())),
        )

    @property
    def store(self) -> str | None:
        """The name of the store; None if the handle was made without one."""
        return None if self.location is None else self.location.name

    @property
    def _at(self) -> Store:
        if self.location is None:
            raise ObjectError(
                f"The handle of {self.path} was made without a store: fetch it from its table."
            )
        return self.location

    @property
    def fs(self) -> AbstractFileSystem:
        """The fsspec file system that `full_path` belongs to."""
        return self._at.filesystem

    @property
    def full_path(self) -> str:
        """The path in `fs`."""
        return self._at.full_path(self.path)

    @property
    def fsmap(self) -> FSMap:
        """The folder as a mapping of paths to bytes, which Zarr opens."""
        return self.fs.get_mapper(self.full_path)

    def read(self, subpath: str | None = None) -> bytes:
        """Return a file's bytes, verified.

        Raises
        ------
        MissingExternalFile, ChecksumError
            If the file is missing, or is not as it was written.
        ObjectError
            For a folder without `subpath`.
        """
        with placed(self.place):
            path = self._file(subpath)
            data = self._at.get(path)
            self._written(path).check_bytes(data, told(self._at, path))
            return data

    def open(self, subpath: str | None = None, mode: str = "rb") -> IO[Any]:
        """Open a file for reading, in place.

        Its size is verified, and its checksum by the read that reaches the end of the file, if it
        is read from its beginning. Parts that are read after a jump, by `seek`, are not verified.

        Parameters
        ----------
        subpath
            The path of a file in the folder.

        Raises
        ------
        MissingExternalFile, ChecksumError
            If the file is missing, or is not as it was written.
        """
        if set(mode) - set("rbt"):
            raise ObjectError(f"Objects are never changed: open {self.path} for reading, 'rb'.")
        with placed(self.place):
            path = self._file(subpath)
            written, url = self._written(path), told(self._at, path)
            written.check(Written(self._at.size(path)), url)
        source = self._at.filesystem.open(self._at.full_path(path), "rb")
        file = cast("IO[Any]", VerifiedFile(source, written, url, self.place))
        return file if "b" in mode else io.TextIOWrapper(file)

    def listdir(self, subpath: str = "") -> list[str]:
        """Return the names in the folder, sorted.

        Raises
        ------
        MissingExternalFile
            If a file that was written there is gone. `walk` and `download` raise it as well.
        """
        inside = self._inside(subpath)
        with placed(self.place):
            if not self.is_dir:
                raise ObjectError(f"Cannot listdir {self.path}, which is a file: read() it.")
            paths = [*self._files(inside), *self._empty_folders(inside)]
        names = (PurePosixPath(path).relative_to(inside).parts for path in paths)
        return sorted({parts[0] for parts in names if parts})

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield each folder below with the names of its folders and files, as `os.walk`."""
        with placed(self.place):
            files = [PurePosixPath(path).relative_to(self.path) for path in self._files(self.path)]
            empty = [
                PurePosixPath(path).relative_to(self.path)
                for path in self._empty_folders(self.path)
            ]
        folders = {parent for file in [*files, *empty] for parent in file.parents} | {*empty}
        for folder in sorted(folders or {PurePosixPath()}):
            inside = sorted(f.name for f in folders if f != folder and f.parent == folder)
            name = "" if folder == PurePosixPath() else str(folder)
            yield name, inside, sorted(file.name for file in files if file.parent == folder)

    def exists(self, subpath: str | None = None) -> bool:
        """Whether the file or folder is there."""
        path = self._inside(subpath or "")
        if self._at.exists(path) or any(True for _ in self._at.list(path)):
            return True
        # Stores do not have empty folders.
        with suppress(MissingExternalFile):
            return self.is_dir and (self.item_count == 0 or bool(self._empty_folders(path)))
        return False

    def download(self, destination: str | Path, subpath: str | None = None) -> Path:
        """Copy the file or folder into a local folder, verify it and return the copy's path.

        A copy that is not as the file was written is removed again.
        """
        source = self._inside(subpath or "")
        target = Path(destination) / PurePosixPath(source).name
        with placed(self.place):
            single = self._at.exists(source)
            files = [source] if single else list(self._files(source))
            copied: dict[str, Written] = {}
            for file in files:
                place = target if single else target / PurePosixPath(file).relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(self._at.full_path(file), str(place))
                copied[file] = Written.from_file(place)
                try:
                    self._written(file).check(copied[file], told(self._at, file))
                except ChecksumError:
                    place.unlink()
                    raise
            if not single:
                target.mkdir(parents=True, exist_ok=True)
                for folder in self._empty_folders(source):
                    inside = target / PurePosixPath(folder).relative_to(source)
                    inside.mkdir(parents=True, exist_ok=True)
            if source == self.path and self.is_dir:
                self._check_whole(copied)
        return target

    def verified_path(self, folder: Path) -> Path:
        """Return a local path to read from, of a copy unless the store is a local folder.

        Parameters
        ----------
        folder
            The folder for copies, which have the same relative path there as in the store.
        """
        local = self._at.local_path(self.path)
        if local is None:
            return self.download(folder / PurePosixPath(self.path).parent)
        self.verify()
        return local

    def verify(self, *, read: bool = True) -> bool:
        """Check that all files are there as they were written.

        Parameters
        ----------
        read
            Whether all files are read and compared with their checksums; otherwise only sizes are
            compared.

        Raises
        ------
        MissingExternalFile, ChecksumError
            Naming the first file that is missing, differs, or was not written with the folder.
        """
        with placed(self.place):
            paths = list(self._files(self.path)) if self.is_dir else [self.path]
            if self._manifest is not None and (
                added := sorted({*self._at.list(self.path)} - {*paths})
            ):
                raise ChecksumError(f"{told(self._at, added[0])} was not written with its folder.")

            def found(path: str) -> Written:
                read_in_full = read and (self._written(path).crc32 or self.files_crc32)
                if read_in_full:
                    return Written.from_store(self._at, path)
                return Written(self._at.size(path))

            by_path = dict(zip(paths, in_flight(found, paths), strict=True))
            for path, written in by_path.items():
                self._written(path).check(written, told(self._at, path))
            if self.is_dir:
                self._check_whole(by_path)
        return True

    def to_json(self) -> Reference:
        """Return the reference that a row holds."""
        others = {
            "crc32": self.crc32,
            "files_crc32": self.files_crc32,
            "hash": self.hash,
            "folders": list(self.folders),
        }
        written = self.timestamp
        return {
            "path": self.path,
            "store": self.store,
            "size": self.size,
            "ext": self.ext,
            "is_dir": self.is_dir,
            "item_count": self.item_count,
            "timestamp": written.isoformat() if isinstance(written, datetime) else written,
            **{name: value for name, value in others.items() if value},
        }

    def __fspath__(self) -> str:
        if local := self._at.local_path(self.path):
            return str(local)
        raise ObjectError(
            f"{self._at.url(self.path)} is not a local file: use open(), read() or download()."
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
            raise ObjectError(
                f"Cannot read {self.path}, which is a folder: name one of its files, see listdir()."
            )
        return self._inside(subpath or "")

    @cached_property
    def _manifest(self) -> Manifest | None:
        """The folder's manifest; None for folders without one, such as users' own."""
        if not self.is_dir or not self.listed:
            return None
        try:
            return get_manifest(self._at, self.path, self.crc32)
        except MissingExternalFile:
            # DataJoint does not write one for folders that were staged.
            if self.crc32:
                raise
            return None

    def _written(self, path: str) -> Written:
        if not self.is_dir:
            return Written(self.size, self.crc32)
        if self._manifest is None:
            return Written()
        found = self._manifest.files.get(path.removeprefix(f"{self.path}/"))
        if found is None:
            raise self._at.missing(path)
        return found

    def _files(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder and below; raise if a written one is gone.

        Files that were not written with the folder are left out.
        """
        found = set(self._at.list(folder))
        known = self._manifest
        if known is not None:
            written = {f"{self.path}/{path}" for path in known.files}
            gone = sorted(
                path for path in written - found if path.startswith(f"{folder}/") or path == folder
            )
            if gone:
                raise self._at.missing(gone[0])
            found &= written
            if not (found or folder == self.path or self._empty_folders(folder)):
                raise self._at.missing(folder)
        elif not found and self.item_count != 0 and not self._empty_folders(folder):
            raise self._at.missing(folder)
        return sorted(found)

    def _empty_folders(self, folder: str) -> list[str]:
        known = self._manifest
        names = known.folders if known is not None else self.folders
        inside = [f"{self.path}/{path}" for path in names]
        return [path for path in inside if path == folder or path.startswith(f"{folder}/")]

    def _check_whole(self, found: Mapping[str, Written]) -> None:
        """Compare the files of a folder with the number, size and checksum that its row holds."""
        url = told(self._at, self.path)
        if self._manifest is None:
            if self.item_count is not None and len(found) != self.item_count:
                raise ChecksumError(
                    f"{url} has {len(found)} files, {self.item_count} were written."
                )
            total = sum(written.size or 0 for written in found.values())
            Written(self.size).check(Written(total), url)
        if self.files_crc32 and all(written.crc32 for written in found.values()):
            names = [(path.removeprefix(f"{self.path}/"), one) for path, one in found.items()]
            Written(crc32=self.files_crc32).check(Written(crc32=files_crc32(names)), url)


class StagedObject(ObjectRef):
    """A file or folder that was written in place, before its row; codecs take it as it is."""

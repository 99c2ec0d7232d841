"""The contents of a folder of backups, and checks that they are whole.

::

    backup.json                       says what the folder is
    objects/3f/3f2a…                  copies of objects, shared by all backups
    2026-11-29T03-00-00.217Z/         a backup
        backup.json                   when and of what, with the checksums of the other files
        objects.jsonl.gz              which copy lies at which path in which store
        database/                     the tables

A backup gets its name when it is complete; before that it is called ``.writing-…``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from isal import igzip

from dj_dagster.errors import ChecksumError, ConfigurationError
from dj_dagster.objects.copies import CopiedFile, Copies, file_damage
from dj_dagster.objects.stores.store import in_flight, sync_folder
from dj_dagster.relational.stored import DumpedTable

FORMAT = 1
HEAD, OBJECTS, DATABASE = "backup.json", "objects.jsonl.gz", "database"
_NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9.-]+Z")


@dataclass(frozen=True)
class Backup:
    """One backup in a folder.

    Attributes
    ----------
    name
        The time at which it was made, in UTC.
    url
        The URL of the database, without secrets.
    backend
        ``"sqlite"`` or ``"mysql"``, which alone can restore it.
    schemas
        The names of its schemas.
    tables
        The tables of a server, with the checksums of their rows.
    stores
        The place of each store.
    problems
        References that could not be backed up, with their reasons.
    files
        Size and checksum of each file of the database, and of the list of objects.
    """

    folder: Path
    name: str
    url: str
    backend: str
    schemas: tuple[str, ...]
    tables: tuple[DumpedTable, ...]
    stores: Mapping[str, str]
    problems: tuple[str, ...]
    files: Mapping[str, tuple[int, str]]

    @property
    def place(self) -> Path:
        """The backup's own folder."""
        return self.folder / self.name

    def objects(self) -> Iterator[CopiedFile]:
        """Yield the objects of the stores in the backup."""
        return read_objects(self.place)

    def damages(self) -> Iterator[str]:
        """Yield a description of each missing or changed file."""
        damaged = list(self.damaged_files())
        yield from damaged
        if not any(OBJECTS in damage for damage in damaged):
            yield from (damage for _, damage in self.damaged_objects())

    def damaged_files(self, names: Iterable[str] | None = None) -> Iterator[str]:
        """Yield the damages of the files of the database and of the list of objects.

        Parameters
        ----------
        names
            The names in `files` to check; all by default.
        """
        for name in self.files if names is None else names:
            size, sha256 = self.files[name]
            if damage := file_damage(self.place / name, sha256, size):
                yield damage

    def damaged_objects(self, skip: Collection[str] = ()) -> Iterator[tuple[CopiedFile, str]]:
        """Yield each object whose copy is missing or changed, with a description of the damage.

        Parameters
        ----------
        skip
            Checksums of copies for which only the size is compared.
        """
        copies = Copies(self.folder / "objects")

        def look(file: CopiedFile) -> tuple[CopiedFile, str]:
            damage = copies.damage(file.sha256, file.size, read=file.sha256 not in skip)
            return file, damage and f"{damage}: {file.path} of store '{file.store}'"

        yield from (found for found in in_flight(look, self.objects()) if found[1])


def backups(folder: Path) -> list[str]:
    """Return the names of the complete backups in a folder, oldest first."""
    check_folder(folder)
    found = (place.name for place in folder.iterdir() if place.is_dir())
    return sorted(name for name in found if _NAME.fullmatch(name))


def open_backup(folder: Path, name: str | None = None) -> Backup:
    """Return a backup, by default the latest.

    Raises
    ------
    ConfigurationError
        If the backup does not exist.
    ChecksumError
        If the description of its contents is damaged.
    """
    names = backups(folder)
    if not names or (name is not None and name not in names):
        wanted = f"no backup {name}" if name else "no backup"
        raise ConfigurationError(f"{folder} has {wanted}; there are {', '.join(names) or 'none'}.")
    return _read_head(folder, name or names[-1])


def keep_latest(folder: Path, count: int) -> int:
    """Remove all but the latest backups, and the copies that these do not need.

    Returns
    -------
    int
        Bytes of the removed copies.

    Raises
    ------
    ChecksumError
        If the list of objects of a kept backup cannot be read. No copy has been removed then.
    """
    names = backups(folder)
    for name in names[:-count]:
        # Renamed first, so that a partly removed backup does not count as one.
        gone = folder / f".writing-{secrets.token_hex(8)}"
        (folder / name).rename(gone)
        shutil.rmtree(gone)
    wanted = set[str]()
    for name in names[-count:]:
        backup = _read_head(folder, name)
        if damage := next(backup.damaged_files([OBJECTS]), ""):
            raise ChecksumError(f"No copy was removed: {damage}.")
        wanted.update(file.sha256 for file in backup.objects())
    return Copies(folder / "objects").keep(wanted)


def check_folder(folder: Path) -> None:
    """Raise `ConfigurationError` unless a folder is one of backups."""
    if _NAME.fullmatch(folder.name) and (folder.parent / HEAD).exists():
        raise ConfigurationError(
            f"{folder} is one backup of the folder {folder.parent}: name that folder, and the "
            f"backup by --name {folder.name}, or by the argument name."
        )
    try:
        said = json.loads((folder / HEAD).read_text())["format"]
    except FileNotFoundError:
        raise ConfigurationError(
            f"{folder} is not a folder of backups: it has no {HEAD}."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder / HEAD} cannot be read: {error}.") from error
    if said != FORMAT:
        raise ConfigurationError(
            f"{folder} has backups of format {said}, and this version reads {FORMAT}: update it."
        )


def write_format(folder: Path) -> None:
    """Mark an empty folder as one of backups."""
    (folder / HEAD).write_text(json.dumps({"format": FORMAT, "made by": "dj-dagster backup"}))


def summed(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the size and checksum of each file of the database and of the list of objects."""
    found: dict[str, tuple[int, str]] = {}
    for file in [folder / OBJECTS, *sorted((folder / DATABASE).iterdir())]:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[file.relative_to(folder).as_posix()] = (file.stat().st_size, digest)
    return found


def settle(folder: Path) -> None:
    """Flush a backup's files to disk, so that they survive a power cut."""
    for file in (*folder.iterdir(), *(folder / DATABASE).iterdir()):
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
    sync_folder(folder / DATABASE)
    sync_folder(folder)


def write_head(folder: Path, backup: Backup) -> None:
    """Write the description of a backup into its folder, which need not have its final name yet."""
    fields = asdict(backup)
    del fields["folder"]
    (folder / HEAD).write_text(json.dumps({**fields, "checksum": _checksum(fields)}, indent=2))


def write_objects(folder: Path, files: Iterable[CopiedFile]) -> None:
    """Write the list of a backup's objects."""
    with cast(IO[bytes], igzip.open(folder / OBJECTS, "wb")) as stream:
        for file in files:
            stream.write(json.dumps(asdict(file)).encode() + b"\n")


def read_objects(folder: Path) -> Iterator[CopiedFile]:
    """Yield the objects of a list."""
    with igzip.open(folder / OBJECTS, "rb") as stream:
        for line in stream:
            yield CopiedFile(**json.loads(line))


def _read_head(folder: Path, name: str) -> Backup:
    file = folder / name / HEAD
    try:
        fields: dict[str, Any] = json.loads(file.read_bytes())
        if fields.pop("checksum") != _checksum(fields):
            raise ChecksumError(f"{file} has changed since it was written: restore another backup.")
        fields["tables"] = tuple(DumpedTable(**table) for table in fields["tables"])
        fields["files"] = {path: tuple(known) for path, known in fields["files"].items()}
        for key in ("schemas", "problems"):
            fields[key] = tuple(fields[key])
        return Backup(folder=folder, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChecksumError(f"{file} cannot be read: {error}. Restore another backup.") from error


def _checksum(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

"""The signature of an entry in a watched folder, by which a change of its files is seen."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from dj_dagster.errors import InvalidValueError


def signature(path: Path) -> str:
    """Return a hash that changes whenever a file of an entry is written, appears or goes.

    Links are followed, since their files are what is read.

    Raises
    ------
    OSError
        If a file cannot be looked at; `FileNotFoundError` if it went in the meantime.
    InvalidValueError
        If a link leads to nothing.
    """
    files = sorted(_files(path)) if path.is_dir() else [path]
    found = 0
    for file in files:
        stat = _stat(file)
        said = f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\n"
        found = zlib.crc32(said.encode(errors="surrogateescape"), found)
    return f"{len(files)}-{found:08x}"


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except FileNotFoundError:
        if not file.is_symlink():
            raise
        raise InvalidValueError(
            f"{file} is a link to {file.readlink()}, which is not there."
        ) from None


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    # A link may lead to a folder above it: each folder is looked at once.
    met = {_identity(folder)}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        yield from (Path(place, name) for name in names)
        inside = {name: _identity(Path(place, name)) for name in sorted(folders)}
        folders[:] = [name for name, each in inside.items() if each not in met]
        met.update(inside.values())


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino

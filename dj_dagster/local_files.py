"""Files of the user's own machine: the folder ``.dj``, trust in others' files, unreadable files.

A folder that everyone may write into, such as ``/tmp``, may hold a file of settings, or a folder
``.dj``, that another user has put there for others to find. Such files are skipped with a warning.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from dj_dagster.errors import ConfigurationError

FOLDER = ".dj"
"""Name of the folder of the embedded database, its objects and downloaded files."""

DATABASE, STORE, DOWNLOADS = "lab.sqlite", "store", "downloads"

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_logger = logging.getLogger(__package__)
_told: set[Path] = set()


def and_above(folder: Path) -> Iterator[Path]:
    """Yield a folder and those above it, the nearest first."""
    yield folder
    yield from folder.parents


def is_trusted(place: Path) -> bool:
    """Return whether a file or folder may be read as the user's own.

    It may if it belongs to this user or to root, or if only the owner of its folder may put files
    there. For a link, the owners of the link and of its target both count. On Windows, all places
    are trusted.

    A place that is not trusted is named in the log, once.
    """
    if not hasattr(os, "geteuid"):
        return True
    owners = {place.lstat().st_uid, place.stat().st_uid}
    if owners <= {os.geteuid(), 0} or not place.parent.stat().st_mode & _OTHERS_WRITE:
        return True
    if place not in _told:
        _told.add(place)
        _logger.warning(
            "%s is not read: it belongs to another user, in a folder that others may write. "
            "If you want it, name it: settings in DJ_CONFIG_FILE, a database in DJ_DATABASE_URL.",
            place,
        )
    return False


@contextmanager
def reading(file: Path, *wrong: type[Exception]) -> Generator[None]:
    """Name a file of settings in the errors of reading it.

    Parameters
    ----------
    wrong
        Errors of the parser, besides OSError and ValueError.

    Raises
    ------
    ConfigurationError
        Instead of these errors.
    """
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read: {error.strerror or error}. Give this user the right to read "
            "it, or move it away."
        ) from error
    except (ValueError, *wrong) as error:
        # Parsers show the place in further lines.
        said = " ".join(str(error).split())
        raise ConfigurationError(f"{file} cannot be read: {said}. Correct the file.") from error


def at_home(path: str | Path, what: str) -> Path:
    """Return a path whose ``~`` or ``~user`` is written out.

    Parameters
    ----------
    what
        The thing that the path is of, for the error.

    Raises
    ------
    ConfigurationError
        If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{what} is {str(path)!r}, in the home of a user who is not there: write its path."
        ) from None


def embedded_folder() -> Path:
    """Return the folder of the embedded database: the nearest ``.dj`` that has one, or a new one.

    The search goes from the working directory upwards, as for files of settings. If it finds none,
    the result is ``.dj`` in the working directory, which need not exist; see `is_usable`.
    """
    here = Path.cwd()
    for folder in and_above(here):
        found = folder / FOLDER
        # A folder that is closed to this user has none, for which `Path.exists` raises an error.
        there = any(os.path.exists(found / name) for name in (DATABASE, STORE))  # noqa: PTH110
        if there and is_trusted(found):
            return found
    return here / FOLDER


def is_usable(folder: Path) -> bool:
    """Return whether the folder of an embedded database is not there yet, or is trusted."""
    return not os.path.lexists(folder) or is_trusted(folder)


def check_usable(folder: Path, instead: str) -> None:
    """Refuse the folder ``.dj`` of another user.

    Parameters
    ----------
    instead
        The end of the error: what to do in place of leaving the working directory.

    Raises
    ------
    ConfigurationError
        If it is not usable.
    """
    if not is_usable(folder):
        raise ConfigurationError(
            f"{folder} belongs to another user, in a folder that others may write, and is not "
            f"used: work in a folder of your own, or {instead}."
        )


def make_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it.

    Only its owner may read a new ``.dj``, and new folders in one that somebody else has made.
    """
    for missing in reversed([each for each in and_above(folder) if not each.exists()]):
        missing.mkdir(mode=0o700 if FOLDER in missing.parts else 0o777, exist_ok=True)


def make_private_file(file: Path) -> bool:
    """Make an empty file that only its owner may read; return False if it was there already."""
    make_folder(file.parent)
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True

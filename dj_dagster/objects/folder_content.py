"""What a local folder has that a store can keep."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dj_dagster.errors import InvalidValueError


def folder_content(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths in a folder of all its files, and of its empty folders.

    Links to what is in the folder count as what they lead to.

    Raises
    ------
    InvalidValueError
        Naming what cannot be kept: a link that is broken, leads out of the folder or back to a
        folder that it is in, a socket, a pipe, a device.
    """
    files: list[str] = []
    empty: list[str] = []
    root = folder.resolve()
    for path in _visited(folder, root, (root,)):
        names = empty if path.is_dir() else files
        names.append(path.relative_to(folder).as_posix())
    return files, empty


def _visited(folder: Path, root: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield files and empty folders, sorted."""
    for path in sorted(folder.iterdir()):
        target = _target(path, root, above)
        if target.is_dir():
            if not any(os.scandir(target)):
                yield path
            yield from _visited(path, root, (*above, target))
        elif stat.S_ISREG(target.stat().st_mode):
            yield path
        else:
            raise InvalidValueError(
                f"{path} is no file but a pipe, a socket or a device, which a store cannot keep: "
                "remove it from the folder first."
            )


def _target(path: Path, root: Path, above: tuple[Path, ...]) -> Path:
    if not path.is_symlink():
        return path.resolve()
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidValueError(
            f"{path} is a broken link, to {path.readlink()}: mend or remove it first."
        ) from error
    if not target.is_relative_to(root):
        raise InvalidValueError(
            f"{path} is a link that leads out of the folder, to {target}: put a copy in its place."
        )
    if target in above:
        raise InvalidValueError(
            f"{path} is a link back to {target}, which it lies in: remove it first."
        )
    return target

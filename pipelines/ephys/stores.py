"""The stores of the pipeline's files: recordings, sorters' results, and deliveries.

They are folders in ``.dj`` unless settings name other places for ``raw``, ``sortings`` and
``deliveries``.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import dj_dagster as dj
from dj_dagster.local_files import embedded_folder, make_folder

RAW, SORTINGS, DELIVERIES = "raw", "sortings", "deliveries"

_FOLDERS = {RAW: "recordings", SORTINGS: "sortings", DELIVERIES: "deliveries"}


def use_default_stores() -> None:
    """Add the stores that are missing from the settings, as folders."""
    ours = {
        name: {"protocol": "file", "location": str(embedded_folder() / folder)}
        for name, folder in _FOLDERS.items()
    }
    dj.config["stores"] = {**ours, **dj.config["stores"]}


def raw_folder(stores: dj.Stores) -> Path:
    """Return the folder of the store `raw`, into which recordings are copied.

    Raises
    ------
    ConfigurationError
        If that store is not a folder of this machine.
    """
    store = stores.get(RAW)
    folder = store.local_path("x")
    if folder is None:
        raise dj.errors.ConfigurationError(
            f"The store '{RAW}' at {store.url()} is not a local folder: recordings cannot be "
            "watched for there. Insert the rows of EphysSession and ProbeInsertion yourself."
        )
    if folder.parent == embedded_folder() / _FOLDERS[RAW]:
        # The settings' folder is not made: it may be a share that is not mounted.
        make_folder(folder.parent)
    return folder.parent


@contextmanager
def local_copies(*files: dj.ObjectRef) -> Generator[list[Path]]:
    """Yield local paths of files, verified; they are copied only from a store that is not local.

    Raises
    ------
    MissingExternalFile, ChecksumError
        If a file is missing, or is not the one that its row refers to; the message names it.
    """
    with TemporaryDirectory() as folder:
        yield [file.verified_path(Path(folder)) for file in files]

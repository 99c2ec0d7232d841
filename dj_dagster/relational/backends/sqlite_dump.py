"""A SQLite database as a copy of its file, taken beside writers and put back in one step."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import DataJointError

FILE = "lab.sqlite"
_TABLES = """
SELECT name FROM sqlite_master WHERE type IN ('table', 'view')
AND name NOT IN ('~catalog', '~identity') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
"""


def dump(session: SAConnection, folder: Path) -> None:
    """Copy the database, as the session's open transaction sees it."""
    with closing(sqlite3.connect(folder / FILE)) as target:
        _driver(session).backup(target)
    _check(folder / FILE)


def load(session: SAConnection, folder: Path) -> None:
    """Put a copy in the place of an empty database: whole, or not at all."""
    with _opened(folder / FILE) as source:
        source.backup(_driver(session))


def occupied(session: SAConnection) -> list[str]:
    """Return the tables of a database."""
    return list(session.exec_driver_sql(_TABLES).scalars())


def _driver(session: SAConnection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, session.connection.driver_connection)


def _check(file: Path) -> None:
    """Raise what is wrong with a database's pages."""
    with _opened(file) as source:
        (found,) = source.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DataJointError(
            f"The database is damaged, and so is its copy: {found}. Run PRAGMA integrity_check on "
            "it, and restore it from an earlier backup."
        )


def _opened(file: Path) -> closing[sqlite3.Connection]:
    # What is immutable is read without files beside it.
    return closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True))

"""The errors of SQLite in our words."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from dj_dagster.errors import (
    AccessError,
    ConnectionFailedError,
    DataJointError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    MissingAttributeError,
    MissingTableError,
    QueryError,
    QuerySyntaxError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.relational.backends import sqlite_functions

_ERRORS: dict[str, type[DataJointError]] = {
    "UNIQUE constraint failed": DuplicateError,
    "FOREIGN KEY constraint failed": IntegrityError,
    "NOT NULL constraint failed": MissingAttributeError,
    "database is locked": TransientError,
    "unable to open database file": ConnectionFailedError,
    "file is not a database": ConnectionFailedError,
    "readonly database": AccessError,
    "no such table": MissingTableError,
    "no such column": UnknownAttributeError,
    "syntax error": QuerySyntaxError,
    "Could not decode to UTF-8": InvalidValueError,
    "unrecognized token": QuerySyntaxError,
}


def translate(error: DBAPIError) -> DataJointError | None:
    """Return our error for a driver's, by its wording; None for one that is not SQLite's."""
    cause = error.orig
    text = str(cause)
    if not isinstance(cause, sqlite3.Error):
        return None
    if "user-defined" in text and (told := sqlite_functions.failure()) is not None:
        return told
    if "string or blob too big" in text:
        # It says so of a number that a function has given, too.
        return InvalidValueError(
            "SQLite holds no integer of more than 64 bits, unsigned ones of bit_and, bit_or and "
            "bit_xor among them, and no text or bytes of more than 1 GB."
        )
    for phrase, kind in _ERRORS.items():
        if phrase in text:
            return kind(text)
    return QueryError(text)

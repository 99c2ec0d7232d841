"""Transactions that SQLite does not check for foreign keys, in which tables can be exchanged."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.engine import Connection as SAConnection


@contextmanager
def without_foreign_keys(session: SAConnection, begin: str) -> Generator[None]:
    """Commit what happens inside together, or nothing of it, foreign keys switched off.

    Parameters
    ----------
    session
        Not in a transaction: inside one the switch has no effect.
    begin
        The statement that opens a transaction.
    """
    session.exec_driver_sql("PRAGMA foreign_keys = OFF")
    # Otherwise a table is not renamed while a view selects from the one whose place it takes.
    session.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    try:
        session.exec_driver_sql(begin)
        try:
            yield
            session.exec_driver_sql("COMMIT")
        except BaseException:
            session.exec_driver_sql("ROLLBACK")
            raise
    finally:
        session.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
        session.exec_driver_sql("PRAGMA foreign_keys = ON")

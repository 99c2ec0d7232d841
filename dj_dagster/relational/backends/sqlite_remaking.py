"""Tables of SQLite made anew, by the steps that its documentation of ALTER TABLE recommends."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.names import TableName
from dj_dagster.relational.backends.base import Remaking


class FileRemaking(Remaking):
    """Remakes tables in a session whose foreign keys are switched off."""

    def __init__(self, session: SAConnection) -> None:
        self._session = session

    @contextmanager
    def translation(self, name: str, pairs: Sequence[tuple[Any, Any]]) -> Generator[sa.TableClause]:
        """Give a temporary table, whose columns have no type, so that values stay as they are."""
        table = sa.table(f"converted~{name}", sa.column("old"), sa.column("new"))
        self._session.exec_driver_sql(
            f'CREATE TEMP TABLE "{table.name}" (old PRIMARY KEY, new) WITHOUT ROWID'
        )
        if pairs:
            rows = [{"old": old, "new": new} for old, new in pairs]
            self._session.execute(sa.insert(table), rows)
        yield table
        self._session.exec_driver_sql(f'DROP TABLE temp."{table.name}"')

    def rename(self, made: TableName, name: TableName) -> None:
        """Rename the table; its indexes come along."""
        self._session.exec_driver_sql(f'ALTER TABLE "{made}" RENAME TO "{name}"')

    def unmatched(self, name: TableName) -> Sequence[str]:
        """Look at all foreign keys of the table, which were not enforced meanwhile."""
        rows = self._session.exec_driver_sql(f'PRAGMA foreign_key_check("{name}")').fetchall()
        return [row[2] for row in rows]


@contextmanager
def remaking(session: SAConnection, begin: str) -> Generator[FileRemaking]:
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
            yield FileRemaking(session)
            session.exec_driver_sql("COMMIT")
        except BaseException:
            session.exec_driver_sql("ROLLBACK")
            raise
    finally:
        session.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
        session.exec_driver_sql("PRAGMA foreign_keys = ON")

"""Statements that a server is busy with while a test runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.services.process import eventually


@contextmanager
def statement_with_bytes(url: str | sa.URL) -> Iterator[int]:
    """Run a statement that holds bytes which are not text, as an insert of a blob does.

    Yields
    ------
    number
        Of the connection that runs it.
    """
    engine = sa.create_engine(url)
    with engine.connect() as session, engine.connect() as watcher:
        driver = session.connection.dbapi_connection
        assert driver is not None
        number = session.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()

        def run() -> None:
            with suppress(Exception), driver.cursor() as cursor:
                cursor.execute(b"SELECT SLEEP(600), LENGTH(_binary'\xa1\xfb\xd7\x831\xff')")

        thread = threading.Thread(target=run)
        thread.start()
        try:
            eventually(lambda: _sleeps(watcher, number))
            yield number
        finally:
            with suppress(DBAPIError):
                watcher.exec_driver_sql(f"KILL {number}")
            thread.join()
            session.invalidate()
    engine.dispose()


def _sleeps(watcher: sa.Connection, number: int) -> bool:
    # InnoDB's own list has the statement of a connection only within a transaction, and MySQL's
    # list of connections is what the statement spoils.
    query = (
        "SELECT COUNT(*) FROM performance_schema.threads WHERE processlist_id = %s"
        " AND processlist_state = 'User sleep'"
    )
    if watcher.dialect.is_mariadb:  # type: ignore[attr-defined]
        query = (
            "SELECT COUNT(*) FROM information_schema.processlist WHERE id = %s"
            " AND state = 'User sleep'"
        )
    return bool(watcher.exec_driver_sql(query, (number,)).scalar())

"""Administration of a server: ending its processes, changing the user's password."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from getpass import getpass
from typing import Any

from dj_dagster.defaults import config, conn
from dj_dagster.errors import QueryError
from dj_dagster.relational.database.connection import Connection

_PROCESSES = """
SELECT id, user, host, db, command, time, state, info FROM {}
WHERE id <> {} AND ({}) ORDER BY {}
"""


def kill(
    restriction: str | None = None,
    connection: Connection | None = None,
    order_by: str | None = None,
) -> None:
    """List the processes of a server, and end those whose numbers are typed in.

    Parameters
    ----------
    restriction
        A restriction of the list, as SQL: ``"time > 100"``.
    order_by
        Columns to sort the list by; ``id`` by default.

    Raises
    ------
    QueryError
        If the database does not have a server, as with SQLite.
    """
    chosen = _server(connection)
    while True:
        for row in _processes(chosen, restriction or "1 = 1", order_by or "id"):
            print(*row, sep="\t")
        answer = input("Process to end, q to quit, Enter to list again: ").strip()
        if answer.lower() == "q":
            return
        if answer.isdecimal():
            with chosen.cursor() as session:
                chosen.backend.end_process(session, int(answer))


def kill_quick(restriction: str | None = None, connection: Connection | None = None) -> int:
    """End the chosen processes of a server without asking, and return their number.

    Parameters
    ----------
    restriction
        A restriction of the processes, as SQL; see `kill`. It must be given, unlike in DataJoint,
        where all processes end without it.

    Raises
    ------
    QueryError
        Without a restriction, or if the database does not have a server, as with SQLite.
    """
    chosen = _server(connection)
    if not restriction:
        raise QueryError(
            "Say which processes are to end: kill_quick(\"user = 'alice'\"). "
            "kill_quick('1 = 1') ends all but the one that asks."
        )
    ended = 0
    for number, *_ in _processes(chosen, restriction, "id"):
        # One that has ended by itself meanwhile is an error of the server.
        with suppress(QueryError), chosen.cursor() as session:
            chosen.backend.end_process(session, number)
            ended += 1
    return ended


def _processes(connection: Connection, where: str, order_by: str) -> list[Sequence[Any]]:
    """Return the server's processes but the one that asks, the number of each first."""
    with connection.cursor() as session:
        table = connection.backend.processes(session)
    own = connection.backend.session_id
    return connection.query(_PROCESSES.format(table, own, where, order_by)).fetchall()


def set_password(
    new_password: str | None = None,
    connection: Connection | None = None,
    update_config: bool = False,
) -> None:
    """Change the password of the connected user; without one, ask for it.

    Parameters
    ----------
    update_config
        Whether ``dj.config`` gets the new password, which later connections need.

    Raises
    ------
    QueryError
        On SQLite, which does not have users, or if the two passwords typed differ.
    """
    chosen = _server(connection)
    if new_password is None:
        new_password = getpass("New password: ")
        if getpass("Once more: ") != new_password:
            raise QueryError("The two passwords differ: nothing has been changed.")
    try:
        with chosen.cursor() as session:
            chosen.backend.set_password(session, new_password)
    except QueryError as error:
        # The driver's error, which shows the password, is left out.
        raise type(error)(str(error)) from None
    if update_config:
        config()["database.password"] = new_password


def _server(connection: Connection | None) -> Connection:
    chosen = connection or conn()
    if not chosen.backend.has_server:
        raise QueryError(f"{chosen.url} is a file: it has no server processes and no users.")
    return chosen

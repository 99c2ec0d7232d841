"""Administration of a server: ending its processes, changing one's password."""

from __future__ import annotations

from getpass import getpass

from dj_dagster.defaults import config, conn
from dj_dagster.errors import QueryError
from dj_dagster.relational.database.connection import Connection

_PROCESSES = """
SELECT id, user, host, db, command, time, state, info FROM {}
WHERE id <> CONNECTION_ID() AND ({}) ORDER BY {}
"""


def kill(
    restriction: str | None = None,
    connection: Connection | None = None,
    order_by: str | None = None,
) -> None:
    """List the processes of a MySQL or MariaDB server, and end those that are typed in.

    Parameters
    ----------
    restriction
        Which to list, as SQL: ``"time > 100"``.
    order_by
        Columns of the list; ``id`` by default.

    Raises
    ------
    QueryError
        On SQLite, which has no server.
    """
    chosen = _server(connection)
    with chosen.cursor() as session:
        table = chosen.backend.processes(session)
    while True:
        listing = chosen.query(_PROCESSES.format(table, restriction or "1", order_by or "id"))
        for row in listing:
            print(*row, sep="\t")
        answer = input("Process to end, q to quit, Enter to list again: ").strip()
        if answer.lower() == "q":
            return
        if answer.isdecimal():
            chosen.query(f"KILL {answer}")


def set_password(
    new_password: str | None = None,
    connection: Connection | None = None,
    update_config: bool = False,
) -> None:
    """Change the password of the connected user; asked for if none is given.

    Parameters
    ----------
    update_config
        Whether ``dj.config`` gets the new one, which later connections need.

    Raises
    ------
    QueryError
        On SQLite, which has no users, or if two answers differ.
    """
    chosen = _server(connection)
    if new_password is None:
        new_password = getpass("New password: ")
        if getpass("Once more: ") != new_password:
            raise QueryError("The two passwords differ: nothing has been changed.")
    (version,) = chosen.query("SELECT VERSION()").fetchone()
    # What MariaDB takes for a password without PASSWORD() is its hash.
    value = "PASSWORD(%s)" if "mariadb" in version.lower() else "%s"
    try:
        chosen.query(f"SET PASSWORD = {value}", (new_password,))
    except QueryError as error:
        # The driver's error, which tells the password, is left out.
        raise type(error)(str(error)) from None
    if update_config:
        config()["database.password"] = new_password


def _server(connection: Connection | None) -> Connection:
    chosen = connection or conn()
    if chosen.url.startswith("sqlite"):
        raise QueryError("SQLite is a file: it has no server processes and no users.")
    return chosen

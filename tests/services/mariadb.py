"""A private MariaDB server in a temporary folder, ready in about two seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from dj_dagster.errors import ConfigurationError
from dj_dagster.temporary import mariadb as program
from tests.services.database_server import DatabaseServer, database_server
from tests.services.process import ServiceMissingError


class MariaDBServer(DatabaseServer):
    """The `mariadbd` that is on the PATH or in /usr/sbin."""

    name = "mariadb"

    def _command(self) -> list[str | Path]:
        return [*program.command(self._place), self._flush]

    def _initialise(self) -> None:
        try:
            program.initialise(self._place, self._flush)
        except ConfigurationError as error:
            raise ServiceMissingError(str(error)) from None


@contextlib.contextmanager
def mariadb() -> Generator[str]:
    """Run a server and give its SQLAlchemy URL (user root, no password, no database).

    Raises
    ------
    ServiceMissingError
        If there is no `mariadbd` on the PATH or in /usr/sbin.
    """
    with database_server(MariaDBServer) as running:
        yield running.url

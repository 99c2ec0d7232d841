"""A private MariaDB server in a temporary folder, ready in about two seconds."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

from tests.services.database_server import DatabaseServer, database_server
from tests.services.process import ServiceMissingError

INSTALL = "apt-get install -y --no-install-recommends mariadb-server-core"

FLAGS = (
    "--skip-name-resolve",
    "--skip-log-bin",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=8M",
)

# These two make the system tables' script create root without a password.
BOOTSTRAP_PRELUDE = "use mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"


class MariaDBServer(DatabaseServer):
    """The `mariadbd` that is on the PATH or in /usr/sbin."""

    name = "mariadb"

    def _command(self) -> list[str | Path]:
        return [_daemon(), "--no-defaults", *self._options(), *FLAGS]

    def _initialise(self) -> None:
        (self._place / "data" / "mysql").mkdir(parents=True)
        subprocess.run(
            [*self._command(), "--bootstrap"],
            input=BOOTSTRAP_PRELUDE + _system_tables(_daemon()),
            text=True,
            check=True,
            capture_output=True,
        )


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


def _daemon() -> Path:
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if found is None:
        raise ServiceMissingError(f"no mariadbd here; install it with: {INSTALL}")
    return Path(found).resolve()


def _system_tables(daemon: Path) -> str:
    share = daemon.parent.parent / "share"
    for vendor in ("mysql", "mariadb"):
        # MariaDB 11 renamed the files after itself.
        scripts = [
            share / vendor / f"{vendor}_{name}.sql"
            for name in ("system_tables", "performance_tables", "system_tables_data")
        ]
        if all(script.exists() for script in scripts):
            return "".join(script.read_text() for script in scripts)
    raise ServiceMissingError(f"no *_system_tables.sql under {share}; install it with: {INSTALL}")

"""A private MariaDB server in a temporary folder, ready in about two seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import sqlalchemy

from tests.services.process import ServiceMissingError, accepts, free_port, server

INSTALL = "apt-get install -y --no-install-recommends mariadb-server-core"

# The data is thrown away: nothing of it has to survive a crash, so nothing waits for the disk.
FLAGS = (
    "--skip-name-resolve",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=8M",
)

# These two make the system tables' script create root without a password.
BOOTSTRAP_PRELUDE = "use mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"


@contextlib.contextmanager
def mariadb() -> Generator[str]:
    """Run a server and give its SQLAlchemy URL (user root, no password, no database).

    Raises
    ------
    ServiceMissingError
        If there is no `mariadbd` on the PATH or in /usr/sbin.
    """
    daemon = _daemon()
    # A socket's path may have 107 characters, which pytest's own folders can exceed.
    with tempfile.TemporaryDirectory(prefix="djdb") as folder:
        place = Path(folder)
        _bootstrap(daemon, place)
        port = free_port()
        command = [daemon, *_options(place), f"--port={port}", "--bind-address=127.0.0.1"]
        command += [f"--socket={place / 'sock'}", f"--pid-file={place / 'pid'}"]
        command += ["--character-set-server=utf8mb4"]
        with server(command, log=place / "log", ready=lambda: accepts(port)):
            yield f"mysql+pymysql://root@127.0.0.1:{port}/"


def drop_databases(url: str, prefix: str) -> None:
    """Drop every database of the server whose name begins with `prefix`."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET foreign_key_checks = 0")
            names = connection.exec_driver_sql("SHOW DATABASES").scalars().all()
            for name in names:
                if name.startswith(prefix):
                    connection.exec_driver_sql(f"DROP DATABASE `{name}`")
    finally:
        engine.dispose()


def _daemon() -> Path:
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if found is None:
        raise ServiceMissingError(f"no mariadbd here; install it with: {INSTALL}")
    return Path(found).resolve()


def _options(place: Path) -> list[str]:
    data = [f"--datadir={place / 'data'}", f"--tmpdir={place / 'tmp'}", *FLAGS]
    return ["--no-defaults", *data, *(["--user=root"] if os.geteuid() == 0 else [])]


def _bootstrap(daemon: Path, place: Path) -> None:
    (place / "data" / "mysql").mkdir(parents=True)
    (place / "tmp").mkdir()
    subprocess.run(
        [daemon, *_options(place), "--bootstrap"],
        input=BOOTSTRAP_PRELUDE + _system_tables(daemon),
        text=True,
        check=True,
        capture_output=True,
    )


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

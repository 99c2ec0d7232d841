"""A private MariaDB server in a folder, ready in about two seconds, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

from dj_dagster.errors import ConfigurationError, ConnectionFailedError, QueryError
from dj_dagster.relational.database.connection import Connection

INSTALL = "apt-get install -y --no-install-recommends mariadb-server-core"

FLAGS = (
    "--skip-name-resolve",
    "--skip-log-bin",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=8M",
)

PATIENCE = 120.0
"""Seconds for which a server may take to answer."""

# These two make the system tables' script create root without a password.
_PRELUDE = "use mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"

# The server ends with this process even where that is killed, which closes the pipe.
_WITH_US = """exec 3<&0; "$@" </dev/null & server=$!
(cat <&3 >/dev/null; kill -9 $server) & watch=$!
wait $server; kill $watch 2>/dev/null"""

_OWN = {"mysql", "information_schema", "performance_schema", "sys"}


def command(place: Path) -> list[str | Path]:
    """Return the program with the options that it always has.

    Raises
    ------
    ConfigurationError
        If ``mariadbd`` is neither on the PATH nor in /usr/sbin; the message says how to install it.
    """
    options = [f"--datadir={place / 'data'}", f"--tmpdir={place / 'tmp'}"]
    user = ["--user=root"] if os.geteuid() == 0 else []
    return [_daemon(), "--no-defaults", *options, *user, *FLAGS]


def initialise(place: Path, *options: str) -> None:
    """Make the folders and system tables of a server; root then has no password.

    Raises
    ------
    ConfigurationError
        See `command`.
    """
    start = [*command(place), *options, "--bootstrap"]
    (place / "data" / "mysql").mkdir(parents=True)
    (place / "tmp").mkdir(exist_ok=True)
    script = _PRELUDE + _system_tables(_daemon())
    subprocess.run(start, input=script, text=True, check=True, capture_output=True)


@contextlib.contextmanager
def server(place: Path) -> Generator[str]:
    """Run a server in an empty folder, and give its URL without a database.

    Its data need not survive the process, so that nothing waits for the disk.

    Parameters
    ----------
    place
        Its path is short, because that of a socket may have 107 characters.

    Raises
    ------
    ConfigurationError
        See `command`.
    ConnectionFailedError
        If the server ends, or does not answer in time; the message has the end of its log.
    """
    flush = "--innodb-flush-log-at-trx-commit=0"
    initialise(place, flush)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    start = [*command(place), flush, f"--port={port}", "--bind-address=127.0.0.1"]
    start += [f"--socket={place / 'sock'}", f"--pid-file={place / 'pid'}"]
    start += ["--character-set-server=utf8mb4"]
    log = place / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WITH_US, *map(str, start[:1]), *map(str, start)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await(process, port, log)
        yield f"mysql+pymysql://root@127.0.0.1:{port}/"
    finally:
        process.communicate()


def drop_all(url: str) -> None:
    """Drop all databases of a private server but its own, and end transactions that use them."""
    with Connection(url) as connection:
        busy = connection.query(
            "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx "
            "WHERE trx_mysql_thread_id NOT IN (0, CONNECTION_ID())"
        )
        for (number,) in busy.fetchall():
            # It may have ended since.
            with contextlib.suppress(QueryError):
                connection.query(f"KILL {number}")
        connection.query("SET foreign_key_checks = 0")
        names = [name for (name,) in connection.query("SHOW DATABASES").fetchall()]
        for name in names:
            if name not in _OWN:
                connection.query(f"DROP DATABASE `{name}`")


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    end = log.read_text(errors="replace")[-2000:]
    raise ConnectionFailedError(f"The temporary MariaDB server does not answer. Its log:\n{end}")


def _daemon() -> Path:
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if found is None:
        raise ConfigurationError(f"There is no mariadbd here; install it with: {INSTALL}")
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
    raise ConfigurationError(
        f"There are no *_system_tables.sql under {share}; install them with: {INSTALL}"
    )

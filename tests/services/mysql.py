"""A private MySQL server in a temporary folder, ready in about two seconds.

Debian packages MySQL for its unstable release only, and it cannot be installed beside MariaDB. So
`python -m tests.services.mysql` downloads the server and its libraries from the mirror that apt is
set up with, and unpacks them into a cache folder, from where they run with their own loader. That
takes seconds, needs no rights, and changes nothing of the system.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.services.database_server import DatabaseServer, database_server
from tests.services.process import CACHE, ServiceMissingError

INSTALL = "uv run python -m tests.services.mysql"
PLACE = CACHE / "mysql"
PACKAGE = "mysql-server-core"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# With binary logs, as labs have them, which makes some statements an error.
FLAGS = (
    "--skip-name-resolve",
    "--sync-binlog=0",
    "--innodb-doublewrite=OFF",
    "--innodb-redo-log-capacity=32M",
    "--mysqlx=OFF",
    "--secure-file-priv=",
)

ACCOUNTS = """\
CREATE USER 'root'@'127.0.0.1';
GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
"""


class MySQLServer(DatabaseServer):
    """The server in the cache folder, or a `mysqld` on the PATH that is not MariaDB's."""

    name = "mysql"

    def _command(self) -> list[str | Path]:
        return [*_program(), *self._options(), *FLAGS]

    def _initialise(self) -> None:
        """Copy the data folder of a new server, which takes four seconds of a processor to make."""
        program, data = _program(), self._place / "data"
        made = _data_folder(program)
        if not made.exists():
            self._make(made)
        shutil.copytree(made, data)
        # It holds the server's identity; the server makes another.
        (data / "auto.cnf").unlink()

    def _make(self, target: Path) -> None:
        accounts = self._place / "accounts.sql"
        accounts.write_text(ACCOUNTS)
        command = [*self._command(), "--initialize-insecure", f"--init-file={accounts}"]
        made = subprocess.run(command, text=True, check=False, capture_output=True)
        if made.returncode:
            raise RuntimeError(f"MySQL makes no data folder:\n{made.stdout}{made.stderr}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            whole = shutil.move(self._place / "data", Path(folder) / "data")
            # Another process may have been quicker.
            with contextlib.suppress(OSError):
                whole.rename(target)


@contextlib.contextmanager
def mysql() -> Generator[str]:
    """Run a server and give its SQLAlchemy URL (user root, no password, no database).

    Raises
    ------
    ServiceMissingError
        If it is neither in the cache folder nor on the PATH.
    """
    with database_server(MySQLServer) as running:
        yield running.url


def _program() -> list[str | Path]:
    """Return the words that run the server."""
    unpacked = PLACE / "usr" / "sbin" / "mysqld"
    if unpacked.exists():
        # Its libraries are newer than the system's, so that it needs their loader too.
        loader = next(PLACE.glob("usr/lib*/ld-linux-*.so.*"))
        libraries = next(PLACE.glob("usr/lib/*/libc.so.6")).parent
        words = [loader, "--library-path", libraries, unpacked, "--no-defaults"]
        return [*words, f"--basedir={PLACE / 'usr'}"]
    for folder in (None, "/usr/sbin"):
        found = shutil.which("mysqld", path=folder)
        if found and "MariaDB" not in _output([found, "--version"]):
            return [found, "--no-defaults"]
    raise ServiceMissingError(f"no MySQL server here; bring it with: {INSTALL}")


def _data_folder(program: list[str | Path]) -> Path:
    """Return the place of a new server's data, which differs for another program."""
    changed = max(Path(word).stat().st_mtime_ns for word in program if Path(word).is_file())
    told = " ".join([*map(str, program), *FLAGS, ACCOUNTS, str(changed)])
    return CACHE / f"data-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def bring() -> None:
    """Unpack the server into the cache folder, unless it is there or on the PATH.

    Raises
    ------
    ServiceMissingError
        If this system cannot.
    """
    with contextlib.suppress(ServiceMissingError):
        _program()
        return
    release = platform.freedesktop_os_release() if sys.platform == "linux" else {}
    if release.get("ID") != "debian" or shutil.which("apt-get") is None:
        raise ServiceMissingError(
            "MySQL can be brought on Debian only: put its mysqld on the PATH, or name a server "
            "that runs by DJ_TEST_MYSQL_URL"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        unpacked = Path(folder) / "unpacked"
        for package in _downloaded(Path(folder), release.get("VERSION_CODENAME", "")):
            subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
        # Another process may have been quicker.
        with contextlib.suppress(OSError):
            unpacked.rename(PLACE)
    _program()


def _downloaded(folder: Path, codename: str) -> list[Path]:
    """Return the package files of the server and all that it needs."""
    for name in ("lists/partial", "archives/partial", "parts"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    source = f"deb [signed-by={KEYRING}] {_mirror(codename)} unstable main\n"
    (folder / "sources.list").write_text(source)
    settings = {
        "Dir::State::lists": folder / "lists",
        # Nothing is installed already, so that everything that is needed comes.
        "Dir::State::status": folder / "status",
        "Dir::State::extended_states": folder / "extended",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": folder / "parts",
        "Acquire::Languages": "none",
        # Apt's own user cannot enter a home.
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*apt, "update"], check=True)
    install = ["install", "-y", "--no-install-recommends", "--download-only", PACKAGE]
    subprocess.run([*apt, "-oDebug::NoLocking=1", *install], check=True)
    return sorted((folder / "archives").glob("*.deb"))


def _mirror(codename: str) -> str:
    """Return the address of the mirror from which this system has its packages."""
    listed = _output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
    for line in listed.splitlines():
        address, _, rest = line.partition(" ")
        if rest in {f"{release} main" for release in (codename, "stable", "testing", "unstable")}:
            return address
    raise ServiceMissingError("apt has no mirror of Debian here")


def _output(command: list[str]) -> str:
    return subprocess.run(command, text=True, check=True, capture_output=True).stdout


if __name__ == "__main__":
    try:
        bring()
    except (ServiceMissingError, subprocess.CalledProcessError) as error:
        sys.exit(f"MySQL is not here: {error}")
    print(_output([*map(str, _program()), "--version"]).strip())

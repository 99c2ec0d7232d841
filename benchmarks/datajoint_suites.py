"""DataJoint's own tests, unmodified, run on dj_dagster: items, passes, and why the others fail.

Run it from the repository: ``uv run --with pip --with faker --with ipython python -m
benchmarks.datajoint_suites --version 2.3.5``. It downloads DataJoint's source distribution by pip
into a temporary folder, starts a private MariaDB server with TLS and an S3 server, and runs the
tests there in a process in which dj_dagster has taken DataJoint's place. Nothing of it is kept.
Arguments after ``--`` are pytest's.

The source distribution of 0.14 lacks a part of its tests: ``--source`` names a checkout of its
branch ``maint/0.14``, which needs ``--server mysql`` and the package minio.

Why an item fails is looked up in the tables of ``docs/differences.md``, whose rows have a pattern
of items, a kind and the reason. Items of the kind `inside` use what is inside DataJoint, and are
not counted among those that use public names. The exit status is 1 when items fail without a
reason, or when fewer than ``--least`` of a hundred public ones pass.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.services.database_server import DatabaseServer, database_server
from tests.services.mariadb import MariaDBServer
from tests.services.mysql import MySQLServer
from tests.services.s3 import S3Server, s3

ROOT = Path(__file__).parents[1]
DIFFERENCES = ROOT / "docs" / "differences.md"
PASSWORD = "password"
SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDBServer, "mysql": MySQLServer}
NOT_RUN = "not postgresql"
"""Tests of both backends run for MySQL only."""

_ROW = re.compile(r"\| `(?P<items>[^|]+)` \| (?P<kind>\w+) \| (?P<reason>[^|]+) \|")


@dataclass(frozen=True)
class Difference:
    """A row of the table of differences."""

    patterns: tuple[str, ...]
    kind: str
    reason: str

    def covers(self, item: str) -> bool:
        """Whether an item is among those that the row is about."""
        return any(fnmatchcase(item, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class Outcome:
    """What became of an item; `items` is how many tests stand for it, of a module all."""

    name: str
    passed: bool
    items: int = 1


def differences(version: str) -> list[Difference]:
    """Return the rows of the section for a version, such as ``## Tests of DataJoint 2.3``."""
    section = DIFFERENCES.read_text().partition(f"Tests of DataJoint {version}")[2]
    rows = _ROW.finditer(section.partition("\n## ")[0])
    return [
        Difference(tuple(re.findall(r"[^`,\s]+", row["items"])), row["kind"], row["reason"].strip())
        for row in rows
    ]


def download(version: str, folder: Path) -> Path:
    """Return the unpacked source distribution of a version."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "datajoint"]
    subprocess.run([*pip, f"datajoint=={version}", "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("datajoint-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"datajoint-{version}"


@contextlib.contextmanager
def servers(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run what the tests need and give the environment that tells them."""
    key, certificate = certificates(folder)

    class Server(SERVERS[kind]):
        def _command(self) -> list[str | Path]:
            return [*super()._command(), f"--ssl-key={key}", f"--ssl-cert={certificate}"]

    with database_server(Server) as database, s3() as objects:
        yield environment(database, objects)


def environment(database: DatabaseServer, objects: S3Server) -> dict[str, str]:
    """Return the variables that DataJoint's tests read, after giving root a password."""
    engine = sa.create_engine(database.url)
    with engine.begin() as session:
        user, _, host = session.exec_driver_sql("SELECT CURRENT_USER()").scalar_one().partition("@")
        session.exec_driver_sql(f"ALTER USER '{user}'@'{host}' IDENTIFIED BY '{PASSWORD}'")
    engine.dispose()
    port = str(sa.make_url(database.url).port)
    return {
        "DJ_USE_EXTERNAL_CONTAINERS": "1",
        "DJ_HOST": "127.0.0.1",
        "DJ_PORT": port,
        # Where the tests of 0.14 look.
        "DJ_TEST_HOST": f"127.0.0.1:{port}",
        "DJ_USER": "root",
        "DJ_PASS": PASSWORD,
        "S3_ENDPOINT": objects.endpoint,
        "S3_ACCESS_KEY": objects.access_key,
        "S3_SECRET_KEY": objects.secret_key,
    }


def certificates(folder: Path) -> tuple[Path, Path]:
    """Write a key and a certificate for the server to sign with."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    dated = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    files = folder / "key.pem", folder / "certificate.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files[0].write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    files[1].write_bytes(dated.sign(key, hashes.SHA256()).public_bytes(encoding))
    return files


def run(source: Path, version: str, variables: dict[str, str], arguments: list[str]) -> Path:
    """Run the tests and return pytest's report."""
    report = source / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.as_datajoint"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors", "--timeout=120"]
    command += ["-k", NOT_RUN, f"--junitxml={report}", *(arguments or ["tests"])]
    era = "0.14" if version.startswith("0.") else ""
    # Processes that the tests begin are to find dj_dagster too, not a DataJoint that is installed.
    start = source / "start"
    start.mkdir(exist_ok=True)
    (start / "sitecustomize.py").write_text("import benchmarks.as_datajoint\n")
    paths = os.pathsep.join([str(start), str(ROOT), str(source)])
    variables = {**os.environ, **variables, "PYTHONPATH": paths, "DJ_SUITE_ERA": era}
    with (source / "output.txt").open("w") as output:
        subprocess.run(command, cwd=source, env=variables, stdout=output, stderr=output)
    if not report.exists():
        sys.exit((source / "output.txt").read_text()[-3000:])
    return report


def outcomes(report: Path, source: Path) -> list[Outcome]:
    """Return what became of each item, of a module that could not be imported as one."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        passed = case.find("failure") is None and case.find("error") is None
        module = case.get("classname") or case.get("name") or ""
        short = module.removeprefix("tests.")
        if case.get("classname"):
            name = f"{short}::{case.get('name')}"
            # A failing teardown comes as a second entry of its item.
            before = found.get(name)
            found[name] = Outcome(name, passed and (before is None or before.passed))
        else:
            found[short] = Outcome(
                short, False, tests_in(source / f"{module.replace('.', '/')}.py")
            )
    return list(found.values())


def tests_in(file: Path) -> int:
    """Return how many test functions a file has."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return sum(isinstance(n, ast.FunctionDef) and n.name.startswith("test_") for n in nodes)


def main() -> None:
    """Print what became of a version's tests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", default="2.3.5")
    parser.add_argument("--server", choices=SERVERS, default="mariadb")
    parser.add_argument("--least", type=float, default=0, help="public items to pass, per cent")
    parser.add_argument("--source", type=Path, help="an unpacked source, in place of a download")
    parser.add_argument("pytest", nargs="*")
    given = parser.parse_args()
    # A socket's path may have 107 characters, which pytest's own folders would exceed.
    with tempfile.TemporaryDirectory(prefix="djsuite") as folder:
        source = given.source or download(given.version, Path(folder))
        with servers(given.server, Path(folder)) as variables:
            report = run(source, given.version, variables, given.pytest)
        done = outcomes(report, source)
    sys.exit(show(done, differences(given.version.rpartition(".")[0]), given.least))


def show(done: list[Outcome], known: list[Difference], least: float) -> int:
    """Print the figures and each group of failing items; return the exit status."""
    groups: Counter[Difference | str] = Counter()
    total: Counter[str] = Counter()
    for outcome in done:
        row = next((row for row in known if row.covers(outcome.name)), None)
        total["items"] += outcome.items
        total["passes"] += outcome.items * outcome.passed
        if row is None or row.kind != "inside":
            total["public"] += outcome.items
            total["public passes"] += outcome.items * outcome.passed
        if not outcome.passed:
            groups[row or outcome.name] += outcome.items
    items, passes, public, public_passes = total.values()
    inside, share = items - public, 100 * public_passes / max(1, public)
    print(f"{items} items, {passes} pass; {public} use public names, of which {public_passes} pass")
    print(f"({share:.1f} %); {inside} use what is inside DataJoint.")
    unknown = [group for group in groups if isinstance(group, str)]
    for group, count in groups.most_common():
        text = group if isinstance(group, str) else f"{group.kind}: {group.reason}"
        print(f"{count:5d}  {'NO REASON ' if isinstance(group, str) else ''}{text}")
    return 1 if unknown or share < least else 0


if __name__ == "__main__":
    main()

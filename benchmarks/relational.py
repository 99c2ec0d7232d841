"""The relational floor against DataJoint, on one server in one run: medians and ratios.

Run it from the repository: ``uv run python -m benchmarks.relational``. It starts a private MariaDB
server, or takes the one of ``DJ_TEST_MYSQL_URL``. ``--only fetch`` runs the lines whose name holds
"fetch", ``--rounds`` says how often each is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

import dj_dagster
from benchmarks.peers import Peer, alternate, driver, peers
from dj_dagster.relational.database.sessions import KeptSessions
from tests.services.database_server import drop_databases
from tests.services.mariadb import mariadb

PREFIX = "bench_rel_"
ROWS = 100_000
MILLION = 1_000_000

Measure = Callable[[], float]


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rows(start: int, count: int) -> list[dict[str, Any]]:
    """Return rows of the table `Sample`."""
    return [
        {"sample_id": n, "number": n * 7 % 1000, "score": n / 7, "label": f"sample {n}"}
        for n in range(start, start + count)
    ]


class Tables:
    """A pipeline of two tables, declared by one of the libraries in a schema of its own."""

    def __init__(self, peer: Peer, url: sa.URL, name: str) -> None:
        self.peer, self.url = peer, url
        dj = peer.dj
        self.database = f"{PREFIX}{peer.name}_{name}"
        schema = dj.Schema(self.database, connection=peer.connection)

        class Sample(dj.Manual):
            definition = """
            sample_id : int32
            ---
            number : int32
            score : float64
            label : varchar(32)
            """

        class Result(dj.Computed):
            definition = """
            -> Sample
            ---
            x : int32
            """

            def make(self, key: dict[str, Any]) -> None:
                self.insert1({**key, "x": 1})

        self.sample = schema(Sample)
        self.result = schema(Result)
        self.next = 1

    def sql(self, text: str) -> None:
        """Run SQL by the bare driver; ``{0}`` is the schema."""
        with contextlib.closing(driver(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute(text.format(self.database))
            connection.commit()

    def fill(self, count: int, *, results: bool = False) -> None:
        """Fill the tables in the server."""
        digits = "(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 " + (
            "UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
        )
        numbers = "1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d"
        tables = ", ".join(f"{digits} {alias}" for alias in "abcefg")
        self.sql(
            f"INSERT INTO `{{0}}`.sample SELECT n, n % 1000, n / 7, concat('sample ', n) "
            f"FROM (SELECT {numbers} n FROM {tables}) numbers WHERE n <= {count} ORDER BY n"
        )
        if results:
            self.sql("INSERT INTO `{0}`.__result SELECT sample_id, 1 FROM `{0}`.sample")
        self.sql("ANALYZE TABLE `{0}`.sample, `{0}`.__result")
        self.next = count + 1


class Bench:
    """All measures, by the line of the table that they fill."""

    def __init__(self, url: sa.URL, rounds: int, only: str) -> None:
        self.url, self.rounds, self.only = url, rounds, only
        self.pair = peers(url)
        self.lines: list[tuple[str, dict[str, float]]] = []

    def line(self, name: str, measures: dict[str, Measure], rounds: int | None = None) -> None:
        """Take one line's measures, unless it is not wanted."""
        if self.only in name:
            medians = alternate(measures, rounds or self.rounds)
            self.lines.append((name, medians))
            print(f"{name}: " + ", ".join(f"{k} {v:.4f} s" for k, v in medians.items()), flush=True)

    def wanted(self, *names: str) -> bool:
        """Whether any of these lines is wanted."""
        return any(self.only in name for name in names)

    def tables(self, name: str) -> dict[str, Tables]:
        """Declare the tables in both libraries."""
        return {peer.name: Tables(peer, self.url, name) for peer in self.pair}

    # ---- insert

    def insert(self) -> None:
        """Bulk and single inserts."""
        names = ("insert 10,000 dicts", "insert 10,000 rows of a frame", "insert1, 2,000 times")
        if not self.wanted(*names):
            return
        tables = self.tables("insert")

        def bulk(table: Tables) -> float:
            given, table.next = rows(table.next, 10_000), table.next + 10_000
            return timed(lambda: table.sample.insert(given))

        def frame(table: Tables) -> float:
            import pandas as pd

            given, table.next = pd.DataFrame(rows(table.next, 10_000)), table.next + 10_000
            return timed(lambda: table.sample.insert(given))

        def single(table: Tables) -> float:
            given, table.next = rows(table.next, 2_000), table.next + 2_000
            return timed(lambda: [table.sample.insert1(row) for row in given])

        bare = Tables(self.pair[0], self.url, "bare")

        def by_driver() -> float:
            given, bare.next = rows(bare.next, 10_000), bare.next + 10_000
            sql = f"INSERT INTO `{bare.database}`.sample VALUES (%s, %s, %s, %s)"
            with contextlib.closing(driver(self.url)) as connection, connection.cursor() as cursor:

                def work() -> None:
                    cursor.executemany(sql, [tuple(row.values()) for row in given])
                    connection.commit()

                return timed(work)

        for name, measure in zip(names, (bulk, frame, single), strict=True):
            measures: dict[str, Measure] = {k: _of(measure, t) for k, t in tables.items()}
            if measure is bulk:
                measures["driver"] = by_driver
            self.line(name, measures)

    # ---- fetch and restrict

    def fetch(self) -> None:
        """Bulk fetches, single rows, restriction by many keys."""
        works: dict[str, Callable[[Tables], object]] = {
            f"fetch {ROWS:,} rows to dicts": lambda t: t.sample.to_dicts(),
            f"fetch {ROWS:,} rows to pandas": lambda t: t.sample.to_pandas(),
            f"fetch {ROWS:,} rows to arrays": lambda t: t.sample.to_arrays(
                "sample_id", "number", "score", "label"
            ),
            f"fetch {ROWS:,} keys": lambda t: t.sample.keys(),
            "fetch1 by key, 1,000 times": lambda t: [
                (t.sample & {"sample_id": n}).fetch1("score") for n in range(1, 1001)
            ],
            "restriction by 10,000 keys, rows": lambda t: (t.sample & keys).to_dicts(),
            "restriction by 10,000 keys, len": lambda t: len(t.sample & keys),
        }
        if not self.wanted(*works):
            return
        keys = [{"sample_id": n} for n in range(5, 50_005, 5)]
        tables = self.tables("fetch")
        for table in tables.values():
            table.fill(ROWS)

        def by_driver() -> float:
            import pymysql.cursors

            with contextlib.closing(driver(self.url)) as connection:
                cursor = connection.cursor(pymysql.cursors.DictCursor)
                sql = f"SELECT * FROM `{PREFIX}dj_dagster_fetch`.sample"
                return timed(lambda: (cursor.execute(sql), cursor.fetchall()))

        for name, work in works.items():
            measures: dict[str, Measure] = {
                k: _of(_timed_on, work, table) for k, table in tables.items()
            }
            if name.endswith("dicts"):
                measures["driver"] = by_driver
            self.line(name, measures)

    # ---- populate

    def populate(self) -> None:
        """Trivial keys: one row each."""
        options = {"": {}, ", reserved": {"reserve_jobs": True}, ", 2 processes": {"processes": 2}}
        for count in (1_000, 10_000):
            for label, arguments in options.items():
                name = f"populate {count:,} keys{label}"
                if self.wanted(name):
                    tables = self.tables("populate")
                    for table in tables.values():
                        table.sql("DELETE FROM `{0}`.__result")
                        table.sql("DELETE FROM `{0}`.sample")
                        table.fill(count)
                    measures = {k: _of(_populated, t, arguments) for k, t in tables.items()}
                    self.line(name, measures, rounds=3 if count == 1_000 else 1)

    def pending(self) -> None:
        """Look for what is left to do among a million keys."""
        works = {"progress()": _progress, "pending keys": _pending_keys}
        names = {
            (left, what): f"{what} at {MILLION:,} rows, {left} pending"
            for left in (0, 100)
            for what in works
        }
        if not self.wanted(*names.values()):
            return
        tables = self.tables("million")
        for table in tables.values():
            table.fill(MILLION, results=True)
        for (left, what), name in names.items():
            for table in tables.values():
                table.sql("INSERT IGNORE INTO `{0}`.__result SELECT sample_id, 1 FROM `{0}`.sample")
                table.sql(f"DELETE FROM `{{0}}`.__result WHERE sample_id % 9973 = 1 LIMIT {left}")
            measures = {k: _of(_timed_on, works[what], t) for k, t in tables.items()}
            self.line(name, measures, rounds=3)

    # ---- declare

    def declare(self) -> None:
        """Declare, re-declare and reflect fifty tables."""
        names = ("declare 50 tables", "declare 50 tables again", "reflect 50 tables")
        if not self.wanted(*names):
            return

        def fresh(peer: Peer) -> float:
            drop_databases(str(self.url), f"{PREFIX}{peer.name}_fifty")
            return timed(lambda: _fifty(peer))

        def reflected(peer: Peer) -> None:
            module = peer.dj.VirtualModule(
                "fifty", f"{PREFIX}{peer.name}_fifty", connection=peer.connection
            )
            assert module.Table49.primary_key

        works: dict[str, Callable[[Peer], float]] = {
            names[0]: fresh,
            names[1]: lambda peer: timed(lambda: _fifty(peer)),
            names[2]: lambda peer: timed(lambda: reflected(peer)),
        }
        for name, work in works.items():
            self.line(name, {peer.name: _of(work, peer) for peer in self.pair})

    def imports(self) -> None:
        """Start a fresh interpreter that imports the library."""

        def measure(module: str) -> Measure:
            command = [sys.executable, "-W", "ignore", "-c", f"import {module}"]
            return lambda: timed(lambda: subprocess.run(command, check=True, capture_output=True))

        self.line("import", {peer.name: measure(peer.name) for peer in self.pair})

    def file_checks(self) -> None:
        """Query a SQLite file, with and without the look whether another has taken its place."""
        name = "SELECT 1 in a SQLite file, 10,000 times"
        if not self.wanted(name):
            return
        with tempfile.TemporaryDirectory() as folder:
            connection = dj_dagster.Connection(f"sqlite:///{folder}/lab.sqlite")
            take, looks = connection.engine.connect, connection.backend.is_closed
            measures: dict[str, Measure] = {
                "looked at": _of(_queried, KeptSessions(take, looks)),
                "not": _of(_queried, KeptSessions(take, lambda _: False)),
            }
            found = alternate(measures, self.rounds)
            connection.close()
        ratio = found["looked at"] / found["not"]
        seconds = ", ".join(f"{k} {v:.4f} s" for k, v in found.items())
        print(f"{name}: {seconds}, {ratio:.2f} times as long", flush=True)


def _queried(sessions: KeptSessions) -> float:
    def work() -> None:
        for _ in range(10_000):
            sessions.get().exec_driver_sql("SELECT 1").scalar()

    seconds = timed(work)
    sessions.drop()
    return seconds


def _of(function: Callable[..., float], *arguments: Any) -> Measure:
    return lambda: function(*arguments)


def _populated(table: Tables, arguments: dict[str, Any]) -> float:
    table.sql("DELETE FROM `{0}`.__result")
    seconds = timed(lambda: table.result.populate(**arguments))
    assert not table.result.progress(display=False)[0]
    return seconds


def _timed_on(work: Callable[[Tables], object], table: Tables) -> float:
    return timed(lambda: work(table))


def _progress(table: Tables) -> object:
    return table.result.progress(display=False)


def _pending_keys(table: Tables) -> object:
    """Ask for what `populate` asks for before it begins."""
    if table.peer.name == "dj_dagster":
        from dj_dagster.workflow.populate import pending_keys

        return pending_keys(table.result(), ignore_jobs=True)
    return (table.result.key_source - table.result().proj()).keys()


def _fifty(peer: Peer) -> None:
    classes: dict[str, Any] = {}
    schema = peer.dj.Schema(f"{PREFIX}{peer.name}_fifty", classes, connection=peer.connection)
    for number in range(50):
        parent = f"-> Table{(number - 1) // 2}" if number else "subject_id : int32"
        definition = f"""
        # table {number}
        {parent}
        step_{number} : int16
        ---
        value_{number} : float64  # a value
        note = "" : varchar(100)
        """
        name = f"Table{number}"
        classes[name] = schema(type(name, (peer.dj.Manual,), {"definition": definition}))


@contextlib.contextmanager
def _server() -> Iterator[str]:
    if given := os.environ.get("DJ_TEST_MYSQL_URL"):
        yield given
    else:
        with mariadb() as url:
            yield url


def _report(lines: list[tuple[str, dict[str, float]]]) -> None:
    print("\n| measure | dj_dagster, s | DataJoint, s | times as fast | bare driver, s |")
    print("|---|---:|---:|---:|---:|")
    for name, seconds in lines:
        ours, theirs = seconds["dj_dagster"], seconds["datajoint"]
        bare = f"{seconds['driver']:.3f}" if "driver" in seconds else ""
        print(f"| {name} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.1f} | {bare} |")


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names of the lines to run")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with _server() as url:
        drop_databases(url, PREFIX)
        bench = Bench(sa.make_url(url), arguments.rounds, arguments.only)
        parts = (bench.insert, bench.fetch, bench.declare, bench.populate, bench.pending)
        for part in (*parts, bench.imports, bench.file_checks):
            part()
        _report(bench.lines)
        drop_databases(url, PREFIX)


if __name__ == "__main__":
    main()

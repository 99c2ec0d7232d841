"""What keys cost on many workers, against DataJoint's; and on each engine for Dagster's runs.

Run it from the repository: ``uv run python -m benchmarks.machines populate engines``. The workers
of the first are processes of one machine that share a MariaDB server, as those of many machines do.
Each key must be made exactly once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import dagster as dg
import pymysql
import sqlalchemy as sa

from benchmarks.cpu import CPUWatch
from benchmarks.engines import ENGINES, EngineLab, engine_lab
from benchmarks.peers import driver
from benchmarks.worker import WARM, declare
from tests.services.database_server import database_server, drop_databases
from tests.services.mariadb import MariaDBServer
from tests.services.postgres import postgres

PREFIX = "machines_"
PEERS = ("dj_dagster", "datajoint")

IDLE = 10
"""Seconds for which a deployment is watched that has nothing to do."""


@dataclass(frozen=True)
class Cost:
    """What keys have cost: each figure is that of a key, of all processes together.

    Attributes
    ----------
    seconds
        From the word to the workers until the last has ended.
    client, server
        CPU seconds of the workers and of the server.
    statements
        Statements that the server has counted.
    """

    seconds: float
    client: float
    server: float
    statements: float

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes."""
        return self.client + self.server


def populate(names: Sequence[str], workers: Sequence[int], keys: int, rounds: int) -> None:
    """Print what a key costs, by library and number of workers, and how this grows."""
    print(
        f"{'workers':>7} {'library':<11}{'keys/s':>8}{'client ms':>11}{'server ms':>11}"
        f"{'statements':>12}{'statements x':>14}{'CPU x':>8}"
    )
    costs: dict[tuple[str, int], list[Cost]] = defaultdict(list)
    with database_server(MariaDBServer, durable=True) as server:
        # They take turns, so that noise hits all alike.
        for _, count, name in product(range(rounds), workers, names):
            cost = populated(sa.make_url(server.url), name, count, keys)
            costs[name, count].append(cost)
    for count, name in product(workers, names):
        cost, one = _median(costs[name, count]), _median(costs[name, workers[0]])
        print(
            f"{count:>7} {name:<11}{1 / cost.seconds:>8.0f}{cost.client * 1e3:>11.3f}"
            f"{cost.server * 1e3:>11.3f}{cost.statements:>12.2f}"
            f"{cost.statements / one.statements:>13.2f}x{cost.cpu / one.cpu:>7.2f}x",
            flush=True,
        )


def populated(url: sa.URL, name: str, workers: int, keys: int) -> Cost:
    """Return what some keys cost that workers of a library make together.

    Raises
    ------
    AssertionError
        If a key was not made exactly once.
    """
    database = f"{PREFIX}{name}"
    drop_databases(str(url), database)
    items, measured, _ = declare(name, url, database)
    items.insert({"item": -number} for number in range(1, WARM * workers + 1))
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker"]
    command += [name, url.render_as_string(hide_password=False), database]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # The first declares the queue.
    running = [subprocess.Popen(command, **pipes)]
    try:
        assert running[0].stdout.readline() == "ready\n"
        running += [subprocess.Popen(command, **pipes) for _ in range(workers - 1)]
        for worker in running[1:]:
            assert worker.stdout.readline() == "ready\n"
        measured.populate(reserve_jobs=True)
        items.insert({"item": number} for number in range(keys))
        server = _Server(url)
        began = time.perf_counter()
        for worker in running:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told = [json.loads(worker.stdout.readline()) for worker in running]
        seconds = time.perf_counter() - began
        cpu, statements = server.since()
        for worker in running:
            assert worker.wait(60) == 0
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
    assert sorted(item for each in told for item in each["calls"]) == list(range(keys))
    assert len(measured & "item >= 0") == keys
    measured.connection.close()
    client = sum(each["cpu"] for each in told)
    return Cost(*(total / keys for total in (seconds, client, cpu, statements)))


class _Server:
    """What a server has done since this was made."""

    def __init__(self, url: sa.URL) -> None:
        self._connection: pymysql.Connection = driver(url)
        place = self._ask("SELECT @@pid_file")
        self._process = int(Path(place).read_text())
        self._before = self._counts()

    def since(self) -> tuple[float, int]:
        """Return CPU seconds and statements."""
        (cpu, statements), (first, before) = self._counts(), self._before
        self._connection.close()
        # One of them asked for their number.
        return cpu - first, statements - before - 1

    def _counts(self) -> tuple[float, int]:
        fields = Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
        cpu = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        asked = "SELECT variable_value FROM information_schema.global_status"
        return cpu, int(self._ask(f"{asked} WHERE variable_name = 'QUESTIONS'"))

    def _ask(self, query: str) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]


def _median(costs: list[Cost]) -> Cost:
    def middle(of: Callable[[Cost], float]) -> float:
        return median(map(of, costs))

    return Cost(
        middle(lambda c: c.seconds),
        middle(lambda c: c.client),
        middle(lambda c: c.server),
        middle(lambda c: c.statements),
    )


@dataclass(frozen=True)
class EngineCost:
    """What keys have cost on an engine.

    Attributes
    ----------
    seconds
        From the insert until all keys are shown.
    cpu
        CPU seconds until then, by program.
    idle
        CPU seconds of a second without work, before the insert.
    moments
        Of each run, the seconds after the insert when it was asked for, begun and ended.
    """

    seconds: float
    cpu: Mapping[str, float]
    idle: float
    moments: list[tuple[float, ...]]


def engines(names: Sequence[str], workers: Sequence[int], keys: int, singles: int) -> None:
    """Print what keys cost from the insert until all are shown, by engine; and what a run costs."""
    print(
        f"{'workers':>7} {'engine':<10}{'s':>7}{'keys/s':>8}{'vs DataJoint':>14}{'CPU ms':>8}"
        f"{'vs DataJoint':>14}{'idle CPU':>10}   one key, s: {'asked':>7}{'made':>7}{'ended':>7}"
        f"{'shown':>7}"
    )
    for count in workers:
        for name in names:
            with (
                CPUWatch() as watch,
                tempfile.TemporaryDirectory() as folder,
                database_server(MariaDBServer, durable=True) as server,
                postgres() as storage,
            ):
                batch = -(-keys // count)
                with engine_lab(
                    name, server.url, storage, Path(folder), workers=count, batch=batch
                ) as lab:
                    cost = _whole_path(lab, watch, keys)
                    alone = [_one_key(lab, keys + number) for number in range(singles)]
                    places, (shown, events) = lab.check(keys + singles), lab.marks()
                peer = populated(sa.make_url(server.url), "datajoint", count, keys)
            cpu = sum(cost.cpu.values()) / keys
            one = "".join(f"{median(each):>7.2f}" for each in zip(*alone, strict=True))
            print(
                f"{count:>7} {name:<10}{cost.seconds:>7.1f}{keys / cost.seconds:>8.0f}"
                f"{cost.seconds / keys / peer.seconds:>13.2f}x{cpu * 1e3:>8.2f}"
                f"{cpu / peer.cpu:>13.2f}x{cost.idle:>10.2f}{'':>15}{one}"
            )
            print(
                f"{'':>8}made by {dict(places)}; {events - shown} of {events} marks written again"
            )
            programs = ", ".join(f"{k} {v:.1f}" for k, v in cost.cpu.items() if v > 0.05)
            print(f"{'':>8}CPU s: {programs}")
            for moments in cost.moments:
                words = zip(("asked for", "begun", "ended"), moments, strict=True)
                print(f"{'':>8}a run: " + ", ".join(f"{word} {at:.1f} s" for word, at in words))
            sys.stdout.flush()


def _whole_path(lab: EngineLab, watch: CPUWatch, keys: int) -> EngineCost:
    lab.await_daemon()
    before = watch.seconds()
    time.sleep(IDLE)
    idle, before = _passed(watch, before), watch.seconds()
    began = time.time()
    lab.insert(range(keys))
    seconds = lab.await_shown(keys) - began
    cpu = _passed(watch, before)
    moments = [
        tuple(at - began for at in (_asked(record), record.start_time, record.end_time))
        for record in reversed(lab.await_runs())
    ]
    return EngineCost(seconds, cpu, sum(idle.values()) / IDLE, moments)


def _one_key(lab: EngineLab, item: int) -> tuple[float, ...]:
    """Return the seconds from the insert until the run was asked for, and until all is shown.

    Between these are those from the request to the key and to the run's end.
    """
    began = time.time()
    lab.insert([item])
    shown = lab.await_shown(item + 1)
    record, (_, made) = lab.await_runs()[0], lab.rows()[item]
    asked, ended = _asked(record), record.end_time
    assert ended is not None
    return asked - began, made - asked, ended - asked, shown - began


def _asked(record: dg.RunRecord) -> float:
    return record.create_timestamp.timestamp()


def _passed(watch: CPUWatch, before: Mapping[str, float]) -> dict[str, float]:
    return {name: now - before.get(name, 0) for name, now in watch.seconds().items()}


def main() -> None:
    """Measure what is named and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="+", choices=["populate", "engines"])
    parser.add_argument("--workers", type=int, nargs="+", help="their numbers")
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3, help="of populate; medians are printed")
    parser.add_argument("--libraries", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--singles", type=int, default=5, help="keys that get a run each")
    chosen = parser.parse_args()
    # Servers are ended also when the benchmark is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if "populate" in chosen.what:
        populate(
            chosen.libraries, chosen.workers or [1, 2, 4, 8, 16, 32], chosen.keys, chosen.rounds
        )
    if "engines" in chosen.what:
        engines(chosen.engines, chosen.workers or [2], chosen.keys, chosen.singles)


if __name__ == "__main__":
    main()

"""Kills or cancels runs, kills daemon, code server, database at random; counts what became of keys.

Run it from the repository: ``uv run python -m benchmarks.faults --keys 2000 --kills 20``. It fails
when a key is lost, stuck, made twice at once, or shown otherwise than the tables have it. A second
daemon and a loop that calls `populate()` work on the same keys all the time.

With ``--engine slurm`` or ``--engine celery`` the runs are on two nodes of a real Slurm, or in two
workers of Celery, and these are killed, stopped and cut off as well, while keys are entered. It
fails too when a run is left unfinished, or the keys are shown later than `SHOWN_WITHIN` seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.engines.faults import CeleryFaults, Faults, SlurmFaults, sequence
from tests.engines.keys import Entry, check_commits, check_makes, keep_commits
from tests.engines.lab import celery_engine, engine_lab, slurm_engine
from tests.orchestration.fault_lab import fault_lab
from tests.services.database_server import DatabaseServer, database_server
from tests.services.mariadb import MariaDBServer
from tests.services.mysql import MySQLServer
from tests.services.postgres import postgres_server
from tests.services.process import eventually

SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDBServer, "mysql": MySQLServer}

SHOWN_WITHIN = 180
"""Seconds after the last fault in which all keys are shown, and all runs have ended."""

PARTS = ("run", "database", "code", "daemon", "cancel")


def faults(keys: int, kills: int, seed: int, kind: type[DatabaseServer]) -> None:
    """Insert keys, kill parts while they are made, and wait until all is as it should be."""
    chosen = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        database_server(kind, durable=True) as database,
        fault_lab(Path(folder), database, batch=250, seconds=0.01) as lab,
    ):
        lab.chosen = chosen
        began = time.monotonic()
        lab.insert(keys)
        lab.start("populate", [sys.executable, "populate.py"])
        lab.start_daemon("second daemon")
        for number in range(kills):
            # Spread over the work, so that each meets some.
            wanted = 4 * keys * number / (kills + 1)
            eventually(lambda w=wanted: len(lab.calls()) > w, timeout=900, every=0.05)
            time.sleep(chosen.uniform(0, 1.5))
            what = chosen.choice(PARTS)
            killed = lab.kill(what)
            print(f"{time.monotonic() - began:7.1f} s  {what:<9}{killed!s:<6}{lab.counts()}")
            sys.stdout.flush()
        waited = lab.await_all(keys, timeout=900)
        lost = lab.check_calls()
    print(
        f"{keys} keys in two tables, {lab.kills.total()} kills: every key once, none lost; "
        f"{lost} calls of make repeated; all shown {waited:.0f} s after the last kill"
    )


def engine_faults(
    name: str, count: int, seed: int, rate: float, kind: type[DatabaseServer], array: int
) -> None:
    """Break parts of an engine and of a lab while keys are entered; print what became of all."""
    chosen = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server(durable=True) as history,
        slurm_engine(array) if name == "slurm" else celery_engine() as engine,
    ):
        history.start()
        place = Path(folder)
        with engine_lab(engine, place, chosen, batch=100, storage=history.url, kind=kind) as lab:
            faults = (SlurmFaults if name == "slurm" else CeleryFaults)(lab, chosen, history)
            said = _survived(faults, count, rate)
    print(f"{name}, seed {seed}: {count} faults, {said}")


def _survived(faults: Faults, count: int, rate: float) -> str:
    """Break parts so many times, wait until all is well, and return what it took."""
    lab, chosen = faults.lab, faults.chosen
    keep_commits(lab.lab)
    entry = Entry(lab.lab, rate)
    entry.start()
    began = time.monotonic()
    print(f"{'at':>8}  {'took':>7}  {'fault':<26}{'of':<34}entered, made, analysed")
    for name in sequence(faults.all(), count, chosen):
        time.sleep(chosen.uniform(0, 5))
        at, fault = time.monotonic(), faults.all()[name]
        hit = eventually(fault, timeout=SHOWN_WITHIN, every=0.02)
        took, rows = time.monotonic() - at, lab.lab.counts()
        print(
            f"{at - began:6.0f} s  {took:5.1f} s  {name:<26}{hit:<34}"
            f"{', '.join(map(str, rows.values()))}"
        )
        sys.stdout.flush()
    ended, keys = time.monotonic(), entry.stop()
    lab.lab.await_all(keys, timeout=SHOWN_WITHIN)
    shown = time.monotonic() - ended
    eventually(lambda: not lab.unfinished() and not lab.engine.left(), timeout=SHOWN_WITHIN)
    over = time.monotonic() - ended
    check_commits(lab.lab, keys)
    repeated = check_makes(lab.lab, faults.stopped)
    assert over < SHOWN_WITHIN, f"shown after {shown:.0f} s, and all runs ended after {over:.0f} s"
    return (
        f"{keys} keys in two tables: each committed once, none lost; {repeated} calls of make "
        f"repeated; all shown {shown:.0f} s after the last fault, all runs ended after {over:.0f} s"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--server", choices=list(SERVERS), default="mariadb")
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--engine", choices=["slurm", "celery"])
    parser.add_argument("--rate", type=float, default=1, help="keys a second, with --engine")
    parser.add_argument("--array", type=int, default=1, help="jobs of a run, with Slurm")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    if chosen.engine:
        server = SERVERS[chosen.server]
        engine_faults(chosen.engine, chosen.kills, chosen.seed, chosen.rate, server, chosen.array)
        return
    faults(chosen.keys, chosen.kills, chosen.seed, SERVERS[chosen.server])


if __name__ == "__main__":
    main()

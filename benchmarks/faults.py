"""Kills or cancels runs, kills daemon, code server, database at random; counts what became of keys.

Run it from the repository: ``uv run python -m benchmarks.faults --keys 2000 --kills 20``. It fails
when a key is lost, stuck, made twice at once, or shown otherwise than the tables have it. A second
daemon and a loop that calls `populate()` work on the same keys all the time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.orchestration.fault_lab import fault_lab
from tests.services.database_server import DatabaseServer, database_server
from tests.services.mariadb import MariaDBServer
from tests.services.mysql import MySQLServer
from tests.services.process import eventually

SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDBServer, "mysql": MySQLServer}
PARTS = ("run", "database", "code", "daemon", "cancel")


def faults(keys: int, kills: int, seed: int, kind: type[DatabaseServer]) -> None:
    """Insert keys, kill parts while they are made, and wait until all is as it should be."""
    chosen = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        database_server(kind, durable=True) as database,
        fault_lab(Path(folder), database, batch=250, seconds=0.01) as lab,
    ):
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


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--server", choices=list(SERVERS), default="mariadb")
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    faults(chosen.keys, chosen.kills, chosen.seed, SERVERS[chosen.server])


if __name__ == "__main__":
    main()

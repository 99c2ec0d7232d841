"""How long new rows take in the demo: from INSERT to computed, `dagster dev` and daemon running.

Run it from the repository: ``uv run python -m benchmarks.demo --sessions 100``. The peer in the
same run is what a person would do by hand: `populate()` of the same tables in a loop, without
Dagster, on another empty database.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.services.dagster_dev import dagster_dev
from tests.ui.conftest import REPOSITORY, Demo

BY_HAND = """
import time
from pipelines.acquisition import record_sessions
from pipelines.lab import HeartRate, Processed, RawData
record_sessions({sessions})
import heartpy  # its import does not count
started = time.perf_counter()
for table in (RawData, Processed):
    table.populate(reserve_jobs=True)
processed = time.perf_counter() - started
HeartRate.populate(reserve_jobs=True)
print(processed, time.perf_counter() - started)
"""


def in_dagster(sessions: int, folder: Path) -> dict[str, float]:
    """Return the seconds from the rows' INSERT until each table is shown as materialised."""
    shutil.copytree(REPOSITORY / "pipelines", folder / "pipelines")
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    with dagster_dev(folder) as dev:
        demo = Demo(dev, folder)
        before = demo.partitions("processed")
        assert before["numPartitions"] == 0, before
        demo.record(sessions)
        demo.until("session", numPartitions=sessions)
        # The sensor has just seen the rows, up to 5 s after their INSERT.
        (inserted,) = demo.query('SELECT max(session_time) FROM "lab.session"')
        start = time.mktime(time.strptime(inserted, "%Y-%m-%d %H:%M:%S"))
        seconds: dict[str, float] = {}
        for table, rows in (("processed", sessions), ("heart_rate", 2 * sessions)):
            demo.until(table, timeout=600, numMaterialized=rows)
            seconds[table] = time.time() - start
        return seconds


def by_hand(sessions: int, folder: Path) -> dict[str, float]:
    """Return the seconds that `populate()` takes for the same tables."""
    command = [sys.executable, "-c", BY_HAND.format(sessions=sessions)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    processed, everything = map(float, done.stdout.split())
    return {"processed": processed, "heart_rate": everything}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100)
    sessions = parser.parse_args().sessions
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        dagster = in_dagster(sessions, Path(ours))
        hand = by_hand(sessions, Path(theirs))
    print(f"{sessions} sessions        in Dagster, s    by hand, s    ratio")
    for table, seconds in dagster.items():
        print(f"{table:<20}{seconds:>16.1f}{hand[table]:>14.2f}{seconds / hand[table]:>9.1f}")


if __name__ == "__main__":
    main()

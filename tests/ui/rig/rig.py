"""A lab of two grains in a real `dagster dev`, see `rig_pipeline`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.services.dagster_dev import dagster_dev
from tests.services.dagster_runs import STATISTICS
from tests.services.process import PATIENCE, eventually
from tests.ui.pages import RunningLab

HERE = Path(__file__).parent

SESSIONS = {1: range(1, 6), 2: range(1, 4), 3: range(1, 5)}
"""The sessions of each animal at the start."""

BROKEN = {
    "Recording 1 3": "the disk is full",
    "Recording 3 1": "no such drive",
    "Sorting 1 2 2": "no spikes above 4.0",
    "Sorting 2 1 3": "no spikes above 5.0",
}
"""Calls of `make` that fail at the start, with their errors."""

WORKSPACE = """
load_from:
  - python_file: {relative_path: rig_pipeline.py, working_directory: ., location_name: rig}
"""
FAILURES = """
query ($run: ID!) {
  logsForRun(runId: $run) {
    ... on EventConnection {
      events {
        ... on ExecutionStepFailureEvent {
          failureMetadata { metadataEntries { ... on JsonMetadataEntry { jsonString } } }
        }
      }
    }
  }
}
"""


class Rig(RunningLab):
    """A running lab: its UI and its folder."""

    def add_sessions(self, animal: int, sessions: Iterable[int]) -> None:
        """Insert sessions, as a client that knows nothing of us."""
        with (
            closing(sqlite3.connect(self.folder / "rig.sqlite", timeout=PATIENCE)) as database,
            database,
        ):
            rows = [(animal, session) for session in sessions]
            database.executemany('INSERT INTO "rig.session" VALUES (?, ?)', rows)

    def mend(self, *names: str) -> None:
        """Let `make` succeed for some of the broken keys from now on: ``"Recording 1 3"``."""
        lines = (self.folder / "broken").read_text().splitlines(keepends=True)
        left = [line for line in lines if line.partition(": ")[0] not in names]
        (self.folder / "broken").write_text("".join(left))

    def calls(self) -> Counter[str]:
        """Return how often `make` was called, by table and key."""
        path = self.folder / "calls"
        return Counter(path.read_text().splitlines() if path.exists() else [])

    def keys(self, table: str) -> list[tuple[int, ...]]:
        """Return the keys that are in a table, in their order."""
        return sorted(row if table == "session" else row[:-1] for row in self._rows(table))

    def values(self, table: str) -> dict[tuple[int, ...], int]:
        """Return what a table has made of its keys."""
        return {row[:-1]: row[-1] for row in self._rows(table)}

    def _rows(self, table: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "rig.sqlite", timeout=PATIENCE)) as database:
            return database.execute(f'SELECT * FROM "rig.{table}"').fetchall()

    def edit(self, old: str, new: str) -> None:
        """Change what is written in the file that declares the tables."""
        path = self.folder / "rig_pipeline.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def counts(self, table: str) -> tuple[int, int, int]:
        """Return how many partitions a table has, and how many are materialised and failed."""
        answer = self.dev.graphql(STATISTICS, key={"path": ["rig", table]})
        found = answer["assetNodeOrError"]["partitionStats"]
        return found["numPartitions"], found["numMaterialized"], found["numFailed"]

    def failed(self, run_id: str, table: str) -> list[str]:
        """Return the partitions of a table, ``"Sorting"``, that failed in a run."""
        events = self.dev.graphql(FAILURES, run=run_id)["logsForRun"]["events"]
        entries = [
            e for event in events if event for e in event["failureMetadata"]["metadataEntries"]
        ]
        titles = [title for entry in entries if entry for title in json.loads(entry["jsonString"])]
        found = [title.partition(" ")[2] for title in titles if title.startswith(f"rig.{table} ")]
        assert found, f"run {run_id} names nothing of {table}"
        return sorted(found)

    def until(self, **counts: tuple[int, int, int]) -> None:
        """Wait until the partition counts of some tables are as expected; see `counts`."""
        for table, expected in counts.items():
            eventually(lambda t=table, e=expected: self.counts(t) == e, every=0.5)


@contextlib.contextmanager
def running_rig(folder: Path) -> Generator[Rig]:
    """Start the lab in an empty folder, and wait until all is made that can be."""
    (folder / "workspace.yaml").write_text(WORKSPACE)
    shutil.copy(HERE / "rig_pipeline.py", folder)
    (folder / "broken").write_text("".join(f"{name}: {e}\n" for name, e in BROKEN.items()))
    shutil.copy(HERE.parents[2] / "dagster.yaml", folder)
    # It is on its own settings, whatever the developer's are.
    with dagster_dev(folder, without=[n for n in os.environ if n.startswith("DJ_")]) as dev:
        rig = Rig(dev, folder)
        for animal, sessions in SESSIONS.items():
            rig.add_sessions(animal, sessions)
        rig.until(recording=(12, 10, 2), sorting=(30, 28, 2), quality=(30, 28, 0))
        yield rig

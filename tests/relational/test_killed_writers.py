"""Writers and collectors that are killed at any step, and disks that are full or gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import dj_dagster as dj
from tests.relational import killed_writers
from tests.relational.faults_lab import check_rows, declare, value
from tests.services.process import PATIENCE

REPOSITORY = Path(__file__).parents[2]


def run(folder: Path, kind: str) -> str:
    command = [sys.executable, "-m", killed_writers.__name__, str(folder), kind]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: what a kill leaves does not depend on the disk."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("insert", 40), ("staged", 40), ("collect", 50), ("empty", 50), ("restore", 20)],
)
def test_a_kill_at_any_step_leaves_whole_rows_and_garbage_that_is_collected(
    quick_folder: Path, kind: str, steps: int
) -> None:
    result = json.loads(run(quick_folder, kind))
    print(kind, result)
    assert result["killed"] >= steps
    # The last writer came through, and those that were killed after their commit.
    assert 1 <= result["committed"] <= 5
    assert result["collected"] >= (kind not in ("collect", "empty"))


def test_a_full_disk_leaves_no_row_and_nothing_in_sight(quick_folder: Path) -> None:
    run(quick_folder, "space")


def test_a_store_that_vanishes_takes_no_rows_and_loses_none(tmp_path: Path) -> None:
    schema = killed_writers.open_schema(tmp_path)
    trace = declare(schema)
    trace.insert1({"trace_id": 1, "trace": value(1), "array": value(1)["data"]})
    store = tmp_path / "store"
    store.rename(tmp_path / "elsewhere")
    store.write_text("no folder")
    with pytest.raises(dj.ObjectError, match="Store 'raw'"):
        trace.insert1({"trace_id": 2, "trace": value(2)})
    with pytest.raises(dj.MissingExternalFile, match="trace_id=1"):
        trace.to_dicts()
    assert len(trace) == 1
    report = dj.GarbageCollector(schema, store="raw").scan()
    assert len(report.missing) == 2
    with pytest.raises(dj.ObjectError):
        dj.GarbageCollector(schema, store="raw").collect(dry_run=False, grace=0)
    store.unlink()
    (tmp_path / "elsewhere").rename(store)
    assert check_rows(trace) == 1
    schema.connection.close()

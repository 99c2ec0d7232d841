"""The same with Dagster's storage in PostgreSQL, as whoever shares an instance has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.orchestration.conftest import SETTINGS
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import run_until, run_until_quiet, statuses, tick


@pytest.fixture
def shared(postgres_url: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "home").mkdir()
    storage = {"postgres": {"postgres_url": postgres_url}}
    with dg.DagsterInstance.local_temp(
        str(tmp_path / "home"), overrides={**SETTINGS, "storage": storage}
    ) as made:
        yield made


def test_partitions_marks_and_failures_follow_the_tables(
    lab: Lab, shared: dg.DagsterInstance
) -> None:
    lab.broken = {1}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    run_until_quiet(defs, shared)
    good = partitions([0, 2, 3])
    assert statuses(defs, shared, "lab/raw_data") == {
        "MATERIALIZED": good,
        "FAILED": {partition(1)},
    }
    assert statuses(defs, shared, "lab/processed/peak")["MATERIALIZED"] == good
    (lab.Session & {"session_id": 2}).delete(prompt=False)
    tick(defs, shared)
    assert set(shared.get_dynamic_partitions("lab.Session")) == partitions([0, 1, 3])
    lab.add_sessions([2])
    run_until_quiet(defs, shared)
    assert statuses(defs, shared, "lab/raw_data")["MATERIALIZED"] == good


def test_failures_outside_are_shown_and_what_was_removed_comes_back(
    lab: Lab, shared: dg.DagsterInstance
) -> None:
    lab.broken = {1}
    lab.add_sessions(range(3))
    lab.RawData.populate(reserve_jobs=True, suppress_errors=True)
    defs = lab.definitions()
    run_until_quiet(defs, shared)
    shown = {"MATERIALIZED": partitions([0, 2]), "FAILED": {partition(1)}}
    assert statuses(defs, shared, "lab/raw_data") == shown
    shared.wipe_assets([dg.AssetKey(["lab", "raw_data"])])
    shared.delete_dynamic_partition("lab.Session", partition(2))
    run_until(defs, shared, lambda: statuses(defs, shared, "lab/raw_data") == shown)
    lab.RawData.jobs.ignore({"subject_id": 1, "session_id": 1})
    run_until_quiet(defs, shared)
    assert statuses(defs, shared, "lab/raw_data")["MISSING"] == {partition(1)}

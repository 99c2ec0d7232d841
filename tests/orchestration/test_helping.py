"""A run whose keys other processes make too: they make what is pending, and it waits for them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import dagster as dg
import pytest

from dj_dagster.launcher_tags import HELPERS_TAG
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.runs import helping
from tests.orchestration.lab import Lab, partition
from tests.orchestration.running import execute, key_of, requested, submit, tick


def in_pauses(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Do something in each pause, one after the other, instead of waiting."""
    left = iter(steps)
    monkeypatch.setattr(helping, "time", SimpleNamespace(sleep=lambda _: next(left)()))


def test_helpers_make_what_is_pending_until_the_run_ends_and_leave_failed_keys_to_it(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(3))
    lab.broken.add(0)
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    pipelines = pipelines_of(defs.sensors or ())
    in_pauses(monkeypatch, lambda: None, lambda: instance.report_run_canceled(run))
    made = helping.help_run(instance, run.run_id, pipelines)
    assert len(lab.RawData()) == len(lab.Processed()) == 2
    assert made >= 4
    assert [n for table, n in lab.calls if table == "RawData"] == [0, 1, 2]
    assert len(lab.RawData.jobs.errors) == 1
    assert instance.get_materialized_partitions(key_of("lab/raw_data")) == set()


def test_a_run_waits_for_its_helpers_and_shows_what_they_made_and_what_failed(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(4))
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    instance.add_run_tags(run.run_id, {HELPERS_TAG: f"{run.run_id} 1"})
    jobs, keys = lab.RawData.jobs, [{"subject_id": 1, "session_id": n} for n in range(3)]
    jobs.refresh(delay=-1)
    assert all(jobs.reserve(key) for key in keys)

    def make() -> None:
        lab.RawData().insert1({**keys[1], "data": [1]}, allow_direct_insert=True)
        jobs.complete(keys[1])

    in_pauses(
        monkeypatch,
        lambda: jobs.error(keys[0], "ValueError: the helper could not read it"),
        make,
        # Lost: its key is free again.
        lambda: jobs.release(keys[2]),
    )
    run = instance.get_run_by_id(run.run_id) or run
    assert not execute(defs, instance, run)
    assert [n for table, n in lab.calls if table == "RawData"] == [3, 2]
    raw = key_of("lab/raw_data")
    assert instance.get_materialized_partitions(raw) == {partition(n) for n in (1, 2, 3)}
    (failed, *_) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert "the helper could not read it" in failed.to_json()

"""The job that collects garbage, and its schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dj_dagster as dj
from dj_dagster.orchestration import build_definitions, garbage_job, garbage_schedule
from tests.lab import connect


@pytest.fixture
def schema(tmp_path: Path) -> Iterator[dj.Schema]:
    """Three objects of which one has a row."""
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    schema = dj.Schema("lab", connection=connection)

    @schema
    class Trace(dj.Manual):
        definition = """
        trace_id : int32
        ---
        trace : <blob@>
        """

    Trace.insert({"trace_id": n, "trace": [n] * 100} for n in range(3))
    (Trace & "trace_id > 0").delete()
    for path in connection.stores.get().list():
        os.utime(connection.stores.get().full_path(path), (0, 0))
    yield schema
    connection.close()


def run(schema: dj.Schema, instance: dg.DagsterInstance, **config: Any) -> Any:
    job = build_definitions(schema, jobs=[garbage_job(schema)]).resolve_job_def("collect_garbage")
    ops = {"collect_garbage_of_stores": {"config": config}}
    return job.execute_in_process({"ops": ops}, instance=instance, raise_on_error=False)


def figures(result: Any) -> dict[str, Any]:
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    return {name: entry.value for name, entry in event.step_output_data.metadata.items()}


def test_what_was_found_and_freed_is_shown(schema: dj.Schema, instance: dg.DagsterInstance) -> None:
    listed = figures(run(schema, instance, delete=False))
    assert (listed["objects_in_use"], listed["objects_garbage"]) == (1, 2)
    assert (listed["objects_deleted"], len(listed["garbage"])) == (0, 2)
    freed = figures(run(schema, instance))
    assert (freed["objects_deleted"], freed["bytes_deleted"]) == (2, listed["bytes_garbage"])
    assert (freed["files_in_trash"], freed["bytes_freed"]) == (2, 0)
    last = figures(run(schema, instance, keep=0.0))
    assert (last["objects_garbage"], last["files_in_trash"]) == (0, 0)
    assert last["bytes_freed"] == listed["bytes_garbage"]


def test_lost_objects_fail_the_job(schema: dj.Schema, instance: dg.DagsterInstance) -> None:
    store = schema.connection.stores.get()
    store.delete_many(list(store.list()))
    result = run(schema, instance)
    assert not result.success
    failure = result.failure_data_for_node("collect_garbage_of_stores")
    assert "1 object that rows refer to cannot be found" in str(failure)


def test_a_schedule_runs_it(schema: dj.Schema) -> None:
    schedule = garbage_schedule(schema, "0 3 * * *")
    defs = build_definitions(schema, schedules=[schedule])
    found = defs.resolve_schedule_def("collect_garbage_schedule")
    assert (found.cron_schedule, found.job_name) == ("0 3 * * *", "collect_garbage")

"""Damage in tables and stores, as a job with its schedule and as a check of each table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.orchestration import (
    TableChecks,
    build_definitions,
    check_job,
    check_schedule,
    sync,
    trace,
)
from dj_dagster.orchestration.headless import run_assets
from tests.lab import connect
from tests.orchestration.running import tick


@pytest.fixture
def schema(tmp_path: Path) -> Iterator[dj.Schema]:
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    schema = dj.Schema("lab", connection=connection)

    @schema
    class Session(dj.Manual):
        definition = "session : int32"

    @schema
    class Trace(dj.Computed):
        definition = """
        -> Session
        ---
        trace : <npy@>
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "trace": np.arange(3)})

    Session.insert1((1,))
    Trace.populate()
    yield schema
    connection.close()


def damage(schema: dj.Schema) -> None:
    store = schema.connection.stores.get()
    (path,) = store.list("_schema")
    data = bytearray(store.get(path))
    data[-1] ^= 1
    store.put(path, bytes(data))


def run(schema: dj.Schema, instance: dg.DagsterInstance, **config: Any) -> Any:
    job = build_definitions(schema, jobs=[check_job(schema)]).resolve_job_def("check_schemas")
    ops = {"check_rows_and_objects": {"config": config}}
    return job.execute_in_process({"ops": ops}, instance=instance, raise_on_error=False)


def test_the_job_fails_when_there_is_damage(
    schema: dj.Schema, instance: dg.DagsterInstance
) -> None:
    assert run(schema, instance).success
    damage(schema)
    assert run(schema, instance, read_data=False).success
    result = run(schema, instance)
    assert not result.success
    failure = str(result.failure_data_for_node("check_rows_and_objects"))
    assert "1 findings, the first: lab.__trace.trace: (session=1)" in failure
    schedule = check_schedule(schema, "0 4 * * 0")
    assert (schedule.cron_schedule, schedule.job.name) == ("0 4 * * 0", "check_schemas")


def test_the_check_of_a_table_runs_when_it_is_asked_for(
    schema: dj.Schema, instance: dg.DagsterInstance
) -> None:
    damage(schema)
    assert "intact" not in {key.name for key in check_keys(build_definitions(schema))}
    defs = build_definitions(schema, checks=TableChecks(intact="data"))
    key = dg.AssetCheckKey(dg.AssetKey(["lab", "trace"]), "intact")
    assert key in check_keys(defs)
    history = instance.event_log_storage.get_asset_check_execution_history
    for _ in range(3):
        tick(defs, instance)
    assert history(dg.AssetCheckKey(key.asset_key, "complete"), limit=1)
    assert history(key, limit=1) == []
    run_assets(defs, [], instance=instance, checks=[key])
    (record,) = history(key, limit=1)
    assert record.evaluation is not None
    assert not record.evaluation.passed
    numbers = {name: each.value for name, each in record.evaluation.metadata.items()}
    assert numbers["findings"] == 1
    assert "session=1" in str(numbers["first"])


def check_keys(defs: dg.Definitions) -> set[dg.AssetCheckKey]:
    return {key for each in defs.asset_checks or () for key in each.check_keys}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: check_job("lab"), "The argument schemas is 'lab': give schemas"),
        (lambda: check_schedule("0 5 * * 0", "lab"), "The argument schemas is '0 5"),
        (
            lambda: check_schedule(["lab"], "0 5 * * 0"),
            "The argument schemas is 'lab': give schemas",
        ),
        (lambda: trace("lab.Spikes"), "The argument result is 'lab.Spikes': give a table"),
        (lambda: sync("lab"), "The argument definitions is 'lab': give what build_definitions"),
        (lambda: list(dj.check_schema("lab")), r"check_schema\('lab'\): give a schema"),
    ],
)
def test_arguments_of_another_kind_are_refused(use: Any, words: str) -> None:
    with pytest.raises(dj.ConfigurationError, match=words):
        use()

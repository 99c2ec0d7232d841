"""What a run works with is noted, and code that is not what the run was planned with is told."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

import dj_dagster as dj
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.orchestration import SensorSettings, TableProps, TableTranslator
from dj_dagster.orchestration.runs import run_records
from dj_dagster.orchestration.runs.node_code import OTHER_CODE_TAG
from dj_dagster.orchestration.runs.run_records import VERSIONS_TAG
from tests.orchestration.lab import Lab, declare_lab
from tests.orchestration.running import create_run, execute, requested, submit, tick


class Of(TableTranslator):
    """The tables as a code location with another version of their code has them."""

    def __init__(self, version: str) -> None:
        self._version = version

    def get_asset_spec(self, props: TableProps) -> dg.AssetSpec:
        spec = super().get_asset_spec(props)
        changed = spec.code_version and props.title.endswith("RawData")
        return spec.replace_attributes(code_version=self._version) if changed else spec


@pytest.fixture
def settings() -> dict[str, Any]:
    """The settings of jobs, which a connection reads each time."""
    return {"packages": ("pydantic", "no-such-package")}


@pytest.fixture
def lab(settings: dict[str, Any]) -> Lab:
    connection = dj.Connection("sqlite:///:memory:", jobs=lambda: JobSettings(**settings))
    lab = declare_lab(connection, "lab")
    lab.add_sessions(range(2))
    return lab


def tags_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    now = instance.get_run_by_id(run.run_id)
    assert now is not None
    return dict(now.tags)


def test_a_run_has_the_versions_that_it_works_with(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = lab.definitions()
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    assert execute(defs, instance, run)
    noted = dict(each.split() for each in tags_of(instance, run)[VERSIONS_TAG].split(", "))
    assert noted["dagster"] == dg.__version__
    assert noted["no-such-package"] == "missing"
    assert {"python", "dj-dagster", "numpy", "sqlalchemy", "pydantic"} < set(noted)
    assert OTHER_CODE_TAG not in tags_of(instance, run)


def test_the_versions_of_another_process_in_which_a_run_goes_on_are_noted_too(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    run = create_run(lab.definitions(), instance, [])
    for versions in ("python 1", "python 1", "python 2"):
        run_records.note_process(instance, run, versions)
        instance.add_run_tags(run.run_id, {run_records.PROCESS_TAG: f"{run.run_id} here"})
        run = instance.get_run_by_id(run.run_id) or run
    assert run.tags[VERSIONS_TAG] == "python 1; python 2"


def test_other_code_than_planned_is_told_by_default(lab: Lab, instance: dg.DagsterInstance) -> None:
    planned, node = (lab.definitions(translator=Of(version)) for version in ("old", "new"))
    (request,) = requested(tick(planned, instance))
    run = submit(planned, instance, request)
    assert execute(node, instance, run)
    assert len(lab.RawData()) == 2
    said = tags_of(instance, run)[OTHER_CODE_TAG]
    assert said == f"{run.run_id} used: lab.RawData has version new and was planned with old"


@pytest.mark.parametrize("job", ["assets", "populate"])
def test_other_code_than_planned_is_refused_where_the_settings_say_so(
    lab: Lab, instance: dg.DagsterInstance, settings: dict[str, Any], job: str
) -> None:
    settings["on_other_code"] = "refuse"
    planned, node = (lab.definitions(translator=Of(version)) for version in ("old", "new"))
    if job == "assets":
        (request,) = requested(tick(planned, instance))
        run = submit(planned, instance, request)
        assert not execute(node, instance, run)
    else:
        run = instance.create_run_for_job(planned.resolve_job_def("populate"))
        made = execute_run(InMemoryJob(node.resolve_job_def("populate")), run, instance)
        assert not made.success
    assert (len(lab.RawData()), lab.calls) == (0, [])
    (failed, *_) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert "has version new and was planned with old" in failed.to_json()


def test_refused_keys_are_asked_for_until_a_node_has_the_code(
    lab: Lab,
    instance: dg.DagsterInstance,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings["on_other_code"] = "refuse"
    planned, node = (
        lab.definitions(translator=Of(version), sensor_settings=SensorSettings(attempts=1))
        for version in ("new", "old")
    )
    for _ in range(2):
        (request,) = requested(tick(planned, instance))
        assert not execute(node, instance, submit(planned, instance, request))
        monkeypatch.setattr(run_records, "PAUSE", 60.0)
        assert requested(tick(planned, instance)) == []
        monkeypatch.setattr(run_records, "PAUSE", 0.0)
    (request,) = requested(tick(planned, instance))
    assert execute(planned, instance, submit(planned, instance, request))
    assert len(lab.RawData()) == 2

"""The job that populates from the launchpad."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dj_dagster.orchestration import TableProps, TableTranslator, Work
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import requested, statuses, tick


def launch(
    defs: dg.Definitions, instance: dg.DagsterInstance, **config: Any
) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {"populate_tables": {"config": config}}} if config else {}
    job = defs.resolve_job_def("populate")
    return job.execute_in_process(run_config, instance=instance, raise_on_error=False)


def error_text(result: dg.ExecuteInProcessResult) -> str:
    return str(result.failure_data_for_node("populate_tables"))


def test_as_it_stands_it_makes_everything(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(3))
    defs = any_lab.definitions()
    assert launch(defs, instance).success
    assert len(any_lab.Processed()) == 3
    assert len(any_lab.Filtered()) == 6
    for table in ("raw_data", "processed", "processed/peak", "filtered"):
        assert set(statuses(defs, instance, any_lab.asset(table))) == {"MATERIALIZED"}
    assert requested(tick(defs, instance)) == []


@pytest.mark.parametrize("name", ["RawData", "lab.RawData", "lab/raw_data"])
def test_tables_are_chosen_by_name(lab: Lab, instance: dg.DagsterInstance, name: str) -> None:
    lab.add_sessions(range(2))
    assert launch(lab.definitions(), instance, tables=[name]).success
    assert {table for table, _ in lab.calls} == {"RawData"}


@pytest.mark.parametrize(
    "restriction", [{"session_id": 2}, "session_id = 2", [{"session_id": 2}, {"session_id": 9}]]
)
def test_keys_are_chosen_by_restriction(
    lab: Lab, instance: dg.DagsterInstance, restriction: Any
) -> None:
    lab.add_sessions(range(4))
    defs = lab.definitions()
    assert launch(defs, instance, restriction=restriction).success
    assert statuses(defs, instance, "lab/processed")["MATERIALIZED"] == {partition(2)}
    assert len(lab.RawData()) == 1


@pytest.mark.parametrize("restriction", [{"sesion_id": 2}, [{"session_id": 2}, {"sesion_id": 2}]])
def test_a_restriction_by_a_name_that_no_table_has_is_refused(
    lab: Lab, instance: dg.DagsterInstance, restriction: Any
) -> None:
    lab.add_sessions(range(2))
    result = launch(lab.definitions(), instance, restriction=restriction, on_existing="recompute")
    assert "no table here has an attribute 'sesion_id'" in error_text(result)
    assert lab.calls == []


@pytest.mark.parametrize("on_existing", ["skip", "recompute"])
@pytest.mark.parametrize("restriction", [{"filter_id": 1}, [{"session_id": 1}, {"filter_id": 1}]])
def test_a_restriction_that_means_nothing_to_a_table_is_refused(
    lab: Lab, instance: dg.DagsterInstance, restriction: Any, on_existing: str
) -> None:
    lab.add_sessions(range(2))
    lab.RawData.populate()
    lab.calls.clear()
    result = launch(lab.definitions(), instance, restriction=restriction, on_existing=on_existing)
    assert "Cannot populate lab._raw_data" in error_text(result)
    assert lab.calls == []
    assert len(lab.RawData()) == 2


@pytest.mark.parametrize("on_existing", ["skip", "recompute"])
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"tables": []}, "An empty list of tables is none: name some, or write 'all'."),
        ({"tables": ["all"]}, "names no table"),
        ({"restriction": {}}, "A restriction of {} restricts nothing"),
        ({"restriction": None}, "A restriction of None restricts nothing"),
        ({"restriction": " "}, "A restriction of ' ' restricts nothing"),
        ({"restriction": [{"session_id": 1}, {}]}, "A restriction of {} restricts nothing"),
        ({"limit": 0}, "limit is 0: write 1 or more"),
    ],
)
def test_nothing_is_not_everything(
    lab: Lab, instance: dg.DagsterInstance, config: dict[str, Any], said: str, on_existing: str
) -> None:
    lab.add_sessions(range(2))
    defs = lab.definitions()
    lab.RawData.populate()
    lab.calls.clear()
    assert said in error_text(launch(defs, instance, on_existing=on_existing, **config))
    assert lab.calls == []
    assert len(lab.RawData()) == 2


def test_an_empty_list_of_keys_makes_nothing(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(2))
    for on_existing in ("skip", "recompute"):
        assert launch(lab.definitions(), instance, restriction=[], on_existing=on_existing).success
    assert lab.calls == []


def test_all_tables_have_a_word(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(2))
    assert launch(lab.definitions(), instance, tables="all").success
    assert {table for table, _ in lab.calls} == {"RawData", "Processed", "Filtered"}


def test_tables_are_made_in_the_processes_that_the_translator_says(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    class Apart(TableTranslator):
        def get_work(self, props: TableProps) -> Work:
            return Work(isolate=props.title == "lab.RawData")

    lab.add_sessions(range(2))
    assert launch(lab.definitions(translator=Apart()), instance).success
    assert len(lab.RawData()) == 2
    # What another process does to `calls` stays there.
    assert {table for table, _ in lab.calls} == {"Processed", "Filtered"}


def test_keys_are_limited_per_table(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(4))
    assert launch(lab.definitions(), instance, tables=["RawData", "Processed"], limit=2).success
    assert lab.calls == [("RawData", 0), ("RawData", 1), ("Processed", 0), ("Processed", 1)]


def test_failing_keys_fail_the_job_at_its_end_and_are_shown(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.broken = {1}
    lab.add_sessions(range(3))
    defs = lab.definitions()
    result = launch(defs, instance)
    assert not result.success
    assert "no file session1.csv" in error_text(result)
    assert statuses(defs, instance, "lab/raw_data") == {
        "MATERIALIZED": partitions([0, 2]),
        "FAILED": {partition(1)},
    }
    assert statuses(defs, instance, "lab/processed")["MATERIALIZED"] == partitions([0, 2])


def test_errors_are_retried_when_asked(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.broken = {1}
    lab.add_sessions(range(3))
    defs = lab.definitions()
    launch(defs, instance)
    lab.broken = set()
    assert launch(defs, instance).success
    assert len(lab.RawData()) == 2
    assert launch(defs, instance, retry_errors=True).success
    assert len(lab.Processed()) == 3
    assert set(statuses(defs, instance, "lab/raw_data")) == {"MATERIALIZED"}


@pytest.mark.parametrize("name", ["Nothing", "Session"])
def test_a_name_of_no_table_lists_those_there_are(
    lab: Lab, instance: dg.DagsterInstance, name: str
) -> None:
    result = launch(lab.definitions(), instance, tables=[name])
    assert "lab.RawData, lab.Processed, lab.Filtered" in error_text(result)

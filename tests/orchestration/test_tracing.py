"""From a result to what people entered."""

from __future__ import annotations

import dagster as dg
import pytest

from dj_dagster.errors import QueryError
from dj_dagster.orchestration import trace
from tests.orchestration.lab import Lab, partition


@pytest.fixture
def filled(any_lab: Lab) -> Lab:
    any_lab.add_sessions(range(3))
    for table in (any_lab.RawData, any_lab.Processed, any_lab.Filtered):
        table.populate()
    return any_lab


def test_a_result_is_traced_to_its_manual_inputs(filled: Lab) -> None:
    name = filled.schema.name
    found = trace(filled.Filtered & {"session_id": 1, "filter_id": 2})
    titles = [(table.title.removeprefix(f"{name}."), table.count) for table in found.tables]
    assert titles[0] == ("Filtered", 1)
    assert sorted(titles) == [
        ("FilterParams", 1),
        ("Filtered", 1),
        ("RawData", 1),
        ("Session", 1),
        ("Subject", 1),
    ]
    assert (
        titles.index(("RawData", 1)) < titles.index(("Session", 1)) < titles.index(("Subject", 1))
    )
    assert str(found).startswith(
        f"{name}.Filtered (computed, 1)\n  subject_id=1, session_id=1, filter_id=2\n"
    )
    assert f"{name}.Subject (manual, 1)\n  subject_id=1" in str(found)


def test_several_results_and_many_rows(filled: Lab) -> None:
    found = {table.title.split(".")[-1]: table for table in trace(filled.Processed).tables}
    assert found["Session"].count == 3
    assert found["Subject"].rows == [{"subject_id": 1}]


def test_a_row_that_is_not_there(filled: Lab) -> None:
    with pytest.raises(QueryError, match="has no such row"):
        trace(filled.Processed & {"session_id": 9})


def test_the_job_shows_it_in_the_ui(filled: Lab, instance: dg.DagsterInstance) -> None:
    job = filled.definitions().resolve_job_def("trace")
    config = {"table": "Processed", "partition": partition(2)}
    result = job.execute_in_process({"ops": {"trace_rows": {"config": config}}}, instance=instance)
    (event,) = result.get_step_success_events()
    (output,) = (e for e in result.all_events if e.event_type_value == "STEP_OUTPUT")
    text = output.step_output_data.metadata["trace"].value
    assert event.step_key == "trace_rows"
    assert f"| {filled.schema.name}.Subject | manual | 1 | subject_id=1 |" in text

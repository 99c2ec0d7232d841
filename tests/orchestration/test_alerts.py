"""The recipe by which people are told of failed keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dj_dagster.orchestration import build_definitions
from dj_dagster.orchestration.headless import run_until_idle
from tests.orchestration.lab import Lab

PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that are sent, instead of being sent."""
    requests: list[Any] = []
    monkeypatch.setenv("SLACK_WEBHOOK", "https://hooks.lab.org/1")
    monkeypatch.setenv("DAGSTER_URL", "https://dagster.lab.org")
    monkeypatch.setattr("urllib.request.urlopen", lambda sent, timeout: requests.append(sent))
    return requests


def test_the_recipe_tells_the_failed_keys_with_their_errors(
    lab: Lab, instance: dg.DagsterInstance, sent: list[Any]
) -> None:
    recipe, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    written: dict[str, Any] = {}
    exec(recipe, written)
    sensor = written["tell_slack"]
    defs = build_definitions(lab.schema, sensors=[sensor])
    lab.add_sessions([1, 2])
    lab.broken.add(1)
    failed = [run for run in run_until_idle(defs, instance=instance) if not run.is_success]
    assert failed
    run = failed[0]
    (event,) = (
        record.event_log_entry.dagster_event
        for record in instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE
        ).records
    )
    assert event is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="tell_slack", dagster_instance=instance, dagster_run=run, dagster_event=event
    )
    sensor(context.for_run_failure())
    (request,) = sent
    assert request.full_url == "https://hooks.lab.org/1"
    first, second, link = json.loads(request.data)["text"].split("\n")
    assert first == "Failed keys: 1"
    assert second.startswith("lab.RawData ")
    assert "session_id=1" in second
    assert link == f"https://dagster.lab.org/runs/{run.run_id}"

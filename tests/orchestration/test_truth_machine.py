"""What is made and shown is what should be, after anything that may happen to a pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orchestration.truth_cases import CASES
from tests.orchestration.truth_machine import replay, run_machine
from tests.orchestration.truth_player import PATIENCE, Act
from tests.orchestration.truth_world import Bench

HISTORIES, STEPS = 1, 20


@pytest.fixture
def bench(database_url: str, dagster_home: Path, tmp_path: Path) -> Bench:
    """A bench on SQLite, then on each server."""
    on_file = database_url.startswith("sqlite")
    return Bench(None if on_file else database_url, dagster_home, tmp_path)


def test_new_histories(bench: Bench, seed_of_commit: int) -> None:
    # The failure names the history: it is to be added to the cases.
    done = run_machine(bench, seed_of_commit, HISTORIES, STEPS)
    assert done["quiet"]


@pytest.mark.parametrize("history", CASES.values(), ids=CASES.keys())
def test_histories_that_failed_once(bench: Bench, history: list[Act]) -> None:
    replay(bench, history, patience=PATIENCE)

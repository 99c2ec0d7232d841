"""What becomes of a run by the state in which Slurm says that its job has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from dj_dagster.slurm.commands import Job, Slurm
from dj_dagster.slurm.health import Fate, judge
from dj_dagster.slurm.resources import requested
from dj_dagster.slurm.settings import Settings


class Said(Slurm):
    """A Slurm that knows one job, which has ended."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self._state = state

    def job(self, number: str, *, now: bool = False) -> Job | None:
        return Job(number, self._state, "dagster-1-1", "node1", "1:00:00", "500M", "None")

    def exit_code(self, number: str) -> str:
        return "0:125"


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("OUT_OF_MEMORY", {"dj-slurm/memory": "1500M"}),
        ("TIMEOUT", {"dj-slurm/time": "180:00"}),
        ("NODE_FAIL", {}),
    ],
)
def test_a_run_goes_on_with_more_of_what_its_job_lacked_where_that_is_told(
    tmp_path: Path, state: str, more: dict[str, str]
) -> None:
    said = Settings(tmp_path, {}, resume_after=frozenset([state]), growth=3)
    verdict = judge(Said(state), "7", tmp_path / "1.out", said)
    assert (verdict.fate, verdict.more) == (Fate.LOST, more)
    # The run's tags have the last word when it is submitted again.
    asked = requested({"memory": "500", "time": "1:00:00"}, {}, verdict.more)
    assert asked == {"memory": "500", "time": "1:00:00"} | {
        name.removeprefix("dj-slurm/"): value for name, value in more.items()
    }
    unsaid = Settings(tmp_path, {}, resume_after=frozenset(), growth=3)
    verdict = judge(Said(state), "7", tmp_path / "1.out", unsaid)
    assert (verdict.fate, verdict.more) == (Fate.FAILED, {})
    assert f"Slurm job 7 is {state} on node1, exit code 0:125" in verdict.message

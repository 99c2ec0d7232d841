"""What Slurm says of jobs, what becomes of a run by it, and the launcher's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInvalidConfigError

from dj_dagster.slurm.commands import Job, Slurm
from dj_dagster.slurm.health import Fate, judge
from dj_dagster.slurm.resources import requested
from dj_dagster.slurm.settings import Settings, config_type, read_settings


class Said(Slurm):
    """A Slurm that knows one job, which has ended."""

    def __init__(self, state: str, time_limit: str = "1:00:00") -> None:
        super().__init__()
        self._state, self._time_limit = state, time_limit

    def job(self, number: str, *, now: bool = False) -> Job | None:
        return Job(number, self._state, "dagster-1-1", "node1", self._time_limit, "500M", "None")

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


@pytest.mark.parametrize("limit", ["", "INVALID", "NOT_SET", "Partition_Limit", "UNLIMITED"])
def test_a_limit_that_is_not_a_time_is_not_raised(tmp_path: Path, limit: str) -> None:
    settings = Settings(tmp_path, {}, resume_after=frozenset(["TIMEOUT"]))
    verdict = judge(Said("TIMEOUT", limit), "7", tmp_path / "1.out", settings)
    assert (verdict.fate, verdict.more) == (Fate.LOST, {})


@pytest.mark.parametrize("name", ["time", "memory"])
def test_a_step_without_a_limit_is_not_given_that_of_another(name: str) -> None:
    steps = {each: {f"dj-slurm/{name}": each} for each in ("0", "90")}
    assert requested({}, steps, {}) == {name: "0"}


def test_odd_jobs_of_the_same_user_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may be anything that a file system takes, and a reason several lines."""
    lines = [
        b"3|RUNNING|two\nlines|node1|1:00|1G|None",
        b"4|RUNNING|m\xfcller|node1|1:00|1G|None",
        "5|RUNNING|one\u2028line|node1|1:00|1G|None".encode(),
        b"7|PENDING|dagster-1-1||1:00|1G|Held by\nsomebody|else",
    ]
    (tmp_path / "printed").write_bytes(b"\n".join([*lines, b"", b""]))
    (tmp_path / "squeue").write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/printed\n")
    (tmp_path / "squeue").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = Slurm().jobs()
    assert sorted(found) == ["4", "5", "7"]
    assert str(found["7"]) == "Slurm job 7 is PENDING (Held by)"
    assert found["5"].name == "one\u2028line"


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": " "},
        {"folder": "jobs"},
        {"folder": "~nobody-of-that-name/jobs"},
        {"growth": 0.0},
        {"growth": -1.0},
        {"growth": float("nan")},
        {"poll_seconds": 0},
        {"retries": -1},
        {"cpus": 0},
        {"time": "soon"},
    ],
)
def test_settings_that_make_no_sense_are_refused_when_they_are_read(wrong: dict[str, Any]) -> None:
    plain = {
        name: field.default_value for name, field in config_type().items() if field.default_provided
    }
    config = {"folder": "/shared", **plain}
    assert read_settings(config).growth == 2
    (name,) = wrong
    with pytest.raises(
        DagsterInvalidConfigError, match=rf"{name} of the run launcher is .*: write "
    ):
        read_settings({**config, **wrong})


@pytest.mark.parametrize(
    "option", ["--array=1-3", "--arr", "-a", "-o/tmp/out", "--chdir=/tmp", "--wait", "-Jmine"]
)
def test_options_that_the_launcher_sets_itself_are_refused(option: str) -> None:
    plain = {
        name: field.default_value for name, field in config_type().items() if field.default_provided
    }
    config = {"folder": "/shared", **plain}
    kept = ["--constraint=avx2", "-x", "node1", "--wait-all-nodes=1"]
    assert read_settings({**config, "options": kept}).options == tuple(kept)
    with pytest.raises(DagsterInvalidConfigError, match=f"'{option}': leave it out"):
        read_settings({**config, "options": [*kept, option]})

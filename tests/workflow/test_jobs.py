"""The job queue: claims, failures, dead workers, and several processes on one table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow.populate import pending_keys, populate_keys
from tests.services.process import PATIENCE

TABLES = """
import os
import time
from pathlib import Path

import dj_dagster as dj


def declare(url, name, folder, seconds):
    connection = dj.Connection(url, safemode=False)
    schema = dj.Schema(name, connection=connection)

    @schema
    class Recording(dj.Manual):
        definition = '''
        number : int32
        '''

    @schema
    class Result(dj.Computed):
        definition = '''
        -> Recording
        ---
        worker : int32
        '''

        def make(self, key):
            with open(Path(folder) / "calls", "a") as calls:
                calls.write(f"{key['number']}\\n")
            time.sleep(seconds)
            self.insert1({**key, "worker": os.getpid()})

    return Recording, Result
"""
WORKER = (
    TABLES
    + """
import sys

recording, result = declare(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
print("ready", flush=True)
input()
print(result.populate(reserve_jobs=True))
"""
)


class Lab:
    """The tables of `TABLES` here and in workers, which run as processes."""

    def __init__(self, url: str, name: str, folder: Path) -> None:
        self.arguments = [url, name, str(folder)]
        self.folder = folder
        (folder / "worker.py").write_text(WORKER)
        names: dict[str, Any] = {"__name__": __name__}
        exec(TABLES, names)  # the same text as in the workers
        self.recording, self.result = names["declare"](*self.arguments, 0)

    def worker(self, seconds: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, self.folder / "worker.py", *self.arguments, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def start(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def calls(self) -> list[int]:
        file = self.folder / "calls"
        return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def lab(database_url: str, schema_prefix: str, tmp_path: Path) -> Lab:
    return Lab(database_url, f"{schema_prefix}lab", tmp_path)


def test_two_processes_make_no_key_twice(lab: Lab) -> None:
    lab.recording.insert([(n,) for n in range(40)])
    workers = [lab.worker(0.01) for _ in range(2)]
    for worker in workers:
        lab.start(worker)
    results = [worker.communicate(timeout=PATIENCE) for worker in workers]
    assert sorted(lab.calls()) == list(range(40)), results
    assert len(lab.result) == 40
    assert [worker.returncode for worker in workers] == [0, 0], results
    assert lab.result.jobs.to_dicts() == []


def test_key_of_a_killed_process_is_pending_again(lab: Lab) -> None:
    lab.recording.insert([(n,) for n in range(3)])
    worker = lab.worker(60)
    lab.start(worker)
    deadline = time.monotonic() + PATIENCE
    while not lab.calls() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lab.calls() == [0]
    (job,) = lab.result.jobs.reserved.to_dicts()
    assert (job["number"], job["pid"], job["reserved_time"] is None) == (0, worker.pid, False)
    assert [key["number"] for key in pending_keys(lab.result())] == [1, 2]
    assert [o.status for o in populate_keys(lab.result(), [{"number": 0}])] == ["reserved"]
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=PATIENCE)
    assert len(lab.result) == 0
    assert [key["number"] for key in pending_keys(lab.result())] == [0, 1, 2]
    assert [o.status for o in populate_keys(lab.result())] == ["made"] * 3
    assert lab.calls() == [0, 0, 1, 2]


def test_failed_key_waits_for_a_retry(schema: Any, tmp_path: Path) -> None:
    @schema
    class Recording(dj.Manual):
        definition = """
        name : varchar(8)
        """

    @schema
    class Result(dj.Computed):
        definition = """
        -> Recording
        """

        def make(self, key: dict[str, Any]) -> None:
            if not (tmp_path / key["name"]).exists():
                raise FileNotFoundError(f"no file \udcff {'x' * 3000}")
            self.insert1(key)

    Recording.insert([("a",), ("b",)])
    (tmp_path / "a").touch()
    outcomes = {o.key["name"]: o for o in populate_keys(Result())}
    assert {name: o.status for name, o in outcomes.items()} == {"a": "made", "b": "failed"}
    assert "FileNotFoundError" in outcomes["b"].traceback
    assert "in make" in outcomes["b"].traceback
    (job,) = Result.jobs.errors.to_dicts()
    assert job["name"] == "b"
    assert job["error_message"].startswith("FileNotFoundError: no file \\udcff xxx")
    assert job["error_message"].endswith("...truncated")
    assert len(job["error_message"]) == 2047
    assert "in make" in job["error_stack"]
    assert job["completed_time"] is not None

    (tmp_path / "b").touch()
    assert pending_keys(Result()) == []
    assert list(populate_keys(Result())) == []
    assert [o.status for o in populate_keys(Result(), [{"name": "b"}])] == ["reserved"]
    assert pending_keys(Result(), retry_errors=True) == [{"name": "b"}]
    retried = populate_keys(Result(), [{"name": "b"}, {"name": "a"}], retry_errors=True)
    assert [o.status for o in retried] == ["made", "present"]
    assert Result.jobs.to_dicts() == []


def test_interrupted_make_gives_its_key_back(schema: Any) -> None:
    @schema
    class Recording(dj.Manual):
        definition = """
        number : int32
        """

    @schema
    class Result(dj.Computed):
        definition = """
        -> Recording
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)
            raise KeyboardInterrupt

    Recording.insert([(1,), (2,)])
    with pytest.raises(KeyboardInterrupt):
        Result.populate(reserve_jobs=True, suppress_errors=True)
    assert len(Result) == 0
    assert [job["status"] for job in Result.jobs.to_dicts()] == ["pending", "pending"]
    assert len(pending_keys(Result())) == 2


def test_keys_of_single_precision_are_claimed_and_made(schema: Any) -> None:
    @schema
    class Gain(dj.Manual):
        definition = """
        gain : float32
        """

    @schema
    class Amplified(dj.Computed):
        definition = """
        -> Gain
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Gain.insert([(0.1,), (1.5,), (16777216.0,)])
    result = Amplified.populate(reserve_jobs=True, max_calls=10)
    assert result["success_count"] == 3
    assert len(Amplified & Gain.keys()) == 3


def test_ignored_keys_are_left_out(schema: Any) -> None:
    @schema
    class Recording(dj.Manual):
        definition = """
        number : int32
        """

    @schema
    class Result(dj.Computed):
        definition = """
        -> Recording
        """

        def make(self, key: dict[str, Any]) -> None:
            raise ValueError("bad")

    Recording.insert([(1,), (2,)])
    assert Result.populate(reserve_jobs=True, suppress_errors=True)["success_count"] == 0
    with Result.connection.cursor() as session:
        sqlite = Result.connection.backend.name == "sqlite"
        queue = f'"{schema.name}.~~result"' if sqlite else f"`{schema.name}`.`~~result`"
        session.exec_driver_sql(f"UPDATE {queue} SET status = 'ignore' WHERE number = 1")
    assert pending_keys(Result(), retry_errors=True) == [{"number": 2}]
    statuses = [
        o.status for o in populate_keys(Result(), [{"number": 1}, {"number": 2}], retry_errors=True)
    ]
    assert statuses == ["reserved", "failed"]
    assert "~~result" not in " ".join(schema.list_tables())
    assert Recording.delete() == 2


def test_queue_is_laid_out_as_datajoint_does(server_url: str, tmp_path: Path) -> None:
    lab = Lab(server_url, "t_queue_lab", tmp_path)
    try:
        assert lab.result.jobs.stored.heading.names == [
            "number", "status", "priority", "created_time", "scheduled_time", "reserved_time",
            "completed_time", "duration", "error_message", "error_stack", "user", "host", "pid",
            "connection_id", "version",
        ]  # fmt: skip
        with lab.result.connection.cursor() as session:
            sql = session.exec_driver_sql("SHOW CREATE TABLE t_queue_lab.`~~result`").one()[1]
        for part in (
            "enum('pending','reserved','success','error','ignore') NOT NULL",
            "KEY `status` (`status`,`priority`,`scheduled_time`)",
            "COMMENT='Job queue for `t_queue_lab`.`__result`'",
            "COMMENT ':<blob>:'",
            "DEFAULT current_timestamp(3)",
        ):
            assert part.lower() in sql.lower()
    finally:
        dj.Schema("t_queue_lab", connection=lab.result.connection).drop()


def test_process_of_this_test_is_alive(lab: Lab) -> None:
    lab.recording.insert1((1,))
    jobs = lab.result.jobs
    assert not jobs.reserve({"number": 1})
    jobs.refresh(delay=-1)
    assert jobs.reserve({"number": 1})
    assert not jobs.reserve({"number": 1})
    assert jobs.release_dead() == 0
    assert jobs.reserved.to_dicts()[0]["pid"] == os.getpid()
    jobs.release({"number": 1})
    assert jobs.reserve({"number": 1})

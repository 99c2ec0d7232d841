"""Keys made in processes of their own: several at once, one partition for many, time limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dj_dagster as dj
from dj_dagster.orchestration import TableTranslator, Work, build_definitions
from tests.orchestration.running import key_of, materialize, run_until_quiet, statuses


class Batches:
    """Samples of batches, each measured by a `make` that a test gives."""

    def __init__(self, folder: Path) -> None:
        connection = dj.Connection(f"sqlite:///{folder / 'lab.sqlite'}", safemode=False)
        self.calls_file = folder / "calls"
        self.schema = schema = dj.Schema("lab", connection=connection)

        @schema
        class Batch(dj.Manual):
            definition = """
            batch : int32
            """

        @schema
        class Sample(dj.Manual):
            definition = """
            -> Batch
            sample : int32
            ---
            what : varchar(8)
            """

        @schema
        class Result(dj.Computed):
            definition = """
            -> Sample
            ---
            pid : int32
            """

            def make(self, key: dict[str, Any]) -> None:
                batches.note(key)
                what = (Sample & key).fetch1("what")
                if what == "exit":
                    os._exit(3)
                if what == "hang":
                    time.sleep(60)
                time.sleep(float(what or 0))
                self.insert1({**key, "pid": os.getpid()})

        batches = self
        self.batch, self.sample, self.result = Batch, Sample, Result

    def insert(self, batch: int, *whats: str) -> None:
        self.batch.insert1((batch,))
        self.sample.insert([(batch, number, what) for number, what in enumerate(whats)])

    def note(self, key: dict[str, Any]) -> None:
        with self.calls_file.open("a") as file:
            file.write(f"{key['batch']}.{key['sample']}\n")

    def calls(self) -> list[str]:
        return self.calls_file.read_text().split()

    def definitions(self, work: Work, **options: Any) -> dg.Definitions:
        class Translator(TableTranslator):
            def get_work(self, props: Any) -> Work:
                return work

        return build_definitions(self.schema, translator=Translator(), **options)

    def errors(self) -> dict[tuple[int, int], str]:
        jobs = self.result.jobs.errors.to_dicts()
        return {(job["batch"], job["sample"]): job["error_message"] for job in jobs}


@pytest.fixture
def batches(tmp_path: Path) -> Iterator[Batches]:
    made = Batches(tmp_path)
    yield made
    made.schema.connection.close()


COARSE = {"Result": ["batch"]}


def test_one_partition_is_shared_by_several_processes(
    batches: Batches, instance: dg.DagsterInstance
) -> None:
    batches.insert(1, *["0.05"] * 8)
    batches.insert(2, "")
    defs = batches.definitions(Work(processes=3), partition_by=COARSE)
    assert run_until_quiet(defs, instance) == [True]
    pids = set(batches.result.to_arrays("pid").tolist())
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert len(batches.result) == 9
    assert statuses(defs, instance, "lab/result") == {"MATERIALIZED": {"batch=1", "batch=2"}}
    records = instance.fetch_materializations(key_of("lab/result"), limit=9).records
    rows = {
        record.partition_key: record.asset_materialization.metadata["rows"].value  # type: ignore[union-attr]
        for record in records
    }
    assert rows == {"batch=1": 8, "batch=2": 1}


@pytest.mark.parametrize(
    ("what", "work", "message"),
    [
        ("hang", Work(timeout=1), "MakeTimeoutError: make took longer than 1 s"),
        ("exit", Work(isolate=True), "ended with exit code 3"),
    ],
)
def test_a_bad_key_fails_its_partition_alone(
    batches: Batches, instance: dg.DagsterInstance, what: str, work: Work, message: str
) -> None:
    batches.insert(1, "", what, "")
    batches.insert(2, "", "")
    defs = batches.definitions(work, partition_by=COARSE)
    assert run_until_quiet(defs, instance) == [False]
    assert len(batches.result) == 4
    assert statuses(defs, instance, "lab/result") == {
        "FAILED": {"batch=1"},
        "MATERIALIZED": {"batch=2"},
    }
    assert list(batches.errors()) == [(1, 1)]
    assert message in batches.errors()[1, 1]
    # A person mends it and retries the partition: only what failed is made.
    batches.sample.update1({"batch": 1, "sample": 1, "what": ""})
    before = len(batches.calls())
    assert materialize(defs, instance, "lab/result", partition="batch=1")
    assert batches.calls()[before:] == ["1.1"]
    assert statuses(defs, instance, "lab/result") == {"MATERIALIZED": {"batch=1", "batch=2"}}


@pytest.mark.parametrize("partition_by", [None, COARSE])
def test_a_time_limit_is_each_keys_own(
    batches: Batches, instance: dg.DagsterInstance, partition_by: Any
) -> None:
    batches.insert(1, *["0.26"] * 24)
    work = Work(processes=2, timeout=1)
    defs = batches.definitions(work, partition_by=partition_by)
    assert run_until_quiet(defs, instance) == [True]
    assert batches.errors() == {}
    assert len(batches.result) == 24


def test_a_run_without_work_starts_no_process(
    batches: Batches, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches.insert(1, "", "")
    defs = batches.definitions(Work(processes=2), partition_by=COARSE)
    assert run_until_quiet(defs, instance) == [True]

    def refuse(self: object) -> None:
        raise AssertionError(f"{self} has nothing to do")

    monkeypatch.setattr("dj_dagster.workflow.workers.WorkerPool._start", refuse)
    assert materialize(defs, instance, "lab/result", partition="batch=1")

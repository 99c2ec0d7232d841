"""A `make` that hangs, exits, eats memory, prints anything, or raises what nobody can pickle."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._utils.interrupts import raise_interrupts_as

from dj_dagster.orchestration import (
    RetryPolicy,
    SensorSettings,
    TableTranslator,
    Work,
    build_definitions,
)
from dj_dagster.orchestration.sensor.sensor_settings import TableSettings
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from dj_dagster.workflow.computed import Computed
from tests.orchestration.running import (
    execute,
    key_of,
    requested,
    run_until,
    run_until_quiet,
    start_and_die,
    statuses,
    submit,
    tick,
)

LIMIT = 5
"""Seconds that a make may take: other work on the machine can stretch one that does nothing."""


class Unpicklable(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")
        self.lock = threading.Lock()


def do(what: str, number: int) -> None:
    if what == "hang":
        time.sleep(60)
    elif what == "exit":
        os._exit(3)
    elif what == "leave":
        sys.exit("no licence")
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does to what fills the memory
    elif what == "fork":
        os.fork()  # and the child is forgotten: it comes out of make as well
    elif what == "daemon":
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
    elif what == "folder":
        os.chdir("/")
    elif what == "close":
        sys.stdout.close()
        os.close(2)
    elif what == "look":
        print("there is somewhere to print to")
        print("and errors", file=sys.stderr, flush=True)
        if Path.cwd() == Path("/"):
            raise FileNotFoundError("table.csv")
    elif what == "memory":
        # What the process has already, of which there is much beside other tests, and a gigabyte.
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        bytearray(1 << 40)
    elif what == "print":
        os.write(1, bytes(range(256)))
        print("\udc80\x00", file=sys.__stderr__)
    elif what == "raise":
        raise Unpicklable(number)
    elif what == "lost":
        raise ConnectionResetError("the file server is away")
    elif what == "surrogate":
        raise ValueError("\udce9 \x00 no such file")


@contextlib.contextmanager
def streams_of_its_own() -> Generator[None]:
    """Let output be closed without the tests' own."""
    kept = {number: os.dup(number) for number in (1, 2)}
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Any]:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}", safemode=False)
    schema = Schema("lab", connection=connection)

    @schema
    class Item(Manual):
        definition = """
        item : int32
        ---
        what : varchar(20)
        """

    @schema
    class Result(Computed):
        definition = """
        -> Item
        ---
        size : int32
        name : varchar(10)
        """

        def make(self, key: dict[str, Any]) -> None:
            calls.append(key["item"])
            do((Item & key).fetch1("what"), key["item"])
            self.insert1({**key, "size": 5, "name": "a|b"})

    calls: list[int] = []
    schema.calls = calls
    yield schema
    connection.close()


def definitions(schema: Schema, work: Work | None = None, **settings: Any) -> dg.Definitions:
    class Translator(TableTranslator):
        def get_work(self, props: Any) -> Work:
            return work or super().get_work(props)

    return build_definitions(
        schema, translator=Translator(), sensor_settings=SensorSettings(**settings)
    )


def insert(schema: Schema, *whats: str) -> None:
    schema.tables["Item"].insert([(number, what) for number, what in enumerate(whats)])


def items(*numbers: int) -> set[str]:
    return {f"item={number}" for number in numbers}


def errors(schema: Schema) -> dict[int, str]:
    jobs = schema.tables["Result"]().jobs.errors
    return {row["item"]: row["error_message"] for row in jobs.to_dicts()}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("exit", "ended with exit code 3"),
        ("hang", f"took longer than {LIMIT} s"),
        ("raise", "Unpicklable: number 1"),
        ("memory", "MemoryError"),
        ("surrogate", "no such file"),
        ("leave", "SystemExit: no licence"),
        ("kill", "was killed by signal 9"),
    ],
)
def test_a_bad_key_fails_alone_in_workers_of_its_own(
    pipeline: Schema, instance: dg.DagsterInstance, what: str, message: str
) -> None:
    insert(pipeline, "", what, "", "print")
    defs = definitions(pipeline, Work(processes=2, timeout=LIMIT))
    assert run_until_quiet(defs, instance) == [False]
    assert statuses(defs, instance, "lab/result") == {
        "MATERIALIZED": items(0, 2, 3),
        "FAILED": items(1),
    }
    assert message in errors(pipeline)[1]


@pytest.mark.parametrize("what", ["fork", "folder", "close", "daemon", "print"])
@pytest.mark.parametrize("isolate", [False, True])
def test_what_a_make_leaves_behind_is_no_harm_to_the_next(
    pipeline: Schema, instance: dg.DagsterInstance, what: str, isolate: bool
) -> None:
    insert(pipeline, "look", what, "look", "")
    defs = definitions(pipeline, Work(isolate=isolate))
    began = time.monotonic()
    with streams_of_its_own():
        assert run_until_quiet(defs, instance) == [True]
        assert not sys.stdout.closed
    assert time.monotonic() - began < 30
    assert statuses(defs, instance, "lab/result") == {"MATERIALIZED": items(0, 1, 2, 3)}
    assert len(pipeline.tables["Result"]().jobs) == 0
    if not isolate:
        assert pipeline.calls == [0, 1, 2, 3]


@pytest.mark.parametrize("what", ["raise", "surrogate", "leave"])
def test_any_exception_and_output_is_told_in_the_runs_own_process(
    pipeline: Schema, instance: dg.DagsterInstance, what: str
) -> None:
    insert(pipeline, "print", what, "")
    defs = definitions(pipeline)
    assert run_until_quiet(defs, instance) == [False]
    assert statuses(defs, instance, "lab/result")["FAILED"] == items(1)


def test_what_killed_a_run_is_isolated_by_the_next(
    pipeline: Schema, instance: dg.DagsterInstance
) -> None:
    insert(pipeline, "", "exit", "")
    defs = definitions(pipeline)
    (first,) = requested(tick(defs, instance))
    # As after an os._exit: nothing was made, nobody has said anything.
    start_and_die(instance, submit(defs, instance, first))
    (second,) = requested(tick(defs, instance))
    assert not execute(defs, instance, submit(defs, instance, second))
    assert "exit code 3" in errors(pipeline)[1]
    assert len(pipeline.tables["Result"]()) == 2
    assert requested(tick(defs, instance)) == []


def test_a_transient_error_is_tried_again_with_growing_pauses(
    pipeline: Schema, instance: dg.DagsterInstance
) -> None:
    insert(pipeline, "lost", "raise", "")
    policy = RetryPolicy(attempts=3, delay=0.2, backoff=2)
    defs = definitions(pipeline, retries=policy)
    run_until(defs, instance, lambda: pipeline.calls.count(0) == 3)
    time.sleep(1)
    run_until_quiet(defs, instance)
    assert pipeline.calls.count(0) == 3
    assert pipeline.calls.count(1) == 1
    assert set(errors(pipeline)) == {0, 1}


def test_a_transient_error_that_passes_leaves_no_trace(
    pipeline: Schema, instance: dg.DagsterInstance
) -> None:
    insert(pipeline, "lost")
    defs = definitions(pipeline, tables={"Result": TableSettings(retries=RetryPolicy(delay=0.0))})
    assert run_until_quiet(defs, instance, ticks=6)[:1] == [False]
    pipeline.tables["Item"].update1({"item": 0, "what": ""})
    pipeline.tables["Result"]().jobs.errors.delete()
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, "lab/result") == {"MATERIALIZED": items(0)}
    assert errors(pipeline) == {}


def test_tables_can_be_left_to_people(pipeline: Schema, instance: dg.DagsterInstance) -> None:
    insert(pipeline, "", "")
    defs = definitions(pipeline, tables={"lab.Result": TableSettings(automatic=False)})
    assert requested(tick(defs, instance)) == []
    assert instance.get_dynamic_partitions("lab.Item") == ["item=0", "item=1"]


def test_batch_size_and_priority_are_a_tables_own(
    pipeline: Schema, instance: dg.DagsterInstance
) -> None:
    insert(pipeline, "", "", "")
    own = TableSettings(batch_size=2, priority=7)
    defs = definitions(pipeline, tables={"Result": own})
    asked = requested(tick(defs, instance))
    assert [request.tags["dj_dagster/keys"] for request in asked] == ["2", "1"]
    assert {request.tags["dagster/priority"] for request in asked} == {"7"}


def test_a_mark_tells_rows_and_seconds_and_shows_the_first_rows(
    pipeline: Schema, instance: dg.DagsterInstance
) -> None:
    insert(pipeline, *[""] * 7)
    run_until_quiet(definitions(pipeline), instance)
    records = instance.fetch_materializations(key_of("lab/result"), limit=20).records
    metadata = [record.asset_materialization.metadata for record in records]  # type: ignore[union-attr]
    assert {m["rows"].value for m in metadata} == {1}
    assert all(m["seconds_make"].value >= 0 for m in metadata)
    lines = [m["preview"] for m in metadata]
    assert len(lines) == 7
    # The line says all that a table would, and the UI shows it without a click.
    assert all(isinstance(line, dg.TextMetadataValue) for line in lines)
    assert [m for m in metadata if "values" in m] == []
    assert all(re.fullmatch(r"size = \d+, name = a\|b", str(line.value)) for line in lines)


def test_progress_of_long_steps_is_in_the_tables_events(
    pipeline: Schema, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dj_dagster.orchestration.runs.populate_step.SECONDS_BETWEEN_EVENTS", 0.0)
    monkeypatch.setattr("dj_dagster.orchestration.runs.populate_step.SECONDS_BETWEEN_WRITES", 0.0)
    insert(pipeline, *[""] * 3)
    run_until_quiet(definitions(pipeline), instance)
    found = instance.fetch_observations(key_of("lab/result"), limit=9).records
    told = [record.event_log_entry.asset_observation.metadata for record in found]  # type: ignore[union-attr]
    assert {(m["done"].value, m["total"].value) for m in told} == {(1, 3), (2, 3), (3, 3)}


def test_cancelling_leaves_no_half_made_key_and_no_claim(
    pipeline: Schema, instance: dg.DagsterInstance
) -> None:
    insert(pipeline, "", "", "hang", "")
    defs = definitions(pipeline)
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    timer = threading.Timer(1.5, lambda: os.kill(os.getpid(), 2))
    timer.start()
    with raise_interrupts_as(KeyboardInterrupt):
        assert not execute(defs, instance, run)
    assert len(pipeline.tables["Result"]()) == 2
    assert len(pipeline.tables["Result"]().jobs.reserved) == 0
    assert statuses(defs, instance, "lab/result")["MATERIALIZED"] == items(0, 1)

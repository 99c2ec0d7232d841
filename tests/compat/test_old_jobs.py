"""Workers of DataJoint 0.14 and ours at the jobs of one schema."""

from __future__ import annotations

import platform
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow.populate import pending_keys, populate_keys
from tests.compat.conftest import Eras

TYPES = {
    "number": ("int unsigned", 7),
    "truth": ("bool", 1),
    "small": ("tinyint", 4),
    "price": ("decimal(6,2)", 1.5),
    "rate": ("double", 0.1),
    "word": ("varchar(20)", "a b"),
    "sex": ("enum('x','y')", "y"),
    "day": ("date", "2024-05-01"),
    "moment": ("datetime", "2024-05-01 10:11:12"),
    "exact": ("datetime(6)", "2024-05-01 10:11:12.5"),
    "clock": ("time", "06:30:00"),
    "token": ("uuid", "12345678-1234-1234-1234-123456789abc"),
}

DECLARED = """
schema = dj.schema({name!r})

@schema
class Source(dj.Lookup):
    definition = "n : int"
    contents = [(n,) for n in range(6)]

@schema
class Made(dj.Computed):
    definition = "-> Source"

    def make(self, key):
        if key["n"] == 4:
            raise ValueError("four")
        self.insert1(key)

result = Made.table_name
"""


@pytest.fixture
def made(eras: Eras) -> Any:
    """Our class for a computed table that 0.14 declared; key 5 fails."""
    eras.old.run(DECLARED.format(name=eras.name))
    eras.connection.catalog.forget(eras.name)
    schema = eras.schema()

    @schema
    class Source(dj.Lookup):
        definition = "n : int"

    @schema
    class Made(dj.Computed):
        definition = "-> Source"

        def make(self, key: dict[str, Any]) -> None:
            if key["n"] == 5:
                raise ValueError("five")
            self.insert1(key)

    return Made


def old_jobs(eras: Eras) -> list[dict[str, Any]]:
    return eras.old.run(
        "result = [{k: r[k] for k in ('key', 'status', 'error_message', 'error_stack', 'host')}"
        " for r in schema.jobs.fetch(as_dict=True, order_by='status, error_message')]"
    )


def test_keys_have_the_hashes_of_datajoint(eras: Eras) -> None:
    lines = [f"{name} : {kind}" for name, (kind, _) in TYPES.items()]
    row = {name: value for name, (_, value) in TYPES.items()}
    theirs = eras.old.run(f"""
        @schema
        class Typed(dj.Manual):
            definition = {chr(10).join(lines)!r}
        Typed.insert1({row!r})
        keys = {{name: Typed.proj().fetch1(name) for name in Typed.primary_key}}
        result = {{name: dj.hash.key_hash({{name: value}}) for name, value in keys.items()}}
    """)
    eras.connection.catalog.forget(eras.name)
    key = dj.FreeTable(eras.connection, f"{eras.name}.typed").fetch1("KEY")
    assert {name: dj.key_hash({name: value}) for name, value in key.items()} == theirs


def test_a_truth_hashes_as_a_number() -> None:
    assert dj.key_hash({"a": True, "b": False}) == dj.key_hash({"a": 1, "b": 0})


def test_each_leaves_the_jobs_of_the_other_alone(eras: Eras, made: Any) -> None:
    eras.old.run("""
        schema.jobs.reserve(Made.table_name, {"n": 0})
        schema.jobs.ignore(Made.table_name, {"n": 1})
        schema.jobs.error(Made.table_name, {"n": 2}, "ValueError: two", "a stack")
    """)
    jobs = made.jobs
    jobs.refresh()
    assert not jobs.reserve({"n": 0})
    assert jobs.reserve({"n": 3})
    result = made.populate(reserve_jobs=True, suppress_errors=True)
    assert made.fetch("n", order_by="KEY").tolist() == [4]
    assert [key for key, _ in result["error_list"]] == [{"n": 5}]
    found = {job["key"]["n"]: job["status"] for job in old_jobs(eras)}
    assert found == {0: "reserved", 1: "ignore", 2: "error", 3: "reserved", 5: "error"}
    # A word after the name identifies our process while it holds a key.
    assert {job["host"] for job in old_jobs(eras) if job["key"]["n"] != 3} == {platform.node()}
    eras.old.run("Made.populate(reserve_jobs=True, suppress_errors=True)")
    assert made.fetch("n", order_by="KEY").tolist() == [4]
    jobs.release({"n": 3})
    eras.old.run("Made.populate(reserve_jobs=True, suppress_errors=True)")
    assert made.fetch("n", order_by="KEY").tolist() == [3, 4]
    failed = next(job for job in old_jobs(eras) if job["key"] == {"n": 5})
    assert failed["error_message"] == "ValueError: five"
    assert "make" in failed["error_stack"]


def test_jobs_that_one_deletes_are_pending_for_the_other(eras: Eras, made: Any) -> None:
    made.populate(reserve_jobs=True, suppress_errors=True)
    made.delete_quick()
    eras.old.run("(schema.jobs & 'status = \"error\"').delete()")
    assert made.populate("n = 5", reserve_jobs=True, suppress_errors=True)["error_list"]
    assert made.jobs.errors.delete() == 1
    assert old_jobs(eras) == []
    made.jobs.ignore({"n": 1})
    eras.old.run("Made.populate(reserve_jobs=True, suppress_errors=True)")
    assert made.fetch("n", order_by="KEY").tolist() == [0, 2, 3, 5]
    assert [job["status"] for job in old_jobs(eras)] == ["error", "ignore"]


def test_failed_jobs_are_tried_again_when_asked(eras: Eras, made: Any) -> None:
    eras.old.run("Made.populate(reserve_jobs=True, suppress_errors=True)")
    assert 4 not in made.fetch("n")
    assert pending_keys(made(), limit=1) == []
    assert pending_keys(made(), retry_errors=True, limit=1) == [{"n": 4}]
    statuses = [outcome.status for outcome in populate_keys(made(), retry_errors=True)]
    assert statuses == ["made"]
    assert 4 in made.fetch("n")


def test_failures_of_0_14_are_shown_and_forgotten(eras: Eras, made: Any) -> None:
    eras.old.run("""
        schema.jobs.ignore(Made.table_name, {"n": 1})
        Made.populate(reserve_jobs=True, suppress_errors=True)
    """)
    assert pending_keys(made()) == []
    message, stack, key = made.jobs.errors.fetch1("error_message", "error_stack", "KEY")
    assert (message, key) == ("ValueError: four", {"n": 4})
    assert "make" in stack
    assert made.jobs.ignored.fetch("n").tolist() == [1]
    eras.old.run("schema.jobs.delete()")
    assert pending_keys(made()) == [{"n": 1}, {"n": 4}]
    assert len(made.jobs.errors) == len(made.jobs.ignored) == 0


def test_jobs_of_an_old_schema_are_its_table(eras: Eras, made: Any) -> None:
    jobs: Any = eras.schema().jobs
    assert jobs.reserve("__made", {"n": 0})
    assert not jobs.reserve("__made", {"n": 0})
    jobs.error("__made", {"n": 1}, "no", "stack")
    jobs.ignore("__made", {"n": 2})
    jobs.complete("__made", {"n": 0})
    host = platform.node()
    assert [tuple(job.values()) for job in old_jobs(eras)] == [
        ({"n": 1}, "error", "no", "stack", host),
        ({"n": 2}, "ignore", "", None, host),
    ]
    failed = jobs & {"table_name": "__made", "status": "error"}
    assert failed.fetch1("key", "error_stack") == ({"n": 1}, "stack")
    assert dj.U("status").aggr(jobs, n="count(*)").fetch("n").tolist() == [1, 1]
    assert (jobs & {"key_hash": dj.key_hash({"n": 2})}).delete() == 1
    assert jobs.delete() == 1

"""One computed table filled by both libraries, over the job queue that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import dj_dagster
from dj_dagster.model.job_settings import JobSettings
from tests.interop.conftest import Libraries, Library


@dataclass
class Both:
    """The table as a class of each library, and what its `make` did there.

    Attributes
    ----------
    failing
        Keys whose `make` raises.
    """

    ours: Any
    theirs: Any
    libraries: Libraries
    made: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    failing: set[int] = field(default_factory=set[int])

    def of(self, name: str) -> tuple[Any, Any]:
        """Return the table of one library and that of the other."""
        return (self.ours, self.theirs) if name == "ours" else (self.theirs, self.ours)

    def statuses(self) -> dict[int, str]:
        """Return the status of each job."""
        return {job["n"]: job["status"] for job in self.ours().jobs.to_dicts(order_by="KEY")}


def declare(both: Both, name: str, library: Library) -> Any:
    schema = library.schema(both.libraries.schema)

    class Number(library.dj.Lookup):
        definition = "n : int32"
        contents = [{"n": n} for n in range(8)]  # noqa: RUF012 - DataJoint takes lists

    class Square(library.dj.Computed):
        definition = """
        -> Number
        ---
        square : int32
        """

        def make(self, key: dict[str, Any]) -> None:
            both.made.append((name, key["n"]))
            if key["n"] in both.failing:
                raise ValueError(f"{key['n']} is bad")
            self.insert1({**key, "square": key["n"] ** 2})

    schema.context = {"Number": schema(Number)}
    return schema(Square)


@pytest.fixture
def both(libraries: Libraries, declares: str) -> Both:
    """The table, declared by one of the libraries first."""
    found = Both(None, None, libraries)
    names = ("ours", "theirs") if declares == "ours" else ("theirs", "ours")
    for name in names:
        setattr(found, name, declare(found, name, getattr(libraries, name)))
    return found


def populate(table: Any, **options: Any) -> int:
    """Return how many keys were made."""
    return table.populate(reserve_jobs=True, suppress_errors=True, **options)["success_count"]


def test_an_error_is_seen_and_forgiven_by_the_other(both: Both, declares: str) -> None:
    here, there = both.of(declares)
    both.failing = {3}
    assert populate(here) == 7
    assert both.statuses() == {3: "error"}
    (error,) = there().jobs.errors.to_dicts()
    assert error["error_message"] == "ValueError: 3 is bad"
    assert "in make" in error["error_stack"]
    assert error["n"] == 3
    both.failing.clear()
    assert populate(there) == populate(here) == 0
    there().jobs.errors.delete()
    assert populate(here) == 1
    assert len(there()) == 8
    assert both.statuses() == {}


def test_reserved_and_ignored_keys_are_left_alone(both: Both, declares: str) -> None:
    here, there = both.of(declares)
    here().jobs.refresh()
    assert here().jobs.reserve({"n": 1})
    assert not there().jobs.reserve({"n": 1})
    here().jobs.ignore({"n": 2})
    there().jobs.ignore({"n": 3})
    here().jobs.error({"n": 4}, "broken", "at line 1")
    assert populate(there) == 4
    assert {n for _, n in both.made} == {0, 5, 6, 7}
    assert populate(here) == 0
    assert both.statuses() == {1: "reserved", 2: "ignore", 3: "ignore", 4: "error"}
    assert there().jobs.progress() == here().jobs.progress()
    there().jobs.complete({"n": 1})
    assert there().jobs.reserved.keys() == []


def test_workers_of_both_take_turns(both: Both, declares: str) -> None:
    here, there = both.of(declares)
    for worker in (here, there, here, there):
        assert populate(worker, max_calls=2) == 2
    assert sorted(n for _, n in both.made) == list(range(8))
    assert sorted(name for name, _ in both.made) == ["ours"] * 4 + ["theirs"] * 4
    assert here().to_dicts(order_by="KEY") == there().to_dicts(order_by="KEY")
    assert both.statuses() == {}
    assert here.progress() == there.progress() == (0, 8)


def test_either_refreshes_the_queue(both: Both, declares: str) -> None:
    here, there = both.of(declares)
    assert here().jobs.refresh("n < 4", priority=2)["added"] == 4
    assert there().jobs.refresh()["added"] == 4
    assert len(there().jobs.pending & "priority = 2") == 4
    assert populate(there, priority=2) == 4
    assert sorted(n for _, n in both.made) == [0, 1, 2, 3]
    # A key that is in neither table any more has no job.
    there().jobs.error({"n": 7}, "broken")
    (there().parents(as_objects=True)[0] & "n = 7").delete_quick()
    assert here().jobs.refresh()["removed"] == 1
    assert both.statuses() == dict.fromkeys((4, 5, 6), "pending")


@pytest.fixture
def keeping(both: Both, server: tuple[Any, Any], server_url: str) -> Iterator[Both]:
    """Both libraries set to keep finished jobs."""
    connection = dj_dagster.Connection(
        server_url, safemode=False, jobs=JobSettings(keep_completed=True)
    )
    both.ours = declare(both, "ours", Library(dj_dagster, connection))
    settings = server[1]._config.jobs
    settings.keep_completed = True
    yield both
    settings.keep_completed = False
    connection.close()


def test_kept_jobs_are_understood(keeping: Both, declares: str) -> None:
    here, there = keeping.of(declares)
    assert populate(here, max_calls=4) == populate(there) == 4
    for table in (here, there):
        jobs = table().jobs.completed.to_dicts()
        assert len(jobs) == 8
        assert all(0 < job["duration"] < 60 for job in jobs)
    (here & "n in (1, 6)").delete()
    assert there().jobs.refresh()["re_pended"] == 2
    assert populate(here) == 2
    assert keeping.statuses() == dict.fromkeys(range(8), "success")


def test_hidden_columns_of_rows(
    libraries: Libraries, server: tuple[Any, Any], server_url: str, declares: str
) -> None:
    settings = server[1]._config.jobs
    settings.add_job_metadata = True
    connection = dj_dagster.Connection(
        server_url, safemode=False, jobs=JobSettings(add_job_metadata=True)
    )
    try:
        found = Both(None, None, libraries)
        ours = Library(dj_dagster, connection)
        for name in ("ours", "theirs") if declares == "ours" else ("theirs", "ours"):
            library = ours if name == "ours" else libraries.theirs
            setattr(found, name, declare(found, name, library))
        here, there = found.of(declares)
        assert populate(here, max_calls=4) == populate(there) == 4
        rows = connection.query(
            f"SELECT _job_start_time, _job_duration, _job_version FROM {found.ours.full_table_name}"
        ).fetchall()
        assert len(rows) == 8
        assert all(start is not None and duration >= 0 for start, duration, _ in rows)
        assert list(found.ours.heading.names) == list(found.theirs.heading.names)
        assert found.ours.to_dicts(order_by="KEY") == found.theirs().to_dicts(order_by="KEY")
    finally:
        settings.add_job_metadata = False
        connection.close()

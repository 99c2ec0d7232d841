"""Plans of what is made again, for tables whose `make` inserts several rows, and with parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError, DataJointError
from dj_dagster.orchestration import PlannedTable, plan, plan_deletion, populate, recompute


@pytest.fixture
def schema() -> Iterator[dj.Schema]:
    """Three subjects, each with three visits that one `make` inserts, and a table of one row."""
    connection = dj.Connection("sqlite:///:memory:", safemode=False)
    lab = dj.Schema("lab", connection=connection)

    @lab
    class Subject(dj.Manual):
        definition = "subject_id : int32"

    @lab
    class Mean(dj.Computed):
        definition = """
        ---
        subjects : int32
        """
        key_source = dj.U() & Subject

        def make(self, key: dict[str, object]) -> None:
            self.insert1({**key, "subjects": len(Subject())})

    @lab
    class Visit(dj.Computed):
        definition = """
        -> Subject
        visit : int32
        """
        key_source = Subject

        class Trial(dj.Part):
            definition = """
            -> master
            trial : int32
            """

        def make(self, key: dict[str, object]) -> None:
            for visit in range(3):
                self.insert1({**key, "visit": visit})
                self.Trial.insert1({**key, "visit": visit, "trial": 1})

    Subject.insert([{"subject_id": number} for number in (1, 2, 3)])
    populate(lab, "all")
    yield lab
    connection.close()


def numbers(found: list[PlannedTable]) -> dict[str, tuple[int, int, int]]:
    """Return the rows deleted, the keys made again and the rows lost, by table."""
    return {each.table.removeprefix("lab."): (each.rows, each.keys, each.lost) for each in found}


def test_all_rows_of_a_key_are_made_again_together(schema: dj.Schema) -> None:
    planned = numbers(plan(schema, stale=False))
    assert planned == {"Mean": (1, 1, 0), "Visit": (9, 3, 0), "Visit.Trial": (9, 0, 0)}
    assert numbers(plan(schema)) == {}
    for call in (plan, recompute):
        with pytest.raises(ConfigurationError, match="stale is None: write True"):
            call(schema, stale=None)  # pyright: ignore[reportArgumentType]
    whole = numbers(plan_deletion(schema, "Visit", {"subject_id": 1}))
    assert whole == {"Visit": (3, 1, 0), "Visit.Trial": (3, 0, 0)}


def test_a_key_that_keeps_a_row_is_not_made_again(schema: dj.Schema) -> None:
    part = numbers(plan_deletion(schema, "Visit", {"subject_id": 1}, "visit < 2"))
    assert part == {"Visit": (2, 0, 2), "Visit.Trial": (2, 0, 2)}
    visits = dj.FreeTable(schema.connection, "lab.__visit")
    (visits & {"subject_id": 1} & "visit < 2").delete()
    assert [progress.counts for progress in populate(schema, "Visit")] == [{}]


def test_a_delete_that_would_be_refused_is_not_planned(schema: dj.Schema) -> None:
    with pytest.raises(DataJointError, match="but none of its master"):
        plan_deletion(schema, "Visit.Trial", "trial = 1")
    with pytest.raises(ConfigurationError, match="give a restriction"):
        plan_deletion(schema, "Visit")

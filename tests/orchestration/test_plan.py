"""Plans of what is made again, for tables whose `make` inserts several rows, and with parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError, DataJointError
from dj_dagster.orchestration import (
    PlannedTable,
    build_definitions,
    failed_keys,
    plan,
    plan_deletion,
    populate,
    recompute,
    status,
)


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


@pytest.fixture
def schemas(tmp_path: Path) -> Iterator[list[dj.Schema]]:
    """Two schemas; the one that comes first in the alphabet is computed from the other."""
    connection = dj.Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}", safemode=False)
    below, above = (dj.Schema(name, connection=connection) for name in ("cells", "rig"))

    @above
    class Item(dj.Manual):
        definition = "item : int32"

    @above
    class Scan(dj.Computed):
        definition = "-> Item"

        class Line(dj.Part):
            definition = """
            -> master
            line : int32
            """

        def make(self, key: dict[str, int]) -> None:
            if key["item"] > 3:
                raise ValueError("an empty scan")
            self.insert1(key)
            self.Line.insert1({**key, "line": 1})

    @below
    class Cell(dj.Computed):
        definition = "-> Scan"

        def make(self, key: dict[str, int]) -> None:
            self.insert1(key)

    Item.insert([{"item": number} for number in (1, 2, 3)])
    yield [below, above]
    connection.close()


@pytest.mark.parametrize(
    "together",
    [
        lambda each: each,
        lambda each: dg.Definitions.merge(*each),
        lambda each: [each[1].get_repository_def(), each[0]],
    ],
    ids=["list", "merged", "repository"],
)
def test_tables_of_several_pipelines_are_in_order(
    schemas: list[dj.Schema], together: Callable[[list[dg.Definitions]], dg.Definitions]
) -> None:
    given = together([build_definitions(each) for each in schemas])
    order = ["rig.Scan", "cells.Cell"]
    made = [f"{name}: 3 made" for name in order]
    assert list(map(str, populate(given, "all"))) == made
    planned = {each.table: (each.rows, each.keys, each.lost) for each in plan(given, stale=False)}
    assert planned == {"rig.Scan": (3, 3, 0), "rig.Scan.Line": (3, 0, 0), "cells.Cell": (3, 3, 0)}
    assert [each.lost for each in plan(given, "Scan", stale=False)] == [0] * 3
    assert [each.lost for each in plan_deletion(given, "Item", "item = 1")] == [1] * 4
    assert list(map(str, recompute(given, stale=False))) == made
    found = [(each.table, each.rows) for each in status(given, ["rig.Item", *order])]
    assert found == [(name, 3) for name in ["rig.Item", *order]]


@pytest.mark.parametrize("order", [1, -1])
def test_a_table_of_several_pipelines_is_that_which_is_filled(
    schemas: list[dj.Schema], order: int
) -> None:
    connection = schemas[1].connection
    seen = build_definitions("rig", connection=connection)
    both = [build_definitions(schemas[1]), seen][::order]
    dj.FreeTable(connection, "rig.item").insert1((4,))
    assert [each.counts for each in populate(both, "Scan")] == [{"made": 3, "failed": 1}]
    assert [each.failed for each in status(both, "tier:computed")] == [1]
    assert [each.partition for each in failed_keys(both)] == ["item=4"]

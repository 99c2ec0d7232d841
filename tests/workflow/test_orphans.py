"""Rows whose parent a client without foreign keys has renamed: they hide no key to be made."""

from __future__ import annotations

from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow.pending import orphans


@pytest.fixture(params=["number", "number, letter", "letter, number"])
def made(schema: Any, request: pytest.FixtureRequest) -> Any:
    """A table that is made of entered keys, with integers first in the key or not."""
    kinds = {"number": "int64", "letter": "varchar(4)"}
    lines = [f"{name} : {kinds[name]}" for name in request.param.split(", ")]

    @schema
    class Entered(dj.Manual):
        definition = "\n".join(lines) + "\n---\nnote = '' : varchar(10)"

    @schema
    class Made(dj.Computed):
        definition = """
        -> Entered
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    return Made


def enter(made: Any, *numbers: int) -> None:
    entered = made().parents(as_objects=True)[0]
    entered.insert([{"number": n, "letter": "a"} for n in numbers], ignore_extra_fields=True)


def rename(made: Any, old: int, new: int) -> None:
    """Give a parent another key, as a client that enforces no foreign keys does."""
    parent = made().parents(as_objects=True)[0]
    with made().connection.cursor() as session:
        mysql = made().connection.backend.name == "mysql"
        switch = "SET foreign_key_checks = {}" if mysql else "PRAGMA foreign_keys = {}"
        session.exec_driver_sql(switch.format(0))
        session.exec_driver_sql(
            f"UPDATE {parent.full_table_name} SET number = {new} WHERE number = {old}"
        )
        session.exec_driver_sql(switch.format(1))


def numbers(made: Any) -> set[int]:
    return set(made().to_arrays("number").tolist())


def test_a_renamed_key_is_pending_and_made(made: Any) -> None:
    enter(made, 1, 5000, 90000)
    made.populate()
    assert made.progress() == (0, 3)
    rename(made, 5000, 5001)
    assert made.progress() == (1, 3)
    assert orphans(made()) == 1
    made.populate()
    assert numbers(made) == {1, 5000, 5001, 90000}
    assert made.progress() == (0, 3)
    assert orphans(made()) == 1


def test_keys_that_cancel_in_counts_and_sums_are_made(made: Any) -> None:
    enter(made, 1, 4, 7)
    made.populate()
    rename(made, 1, 2)
    rename(made, 4, 3)
    assert made.progress() == (2, 3)
    made.populate(reserve_jobs=True)
    assert numbers(made) == {1, 2, 3, 4, 7}


def test_keys_as_far_apart_as_integers_can_be(made: Any) -> None:
    enter(made, -(2**63), -1, 0, 1, 2**63 - 1)
    assert made.progress() == (5, 5)
    made.populate({"number": 0})
    assert made.progress() == (4, 5)
    made.populate()
    assert made.progress() == (0, 5)
    enter(made, -5, 2**62)
    made.populate()
    assert made.progress() == (0, 7)

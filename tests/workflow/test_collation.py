"""Keys that differ in case, accents or trailing blanks only, which a server takes for one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import dj_dagster as dj
from dj_dagster.workflow.notes import Notes, Staleness

SPELLINGS = [("mouse", "MOUSE"), ("Zoë", "zoe"), ("rat", "rat")]


class Cages(NamedTuple):
    """Mice, their cages, what is made of these, and the keys that `make` was given."""

    Mouse: Any
    Cage: Any
    Weight: Any
    Growth: Any
    given: list[Any]


@pytest.fixture
def cages(schema: dj.Schema) -> Cages:
    given: list[Any] = []

    @schema
    class Mouse(dj.Manual):
        definition = """
        mouse : varchar(20)
        ---
        grams = 20 : int32
        """

    @schema
    class Cage(dj.Manual):
        definition = """
        -> Mouse
        ---
        room = 1 : int32
        """

    @schema
    class Weight(dj.Computed):
        definition = """
        -> Cage
        """

        def make(self, key: dict[str, Any]) -> None:
            given.append(key["mouse"])
            self.insert1(key)

    @schema
    class Growth(dj.Computed):
        definition = """
        -> Weight
        -> Mouse.proj(parent='mouse')
        """

        def make(self, key: dict[str, Any]) -> None:
            given.append((key["mouse"], key["parent"]))
            self.insert1(key)

        @property
        def key_source(self) -> Any:
            return Weight * Cage.proj(parent="mouse")

    return Cages(Mouse, Cage, Weight, Growth, given)


def enter(cages: Cages, *pairs: tuple[str, str]) -> None:
    """Enter mice, and cages that refer to them by another spelling where the database takes it."""
    apart = cages.Mouse.connection.backend.tells_text_apart
    for mouse, cage in pairs:
        cages.Mouse.insert1({"mouse": mouse})
        spelled = mouse if apart else cage
        cages.Mouse.connection.query(
            f"INSERT INTO {cages.Cage().full_table_name} (mouse, room) VALUES ('{spelled}', 1)"
        )


def cage_names(cages: Cages) -> list[str]:
    return sorted(cages.Cage().to_arrays("mouse").tolist())


def given_names(cages: Cages) -> list[str]:
    return sorted(cages.given)


@pytest.mark.parametrize("reserve", [False, True])
def test_make_is_given_the_spelling_of_the_key_source(cages: Cages, reserve: bool) -> None:
    enter(cages, *SPELLINGS)
    assert cages.Weight.populate(reserve_jobs=reserve)["success_count"] == 3
    assert given_names(cages) == cage_names(cages)
    assert cages.Weight.progress() == (0, 3)
    assert cages.Weight.populate(reserve_jobs=reserve)["success_count"] == 0


@pytest.mark.parametrize("reserve", [False, True])
def test_keys_may_be_given_as_a_parent_spells_them(cages: Cages, reserve: bool) -> None:
    enter(cages, *SPELLINGS)
    keys = [{"mouse": mouse} for mouse, _ in SPELLINGS]
    assert cages.Weight.populate(keys=keys, reserve_jobs=reserve)["success_count"] == 3
    assert given_names(cages) == cage_names(cages)
    cages.given.clear()
    assert cages.Weight.populate(keys=keys, reserve_jobs=reserve)["success_count"] == 0
    assert cages.given == []


def test_one_key_in_two_spellings_is_made_once(cages: Cages) -> None:
    enter(cages, *SPELLINGS)
    keys = [{"mouse": name} for pair in SPELLINGS for name in pair]
    cages.Weight.populate(keys=keys)
    assert given_names(cages) == cage_names(cages)
    assert len(cages.Weight()) == 3


@pytest.mark.parametrize("reserve", [False, True])
def test_two_attributes_of_a_key_are_spelled_each_in_its_way(cages: Cages, reserve: bool) -> None:
    enter(cages, *SPELLINGS[:2])
    cages.Weight.populate()
    cages.given.clear()
    keys = [{"mouse": m.upper(), "parent": p} for m, _ in SPELLINGS[:2] for p, _ in SPELLINGS[:2]]
    if cages.Mouse.connection.backend.tells_text_apart:
        keys = [{**key, "mouse": key["mouse"].lower().replace("zoë", "Zoë")} for key in keys]
    assert cages.Growth.populate(keys=keys, reserve_jobs=reserve)["success_count"] == 4
    names = cage_names(cages)
    assert given_names(cages) == sorted((mouse, parent) for mouse in names for parent in names)


def test_a_job_of_another_spelling_is_claimed_once(cages: Cages) -> None:
    enter(cages, *SPELLINGS)
    queue = cages.Weight.jobs
    queue.refresh()
    names = cage_names(cages)
    apart = cages.Mouse.connection.backend.tells_text_apart
    for name in () if apart else names:
        table = cages.Cage().full_table_name
        change = f"UPDATE {table} SET mouse = '{name.title()}' WHERE mouse = '{name}'"
        cages.Mouse.connection.query(change)
    keys = [{"mouse": name.lower() if not apart else name} for name in names]
    assert cages.Weight.populate(keys=keys, reserve_jobs=True)["success_count"] == 3
    assert given_names(cages) == cage_names(cages)
    assert len(queue) == 0


def test_a_failed_key_is_noted_once_whatever_its_spelling(cages: Cages) -> None:
    enter(cages, *SPELLINGS)

    def fails(self: Any, key: dict[str, Any]) -> None:
        raise ValueError("broken")

    cages.Weight.make = fails
    for each in range(2):
        keys = [{"mouse": pair[0]} for pair in SPELLINGS]
        cages.Weight.populate(keys=keys, reserve_jobs=True, suppress_errors=True)
        assert len(cages.Weight.jobs.errors) == 3, each


def test_stale_rows_are_found_in_any_spelling(cages: Cages) -> None:
    enter(cages, *SPELLINGS)
    cages.Weight.populate()
    staleness = Staleness(cages.Weight(), ["mouse"], cages.Weight)
    keys = [{"mouse": mouse} for mouse, _ in SPELLINGS]
    assert {age for age, _ in staleness.of(keys).values()} == {"current"}
    cages.Mouse.update1({"mouse": "mouse", "grams": 25})
    assert [staleness.of([key])[(key["mouse"],)][0] for key in keys] == [
        "inputs",
        "current",
        "current",
    ]
    assert len(staleness.stale()) == 1


def test_notes_of_keys_are_apart(cages: Cages) -> None:
    enter(cages, *SPELLINGS)
    cages.Weight.populate()
    notes = Notes(cages.Weight(), ["mouse"]).read([{"mouse": name} for name in cage_names(cages)])
    assert len(notes) == 3

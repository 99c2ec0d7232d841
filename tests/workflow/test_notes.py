"""Notes on how keys came to be: taken by every way of making them, and what they tell."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.errors import AccessError
from dj_dagster.model.names import NOTES_TABLE, TableName
from dj_dagster.workflow import notes
from dj_dagster.workflow.notes import Staleness
from tests.services.process import PATIENCE


class Lab:
    """Subject <- Session (both entered) <- Made, and a make in three parts."""

    def __init__(self, connection: dj.Connection, prefix: str) -> None:
        self.schema = dj.Schema(f"{prefix}notes", connection=connection)

        @self.schema
        class Subject(dj.Manual):
            definition = """
            subject : varchar(20)
            ---
            weight = null : float64
            """

        @self.schema
        class Session(dj.Manual):
            definition = """
            -> Subject
            session : int32
            ---
            note = '' : varchar(20)
            """

        @self.schema
        class Made(dj.Computed):
            definition = """
            -> Session
            ---
            value : int32
            """

            def make(self, key: dict[str, Any]) -> None:
                self.insert1({**key, "value": 1})

        @self.schema
        class Parts(dj.Computed):
            definition = """
            -> Session
            ---
            value : int32
            """

            def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
                return ((Session & key).fetch1("note"),)

            def make_compute(self, key: dict[str, Any], note: str) -> tuple[int]:
                return (len(note),)

            def make_insert(self, key: dict[str, Any], value: int) -> None:
                self.insert1({**key, "value": value})

        self.Subject, self.Session, self.Made, self.Parts = Subject, Session, Made, Parts
        Subject.insert([{"subject": name} for name in ("a", "b")])
        Session.insert([{"subject": s, "session": n} for s in ("a", "b") for n in (1, 2)])


class Other(dj.Computed):
    """The make of Made as it was rewritten."""

    def make(self, key: dict[str, Any]) -> None:
        self.insert1({**key, "value": 2})


@pytest.fixture
def lab(connection: dj.Connection, schema_prefix: str) -> Lab:
    return Lab(connection, schema_prefix)


def ages(table: Any, source: type | None = None) -> dict[str, int]:
    """Return how many keys of a table are of each age, its code being that of a class."""
    staleness = Staleness(table(), table.primary_key, source or table)
    found = [age for page in staleness.pages() for age, _ in staleness.of(page).values()]
    return dict(Counter(found))


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reserved": {"reserve_jobs": True},
    "processes": {"processes": 2},
    "both": {"processes": 2, "reserve_jobs": True},
    "keys": {"keys": [{"subject": s, "session": n} for s in ("b", "a") for n in (2, 1)]},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_making_keys_notes_their_code(lab: Lab, way: str) -> None:
    lab.Made.populate(**WAYS[way])
    assert ages(lab.Made) == {"current": 4}
    assert ages(lab.Made, Other) == {"code": 4}
    assert lab.schema.list_tables() == ["subject", "session", "__made", "__parts"]


def test_a_make_in_three_parts_is_noted(lab: Lab) -> None:
    lab.Parts.populate()
    assert (ages(lab.Parts), ages(lab.Parts, Other)) == ({"current": 4}, {"code": 4})
    assert ages(lab.Made) == {}


def test_a_row_that_keys_refer_to_changes(lab: Lab) -> None:
    lab.Made.populate()
    staleness = Staleness(lab.Made(), lab.Made.primary_key, lab.Made)
    lab.Session.update1({"subject": "a", "session": 2, "note": "corrected"})
    assert staleness.stale() == [{"subject": "a", "session": 2}]
    # The keys refer to this one by way of a row that a person entered.
    lab.Subject.update1({"subject": "b", "weight": 20.5})
    assert staleness.stale("session = 1") == [{"subject": "b", "session": 1}]
    lab.Session.update1({"subject": "a", "session": 2, "note": ""})
    lab.Subject.update1({"subject": "b", "weight": None})
    assert staleness.stale() == []


def test_keys_that_differ_in_their_last_digit_have_notes_of_their_own(lab: Lab) -> None:
    @lab.schema
    class Place(dj.Manual):
        definition = "place : decimal(40,10)\n---\nnote = '' : varchar(8)"

    @lab.schema
    class Height(dj.Computed):
        definition = "-> Place"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    places = [Decimal(f"{'1' * 30}.000000000{digit}") for digit in (1, 2)]
    Place.insert({"place": place} for place in places)
    Height.populate()
    assert ages(Height) == {"current": 2}
    Place.update1({"place": places[0], "note": "moved"})
    assert Staleness(Height(), ["place"], Height).stale() == [{"place": places[0]}]


def test_keys_that_are_made_anew_are_noted_anew(lab: Lab) -> None:
    lab.Made.populate()
    lab.Session.update1({"subject": "a", "session": 1, "note": "corrected"})
    (lab.Made & {"subject": "a"}).delete(prompt=False)
    lab.Made.populate()
    assert ages(lab.Made) == {"current": 4}


def test_rows_that_come_from_elsewhere_are_unknown(lab: Lab) -> None:
    lab.Made.populate({"subject": "a"})
    lab.Made.insert(
        [{"subject": "b", "session": n, "value": 0} for n in (1, 2)], allow_direct_insert=True
    )
    assert ages(lab.Made, Other) == {"code": 2, "unknown": 2}


def test_a_worker_that_is_killed_leaves_its_last_keys_unknown(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # However slow the machine is, notes are first due at the end.
        patch.setattr(notes, "SECONDS", math.inf)
        patch.setattr(notes.NoteTaker, "write", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        worker = multiprocessing.get_context("fork").Process(target=lab.Made.populate)
        worker.start()
        worker.join(PATIENCE)
    assert worker.exitcode == -signal.SIGKILL
    assert ages(lab.Made, Other) == {"unknown": 4}


def test_a_table_that_is_dropped_leaves_no_notes(lab: Lab) -> None:
    lab.Made.populate()
    lab.Made.drop(prompt=False)
    made = lab.schema(
        type("Made", (dj.Computed,), {"definition": "-> Session", "make": Other.make})
    )
    rows = [{**row, "value": 0} for row in lab.Session.proj().to_dicts()]
    made().insert(rows, ignore_extra_fields=True, allow_direct_insert=True)
    assert ages(made, Other) == {"unknown": 4}


def test_without_the_right_to_take_notes_keys_are_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AccessError("CREATE command denied to user.")

    monkeypatch.setattr(notes.declare, "ensure_table", refused)
    with pytest.warns(UserWarning, match="not noted.*CREATE command denied.*Grant CREATE"):
        assert lab.Made.populate()["success_count"] == 4
    assert ages(lab.Made, Other) == {"unknown": 4}


def runs(table: Any) -> dict[str, int]:
    """Return how many keys of a table each run of Dagster has made."""
    keys = table.proj().to_dicts()
    found = notes.Notes(table(), table.primary_key).read(keys).values()
    return dict(Counter(note.run for note in found))


@pytest.mark.parametrize("way", ["reserved", "processes"])
def test_the_run_that_made_keys_is_noted(lab: Lab, way: str) -> None:
    with notes.noted_run("run-1"):
        lab.Made.populate({"subject": "a"}, **WAYS[way])
    lab.Made.populate(**WAYS[way])
    assert runs(lab.Made) == {"run-1": 2, "": 2}


def test_notes_of_an_earlier_version_get_a_place_for_runs(lab: Lab) -> None:
    connection = lab.schema.connection
    lab.Made.populate({"subject": "a"})
    name = TableName(lab.schema.database, NOTES_TABLE)
    connection.execute(sa.text(f"ALTER TABLE {connection.backend.full_name(name)} DROP run_id"))
    connection.catalog.forget(name.schema)
    assert runs(lab.Made) == {"": 2}
    with notes.noted_run("run-1"):
        lab.Made.populate({"subject": "b"})
    assert runs(lab.Made) == {"": 2, "run-1": 2}
    assert ages(lab.Made) == {"current": 4}


def test_notes_that_may_not_be_altered_are_taken_without_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AccessError("ALTER command denied to user.")

    connection = lab.schema.connection
    lab.Made.populate({"subject": "a"})
    name = TableName(lab.schema.database, NOTES_TABLE)
    connection.execute(sa.text(f"ALTER TABLE {connection.backend.full_name(name)} DROP run_id"))
    connection.catalog.forget(name.schema)
    monkeypatch.setattr(notes.alter, "alter_table", refused)
    with notes.noted_run("run-1"):
        lab.Made.populate({"subject": "b"})
    assert runs(lab.Made) == {"": 4}
    assert ages(lab.Made) == {"current": 4}

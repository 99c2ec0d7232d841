"""Restrictions that restrict nothing by accident: read by as ever, refused where rows would go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj
from dj_dagster.errors import QueryError, UnknownAttributeError


@pytest.fixture
def lab(schema: Any) -> dict[str, Any]:
    """Two rooms with two cages each, a table that has nothing to do with them, and a single row."""

    @schema
    class Room(dj.Manual):
        definition = """
        room_id : int32
        ---
        size = 1 : int32
        """

    @schema
    class Cage(dj.Manual):
        definition = """
        -> Room
        cage_id : int32
        ---
        label = '' : varchar(20)
        """

    @schema
    class Person(dj.Manual):
        definition = """
        person : varchar(20)
        """

    @schema
    class Setting(dj.Manual):
        definition = """
        ---
        setting : varchar(20)
        """

    Room.insert([{"room_id": n} for n in (1, 2)])
    Cage.insert([{"room_id": room, "cage_id": cage} for room in (1, 2) for cage in (1, 2)])
    Person.insert1(("ada",))
    Setting.insert1({"setting": "x"})
    return schema.tables


MISTYPED: dict[str, Callable[[Any], Any]] = {
    "dict": lambda t: t & {"cag_id": 1},
    "two names": lambda t: t & {"cag_id": 1, "rooom_id": 2},
    "list": lambda t: t & [{"cage_id": 1}, {"cag_id": 2}],
    "list of alike": lambda t: t & [{"cag_id": 1}, {"cag_id": 2}],
    "tuple": lambda t: t & ({"cag_id": 1},),
    "generator": lambda t: t & ({"cag_id": n} for n in (1, 2)),
    "record": lambda t: t & np.array([(1,)], dtype=[("cag_id", int)])[0],
    "records": lambda t: t & np.array([(1,), (2,)], dtype=[("cag_id", int)]),
    "data frame": lambda t: t & pd.DataFrame({"cag_id": [1, 2]}),
    "series": lambda t: t & pd.Series({"cag_id": 1}),
    "AndList": lambda t: t & dj.AndList([{"cage_id": 1}, {"cag_id": 1}]),
    "nested": lambda t: t & [dj.AndList(["cage_id = 1", [{"cag_id": 1}]])],
    "Not": lambda t: t & dj.Not({"cag_id": 1}),
    "difference": lambda t: t - {"cag_id": 1},
    "after another": lambda t: t & {"room_id": 1} & {"cag_id": 1},
    "before another": lambda t: t & {"cag_id": 1} & "room_id = 1",
    "under a projection": lambda t: (t & {"cag_id": 1}).proj(),
    "first rows": lambda t: t & {"cag_id": 1} & dj.Top(3),
    "null": lambda t: t & {"cag_id": None},
}


@pytest.mark.parametrize("call", ["delete", "delete_quick"])
@pytest.mark.parametrize("kind", MISTYPED)
def test_a_delete_by_no_attribute_is_refused(lab: dict[str, Any], kind: str, call: str) -> None:
    rows = MISTYPED[kind](lab["Cage"]())
    with pytest.raises(UnknownAttributeError, match=r"'cag_id'.*Did you mean cage_id.*room_id"):
        getattr(rows, call)()
    assert len(lab["Cage"]()) == 4


@pytest.mark.parametrize("kind", ["dict", "list", "AndList"])
def test_reading_passes_unknown_names_over(lab: dict[str, Any], kind: str) -> None:
    count = {"dict": 4, "list": 4, "AndList": 2}[kind]
    rows = MISTYPED[kind](lab["Cage"]())
    assert len(rows) == count
    assert len(rows.to_dicts()) == count
    with pytest.raises(QueryError, match="cag_id"):
        rows.delete(dry_run=True)


def test_a_name_in_a_query_that_restricts_counts_too(lab: dict[str, Any]) -> None:
    with pytest.raises(UnknownAttributeError, match=r"'siz'.*Did you mean size"):
        (lab["Cage"] & (lab["Room"] & {"siz": 3})).delete()
    with pytest.raises(UnknownAttributeError, match="'siz'"):
        (lab["Cage"] - (lab["Room"] & {"siz": 3}).proj()).delete()
    assert len(lab["Cage"]()) == 4


EMPTY: dict[str, Callable[[Any], Any]] = {
    "dict": lambda t: t & {},
    "AndList": lambda t: t & dj.AndList([]),
    "dict in a list": lambda t: t & [{}],
    "list in a Not": lambda t: t & dj.Not({}),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_delete_by_an_empty_restriction_is_refused(lab: dict[str, Any], kind: str) -> None:
    with pytest.raises(QueryError, match=r"delete from .*cage: a restriction is empty"):
        EMPTY[kind](lab["Cage"]()).delete()
    with pytest.raises(QueryError, match="restrict"):
        EMPTY[kind](lab["Cage"]()).drop()
    assert len(lab["Cage"]()) == 4


@pytest.mark.parametrize("nothing", [[], (), False, pd.DataFrame({"cage_id": []}), set[Any]()])
def test_a_delete_by_no_keys_deletes_nothing(lab: dict[str, Any], nothing: Any) -> None:
    assert (lab["Cage"] & nothing).delete() == 0
    assert (lab["Cage"] & nothing).delete_quick() == 0
    assert len(lab["Cage"]()) == 4


def test_a_delete_by_a_query_without_a_common_attribute_is_refused(lab: dict[str, Any]) -> None:
    assert len(lab["Cage"] & lab["Person"]) == 4
    for rows in (
        lab["Cage"] & lab["Person"],
        lab["Cage"] - (lab["Person"] & "person = 'bob'"),
        lab["Cage"] & [lab["Person"](), {"cage_id": 1}],
    ):
        with pytest.raises(QueryError, match=r"person has no attribute in common"):
            rows.delete()
    assert len(lab["Cage"]()) == 4


@pytest.mark.parametrize("names", [(), ("cag_id",), ("cage_id",)])
def test_a_delete_by_all_values_is_refused(lab: dict[str, Any], names: tuple[str, ...]) -> None:
    """What U stands for holds for every row, whatever it names."""
    every = dj.U(*names)
    assert len(lab["Cage"] & every) == 4
    for rows in (lab["Cage"] & every, lab["Cage"] & [every, {"cage_id": 1}]):
        for call in ("delete", "delete_quick"):
            with pytest.raises(QueryError, match=r"delete from .*cage: a restriction names .*U\("):
                getattr(rows, call)()
    assert len(lab["Cage"]()) == 4


def test_a_dict_with_one_attribute_works(lab: dict[str, Any]) -> None:
    (lab["Cage"] & {"cage_id": 1, "elsewhere": 5}).delete()
    assert lab["Cage"]().keys() == [{"room_id": n, "cage_id": 2} for n in (1, 2)]
    (lab["Cage"] & {"room_id": 1} & True).delete()
    assert len(lab["Cage"]()) == 1
    lab["Room"].delete()
    assert len(lab["Cage"]()) == len(lab["Room"]()) == 0


def test_the_key_of_a_single_row_is_empty(lab: dict[str, Any]) -> None:
    (key,) = lab["Setting"]().keys()
    assert key == {}
    (lab["Setting"] & key).delete()
    assert len(lab["Setting"]()) == 0


def test_a_drop_by_no_attribute_is_refused(lab: dict[str, Any]) -> None:
    for call in ("drop", "drop_quick"):
        with pytest.raises(QueryError, match="restricted"):
            getattr(lab["Cage"] & {"cag_id": 1}, call)()
    with pytest.raises(UnknownAttributeError, match="cag_id"):
        lab["Cage"].update1({"room_id": 1, "cage_id": 1, "cag_id": 1})
    with pytest.raises(QueryError, match="without restriction"):
        (lab["Cage"] & {"cag_id": 1}).update1({"room_id": 1, "cage_id": 1, "label": "x"})
    assert len(lab["Cage"]()) == len(lab["Cage"] & {"label": ""}) == 4

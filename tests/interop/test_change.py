"""Rows and tables that one library changes, as the other one sees them."""

from __future__ import annotations

import re
from typing import Any

from tests.interop.conftest import Libraries, Library
from tests.interop.test_tables import UID, create_statement, declare, family

SUBJECT = "subject : int32\n---\nweight = 1.5 : float64\nname = '' : varchar(20)  # for people"


def both_sides(libraries: Libraries, declares: str, definition: str) -> tuple[Any, Any]:
    """Declare a table by one library; return it, and the class that the other makes of it."""
    here, there = libraries.pair(declares)
    table = declare(here, libraries.schema, definition)
    return table, there.module(libraries.schema).Thing


def test_rows_change(libraries: Libraries, declares: str) -> None:
    table, other = both_sides(libraries, declares, SUBJECT)
    table.insert([{"subject": n, "name": f"n{n}"} for n in range(4)])
    other().update1({"subject": 1, "weight": 20.25, "name": "ü"})
    other().update1({"subject": 2, "weight": None})
    other().insert([{"subject": 3}, {"subject": 4}], skip_duplicates=True)
    other().insert1({"subject": 0, "weight": 3}, replace=True)
    (other & "subject = 4").delete()
    assert table().to_dicts(order_by="KEY") == [
        {"subject": 0, "weight": 3.0, "name": ""},
        {"subject": 1, "weight": 20.25, "name": "ü"},
        {"subject": 2, "weight": 1.5, "name": "n2"},
        {"subject": 3, "weight": 1.5, "name": "n3"},
    ]


def test_a_column_is_added_by_the_other(libraries: Libraries, declares: str) -> None:
    here, there = libraries.pair(declares)
    table = declare(here, libraries.schema, SUBJECT)
    table.insert1({"subject": 1})
    added = "side = 'left' : enum('left','right')\nuid = null : uuid\nx = null : <blob>"
    other = declare(there, libraries.schema, f"{SUBJECT}\n{added}")
    other.alter(prompt=False)
    again = here.module(libraries.schema).Thing
    again().update1({"subject": 1, "side": "right", "x": [1, 2]})
    assert other.fetch1() == again.fetch1() == {
        "subject": 1, "weight": 1.5, "name": "", "side": "right", "uid": None, "x": [1, 2],
    }  # fmt: skip
    shorter = declare(here, libraries.schema, SUBJECT.replace("1.5", "2.5"))
    shorter.alter(prompt=False)
    names = there.module(libraries.schema).Thing().heading.names
    assert list(names) == ["subject", "weight", "name"]
    # Neither finds anything left to change in what the other has made.
    before = create_statement(here, table)
    for library in (there, here):
        declare(library, libraries.schema, SUBJECT.replace("1.5", "2.5")).alter(prompt=False)
    assert create_statement(here, table) == before


def test_tables_are_dropped_by_the_other(libraries: Libraries, declares: str) -> None:
    here, there = libraries.pair(declares)
    family(here, libraries.schema)
    there.module(libraries.schema).Session().drop()
    module = here.module(libraries.schema)
    assert {name for name in vars(module) if name[0].isupper()} & {
        "Species", "Subject", "Session", "Result",
    } == {"Species", "Subject"}  # fmt: skip
    # Nothing is left that would keep the tables from being declared again.
    names = family(here, libraries.schema)
    assert len(names["Session"]()) == len(names["Result"]()) == 0


def test_contents_are_inserted_once(libraries: Libraries, declares: str) -> None:
    for library in libraries.pair(declares):
        names = family(library, libraries.schema)
        assert len(names["Species"]()) == 2


def redefined(library: Library, name: str, text: str) -> str:
    """Declare what one library has described and return how the server has it."""
    return create_statement(library, declare(library, f"{name}_2", text))


DESCRIBED = SUBJECT + (
    "\nday = null : date\nwhen_done = CURRENT_TIMESTAMP : datetime\nuid : uuid\nx = null : <blob>"
    "\nnote = 'it''s' : varchar(9)\nn = null : int unsigned\nindex(weight, day)\nunique index(note)"
)


def test_a_description_declares_the_same_table(libraries: Libraries, declares: str) -> None:
    table, other = both_sides(libraries, declares, DESCRIBED)
    here, there = libraries.pair(declares)
    expected = create_statement(here, table)
    views = {declares: table, "theirs" if declares == "ours" else "ours": other()}
    ours = views["ours"].describe()
    assert redefined(libraries.ours, libraries.schema, ours) == expected
    # DataJoint describes CURRENT_TIMESTAMP as a text, which its own server refuses.
    theirs = re.sub(r'(?i)"current_timestamp\(\)"', "CURRENT_TIMESTAMP", views["theirs"].describe())
    for library, name in ((here, "a"), (there, "b")):
        assert redefined(library, f"{libraries.schema}{name}", theirs) == expected


def test_a_delete_takes_all_dependents(libraries: Libraries, declares: str) -> None:
    here, there = libraries.pair(declares)
    names = family(here, libraries.schema)
    names["Subject"].insert([{"subject": "1"}, {"subject": "2"}])
    session = {"subject": "1", "session": UID}
    names["Session"].insert1({**session, "partner": "2"})
    names["Session"].Trial.insert1({**session, "trial": 1, "outcome": 2})
    names["Result"].populate()
    module = there.module(libraries.schema)
    assert len(module.Result()) == 1
    assert (module.Subject & {"subject": "1"}).delete() == 1
    assert len(names["Result"]()) == len(names["Session"]()) == 0
    assert len(names["Subject"]()) == 1

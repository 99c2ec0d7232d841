"""Tables that one library declares and the other one uses."""

from __future__ import annotations

import re
import uuid
import warnings
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.interop.conftest import Libraries, Library

DEFINITION = """
# of every type
number : int32  # the key, it's a "key"
uid : uuid
when_done : datetime(3)
---
tiny : int8
small = -1 : int16
big = null : int64  # may be unknown
single : float32
double = 1.5 : float64
exact : decimal(9,3)
flag = 1 : bool
letters : char(4)
words = "it's" : varchar(40)
side = 'left' : enum('left', 'right')
day : date
moment = CURRENT_TIMESTAMP : datetime
settings = null : json
raw : bytes
packed : <blob>
file : <attach>
index(small, big)
unique index(words)
"""
NATIVE = """
a : int unsigned
---
b : smallint unsigned
c = null : mediumint
d : double
e : time
f = CURRENT_TIMESTAMP : timestamp
g : year
h : text
i = null : longblob
j = 0 : tinyint
k : numeric(7,2)
"""
UID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def row(number: int, attachment: Path) -> dict[str, Any]:
    return {
        "number": number,
        "uid": UID,
        "when_done": datetime(2024, 2, 29, 23, 59, 58, 123000),
        "tiny": -128,
        "small": 7,
        "big": None,
        "single": 0.5,
        "double": 1 / 3,
        "exact": Decimal("-12.345"),
        "flag": 0,
        "letters": "abcd",
        "words": f"50% 'of' \"it\" \\ {number} ü",
        "side": "right",
        "day": date(1999, 12, 31),
        "moment": datetime(2000, 1, 1, 12, 30),
        "settings": {"a": [1, 2.5, None], "b": "ü"},
        "raw": b"\x00\xff%s",
        "packed": {"x": np.arange(6).reshape(2, 3), "y": [1, "two", None, (3,)]},
        "file": str(attachment),
    }


def declare(library: Library, name: str, definition: str, class_name: str = "Thing") -> Any:
    schema = library.schema(name)
    cls = type(class_name, (library.dj.Manual,), {"definition": definition})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # native types are said to be less portable
        return schema(cls)


def create_statement(library: Library, table: Any) -> str:
    name = f"`{table.database}`.`{table.table_name}`"
    text = library.connection.query(f"SHOW CREATE TABLE {name}").fetchone()[1]
    return re.sub(r"t[0-9a-f]{8}_both\w*", "lab", text)


def same(found: dict[str, Any], given: dict[str, Any], folder: Path) -> bool:
    found, given = dict(found), dict(given)
    packed, expected = found.pop("packed"), given.pop("packed")
    file = Path(found.pop("file"))
    file = file if file.is_absolute() else folder / file
    assert file.read_text() == Path(given.pop("file")).read_text()
    assert np.array_equal(packed.pop("x"), expected["x"])
    assert list(packed["y"]) == expected["y"]
    return found == given


def test_a_table_of_every_type_is_laid_out_alike(libraries: Libraries) -> None:
    texts = [
        create_statement(library, declare(library, f"{libraries.schema}{n}", DEFINITION))
        for n, library in enumerate((libraries.ours, libraries.theirs))
    ]
    assert texts[0] == texts[1]


def test_native_types_are_laid_out_alike(libraries: Libraries) -> None:
    # We declare a longblob as <blob>, as it was always meant; DataJoint 2.3 as raw bytes.
    ours = declare(libraries.ours, f"{libraries.schema}0", NATIVE)
    theirs = declare(libraries.theirs, f"{libraries.schema}1", NATIVE)
    text = create_statement(libraries.ours, ours).replace(" COMMENT ':<blob>:'", "")
    assert text == create_statement(libraries.theirs, theirs)


def test_rows_of_every_type_go_both_ways(
    libraries: Libraries, declares: str, attachment: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    here, there = libraries.pair(declares)
    table = declare(here, libraries.schema, DEFINITION)
    other = there.module(libraries.schema).Thing()
    rows = [row(1, attachment), row(2, attachment)]
    table.insert1(rows[0])
    other.insert1(rows[1])
    for view in (table(), other):
        for given in rows:
            found = (view & {"number": given["number"], "uid": UID}).fetch1()
            assert same(found, given, tmp_path)
    assert table().heading.primary_key == other.heading.primary_key
    assert list(table().heading.names) == list(other.heading.names)


def test_missing_values_and_defaults(libraries: Libraries, declares: str, attachment: Path) -> None:
    here, there = libraries.pair(declares)
    table = declare(here, libraries.schema, DEFINITION)
    other = there.module(libraries.schema).Thing()
    given = row(1, attachment)
    for name in ("small", "big", "double", "flag", "side", "settings"):
        del given[name]
    other.insert1(given)
    found = (table & {"number": 1}).proj("small", "big", "double", "flag", "side").fetch1()
    assert {k: found[k] for k in ("small", "big", "double", "side")} == {
        "small": -1, "big": None, "double": 1.5, "side": "left",
    }  # fmt: skip
    assert found["flag"] == 1


FAMILY = """
@schema
class Subject(dj.Manual):
    definition = '''
    subject : varchar(12)  # a name
    ---
    -> [nullable] Species
    '''

@schema
class Session(dj.Manual):
    definition = '''
    -> Subject
    session : uuid
    ---
    -> [unique] Subject.proj(partner='subject')
    -> [nullable, unique] Species.proj(other='species')
    '''

    class Trial(dj.Part):
        definition = '''
        -> master
        trial : int16
        ---
        outcome : float64
        '''

@schema
class Result(dj.Computed):
    definition = '''
    -> Session.Trial
    ---
    x : float64
    '''

    def make(self, key):
        self.insert1({**key, 'x': (Session.Trial & key).fetch1('outcome') * 2})
"""


def family(library: Library, name: str) -> dict[str, Any]:
    """Declare tables that refer to each other in every way."""
    schema = library.schema(name)

    class Species(library.dj.Lookup):
        definition = "species : varchar(20)"
        contents = (("mouse",), ("rat",))

    names: dict[str, Any] = {"schema": schema, "dj": library.dj, "Species": Species}
    schema.context = names
    schema(Species)
    exec(FAMILY, names)
    return names


def test_foreign_keys_are_laid_out_alike(libraries: Libraries) -> None:
    made = [
        family(library, f"{libraries.schema}{n}")
        for n, library in enumerate((libraries.ours, libraries.theirs))
    ]
    for name in ("Species", "Subject", "Session", "Result"):
        texts = [
            create_statement(library, names[name])
            for library, names in zip((libraries.ours, libraries.theirs), made, strict=True)
        ]
        assert texts[0] == texts[1]
    lineages = [
        libraries.ours.connection.query(
            f"SELECT table_name, attribute_name, lineage FROM `{libraries.schema}{n}`.`~lineage` "
            "WHERE table_name NOT LIKE '~%' ORDER BY 1, 2"
        ).fetchall()
        for n in (0, 1)
    ]
    shortened = [[(*a, re.sub(r"^\w+_both\d", "lab", b)) for *a, b in rows] for rows in lineages]
    assert shortened[0] == shortened[1]


def test_a_pipeline_is_filled_by_both(libraries: Libraries, declares: str) -> None:
    here, there = libraries.pair(declares)
    names = family(here, libraries.schema)
    module = there.module(libraries.schema)
    session = {"subject": "a", "session": UID}
    names["Subject"].insert([("a", "mouse"), ("b", None)])
    module.Session.insert1({**session, "partner": "b", "other": "rat"})
    module.Session.Trial.insert([{**session, "trial": n, "outcome": n / 2} for n in range(4)])
    # Joins and restrictions follow lineage, which the other library has written.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(module.Session() * module.Subject() * module.Session.Trial()) == 4
        assert len(names["Session"]() * names["Subject"]() & names["Session"].Trial()) == 1
        assert len(module.Subject() - module.Session()) == 1
    names["Result"].populate()
    assert sorted(module.Result().to_arrays("x")) == [0, 1, 2, 3]
    (module.Session() & session).delete()
    assert len(names["Result"]()) == len(names["Session"].Trial()) == 0


def test_singletons_and_hidden_columns(libraries: Libraries, declares: str) -> None:
    here, there = libraries.pair(declares)
    table = declare(here, libraries.schema, "---\nvalue : int32")
    other = there.module(libraries.schema).Thing()
    other.insert1({"value": 5})
    assert table.fetch1("value") == other.fetch1("value") == 5
    assert list(table().heading.names) == list(other.heading.names) == ["value"]
    with pytest.raises(Exception, match=r"(?i)duplicate|already"):
        table.insert1({"value": 6})

"""Altering a table to what its definition says, with its rows and all that refer to it kept."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.model.names import TableName
from tests.relational.test_describe import facts


class Pair:
    """A table with rows, one that it refers to and one that refers to it."""

    def __init__(self, schema: Any) -> None:
        class Lab(dj.Manual):
            definition = "lab : varchar(8)  # where"

        class Subject(dj.Manual):
            definition = """
            # subjects
            subject : int32    # the number
            ---
            name : varchar(20)
            weight = null : float64
            sex = 'U' : enum('F', 'M', 'U')
            """

        class Session(dj.Manual):
            definition = "-> Subject\nsession : int32"

        self.schema, self.copies = schema, 0
        self.Lab, self.Subject, self.Session = map(schema, (Lab, Subject, Session))
        self.Lab.insert([("a",), ("b",)])
        self.Subject.insert([(1, "x", 1.5, "F"), (2, "y", None, "M")])
        self.Session.insert([(1, 1), (2, 1)])

    def alter(self, definition: str) -> bool:
        self.Subject.definition = definition
        return self.Subject.alter(prompt=False)

    def is_as_declared(self, definition: str) -> bool:
        """Whether the table is as if it had been declared so in the first place."""
        self.copies += 1
        other: Any = dj.Schema(
            f"{self.schema.name}{self.copies}", connection=self.schema.connection, context={}
        )
        for name, text in (("Lab", self.Lab.definition), ("Subject", definition)):
            other.context[name] = other(type(name, (dj.Manual,), {"definition": text}))
        return facts(self.schema, "subject") == facts(other, "subject")


@pytest.fixture
def pair(schema: Any) -> Pair:
    return Pair(schema)


NEW = """
# animals
subject : int32    # the number, renewed
---
grams = null : float64          # {weight} in grams
sex = 'M' : enum('M', 'F', 'U', 'X')
name = 'none' : varchar(40)     # what it's called, 100 %
born = '2020-01-02' : date
tag = null : <blob>
index(name, sex)
unique index(grams)
"""


def test_attributes_indexes_and_comments(pair: Pair) -> None:
    assert pair.alter(NEW)
    assert pair.is_as_declared(NEW.replace("{weight} ", ""))
    rest = {"born": date(2020, 1, 2), "tag": None}
    assert pair.Subject.to_dicts(order_by="KEY") == [
        {"subject": 1, "grams": 1.5, "sex": "F", "name": "x", **rest},
        {"subject": 2, "grams": None, "sex": "M", "name": "y", **rest},
    ]
    assert len(pair.Session * pair.Subject) == 2
    with pytest.raises(dj.IntegrityError):
        pair.Session.insert1((9, 1))
    with pytest.raises(dj.IntegrityError):
        (pair.Subject & {"subject": 1}).delete_quick()
    assert not pair.alter(NEW)  # the rename is done, the rest is so


def test_foreign_keys_and_indexes_come_and_go(pair: Pair) -> None:
    plain = pair.Subject.definition
    with_keys = plain + "\n-> [nullable] Lab\n-> [nullable, unique] Lab.proj(second='lab')"
    assert pair.alter(with_keys)
    assert pair.is_as_declared(with_keys)
    pair.Subject.update1({"subject": 1, "lab": "a", "second": "b"})
    with pytest.raises(dj.QueryError):
        pair.Subject.insert1({"subject": 3, "name": "z", "second": "b"})
    with pytest.raises(dj.IntegrityError):
        (pair.Lab & {"lab": "a"}).delete_quick()
    assert pair.Subject.heading["second"].lineage == f"{pair.schema.name}.lab.lab"

    without_unique = with_keys.replace(", unique", "")
    assert pair.alter(without_unique)
    assert pair.is_as_declared(without_unique)

    renamed = without_unique.replace("second=", "third=")
    assert pair.alter(renamed)
    assert pair.is_as_declared(renamed)

    assert pair.alter(plain)
    assert not pair.alter(plain)
    assert pair.is_as_declared(plain)
    assert pair.Lab.delete() == 2


def test_triggers_stay(pair: Pair, connection: dj.Connection) -> None:
    place = connection.backend.full_name(pair.Subject().name)
    quote = "`{}`" if connection.backend.name == "sqlite" else f"`{pair.schema.name}`.`{{}}`"
    connection.query(
        f"CREATE TRIGGER {quote.format('sexed')} AFTER INSERT ON {place} FOR EACH ROW "
        f"BEGIN DELETE FROM {connection.backend.full_name(pair.Session().name)}; END"
    )
    assert pair.alter("subject : int32\n---\nname : varchar(40)\nsex = 'U' : enum('F', 'M', 'U')")
    assert len(pair.Session()) == 2
    pair.Subject.insert1((3, "z", "F"))
    assert not pair.Session()


def test_an_attribute_becomes_a_foreign_key(pair: Pair) -> None:
    plain = pair.Subject.definition
    pair.alter(plain + "\nlab = null : varchar(8)")
    pair.Subject.update1({"subject": 1, "lab": "nowhere"})
    with pytest.raises(dj.IntegrityError):
        pair.alter(plain + "\n-> [nullable] Lab")
    assert (pair.Subject & {"subject": 1}).fetch1("lab") == "nowhere"
    pair.Subject.update1({"subject": 1, "lab": "b"})
    assert pair.alter(plain + "\n-> [nullable] Lab")
    assert pair.Subject.parents() == [pair.Lab.full_table_name]


def test_values_take_their_new_type(pair: Pair) -> None:
    plain = pair.Subject.definition
    assert pair.alter(plain.replace("float64", "decimal(5,2)"))
    assert pair.Subject.to_arrays("weight", order_by="KEY").tolist() == [Decimal("1.50"), None]
    assert pair.alter(plain.replace("weight = null : float64", "weight = null : varchar(9)"))
    assert (pair.Subject & {"subject": 1}).fetch1("weight") == "1.50"
    before = facts(pair.schema, "subject")
    with pytest.raises(dj.DefinitionError, match="'x'"):
        pair.alter(plain.replace("name : varchar(20)", "name : int32"))
    assert facts(pair.schema, "subject") == before
    assert pair.Subject.to_arrays("name", order_by="KEY").tolist() == ["x", "y"]


def test_values_that_a_unique_index_refuses_are_named(pair: Pair) -> None:
    plain = pair.Subject.definition
    before = facts(pair.schema, "subject")
    pair.Subject.insert1((3, "x", 1.5, "M"))
    for index, shared in (("weight", "weight = 1.5"), ("weight, name", "weight = 1.5, name = 'x'")):
        with pytest.raises(dj.DuplicateError) as caught:
            pair.alter(f"{plain}\nunique index({index})")
        assert f"subject cannot have unique index({index})" in str(caught.value)
        assert shared in str(caught.value)
    with pytest.raises(dj.DuplicateError, match=r"subject cannot have unique index\(born\)"):
        pair.alter(f"{plain}\nborn = '2020-01-02' : date\nunique index(born)")
    assert facts(pair.schema, "subject") == before


def test_an_index_that_is_there_twice_is_no_change(pair: Pair) -> None:
    twice = f"{pair.Subject.definition}\nindex(name)\nindex(name)"
    assert pair.alter(twice)
    assert not pair.alter(twice)
    again = pair.schema(type("Again", (dj.Manual,), {"definition": twice}))
    assert not again.alter(prompt=False)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("subject : int32 ", "subject : int64 ", "primary key"),
        ("subject : int32 ", "subject : int32\n extra : int32 ", "primary key"),
        ("subject : int32 ", "-> Lab\n subject : int32 ", "primary key"),
        ("weight = null : float64", "weight : float64", "null in 1 row"),
        ("---", "---\n added : int32", "'added'"),
        ("---", "---\n -> Lab", "'lab'"),
        ("name : varchar(20)", "name : <blob>", "into <blob>"),
        ("---", "---\n x : nosuch", "nosuch"),
    ],
)
def test_what_is_refused_changes_nothing(pair: Pair, old: str, new: str, words: str) -> None:
    before = facts(pair.schema, "subject")
    with pytest.raises(dj.DefinitionError, match=words):
        pair.alter(pair.Subject.definition.replace(old, new, 1))
    assert facts(pair.schema, "subject") == before
    assert len(pair.Subject) == 2


@pytest.mark.parametrize(("before", "after"), [(" auto_increment", ""), ("", " auto_increment")])
def test_a_counter_is_a_difference(schema: Any, before: str, after: str) -> None:
    """Headings have the type without it, as in DataJoint, which types are not compared by."""
    for counter in (before, after):
        definition = f"number : int{counter}\n---\nvalue : int32"
        again = dj.Schema(schema.name, connection=schema.connection)
        table: Any = again(type("Item", (dj.Manual,), {"definition": definition}))
        assert table().heading["number"].type == "int"
    with pytest.raises(dj.DefinitionError, match=r"primary key of .*item cannot be altered"):
        table.alter(prompt=False)


def test_an_empty_table_takes_required_attributes(pair: Pair) -> None:
    pair.Subject.delete()
    definition = pair.Subject.definition + "\n-> Lab\nadded : int32"
    assert pair.alter(definition)
    assert pair.is_as_declared(definition)


def test_changes_are_shown_before_they_are_made(pair: Pair, connection: dj.Connection) -> None:
    asked: list[str] = []

    def no(text: str) -> bool:
        asked.append(text)
        return False

    pair.Subject.definition = NEW
    before = facts(pair.schema, "subject")
    assert pair.Subject.alter(confirm=no) is False
    assert facts(pair.schema, "subject") == before
    assert "rename attribute weight to grams" in asked[0]
    assert "unique index(grams)" in asked[0]
    with pytest.raises(dj.DataJointError, match="prompt=False"):
        pair.Subject.alter()
    with connection.transaction(), pytest.raises(dj.QueryError, match="transaction"):
        pair.Subject.alter(prompt=False)
    free = dj.FreeTable(connection, pair.Subject.full_table_name)
    with pytest.raises(dj.DataJointError, match="no definition"):
        free.alter(prompt=False)
    with pytest.raises(dj.QueryError, match="restricted"):
        (pair.Subject & {"subject": 1}).alter(prompt=False)


def test_parts_and_tables_that_refer_to_themselves(schema: Any) -> None:
    @schema
    class Person(dj.Manual):
        definition = """
        person : int32
        ---
        -> [nullable] self.proj(boss='person')
        """

        class Name(dj.Part):
            definition = """
            -> master
            name : varchar(20)
            """

    Person.insert([(1, None), (2, 1)])
    Person.Name.insert1((1, "x"))
    Person.definition += "\nage = 0 : int32"
    Person.Name.definition += "\n---\n-> [nullable] Person.proj(friend='person')"
    assert Person.alter(prompt=False)
    assert Person.Name.alter(prompt=False)
    Person.Name.update1({"person": 1, "name": "x", "friend": 2})
    assert Person.foreign_keys[0].parent == TableName(schema.name, "person")
    with pytest.raises(dj.IntegrityError):
        Person.insert1((3, 9, 0))
    assert Person.delete() == 2


def test_hidden_attributes_stay(schema: Any, connection: dj.Connection) -> None:
    @schema
    class Single(dj.Manual):
        definition = """
        ---
        gain : float64
        """

    Single.insert1({"gain": 1.5})
    with connection.cursor() as session:
        session.exec_driver_sql(
            f"ALTER TABLE {Single.full_table_name} ADD COLUMN _prov int DEFAULT 7"
        )
    connection.catalog.forget(schema.name)
    Single.definition = "---\noffset = 0 : float64\ngain : float64"
    assert Single.alter(prompt=False)
    assert Single.fetch1() == {"offset": 0.0, "gain": 1.5}
    assert Single.heading.all_attributes["_prov"].hidden
    assert not Single.alter(prompt=False)
    with pytest.raises(dj.DuplicateError):
        Single.insert1({"gain": 2.0})


def test_declaring_otherwise_warns(pair: Pair, recwarn: pytest.WarningsRecorder) -> None:
    class Subject(dj.Manual):
        definition = pair.Subject.definition

    pair.schema(Subject)
    assert not [w for w in recwarn if w.category is UserWarning]
    Subject.definition = """
    subject : int32
    ---
    name : varchar(30)
    sex = 'U' : enum('F', 'M', 'U')
    -> [nullable] Lab
    """
    with pytest.warns(UserWarning, match="it has no lab; it has weight besides; name is varchar"):
        pair.schema(Subject)
    with pytest.warns(UserWarning, match=r"refer to \S*\.lab by lab. It is used as it is"):
        pair.schema(Subject)
    assert Subject.heading.names == ["subject", "name", "weight", "sex"]
    assert Subject.alter(prompt=False)
    assert Subject.heading.names == ["subject", "name", "sex", "lab"]


def test_comments_keep_what_takes_four_bytes(schema: Any, database_url: str) -> None:
    @schema
    class Mood(dj.Manual):
        definition = """
        # how it was 😀
        mood : int32
        ---
        label : varchar(9)  # a face 😈, or two 😀😀
        """

    assert not Mood.alter(prompt=False)
    found = dj.Schema(schema.name, connection=dj.Connection(database_url))["mood"].heading
    assert found.comment == "how it was 😀"
    assert found["label"].comment == "a face 😈, or two 😀😀"
    Mood.definition = Mood.definition.replace("😈", "😂").replace("was 😀", "is 😂")
    assert Mood.alter(prompt=False)
    assert not Mood.alter(prompt=False)
    assert "is 😂" in Mood.describe()


@pytest.mark.parametrize("line", ["mood : enum('😀', '😈')", "mood = '😀' : varchar(9)"])
def test_values_of_four_bytes_in_definitions_hold_or_are_named(schema: Any, line: str) -> None:
    made = type("Mood", (dj.Manual,), {"definition": f"number : int32\n---\n{line}"})
    if schema.connection.backend.name == "mysql":
        with pytest.raises(dj.DataJointError, match=r"mood.*😀"):
            schema(made)
        return
    table: Any = schema(made)
    table.insert([{"number": 1, "mood": "😀"}])
    assert table.fetch1("mood") == "😀"
    assert not table.alter(prompt=False)


@pytest.mark.parametrize("kind", ["float64", "decimal(20,12)"])
def test_floats_of_32_bits_keep_their_digits(
    connection: dj.Connection, schema: dj.Schema, kind: str
) -> None:
    @schema
    class Gain(dj.Manual):
        definition = "gain : int32\n---\nfactor = null : float32  # {times}\nindex (factor)"

    values = [0.1, 16777216.0, None, -1.1, 0.25, 3.402823, 0.0]
    Gain.insert(enumerate(values))
    Gain.definition = Gain.definition.replace("float32", kind)
    assert Gain.alter(prompt=False)
    found = Gain.to_arrays("factor", order_by="KEY").tolist()
    if kind == "float64":
        assert np.array_equal(found, np.array(values, float), equal_nan=True)
    else:
        assert found == [None if value is None else Decimal(str(value)) for value in values]
    assert (Gain & {"factor": 0.1}).fetch1("gain") == 0
    assert Gain.heading["factor"].comment == "{times}"
    assert not Gain.alter(prompt=False)


@pytest.mark.parametrize("line", ["-> Parent", "parent : int32\nunique index (parent)"])
def test_floats_of_32_bits_stay_where_the_rows_are_refused(schema: dj.Schema, line: str) -> None:
    @schema
    class Parent(dj.Manual):
        definition = "parent : int32"

    @schema
    class Gain(dj.Manual):
        definition = "gain : int32\n---\nfactor : float32  # in 1%, `x`\nparent : int32"

    Gain.insert([(1, 0.1, 7), (2, 0.2, 7)])
    before = facts(schema, "gain")
    Gain.definition = f"gain : int32\n---\nfactor : float64  # in 1%, `x`\n{line}"
    with pytest.raises((dj.IntegrityError, dj.DuplicateError), match=r"gain"):
        Gain.alter(prompt=False)
    assert facts(schema, "gain") == before
    assert Gain.to_arrays("factor", order_by="KEY").tolist() == [0.1, 0.2]
    with pytest.raises(dj.DataJointError):
        Gain.insert1((3, None, 7))


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("decimal(5,2)", "decimal(12,4)", Decimal("1.50")),
        ("datetime", "datetime(6)", datetime(2026, 1, 2, 3, 4, 5)),
        ("datetime(3)", "datetime(6)", datetime(2026, 1, 2, 3, 4, 5, 600_000)),
        ("time", "time(3)", timedelta(hours=-3)),
        ("date", "datetime", date(2026, 1, 2)),
        ("int8", "decimal(5,2)", 3),
        ("bool", "int16", True),
    ],
)
def test_rows_are_found_by_what_a_wider_type_holds(
    schema: dj.Schema, old: str, new: str, value: object
) -> None:
    @schema
    class Value(dj.Manual):
        definition = f"number : int32\n---\nvalue = null : {old}"

    Value.insert([(1, value), (2, None)])
    Value.definition = Value.definition.replace(old, new)
    assert Value.alter(prompt=False)
    (found,) = (Value & {"value": value}).to_dicts()
    assert found["value"] in (value, datetime(2026, 1, 2))
    assert (Value & found).fetch1("number") == 1


def test_words_in_braces_that_do_not_rename_stay_in_comments(schema: dj.Schema) -> None:
    @schema
    class Point(dj.Manual):
        definition = "number : int32\n---\nvalue : float64  # of the axis"

    wanted = Point.definition.replace("of the axis", "{x} of the rig") + "\nother = 1 : int8  # {y}"
    Point.definition = wanted
    assert Point.alter(prompt=False)
    assert Point.heading["value"].comment == "{x} of the rig"
    assert Point.heading["other"].comment == "{y}"
    Point.definition = wanted.replace("value : float64  # {x}", "place : float64  # {value}")
    assert Point.alter(prompt=False)
    assert Point.heading["place"].comment == "of the rig"
    assert not Point.alter(prompt=False)

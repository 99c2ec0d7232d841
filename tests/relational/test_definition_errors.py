"""What is wrong with a definition is said with its place, and nothing is declared then."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

import dj_dagster as dj

NOT_A_TABLE = 5


class Undeclared(dj.Manual):
    definition = """
    id : int32
    """


class UndeclaredResult(dj.Computed):
    definition = "-> Undeclared"

    def make(self, key: Any) -> Any:
        return key


class Unparsable(dj.Manual):
    class Part(dj.Part):
        definition = """
        -> master
        """

    definition = """
    id : int32
    ---
    value : imt32
    """


class UnknownParent(dj.Manual):
    definition = """
    id : int32

    -> Sesion
    """


class ParentUndeclared(dj.Manual):
    definition = """
    -> Undeclared
    """


class ParentIsNoTable(dj.Manual):
    definition = """
    -> NOT_A_TABLE
    """


class BadRename(dj.Manual):
    definition = """
    -> Session.proj(x='nosuch')
    """


class UnknownCodec(dj.Manual):
    definition = """
    id : int32
    ---
    a : int32
    b : <nosuch>
    """


class BadIndex(dj.Manual):
    definition = """
    id : int32
    ---
    a : int32
    index(a, nosuch)
    """


class SelfInKey(dj.Manual):
    definition = """
    id : int32
    -> self.proj(parent='id')
    """


class MasterOfNone(dj.Manual):
    definition = """
    -> master        # of nothing
    """


class Twice(dj.Manual):
    definition = """
    id : int32
    ---
    b : int32
    b : varchar(9)
    """


class PartOfNothing(dj.Manual):
    definition = """
    id : int32
    """

    class Piece(dj.Part):
        definition = """
        -> master
        -> Nothing
        """


@pytest.mark.parametrize(
    ("cls", "line", "words"),
    [
        (Unparsable, "value : imt32", "int32"),
        (UnknownParent, "-> Sesion", "Did you mean Session"),
        (UnknownParent, "-> Sesion", "Known tables: Session."),
        (MasterOfNone, "-> master        # of nothing", "which only a part has"),
        (ParentUndeclared, "-> Undeclared", "not declared yet"),
        (ParentIsNoTable, "-> NOT_A_TABLE", "not a table but a int"),
        (BadRename, "-> Session.proj(x='nosuch')", "Its primary key is session"),
        (UnknownCodec, "b : <nosuch>", "no codec <nosuch>"),
        (BadIndex, "index(a, nosuch)", "The index names 'nosuch'"),
        (SelfInKey, "-> self.proj(parent='id')", "cannot be part of the primary key"),
        (Twice, "b : varchar(9)", "already declared, as int32 on line"),
        (PartOfNothing, "-> Nothing", "PartOfNothing.Piece"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_place_of_a_mistake(schema: Any, cls: Any, line: str, words: str) -> None:
    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        """

    with pytest.raises(dj.DefinitionError) as caught:
        schema(cls)
    lines, first = inspect.getsourcelines(sys.modules[__name__])
    number = next(n for n, text in enumerate(lines, first or 1) if text.strip() == line)
    message = str(caught.value)
    assert f"test_definition_errors.py:{number}, table {cls.__name__}" in message
    assert words in message
    assert schema.list_tables() == ["session"]
    assert list(schema.tables) == ["Session"]


def test_an_attribute_declared_twice_in_the_old_era() -> None:
    connection = dj.Connection("sqlite:///:memory:", era="0.14")
    with pytest.warns(DeprecationWarning, match="'b' is already declared.*which holds"):
        table = dj.Schema("lab", connection=connection)(type("Twice", (Twice,), dict(vars(Twice))))
    assert str(table.heading["b"].type) == "int32"


def test_classes_that_are_no_tables(schema: Any) -> None:
    for cls in (int, dj.Table, 5):
        with pytest.raises(dj.DataJointError, match="derive it from Manual"):
            schema(cls)
    with pytest.raises(dj.DefinitionError, match="Bare has no definition"):
        schema(type("Bare", (dj.Manual,), {}))
    with pytest.raises(dj.DataJointError, match="declared with its master"):
        schema(PartOfNothing.Piece)
    with pytest.raises(dj.DataJointError, match="belongs to no schema"):
        _ = Undeclared().heading


@pytest.mark.parametrize(
    "use",
    [
        lambda: Undeclared.fetch(),
        lambda: Undeclared.to_dicts(limit=1),
        lambda: Undeclared.insert1((1,)),
        lambda: Undeclared.insert([{"id": 1}]),
        lambda: Undeclared.fetch1("id"),
        lambda: Undeclared.delete(prompt=False),
        lambda: UndeclaredResult.populate(suppress_errors=True),
        lambda: Undeclared & {"id": 1},
        lambda: Undeclared - {"id": 1},
        lambda: Undeclared * Undeclared,
        lambda: Undeclared.proj(),
        lambda: len(Undeclared),
        lambda: list(Undeclared),
        lambda: {"id": 1} in Undeclared,
    ],
)
def test_a_class_that_is_not_decorated_says_so(use: Any) -> None:
    with pytest.raises(dj.DataJointError, match=r"Undeclared\w* belongs to no schema.*@schema"):
        use()


@pytest.mark.parametrize("use", [lambda t: t & Undeclared, lambda t: t * Undeclared])
def test_nor_can_it_be_part_of_a_query(schema: Any, use: Any) -> None:
    @schema
    class Thing(dj.Manual):
        definition = "id : int32"

    with pytest.raises(dj.DataJointError, match=r"Undeclared belongs to no schema.*@schema"):
        use(Thing)


def test_methods_of_a_class_that_is_not_decorated_are_functions(schema: Any) -> None:
    assert UndeclaredResult.make(None, 5) == 5

    @schema
    class Kept(Undeclared):
        definition = "id : int32"

        def add(self, row: Any) -> None:
            Undeclared.insert1(self, row)

    Kept().add((3,))
    assert Kept.to_dicts() == [{"id": 3}]


def test_definition_without_a_source_file(schema: Any) -> None:
    made = type("Made", (dj.Manual,), {"definition": "id : int32\n-> Nothing"})
    with pytest.raises(dj.DefinitionError, match="line 2, table Made: Made refers to Nothing"):
        schema(made)

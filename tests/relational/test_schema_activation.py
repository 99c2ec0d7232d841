"""Schemas that are given their name late, and the names that definitions find."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import dj_dagster as dj

# As the published Elements are written.
ELEMENT = '''
import dj_dagster as dj

schema = dj.Schema()
_linking_module = None


def activate(name, *, connection, create_schema=True, create_tables=True, linking_module=None):
    global _linking_module
    _linking_module = linking_module
    schema.activate(
        name,
        connection=connection,
        create_schema=create_schema,
        create_tables=create_tables,
        add_objects=vars(linking_module),
    )


@schema
class Method(dj.Lookup):
    definition = """
    method : varchar(16)
    """
    contents = [["fast"], ["good"]]


@schema
class Recording(dj.Imported):
    definition = """
    -> Session
    ---
    -> Method
    -> [nullable] _linking_module.Device
    """

    class Channel(dj.Part):
        definition = """
        -> master
        channel : int32
        """


@schema
class Summary(dj.Computed):
    definition = """
    -> Recording.Channel
    """
'''


@pytest.fixture
def element(tmp_path: Path) -> Iterator[ModuleType]:
    """A module whose schema has no name yet."""
    file = tmp_path / "element_recording.py"
    file.write_text(ELEMENT)
    spec = importlib.util.spec_from_file_location("element_recording", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["element_recording"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["element_recording"]


@pytest.fixture
def linking(schema: Any) -> ModuleType:
    """A module with the tables that an element is to be linked to."""

    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        """

    @schema
    class Device(dj.Manual):
        definition = """
        device : varchar(16)
        """

    module = ModuleType("linking")
    vars(module).update(Session=Session, Device=Device)
    return module


def test_an_element_is_declared_when_it_is_activated(
    element: Any, linking: Any, connection: dj.Connection, schema_prefix: str
) -> None:
    assert not element.schema.is_activated()
    assert element.schema.database is None
    with pytest.raises(dj.DataJointError, match=r"activate\('my_schema'\)"):
        element.schema.list_tables()
    with pytest.raises(dj.DataJointError, match="belongs to no schema yet"):
        element.Recording().fetch()

    name = f"{schema_prefix}element"
    element.activate(name, connection=connection, linking_module=linking)
    assert element.schema.is_activated()
    assert element.schema.exists
    assert element.schema.database == element.schema.name == name
    assert list(element.schema.tables) == ["Method", "Recording", "Summary"]
    assert element.schema.list_tables() == [
        "#method",
        "_recording",
        "_recording__channel",
        "__summary",
    ]
    assert len(element.Method) == 2
    parents = {(key.parent.schema, key.parent.table) for key in element.Recording.foreign_keys}
    session, device = linking.Session(), linking.Device()
    assert parents == {
        (session.database, "session"),
        (device.database, "device"),
        (name, "#method"),
    }
    assert element.Recording.Channel.master is element.Recording

    element.activate(name, connection=connection, linking_module=linking)
    with pytest.raises(dj.DataJointError, match=f"already activated as '{name}'"):
        element.schema.activate(f"{schema_prefix}another")


def test_activation_that_failed_is_taken_up_again(
    element: Any, linking: Any, connection: dj.Connection, schema_prefix: str
) -> None:
    name = f"{schema_prefix}element"
    with pytest.raises(dj.DataJointError, match="create_schema=True"):
        element.activate(name, connection=connection, create_schema=False, linking_module=linking)
    assert not element.schema.is_activated()
    lacking = ModuleType("lacking")
    with pytest.raises(dj.DefinitionError, match="refers to Session"):
        element.activate(name, connection=connection, create_schema=True, linking_module=lacking)
    assert list(element.schema.tables) == ["Method"]
    element.activate(name, connection=connection, linking_module=linking)
    assert list(element.schema.tables) == ["Method", "Recording", "Summary"]


def test_a_dropped_schema_is_activated_anew(connection: dj.Connection, schema_prefix: str) -> None:
    schema: Any = dj.Schema()

    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        """

    for name in ("one", "two"):
        schema.activate(schema_prefix + name, connection=connection)
        Session.insert1((1,))
        assert Session.database == schema_prefix + name
        schema.drop()
        assert not schema.exists


def test_of_a_class_that_is_written_again_the_last_one_counts(
    connection: dj.Connection, schema_prefix: str
) -> None:
    schema: Any = dj.Schema()
    for kind in ("int8", "int32"):
        schema(type("Session", (dj.Manual,), {"definition": f"session : {kind}"}))
    schema.activate(schema_prefix + "one", connection=connection)
    assert schema["Session"].heading["session"].type == "int32"
    schema["Session"].drop()
    schema(type("Session", (dj.Manual,), {"definition": "session : int32\n---\nx : int8"}))
    schema.drop()
    schema.activate(schema_prefix + "one")
    assert schema["Session"].heading.names == ["session", "x"]
    schema.drop()


def test_classes_of_a_function_find_each_other(schema: Any, connection: dj.Connection) -> None:
    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        """

    lab = SimpleNamespace(Session=Session)
    other: Any = dj.Schema()

    @other
    class Note(dj.Manual):
        definition = """
        -> lab.Session
        """

    @other
    class Mark(dj.Manual):
        definition = """
        -> Session
        -> Note
        """

    other.activate(f"{schema.name}_other", connection=connection)
    assert lab.Session is Session
    assert Note.foreign_keys[0].parent == Session.name
    assert Mark.primary_key == ["session"]


def test_what_comes_first_among_names(schema: Any, connection: dj.Connection) -> None:
    def declare(schema: Any) -> Any:
        @schema
        class Session(dj.Manual):
            definition = """
            session : int32
            """

        return Session

    def child(schema: Any, **names: Any) -> Any:
        vars().update(names)

        class Child(dj.Manual):
            definition = """
            -> Session
            """

        return schema(Child).foreign_keys[0].parent

    first, second = declare(schema), declare(dj.Schema(f"{schema.name}_two", connection=connection))
    third = dj.Schema(f"{schema.name}_three", connection=connection, context={"Session": second})
    fourth = dj.Schema(
        f"{schema.name}_four",
        connection=connection,
        context={"Session": second},
        add_objects={"Session": first},
    )
    assert child(schema) == first.name
    assert child(third) == second.name
    assert child(fourth) == first.name


def test_a_local_name_comes_before_the_schemas_own(schema: Any, connection: dj.Connection) -> None:
    other: Any = dj.Schema(f"{schema.name}_other", connection=connection)

    @other
    class Session(dj.Manual):  # pyright: ignore[reportRedeclaration]
        definition = """
        session : int32
        """

    theirs = Session

    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        """

    del Session
    Session = theirs

    @schema
    class Child(dj.Manual):
        definition = """
        -> Session
        """

    assert Session is theirs
    assert Child.foreign_keys[0].parent == theirs.name


def test_definitions_that_are_inherited_or_worked_out(schema: Any) -> None:
    class Counted:
        unit = "trial"

        @property
        def definition(self) -> Any:
            return f"""
            {self.unit} : int32
            """

    @schema
    class Trial(Counted, dj.Manual):  # pyright: ignore[reportIncompatibleVariableOverride]
        pass

    class Described(dj.Manual):
        definition = """
        block : int32
        """

    @schema
    class Block(Described):
        """A block of trials."""

    assert Trial.primary_key == ["trial"]
    assert Block.primary_key == ["block"]
    for _ in range(2):
        documented = schema(Block).__doc__
        assert documented == f"A block of trials.\n\nDefinition:\n\n{Block.definition}\n"


def test_an_autoincrement_lookup_is_filled_once(schema: Any) -> None:
    class Kind(dj.Lookup):
        definition = """
        kind_id : int auto_increment
        ---
        kind : varchar(16)
        """
        contents = ({"kind": "a"}, {"kind": "b"})

    assert len(schema(Kind)) == 2
    assert len(schema(Kind)) == 2
    Kind.contents = ({"kind": "a"}, {"kind": "b"}, {"kind": "c"})
    with pytest.warns(UserWarning, match="contents of Kind have grown"):
        assert len(schema(Kind)) == 2


def test_a_class_without_definition_takes_the_table_that_is_there(schema: Any) -> None:
    made = {"definition": "block : int32\n---\nnote : varchar(8)"}
    schema(type("Block", (dj.Manual,), made)).insert1((1, "x"))
    bare = type("Block", (dj.Manual,), {})
    again = dj.Schema(schema.name, connection=schema.connection)
    again(bare)
    table: Any = bare
    assert table.to_dicts() == [{"block": 1, "note": "x"}]
    with pytest.raises(dj.DefinitionError, match="Block has no definition"):
        table.alter(prompt=False)
    table.definition = made["definition"] + "\nmore = 0 : int32"
    assert table.alter(prompt=False)
    assert table.fetch1("more") == 0
    with pytest.raises(NotImplementedError, match="Other has no definition"):
        again(type("Other", (dj.Manual,), {}))


def test_an_instance_may_be_older_than_its_schema(connection: Any, schema_prefix: str) -> None:
    late = dj.Schema()

    @late
    class Block(dj.Manual):
        definition = "block : int32"

    block = Block()
    with pytest.raises(dj.DataJointError, match="not properly configured"):
        _ = block.heading
    late.activate(f"{schema_prefix}late", connection=connection)
    assert block.primary_key == ["block"]


def test_underscores_in_the_name_of_a_class(schema: Any) -> None:
    with pytest.warns(UserWarning, match="'Spike_Sort' contains underscores.*SpikeSort"):
        schema(type("Spike_Sort", (dj.Manual,), {"definition": "id : int32"}))
    assert schema.list_tables() == ["spike_sort"]


def test_local_names_have_the_classes_that_are_made(schema: Any) -> None:
    schema(type("Block", (dj.Manual,), {"definition": "block : int32"}))
    again = dj.Schema(schema.name, connection=schema.connection)
    made = again.make_classes()
    assert locals()["Block"] is made["Block"]


def test_patterns_of_tiers() -> None:
    names = ["subject", "#method", "_recording", "__spikes", "subject__note", "__spikes__unit"]
    tiers = [dj.Manual, dj.Lookup, dj.Imported, dj.Computed, dj.Part]
    found = {n: [t for t in tiers if re.fullmatch(t.tier_regexp, n)] for n in names}
    assert [found[name] for name in names] == [*([tier] for tier in tiers), [dj.Part]]

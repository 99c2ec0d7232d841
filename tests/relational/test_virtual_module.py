"""Classes made from what is in the database: virtual modules, `make_classes`, `FreeTable`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.model.names import TableName
from tests.lab import connect

CHANGED = "The table has been changed meanwhile: try again."


@pytest.fixture
def lab(schema: Any) -> Any:
    """A schema with a table of each tier."""

    @schema
    class Setting(dj.Lookup):
        definition = """
        # how it is done
        setting : varchar(16)
        """
        contents = (("slow",),)

    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        ---
        note = null : varchar(80)
        """

        class Trial(dj.Part):
            definition = """
            -> master
            trial : int32
            ---
            data : <blob>
            """

    @schema
    class Scan(dj.Imported):
        definition = """
        -> Session
        """

    @schema
    class SpikeSort(dj.Computed):
        definition = """
        -> Scan
        -> Setting
        """

        class Unit(dj.Part):
            definition = """
            -> master
            unit : int32
            """

    Session.insert1((1, "first"))
    Session.Trial.insert1((1, 1, {"x": [1, 2]}))
    return schema


@pytest.fixture
def elsewhere(lab: Any, database_url: str, tmp_path: Any) -> Any:
    """A second connection, as another process has."""
    opened = connect(database_url, tmp_path)
    yield opened
    opened.close()


def test_tiers_and_parts(lab: Any, elsewhere: dj.Connection) -> None:
    module: Any = dj.VirtualModule("mine", lab.name, connection=elsewhere)
    assert isinstance(module, ModuleType)
    assert module.__name__ == "mine"
    assert module.schema.name == lab.name
    bases = {
        "Setting": dj.Lookup,
        "Session": dj.Manual,
        "Scan": dj.Imported,
        "SpikeSort": dj.Computed,
    }
    for name, base in bases.items():
        table = getattr(module, name)
        assert issubclass(table, base)
        assert table.__module__ == "mine"
        assert table.class_name == name
        assert table.heading.names == lab.tables[name].heading.names
    assert issubclass(module.Session.Trial, dj.Part)
    assert module.Session.Trial.master is module.Session
    assert module.SpikeSort.Unit.class_name == "SpikeSort.Unit"
    assert module.SpikeSort.part_classes() == [module.SpikeSort.Unit]
    assert module.Session.Trial.fetch1("data") == {"x": [1, 2]}
    assert (module.Session & {"session": 1}).fetch1("note") == "first"
    assert module.SpikeSort.progress() == (0, 0)
    module.Session.insert1((2, None))
    assert len(lab.tables["Session"]) == 2


def test_reflected_computed_tables_are_not_made(lab: Any, elsewhere: dj.Connection) -> None:
    module: Any = dj.virtual_schema(lab.name, connection=elsewhere)
    with pytest.raises(dj.DataJointError, match="Scan has no make"):
        module.Scan.populate()
    with pytest.raises(dj.DataJointError, match="allow_direct_insert"):
        module.Scan.insert1({"session": 1})


def test_definitions_refer_to_virtual_modules(lab: Any, elsewhere: dj.Connection) -> None:
    theirs: Any = dj.virtual_schema(lab.name, connection=elsewhere)
    mine: Any = dj.Schema(f"{lab.name}_mine", connection=elsewhere)

    @mine
    class Report(dj.Manual):
        definition = """
        -> theirs.SpikeSort.Unit
        -> theirs.Session.Trial
        """

    assert theirs.schema.list_tables()[0] in ("#setting", "session")
    assert [str(key.parent) for key in Report.foreign_keys] == [
        f"{lab.name}.__spike_sort__unit",
        f"{lab.name}.session__trial",
    ]
    assert Report.heading["session"].lineage == f"{lab.name}.session.session"


def test_definitions_refer_to_modules_of_their_module(
    lab: Any, elsewhere: dj.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = dj.virtual_schema(lab.name, connection=elsewhere)
    monkeypatch.setattr(sys.modules[__name__], "_linking_module", theirs, raising=False)
    mine: Any = dj.Schema(f"{lab.name}_mine", connection=elsewhere)

    @mine
    class Report(dj.Manual):
        definition = """
        -> _linking_module.Session
        """

    assert str(Report.foreign_keys[0].parent) == f"{lab.name}.session"


def test_a_virtual_schema_takes_new_tables_only_when_told(
    lab: Any, elsewhere: dj.Connection, schema_prefix: str
) -> None:
    class Extra(dj.Manual):
        definition = """
        -> Session
        """

    closed: Any = dj.virtual_schema(lab.name, connection=elsewhere)
    closed.schema(Extra)
    assert not Extra().is_declared
    with pytest.raises(dj.MissingTableError, match="create_tables=False"):
        Extra().keys()
    opened: Any = dj.VirtualModule(
        "opened", lab.name, connection=elsewhere, create_tables=True, add_objects={"answer": 42}
    )
    assert opened.answer == 42
    opened.schema(Extra)
    assert "Extra" in opened.schema
    with pytest.raises(dj.DataJointError, match="no schema"):
        dj.virtual_schema(f"{schema_prefix}nosuch", connection=elsewhere)
    empty: Any = dj.virtual_schema(f"{schema_prefix}new", connection=elsewhere, create_schema=True)
    assert empty.schema.exists


def test_tables_of_no_tier(lab: Any, elsewhere: dj.Connection) -> None:
    names = ("Strange Name", "orphan__part", "~hidden")
    with elsewhere.cursor() as session:
        quote = session.dialect.identifier_preparer.quote_identifier
        for name in names:
            place = quote(f"{lab.name}.{name}")
            if session.dialect.name == "mysql":
                place = f"{quote(lab.name)}.{quote(name)}"
            session.exec_driver_sql(f"CREATE TABLE {place} (id int NOT NULL PRIMARY KEY, b blob)")
    module: Any = dj.virtual_schema(lab.name, connection=elsewhere)
    assert not [name for name in vars(module) if "range" in name or "rphan" in name]
    for name in names:
        table = dj.FreeTable(elsewhere, f"`{lab.name}`.`{name}`")
        table.insert1({"id": 1, "b": b"raw"})
        assert table.fetch1() == {"id": 1, "b": b"raw"}
    assert "~hidden" not in module.schema.list_tables()
    assert module.schema["Strange Name"].primary_key == ["id"]


def test_free_tables(lab: Any, elsewhere: dj.Connection) -> None:
    table = dj.FreeTable(elsewhere, f"{lab.name}.__spike_sort__unit")
    assert table.class_name == "SpikeSort.Unit"
    assert table.primary_key == ["session", "setting", "unit"]
    assert len(table) == 0
    assert len(dj.FreeTable(elsewhere, f"`{lab.name}`.`session`") & "session = 1") == 1
    scan = dj.FreeTable(elsewhere, f"{lab.name}._scan")
    scan.insert1({"session": 1})
    assert len(scan) == 1
    with pytest.raises(dj.QueryError, match=r"write 'schema\.table'"):
        dj.FreeTable(elsewhere, "session")
    with pytest.raises(dj.MissingTableError, match="nosuch"):
        len(dj.FreeTable(elsewhere, f"{lab.name}.nosuch"))


def test_tables_by_name(lab: Any, elsewhere: dj.Connection) -> None:
    schema: Any = dj.Schema(lab.name, connection=elsewhere, create_schema=False)
    for name in ("SpikeSort.Unit", "spike_sort__unit", "__spike_sort__unit"):
        assert schema[name].table_name == "__spike_sort__unit"
        assert name in schema
    assert schema["Setting"].to_dicts() == [{"setting": "slow"}]
    assert [table.table_name for table in schema] == schema.list_tables()
    assert "Nosuch" not in schema
    with pytest.raises(dj.MissingTableError, match=r"no table 'Nosuch'. It has: Setting, Session"):
        schema.get_table("Nosuch")

    @lab
    class Later(dj.Manual):
        definition = """
        id : int32
        """

    assert Later.class_name in schema
    assert len(dj.FreeTable(elsewhere, f"{lab.name}.later")) == 0


def test_classes_are_made_into_a_module(lab: Any, elsewhere: dj.Connection) -> None:
    schema: Any = dj.Schema(lab.name, connection=elsewhere)

    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        ---
        note = null : varchar(80)
        """

    module = ModuleType("pipeline")
    vars(module).update(Session=Session, Setting="taken")
    made = schema.make_classes(into=module)
    assert sorted(made) == ["Scan", "SpikeSort"]
    assert vars(module)["Session"] is Session
    assert vars(module)["Setting"] == "taken"
    assert vars(module)["Scan"].__module__ == "pipeline"
    assert Session.part_classes()[0].class_name == "Session.Trial"
    assert len(Session.Trial) == 1  # pyright: ignore[reportAttributeAccessIssue]
    assert schema.make_classes(into=module) == {}
    assert list(schema.tables) == ["Session"]
    assert list(schema.reflected) == ["Scan", "SpikeSort"]

    @schema
    class Child(dj.Manual):
        definition = """
        -> Scan
        """

    assert Child.primary_key == ["session"]


def test_classes_are_made_where_they_are_asked_for(lab: Any, elsewhere: dj.Connection) -> None:
    schema: Any = dj.Schema(lab.name, connection=elsewhere)
    names = {"__name__": "notebook", "schema": schema}
    exec("schema.make_classes()", names)
    assert names["SpikeSort"].__module__ == "notebook"  # pyright: ignore[reportAttributeAccessIssue]
    # Among the names of a function nothing can be put.
    assert sorted(schema.make_classes()) == ["Scan", "Session", "Setting", "SpikeSort"]
    context: dict[str, Any] = {}
    dj.Schema(lab.name, context, connection=elsewhere).make_classes()
    assert sorted(context) == ["Scan", "Session", "Setting", "SpikeSort"]


def test_lineage(lab: Any, elsewhere: dj.Connection, database_url: str) -> None:
    schema: Any = dj.Schema(lab.name, connection=elsewhere)
    assert schema.lineage[f"{lab.name}.__spike_sort__unit.session"] == f"{lab.name}.session.session"
    assert f"{lab.name}.session.note" not in schema.lineage
    if database_url.startswith("sqlite"):
        schema.rebuild_lineage()
        return
    table = dj.FreeTable(elsewhere, f"{lab.name}.~lineage")
    before = table.to_dicts(order_by="KEY")
    assert {f"{lab.name}.{row['table_name']}.{row['attribute_name']}" for row in before} == set(
        schema.lineage
    )
    (table & "attribute_name = 'session'").delete_quick()
    table.insert([("gone", "x", "gone.x.y"), ("~~queue", "x", "queue.x.y")])
    schema.rebuild_lineage()
    assert (table - "table_name = '~~queue'").to_dicts(order_by="KEY") == before
    assert len(table) == len(before) + 1


def test_a_table_altered_elsewhere_is_read_anew(lab: Any, elsewhere: dj.Connection) -> None:
    session = lab.tables["Session"]
    assert "note" in session.heading
    with elsewhere.cursor() as cursor:
        name = (
            f"`{lab.name}`.session" if cursor.dialect.name == "mysql" else f'"{lab.name}.session"'
        )
        cursor.exec_driver_sql(f"ALTER TABLE {name} RENAME COLUMN note TO remark")
    with pytest.raises(dj.UnknownAttributeError, match="changed the table, try again"):
        session.to_dicts()
    assert session.to_dicts() == [{"session": 1, "remark": "first"}]


def test_what_another_process_changes_is_seen(lab: Any, elsewhere: dj.Connection) -> None:
    session = lab.tables["Session"]
    assert "extra" not in session.heading
    elsewhere.query(f"ALTER TABLE {session.full_table_name} ADD COLUMN extra int")
    theirs: Any = dj.Schema(lab.name, connection=elsewhere)

    @theirs
    class Late(dj.Manual):
        definition = "late : int32"

    assert lab["Session"].heading.names == ["session", "note", "extra"]
    assert Late.table_name in lab.list_tables()


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t.insert1({"session": 2, "note": None, "extra": 5}),
        lambda t: t.insert([{"session": 2, "note": None, "extra": 5}]),
        lambda t: t.update1({"session": 1, "extra": 5}),
        lambda t: t.proj("extra"),
        lambda t: t.fetch1("extra"),
        lambda t: t.fetch("extra"),
    ],
)
def test_a_name_that_is_not_known_is_looked_for(
    lab: Any, elsewhere: dj.Connection, use: Callable[[Any], Any]
) -> None:
    session = lab.tables["Session"]
    with pytest.raises(dj.UnknownAttributeError, match="extra") as caught:
        use(session)
    assert CHANGED not in caught.value.__notes__
    elsewhere.query(f"ALTER TABLE {session.full_table_name} ADD COLUMN extra int")
    with pytest.raises(dj.UnknownAttributeError, match="extra"):
        session.proj("nosuch", "extra")
    use(session)


def test_the_call_that_did_not_know_a_name_says_so(lab: Any, elsewhere: dj.Connection) -> None:
    session = lab.tables["Session"]
    assert session.heading.names == ["session", "note"]
    elsewhere.query(f"ALTER TABLE {session.full_table_name} ADD COLUMN extra int")
    with pytest.raises(dj.UnknownAttributeError, match="extra") as caught:
        session.proj("extra")
    assert CHANGED in caught.value.__notes__
    assert len(session.proj("extra")) == 1


def test_two_tables_of_one_class_name_are_named(schema: Any, connection: dj.Connection) -> None:
    schema(type("Foo", (dj.Manual,), {"definition": "a : int32"})).insert1((1,))
    again = dj.Schema(schema.name, connection=connection)
    key_source = property(lambda self: self.proj())
    body = {"definition": "b : int32", "key_source": key_source, "make": lambda self, key: None}
    again(type("Foo", (dj.Computed,), body))
    with pytest.warns(UserWarning, match=rf"{schema.name}\.foo and {schema.name}\.__foo"):
        module: Any = dj.VirtualModule("lab", schema.name, connection=connection)
    assert module.Foo().to_dicts() == [{"a": 1}]
    assert module.schema["__foo"].heading.names == ["b"]


def test_foreign_keys_in_a_circle_are_named(schema: Any, connection: dj.Connection) -> None:
    one, two = (
        connection.backend.full_name(TableName(schema.name, name)) for name in ("one", "two")
    )
    connection.query(f"CREATE TABLE {one} (id INT NOT NULL PRIMARY KEY, other INT)")
    refers = "FOREIGN KEY (other) REFERENCES {} (id)"
    connection.query(
        f"CREATE TABLE {two} (id INT NOT NULL PRIMARY KEY, other INT, {refers.format(one)})"
    )
    if connection.backend.name == "sqlite":
        connection.query(f"DROP TABLE {one}")
        connection.query(
            f"CREATE TABLE {one} (id INT NOT NULL PRIMARY KEY, other INT, {refers.format(two)})"
        )
    else:
        connection.query(f"ALTER TABLE {one} ADD {refers.format(two)}")
    module: Any = dj.VirtualModule("lab", schema.name, connection=connection)
    module.One.insert1((1, None))
    module.Two.insert1((1, 1))
    module.One.update1({"id": 1, "other": 1})
    assert module.One().to_dicts() == module.Two().to_dicts() == [{"id": 1, "other": 1}]
    assert "Two" in module.One.describe()
    for call in (module.One.delete, module.One.drop, module.One.descendants):
        with pytest.raises(dj.DataJointError, match=r"cycle: .*one.*two|cycle: .*two.*one"):
            call()
    assert len(module.One()) == 1
    # What has nothing to do with them is dealt with as ever.
    assert {*module.schema.list_tables()} == {"one", "two"}

    @schema
    class Apart(dj.Manual):
        definition = "apart : int32"

    Apart.insert1((1,))
    assert {*schema.list_tables()} == {"apart", "one", "two"}
    assert Apart.delete() == 1
    assert [name.split(".")[-1].strip('`"') for name in Apart.descendants()] == ["apart"]
    Apart.drop()
    assert {*schema.list_tables()} == {"one", "two"}

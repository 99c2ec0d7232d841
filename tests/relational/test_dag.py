"""Foreign keys and schemas form no circle; tables know their relatives."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.model.names import TableName
from dj_dagster.relational.schemas.cycles import check_acyclic


@pytest.fixture
def ephys(connection, schema_prefix):
    return dj.Schema(f"{schema_prefix}ephys", connection=connection)


# Circles


def test_schemas_that_would_refer_to_each_other(schema, ephys):
    @schema
    class Subject(dj.Manual):
        definition = "subject_id : int64"

    @ephys
    class Session(dj.Manual):
        definition = "-> Subject\nsession : int64"

    with pytest.raises(dj.DefinitionError) as refused:

        @schema
        class Note(dj.Manual):
            definition = "note : int64\n---\n-> Session"

    message = str(refused.value)
    lab = schema.name
    assert f"circle of schemas: {lab} → {ephys.name} → {lab}" in message
    assert f"{lab}.note refers to {ephys.name}.session" in message
    assert f"{ephys.name}.session refers to {lab}.subject" in message
    assert "test_dag.py:" in message
    assert "table Note" in message
    assert schema.list_tables() == ["subject"]


def test_a_circle_by_way_of_a_third_schema_in_a_part(schema, ephys, connection, schema_prefix):
    paper = dj.Schema(f"{schema_prefix}paper", connection=connection)

    @schema
    class Subject(dj.Manual):
        definition = "subject_id : int64"

    @ephys
    class Session(dj.Manual):
        definition = "-> Subject"

    @paper
    class Figure(dj.Manual):
        definition = "-> Session"

    with pytest.raises(dj.DefinitionError) as refused:

        @schema
        class Album(dj.Manual):
            definition = "album : int64"

            class Page(dj.Part):
                definition = "-> master\n-> Figure"

    lab = schema.name
    assert f"{lab} → {ephys.name} → {paper.name} → {lab}" in str(refused.value)
    assert schema.list_tables() == ["subject"]


def test_schemas_may_depend_on_one_by_several_ways(schema, ephys, connection, schema_prefix):
    paper = dj.Schema(f"{schema_prefix}paper", connection=connection)

    @schema
    class Subject(dj.Manual):
        definition = "subject_id : int64\n---\n-> [nullable] self.proj(mother='subject_id')"

    @ephys
    class Session(dj.Manual):
        definition = "-> Subject"

    @paper
    class Figure(dj.Manual):
        definition = "-> Session\n---\n-> Subject.proj(model='subject_id')"

    assert paper.list_tables() == ["figure"]


def test_a_circle_that_the_database_has_stays_in_use(schema, ephys):
    """Pipelines of other programs may have one."""

    @schema
    class Subject(dj.Manual):
        definition = "subject_id : int64"

    @ephys
    class Session(dj.Manual):
        definition = "-> Subject\nsession : int64"

    tables = [TableName(schema.name, "album"), TableName(ephys.name, "session")]
    child, parent = (_sql(schema.connection, table) for table in tables)
    with schema.connection.cursor() as session:
        session.exec_driver_sql(
            f"CREATE TABLE {child} (subject_id bigint NOT NULL, session bigint NOT NULL, "
            f"PRIMARY KEY (subject_id, session), FOREIGN KEY (subject_id, session) REFERENCES "
            f"{parent} (subject_id, session))"
        )
    schema.connection.catalog.forget(schema.name)

    @schema
    class Album(dj.Manual):
        definition = "-> Session"

    assert Album.parents() == [Session.full_table_name]
    with pytest.raises(dj.DefinitionError, match="circle of schemas"):

        @schema
        class Page(dj.Manual):
            definition = "-> Session"


def _sql(connection, table):
    """Return a table's name as it is written in SQL."""
    clause = connection.backend.sql_table(table)
    query = sa.select(sa.text("1")).select_from(clause).compile(connection.engine)
    return str(query).partition("FROM ")[2]


def test_a_table_that_exists_cannot_come_to_refer_to_its_descendants(schema):
    @schema
    class Subject(dj.Manual):
        definition = "subject_id : int64"

    @schema
    class Session(dj.Manual):
        definition = "-> Subject\nsession : int64"

    subject, session = (TableName(schema.name, name) for name in ("subject", "session"))
    with pytest.raises(dj.DefinitionError, match=rf"of tables: {subject} → {session} → {subject}"):
        check_acyclic(schema.connection, subject, [session])
    check_acyclic(schema.connection, subject, [subject])
    check_acyclic(schema.connection, session, [subject])


MODULES = {
    "lab": """
        import dj_dagster as dj
        from {package} import CONNECTION, PREFIX
        {lab_imports}
        schema = dj.Schema(PREFIX + "lab", connection=CONNECTION)

        @schema
        class Subject(dj.Manual):
            definition = "subject_id : int64"

        def helper():
            {lab_inner}
    """,
    "ephys": """
        import dj_dagster as dj
        from {package} import CONNECTION, PREFIX
        {ephys_imports}
        schema = dj.Schema(PREFIX + "ephys", connection=CONNECTION)

        @schema
        class Session(dj.Manual):
            definition = "-> lab.Subject"
    """,
}


@pytest.fixture
def package(tmp_path, monkeypatch, connection, schema_prefix):
    """Write the modules `lab` and `ephys` of a package, and import the latter."""

    def write(first="ephys", **imports):
        name = f"pipeline_{schema_prefix}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("CONNECTION = None\nPREFIX = ''\n")
        imports = {"lab_imports": "", "lab_inner": "pass", "ephys_imports": "", **imports}
        for module, text in MODULES.items():
            lines = [line[8:] for line in text.format(package=name, **imports).splitlines()]
            (folder / f"{module}.py").write_text("\n".join(lines).replace("PACKAGE", name))
        monkeypatch.syspath_prepend(tmp_path)
        base = importlib.import_module(name)
        base.CONNECTION, base.PREFIX = connection, schema_prefix
        return importlib.import_module(f"{name}.{first}")

    yield write
    for name in [name for name in sys.modules if name.startswith(f"pipeline_{schema_prefix}")]:
        del sys.modules[name]


@pytest.mark.parametrize("back", ["from . import ephys", "import PACKAGE.ephys as ephys"])
def test_modules_that_import_each_other(package, back, schema_prefix):
    with pytest.raises(dj.DefinitionError) as refused:
        package(ephys_imports="from . import lab", lab_imports=back)
    message, name = str(refused.value), f"pipeline_{schema_prefix}"
    assert f"circle: {name}.ephys → {name}.lab → {name}.ephys" in message
    assert f"remove the import from {name}.lab" in message
    assert "ephys.py:" in message


def test_modules_that_import_each_other_from_the_other_end(package, schema_prefix):
    with pytest.raises(dj.DefinitionError) as refused:
        package("lab", ephys_imports="from . import lab", lab_imports="from . import ephys")
    message, name = str(refused.value), f"pipeline_{schema_prefix}"
    assert f"circle: {name}.ephys → {name}.lab → {name}.ephys" in message


def test_an_import_inside_a_function_closes_no_circle(package):
    ephys = package(ephys_imports="from . import lab", lab_inner="from . import ephys")
    assert ephys.Session.full_table_name in ephys.lab.Subject.children()


def test_a_module_that_was_handed_over_closes_no_circle(package):
    ephys = package(
        ephys_imports="from . import lab",
        lab_imports="import sys; ephys = sys.modules['PACKAGE.ephys']",
    )
    assert ephys.schema.list_tables() == ["session"]


# Relatives


@pytest.fixture
def lab(schema, ephys):
    @schema
    class Subject(dj.Manual):
        definition = "subject_id : int64"

    @schema
    class Session(dj.Manual):
        definition = (
            "-> Subject\nsession : int64\n---\n-> [nullable] Subject.proj(helper='subject_id')"
        )

        class Trial(dj.Part):
            definition = "-> master\ntrial : int64"

    @ephys
    class Spikes(dj.Computed):
        definition = "-> Session"

    return type("lab", (), {"Subject": Subject, "Session": Session, "Spikes": Spikes})


def bare(names):
    return [name.partition(".")[2].strip("`") for name in names]


def test_parents(lab):
    assert bare(lab.Session.parents()) == ["subject", "subject"]
    assert bare(lab.Session.parents(primary=False)) == ["subject"]
    assert lab.Subject.parents() == []
    assert bare(lab.Session.Trial.parents()) == ["session"]
    (first, key), (_, other) = lab.Session.parents(foreign_key_info=True)
    assert first == lab.Subject.full_table_name
    assert key == {
        "primary": True,
        "attr_map": {"subject_id": "subject_id"},
        "aliased": False,
        "multi": True,
    }
    assert other["attr_map"] == {"helper": "subject_id"}
    assert other["aliased"]
    ((_, whole),) = lab.Spikes.parents(primary=True, foreign_key_info=True)
    assert not whole["multi"]


def test_children_are_found_in_other_schemas(lab):
    assert sorted(bare(lab.Session.children())) == ["__spikes", "session__trial"]
    assert bare(lab.Subject.children(primary=True)) == ["session"]
    assert [info["primary"] for _, info in lab.Subject.children(foreign_key_info=True)] == [
        True,
        False,
    ]
    assert lab.Spikes().children() == []


def test_relatives_as_objects(lab):
    lab.Subject.insert1({"subject_id": 1})
    (subject, _) = lab.Session.parents(as_objects=True)
    assert subject.to_dicts() == [{"subject_id": 1}]
    subject.insert1({"subject_id": 2})
    assert len(lab.Subject()) == 2
    ((session, info),) = lab.Subject.children(primary=True, as_objects=True, foreign_key_info=True)
    assert session.full_table_name == lab.Session.full_table_name
    assert info["primary"]
    assert [table.table_name for table in lab.Session.parts(as_objects=True)] == ["session__trial"]


def test_ancestors_and_descendants_begin_with_the_table(lab):
    assert bare(lab.Spikes.ancestors()) == ["__spikes", "session", "subject"]
    assert bare(lab.Subject.descendants())[:2] == ["subject", "session"]
    assert sorted(bare(lab.Subject.descendants())[2:]) == ["__spikes", "session__trial"]
    assert [table.table_name for table in lab.Spikes.ancestors(as_objects=True)][-1] == "subject"
    assert lab.Session.Trial.descendants() == [lab.Session.Trial.full_table_name]


def test_parts(lab):
    assert lab.Session.parts() == [lab.Session.Trial.full_table_name]
    assert lab.Subject.parts() == []
    assert lab.Session.part_classes() == [lab.Session.Trial]


# Old spellings


def test_old_spellings_are_noted_where_the_class_is(schema):
    with pytest.warns(DeprecationWarning, match=r"table Old.*'longblob'.*write '<blob>'") as noted:

        @schema
        class Old(dj.Manual):
            definition = "id : int64\n---\ntrace : longblob\nother = null : longblob"

    (note,) = noted
    assert note.filename == __file__
    assert str(note.message).count("write") == 2


def test_todays_spellings_are_not(schema):
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @schema
        class New(dj.Manual):
            definition = "id : int64\n---\ntrace : <blob>"

    assert schema.list_tables() == ["new"]

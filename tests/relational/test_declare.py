"""What is declared is what a new connection reads back from the database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

import dj_dagster as dj
from dj_dagster.definition import parse_definition
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName
from tests.lab import connect
from tests.services.process import PATIENCE

ATTRIBUTES = r"""
    i8 = -1 : int8             # it's "quoted"
    i16 = 2 : int16            # 100 % of %s and %(x)s
    i32 = null : int32         # colons: a:b :c
    i64 = 4 : int64            # back\slash \n
    f32 = 0.5 : float32        # μ – 日本
    f64 : float64
    flag = True : bool
    d : decimal(10, 2)
    small = 1.50 : decimal(5, 2)
    c = 'abc' : char(3)
    v = "it's; DROP -- \\ %s :x" : varchar(80)
    empty = "" : varchar(5)
    odd = 'a:b' : enum('a:b', "it's", '50%', 'x, y', 'back\\slash')
    day = '2026-01-02' : date
    moment = CURRENT_TIMESTAMP : datetime
    exact = CURRENT_TIMESTAMP(3) : datetime(3)
    micro : datetime(6)
    u : uuid                   # a uuid
    maybe = null : uuid
    j = null : json
    raw : bytes                # some bytes
    b : <blob>
    stored : <blob@local>      # in the store
    attached = null : <attach>
    n8 : tinyint unsigned
    n16 : smallint
    n24 = 7 : mediumint
    n32 : int unsigned
    n64 : bigint unsigned
    old : double
    short : float
    long_text : text
    at : time
    fine : time(3)
    y : year
    select : varchar(4)        # a reserved word
"""


def reflected(connection: dj.Connection, name: TableName) -> Heading:
    stored = connection.catalog.find(name)
    assert stored is not None
    return stored.heading


def test_heading_of_all_types_reads_back(schema: Any, database_url: str, tmp_path: Path) -> None:
    class Everything(dj.Manual):
        definition = f"""
        # all types; it's 100 % "safe": \\ 日本
        id : int32   # the key
        ---
        {ATTRIBUTES}
        """

    schema(Everything)
    declared = parse_definition(Everything.definition.strip())
    heading = reflected(connect(database_url, tmp_path), Everything().name)
    assert heading.comment == declared.comment
    assert heading.names == [attribute.name for attribute in declared.attributes]
    for attribute in declared.attributes:
        found = heading[attribute.name]
        assert found.type == attribute.type, attribute
        assert found.comment == attribute.comment, attribute
        assert found.nullable == attribute.nullable, attribute
        assert found.default == attribute.default, attribute


@pytest.fixture
def family(schema: Any) -> dict[str, Any]:
    @schema
    class Lab(dj.Lookup):
        definition = """
        lab : varchar(8)   # its name: 50 %
        """
        contents = (("a",), ("b",))

    @schema
    class Subject(dj.Manual):
        definition = """
        -> Lab
        subject : uuid   # the animal
        """

    @schema
    class Session(dj.Manual):
        definition = """
        -> Subject
        session : int16
        ---
        -> [nullable] Subject.proj(other_lab='lab', partner='subject')
        -> [unique] Lab.proj(room='lab')
        """

        class Trial(dj.Part):
            definition = """
            -> master
            trial : int16
            ---
            -> [nullable, unique] master.proj(a='lab', b='subject', c='session')
            """

    @schema
    class Person(dj.Manual):
        definition = """
        person : int32   # who
        ---
        -> [nullable] self.proj(boss='person')
        """

    @schema
    class Setting(dj.Lookup):
        definition = """
        # one row at most
        ---
        gain : float64
        """
        contents = ((1.5,),)

    @schema
    class Renamed(dj.Manual):
        definition = """
        -> Session.proj(recorded='session')
        ---
        -> Setting
        """

        class Bit(dj.Part):
            definition = """
            -> Renamed
            bit : int8
            """

    return dict(schema.tables)


def test_foreign_keys_read_back(family: dict[str, Any], database_url: str, tmp_path: Path) -> None:
    fresh = connect(database_url, tmp_path)
    session = family["Session"]()
    stored = fresh.catalog.find(session.name)
    assert stored is not None
    database = session.database
    assert [
        (str(key.parent), key.attributes, key.primary, key.nullable, key.unique)
        for key in stored.foreign_keys
    ] == [
        (f"{database}.subject", {"lab": "lab", "subject": "subject"}, True, False, False),
        (f"{database}.subject", {"other_lab": "lab", "partner": "subject"}, False, True, False),
        (f"{database}.#lab", {"room": "lab"}, False, False, True),
    ]
    heading = stored.heading
    assert heading.primary_key == ["lab", "subject", "session"]
    assert {name: heading[name].lineage for name in ("lab", "room", "partner", "session")} == {
        "lab": f"{database}.#lab.lab",
        "room": f"{database}.#lab.lab",
        "partner": f"{database}.subject.subject",
        "session": f"{database}.session.session",
    }
    assert heading["partner"].type == heading["subject"].type
    assert heading["room"].type is not None
    assert heading["room"].type.text == "varchar(8)"
    assert heading["room"].comment == "its name: 50 %"
    assert (heading["partner"].nullable, heading["room"].nullable) == (True, False)


def test_parts_self_references_and_singletons(family: dict[str, Any]) -> None:
    session, renamed, person = family["Session"], family["Renamed"], family["Person"]
    assert session.Trial.table_name == "session__trial"
    assert session.Trial.class_name == "Session.Trial"
    assert session.Trial.master is session
    assert session.part_classes() == [session.Trial]
    assert session.Trial.primary_key == ["lab", "subject", "session", "trial"]
    assert renamed.Bit.primary_key == ["lab", "subject", "recorded", "bit"]
    boss = person.heading["boss"]
    assert (boss.nullable, boss.comment, boss.type.text) == (True, "who", "int32")
    assert boss.lineage == f"{person().name}.person"
    assert family["Setting"].primary_key == []
    assert family["Setting"].heading.names == ["gain"]
    assert family["Setting"].to_dicts() == [{"gain": 1.5}]
    assert family["Lab"].tier.value == "lookup"
    with pytest.raises(dj.DuplicateError):
        family["Setting"].insert1({"gain": 2.0})


def test_declaring_again_writes_nothing(
    family: dict[str, Any], schema: Any, database_url: str, tmp_path: Path
) -> None:
    fresh = connect(database_url, tmp_path)
    statements: list[str] = []

    @event.listens_for(fresh.engine, "before_cursor_execute")
    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    again = dj.Schema(schema.name, connection=fresh)
    for cls in family.values():
        copied = type(cls.__name__, cls.__bases__, {
            name: value for name, value in vars(cls).items() if not name.startswith("_")
        })  # fmt: skip
        again(copied)
    assert len(statements) < 30
    assert not [s for s in statements if s.lstrip().startswith(("CREATE T", "CREATE I", "INSERT"))]
    assert len(family["Lab"]) == 2


def test_a_declaration_that_is_rolled_back_leaves_nothing(tmp_path: Path) -> None:
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    schema: Any = dj.Schema("lab", connection=connection)

    class Subject(dj.Manual):
        definition = "subject : int32"

    def full_disk(*args: Any) -> None:
        if args[2] == "COMMIT":
            full = sqlite3.OperationalError("database or disk is full")
            raise OperationalError("COMMIT", {}, full)

    event.listen(connection.engine, "before_cursor_execute", full_disk)
    with pytest.raises(dj.DataJointError, match="disk is full"):
        schema(Subject)
    event.remove(connection.engine, "before_cursor_execute", full_disk)
    assert schema.list_tables() == []
    assert len(schema(Subject)) == 0


def test_list_tables_has_parents_first(family: dict[str, Any], schema: Any) -> None:
    names = schema.list_tables()
    assert sorted(names) == sorted(
        ["#lab", "subject", "session", "session__trial", "person", "#setting", "renamed",
         "renamed__bit"]
    )  # fmt: skip
    assert names.index("#lab") < names.index("subject") < names.index("session")
    assert list(schema.tables) == ["Lab", "Subject", "Session", "Person", "Setting", "Renamed"]


def test_foreign_keys_into_other_schemas(
    family: dict[str, Any], schema: Any, connection: dj.Connection, schema_prefix: str
) -> None:
    other: Any = dj.Schema(
        f"{schema_prefix}other", connection=connection, context={"lab": _Names(family)}
    )

    @other
    class Report(dj.Manual):
        definition = """
        -> lab.Session.Trial
        """

    assert Report.heading["lab"].lineage == f"{schema.name}.#lab.lab"
    assert family["Session"].Trial.children() == [Report.full_table_name]
    with pytest.raises(dj.QueryError, match="other"):
        schema.drop()
    other.drop()
    schema.drop()
    assert schema.name not in connection.schema_names()


class _Names:
    def __init__(self, tables: dict[str, Any]) -> None:
        self.__dict__.update(tables)


def test_indexes(schema: Any, connection: dj.Connection) -> None:
    @schema
    class Indexed(dj.Manual):
        definition = """
        id : int32
        ---
        a : int32
        order : int32
        text : varchar(100)
        index(a, order)
        unique index(order)
        index(text(10))
        unique index(a, (abs(a % 7)))
        """ if connection.backend.name == "sqlite" else """
        id : int32
        ---
        a : int32
        order : int32
        text : varchar(100)
        index(a, order)
        unique index(order)
        index(text(10))
        """  # fmt: skip

    Indexed.insert1((1, 1, 1, "x"))
    with pytest.raises(dj.DuplicateError):
        Indexed.insert1((2, 2, 1, "x"))
    assert len(Indexed & {"a": 1}) == 1


def test_parts_have_contents_too(schema: Any) -> None:
    @schema
    class Probe(dj.Lookup):
        definition = "probe : int32"
        contents = ((1,), (2,))

        class Site(dj.Part, dj.Lookup):
            definition = "-> master\nsite : int32"
            contents = ((1, 1), (2, 5))

    assert Probe.Site.keys(order_by="KEY") == [{"probe": 1, "site": 1}, {"probe": 2, "site": 5}]


def test_lookup_contents_are_inserted_once(schema: Any) -> None:
    def declare(rows: Any) -> Any:
        class Kind(dj.Lookup):
            definition = """
            kind : varchar(8)
            ---
            note = 'n' : varchar(8)
            """
            contents = rows

        return schema(Kind)

    declare([("a", "1"), ("b", "2")])
    table = declare(property(lambda self: iter([("a", "changed"), ("b", "2"), ("c", "3")])))
    assert table.to_dicts(order_by="KEY") == [
        {"kind": "a", "note": "1"},
        {"kind": "b", "note": "2"},
        {"kind": "c", "note": "3"},
    ]


def test_two_processes_declare_at_once(
    database_url: str, schema_prefix: str, tmp_path: Path
) -> None:
    script = tmp_path / "declare.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import dj_dagster as dj

        connection = dj.Connection(sys.argv[1])
        schema = dj.Schema(sys.argv[2], connection=connection)
        input()
        for number in range(8):
            schema(type(f"Table{number}", (dj.Lookup,), {
                "definition": "a : int32\\n---\\nb : int32\\nc : int32\\nindex(b, c)\\nindex(c)",
                "contents": [(1, 2, 3), (2, 3, 4)],
            }))
        print(sum(len(table) for table in schema.tables.values()))
        """)
    )
    command = [sys.executable, script, database_url, f"{schema_prefix}lab"]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    results = [worker.communicate(timeout=PATIENCE) for worker in workers]
    assert [out.strip() for out, _ in results] == ["16", "16"], results

"""A table is described by a definition that declares the same table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.model.names import TableName

ATTRIBUTES = r"""
    i8 = -1 : int8                 # it's "quoted"
    i16 = 2 : int16                # 100 % of %s and %(x)s
    i32 = null : int32             # colons: a:b :c
    i64 = 4 : int64                # back\slash \n # hash
    f32 = 0.5 : float32            # μ – 日本
    f64 : float64
    flag = True : bool
    d : decimal(10, 2)
    small = 1.50 : decimal(5, 2)
    c = 'abc' : char(3)
    v = "it's; DROP -- \\ %s :x # no comment" : varchar(80)
    empty = "" : varchar(5)
    odd = 'a:b' : enum('a:b', "it's", '50%', 'x, y', 'back\\slash')
    day = '2026-01-02' : date
    moment = CURRENT_TIMESTAMP : datetime
    exact = CURRENT_TIMESTAMP(3) : datetime(3)
    u : uuid                       # a uuid
    maybe = null : uuid
    j = null : json
    raw : bytes                    # some bytes
    b : <blob>
    stored : <blob@local>          # in the store
    attached = null : <attach>
    n8 : tinyint unsigned
    n24 = 7 : mediumint
    n64 : bigint unsigned
    old : double
    long_text : text
    at : time
    y : year
    select : varchar(4)            # a reserved word
    index (select, i8)
    unique index (order, u)
    order : int32
    index (v(10))
"""
DEFINITIONS = {
    "Everything": (dj.Manual, f"# all % \"types\" 'x' \\ 日本\nid : int32  # key\n---{ATTRIBUTES}"),
    "Lab": (dj.Lookup, "lab : varchar(8)  # its name: 50 %"),
    "Subject": (dj.Manual, "-> Lab\nsubject : uuid   # the animal\nday : date"),
    "Session": (
        dj.Imported,
        """
        # sessions
        -> Subject
        session = 1 : int16
        ---
        note = '' : varchar(20)
        -> [nullable] Subject.proj(other_lab='lab', partner='subject', other_day='day')
        -> [unique] Lab.proj(room='lab')
        score = null : float64
        """,
    ),
    "Session.Trial": (
        dj.Part,
        """
        -> master
        trial : int16
        ---
        -> [nullable, unique] master.proj(a='lab', b='subject', c='day', d='session')
        """,
    ),
    "Session.Event": (dj.Part, "-> Session.Trial\nevent : int8"),
    "Person": (dj.Manual, "person : int32  # who\n---\n-> [nullable] self.proj(boss='person')"),
    "Setting": (dj.Lookup, "# one row at most\n---\ngain : float64"),
    "OnlyKey": (dj.Computed, "-> Session"),
    "OfSetting": (dj.Manual, "-> Setting\nn : int32\n---\n-> Person"),
    "KeptNative": (dj.Manual, "lab : varchar(8)  # another comment\n-> Lab\n---\nx : int32"),
    "Shared": (
        dj.Manual,
        """
        -> Session
        ---
        -> Session.proj(second='session')
        -> [nullable] Session.proj(third='session')
        -> [nullable] Person.proj(one='person')
        -> [nullable] Person.proj(two='person')
        """,
    ),
    "Indexed": (
        dj.Manual,
        """
        -> Person
        ---
        -> Lab
        a : int32
        index (lab, a)
        unique index (a)
        index (person, a)
        """,
    ),
}  # fmt: skip


def declare(schema: Any, definitions: dict[str, tuple[type[Any], str]]) -> dict[str, Any]:
    """Declare tables by class name, those of parts after a dot; return all by name."""
    classes: dict[str, Any] = {}
    for name, (tier, text) in definitions.items():
        master, _, part = name.rpartition(".")
        made = type(part, (tier,), {"definition": text})
        if master:
            setattr(classes[master], part, made)
        classes[name] = made
    for name, cls in classes.items():
        if "." not in name:
            schema(cls)
    return classes


def facts(schema: Any, table: str) -> Any:
    """Return all that the database says of a table, without the name of its schema."""
    connection = schema.connection
    connection.catalog.forget(schema.name)
    raw = connection.catalog.raw(TableName(schema.name, table))
    stored = connection.catalog.find(TableName(schema.name, table))
    with connection.cursor() as session:
        indexes = connection.backend.indexes(session, schema.name, table).get(table, {})
    text = repr((raw, stored.heading.all_attributes, sorted(map(repr, indexes.values()))))
    return re.sub(r"line=\d+", "", text.replace(schema.name, "SCHEMA"))


@pytest.fixture
def other(connection: dj.Connection, schema_prefix: str) -> Any:
    return dj.Schema(f"{schema_prefix}copy", connection=connection)


@pytest.fixture
def indexed_expressions(connection: dj.Connection) -> Iterator[dict[str, Any]]:
    """A definition with indexes of expressions, where the database has those."""
    with connection.cursor() as session:
        if getattr(session.dialect, "is_mariadb", False):
            yield {}
            return
    lines = "id : int32\n---\na : int32\nindex ((abs(a % 7)))\nunique index (a, (a + 1))"
    yield {"Expressed": (dj.Manual, lines)}


def test_declaring_what_is_described_gives_the_same_table(
    schema: Any, other: Any, indexed_expressions: dict[str, Any]
) -> None:
    definitions = {**DEFINITIONS, **indexed_expressions}
    classes = declare(schema, definitions)
    described = {name: cls.describe() for name, cls in classes.items()}
    copies = declare(
        other, {name: (definitions[name][0], text) for name, text in described.items()}
    )
    for name, cls in classes.items():
        assert facts(schema, cls.table_name) == facts(other, cls.table_name), described[name]
        assert copies[name].describe() == described[name]


def test_text(schema: Any) -> None:
    classes = declare(schema, DEFINITIONS)
    text = re.sub(" +", " ", classes["Session"].describe())
    assert text == (
        "# sessions\n"
        "-> Subject\n"
        "session = 1 : int16\n"
        "---\n"
        "note = '' : varchar(20)\n"
        "-> [nullable] Subject.proj(other_lab='lab', partner='subject', other_day='day')\n"
        "-> [unique] Lab.proj(room='lab')\n"
        "score = null : float64\n"
    )
    assert classes["Session.Trial"].describe().startswith("-> master\n")
    assert "-> Session.Trial\n" in classes["Session.Event"].describe()
    assert "-> [nullable] self.proj(boss='person')" in classes["Person"].describe()
    assert re.sub(" +", " ", classes["Setting"].describe()) == (
        "# one row at most\n---\ngain : float64\n"
    )
    assert "index(lab, a)\n" in classes["Indexed"].describe()


def test_tables_of_other_schemas(
    schema: Any, other: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = SimpleNamespace(**declare(schema, {k: DEFINITIONS[k] for k in ("Lab", "Subject")}))
    other.context = {"lab": lab}
    made = declare(other, {"Visit": (dj.Manual, "-> lab.Subject.proj(visitor='subject')")})
    assert made["Visit"].describe() == "-> lab.Subject.proj(visitor='subject')\n---\n"
    Subject = lab.Subject  # found among the caller's names
    assert made["Visit"].describe(printout=True).startswith("-> Subject.proj(")
    assert capsys.readouterr().out.startswith("-> Subject.proj(")
    assert made["Visit"].describe(context={}).startswith(f"-> {schema.name}.Subject.proj(")
    assert made["Visit"].describe(context={"kennel": lab}).startswith("-> kennel.Subject.proj(")
    del Subject


def test_tables_without_a_class_are_described(schema: Any, connection: dj.Connection) -> None:
    classes = declare(schema, {k: DEFINITIONS[k] for k in ("Lab", "Subject")})
    free = dj.FreeTable(connection, f"{schema.name}.subject")
    assert free.describe() == classes["Subject"].describe()
    classes["Subject"].drop_quick()
    with pytest.raises(dj.QueryError, match="subject"):
        free.describe()

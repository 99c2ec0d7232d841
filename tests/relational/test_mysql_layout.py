"""Tables on MariaDB and MySQL are laid out as DataJoint 2.3 lays them out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from tests.lab import connect
from tests.services.database_server import drop_databases


@pytest.fixture
def server(server_url: str, tmp_path: Path) -> Iterator[dj.Connection]:
    opened = connect(server_url, tmp_path)
    yield opened
    opened.close()
    drop_databases(server_url, "layout_")


@pytest.fixture
def tables(server: dj.Connection) -> dict[str, Any]:
    schema: Any = dj.Schema("layout_lab", connection=server)

    @schema
    class Subject(dj.Manual):
        definition = """
        # animals "and" others
        subject : int32   # numeric id
        born : uuid       # its uuid
        ---
        sex = 'U' : enum('F', 'M', 'U')
        weight = 1.5 : decimal(4, 1)
        seen = CURRENT_TIMESTAMP(3) : datetime(3)
        fur : varchar(8)
        photo = null : longblob
        scan = null : <blob@local>
        old : int unsigned   # native
        index(fur, sex)
        unique index(old)
        """

    @schema
    class Session(dj.Imported):
        definition = """
        -> Subject
        session : int16
        ---
        -> [nullable, unique] Subject.proj(other='subject', other_born='born')
        """

        class Trial(dj.Part):
            definition = """
            -> master
            trial : int8
            """

    @schema
    class Single(dj.Lookup):
        definition = """
        gain = 1 : float32
        """.replace("gain", "---\n        gain")

    return dict(schema.tables)


def create_statement(server: dj.Connection, table: str) -> str:
    with server.cursor() as session:
        text = session.exec_driver_sql(f"SHOW CREATE TABLE layout_lab.`{table}`").one()[1]
    # MariaDB shows the widths of integers, MySQL quotes numbers.
    return re.sub(r"DEFAULT '(\d+)'", r"DEFAULT \1", re.sub(r"int\(\d+\)", "int", text))


def rows(server: dj.Connection, sql: str) -> list[tuple[Any, ...]]:
    with server.cursor() as session:
        return [tuple(row) for row in session.exec_driver_sql(sql)]


def test_columns_types_and_comments(server: dj.Connection, tables: dict[str, Any]) -> None:
    found = rows(
        server,
        "SELECT column_name, column_type, is_nullable, column_comment "
        "FROM information_schema.columns WHERE table_schema = 'layout_lab' "
        "AND table_name = 'subject' ORDER BY ordinal_position",
    )
    # What MariaDB calls json is a text.
    spelled = [
        (n, re.sub(r"int\(\d+\)", "int", t).replace("longtext", "json"), null, c)
        for n, t, null, c in found
    ]
    assert spelled == [
        ("subject", "int", "NO", ":int32:numeric id"),
        ("born", "binary(16)", "NO", ":uuid:its uuid"),
        ("sex", "enum('F','M','U')", "NO", ":enum('F', 'M', 'U'):"),
        ("weight", "decimal(4,1)", "NO", ":decimal(4,1):"),
        ("seen", "datetime(3)", "NO", ":datetime(3):"),
        ("fur", "varchar(8)", "NO", ":varchar(8):"),
        ("photo", "longblob", "YES", ":<blob>:"),
        ("scan", "json", "YES", ":<blob@local>:"),
        ("old", "int unsigned", "NO", "native"),
    ]


def test_create_statement(server: dj.Connection, tables: dict[str, Any]) -> None:
    sql = create_statement(server, "subject")
    assert "ENGINE=InnoDB" in sql
    assert "COMMENT='animals \"and\" others'" in sql
    assert "PRIMARY KEY (`subject`,`born`)" in sql
    assert "UNIQUE KEY `old` (`old`)" in sql
    assert "KEY `fur` (`fur`,`sex`)" in sql
    assert re.search(r"`seen` datetime\(3\) NOT NULL DEFAULT current_timestamp\(3\)", sql, re.I)


def test_foreign_keys(server: dj.Connection, tables: dict[str, Any]) -> None:
    sql = create_statement(server, "_session")
    assert "UNIQUE KEY `other` (`other`,`other_born`)" in sql
    assert "`other` int DEFAULT NULL COMMENT 'numeric id'" in sql
    assert "`other_born` binary(16) DEFAULT NULL COMMENT ':uuid:its uuid'" in sql
    constraints = rows(
        server,
        "SELECT table_name, constraint_name, update_rule, delete_rule, referenced_table_name "
        "FROM information_schema.referential_constraints "
        "WHERE constraint_schema = 'layout_lab' ORDER BY 1, 2",
    )
    assert [row[2:] for row in constraints] == [
        ("CASCADE", "RESTRICT", "subject"),
        ("CASCADE", "RESTRICT", "subject"),
        ("CASCADE", "RESTRICT", "_session"),
    ]
    assert create_statement(server, "_session__trial")


def test_lineage(server: dj.Connection, tables: dict[str, Any]) -> None:
    found = rows(server, "SELECT * FROM layout_lab.`~lineage`")
    assert sorted(found) == [
        ("#single", "_singleton", "layout_lab.#single._singleton"),
        ("_session", "born", "layout_lab.subject.born"),
        ("_session", "other", "layout_lab.subject.subject"),
        ("_session", "other_born", "layout_lab.subject.born"),
        ("_session", "session", "layout_lab._session.session"),
        ("_session", "subject", "layout_lab.subject.subject"),
        ("_session__trial", "born", "layout_lab.subject.born"),
        ("_session__trial", "session", "layout_lab._session.session"),
        ("_session__trial", "subject", "layout_lab.subject.subject"),
        ("_session__trial", "trial", "layout_lab._session__trial.trial"),
        ("subject", "born", "layout_lab.subject.born"),
        ("subject", "subject", "layout_lab.subject.subject"),
    ]


def test_singleton(server: dj.Connection, tables: dict[str, Any]) -> None:
    sql = create_statement(server, "#single")
    hidden = "`_singleton` tinyint NOT NULL DEFAULT 1 COMMENT ':bool:singleton primary key'"
    assert hidden in sql
    assert "PRIMARY KEY (`_singleton`)" in sql
    assert sql.index("`gain`") < sql.index("`_singleton` tinyint")


def test_prefixes(server: dj.Connection, tables: dict[str, Any]) -> None:
    assert tables["Session"].table_name == "_session"
    assert tables["Session"].Trial.table_name == "_session__trial"
    assert tables["Single"].table_name == "#single"


def test_lineage_table(server: dj.Connection, tables: dict[str, Any]) -> None:
    found = rows(
        server,
        "SELECT column_name, column_type, is_nullable, column_key, column_comment "
        "FROM information_schema.columns WHERE table_schema = 'layout_lab' "
        "AND table_name = '~lineage' ORDER BY ordinal_position",
    )
    assert found == [
        ("table_name", "varchar(64)", "NO", "PRI", "table name within the schema"),
        ("attribute_name", "varchar(64)", "NO", "PRI", "attribute name"),
        ("lineage", "varchar(255)", "NO", "", "origin: schema.table.attribute"),
    ]


def test_lineage_follows_the_tables(server: dj.Connection, tables: dict[str, Any]) -> None:
    single, session = tables["Single"], tables["Session"]
    session.Trial.definition += "\n---\n-> [nullable] Subject.proj(seen_by='subject', its='born')"
    assert session.Trial.alter(prompt=False, context=tables)
    of_trial = "SELECT attribute_name FROM layout_lab.`~lineage` WHERE table_name = "
    assert {name for (name,) in rows(server, of_trial + "'_session__trial'")} == {
        "subject", "born", "session", "trial", "seen_by", "its",
    }  # fmt: skip
    single.drop()
    assert not rows(server, of_trial + "'#single'")


def test_a_shared_column_keeps_what_it_was_declared_as(
    server: dj.Connection, tables: dict[str, Any]
) -> None:
    schema: Any = dj.Schema("layout_lab", connection=server, context=tables)

    @schema
    class Sharing(dj.Manual):
        definition = """
        # 50 % "off" it's \\ 日本
        subject : int32   # mine, 100 %
        ---
        -> [nullable] Subject
        -> [nullable] Session.proj(other='session')
        """

    sql = create_statement(server, "sharing")
    assert "`subject` int NOT NULL COMMENT ':int32:mine, 100 %'" in sql
    assert "`born` binary(16) DEFAULT NULL COMMENT ':uuid:its uuid'" in sql
    assert "`other` smallint DEFAULT NULL" in sql
    assert sql.count("FOREIGN KEY") == 2
    comment = "SELECT table_comment FROM information_schema.tables WHERE table_name = 'sharing'"
    assert rows(server, comment) == [('50 % "off" it\'s \\ 日本',)]
    constraints = rows(
        server,
        "SELECT constraint_name FROM information_schema.referential_constraints "
        "WHERE constraint_schema = 'layout_lab' AND table_name = 'sharing'",
    )
    assert sorted(constraints) == [("sharing_ibfk_1",), ("sharing_ibfk_2",)]


def test_constraints_of_long_names(server: dj.Connection, tables: dict[str, Any]) -> None:
    schema: Any = dj.Schema("layout_lab", connection=server, context=tables)
    names = ["L" + "x" * 62, "L" + "x" * 63]
    for name in names:
        schema(type(name, (dj.Manual,), {"definition": "-> Subject\n---\n-> [unique] Session"}))
    found = rows(
        server,
        "SELECT constraint_name FROM information_schema.referential_constraints "
        "WHERE constraint_schema = 'layout_lab' AND table_name LIKE 'lxx%%'",
    )
    assert len(set(found)) == 4
    assert all(len(name) <= 64 for (name,) in found)


def test_the_servers_refusal_names_the_table(server: dj.Connection) -> None:
    schema: Any = dj.Schema("layout_refused", connection=server)
    wrong = {"definition": "id : int32\n---\nsex : enum('f', 'F')"}
    with pytest.raises(dj.QueryError, match=r"layout_refused\.wrong cannot be declared: .*'sex'"):
        schema(type("Wrong", (dj.Manual,), wrong))

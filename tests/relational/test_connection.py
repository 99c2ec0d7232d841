"""Connections: errors in our words, threads, forks and processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from tests.services.process import free_port


def item(schema: Any) -> Any:
    @schema
    class Item(dj.Manual):
        definition = """
        id : int32
        ---
        name : varchar(20)
        """

    return Item


def test_unreachable_server_is_one_line_without_password() -> None:
    url = f"mysql+pymysql://bob:sekret@127.0.0.1:{free_port()}/"
    connection = dj.Connection(url)
    assert "sekret" not in f"{connection!r} {connection.url}"
    with pytest.raises(dj.ConnectionFailedError) as caught:
        dj.Schema("lab", connection=connection)
    message = str(caught.value)
    assert message.count("\n") == 0
    assert "sekret" not in message
    assert "bob:***@127.0.0.1" in message
    assert caught.value.transient


def test_wrong_password_is_not_shown(mariadb_url: str) -> None:
    connection = dj.Connection(mariadb_url.replace("root@", "nobody:sekret@"))
    with pytest.raises(dj.AccessError) as caught:
        connection.schema_names()
    assert "sekret" not in str(caught.value)


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database" * 200)
    for place in (tmp_path, tmp_path / "text.sqlite"):
        with pytest.raises(dj.ConnectionFailedError, match=str(place)):
            dj.Schema("lab", connection=dj.Connection(f"sqlite:///{place}"))


@pytest.mark.parametrize(
    "url", ["mysql+pymysql//bob:sekret@host", "mysql://bob:sekret@host:port/", "", "postgresql://bob:sekret@h/"]
)  # fmt: skip
def test_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(dj.ConfigurationError) as caught:
        dj.Connection(url)
    assert "sekret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["a.b", "", 'a"b', "a`b", "x" * 65])
def test_impossible_schema_names(connection: dj.Connection, name: str) -> None:
    with pytest.raises(dj.DataJointError, match="cannot be the name of a schema"):
        dj.Schema(name, connection=connection)


@pytest.mark.parametrize("name", ["a_b", "a%b", "50%s", "a b", "a'b", "a-b;--", "ü", "a:b", "Lab"])
def test_odd_schema_names(connection: dj.Connection, schema_prefix: str, name: str) -> None:
    schema: Any = dj.Schema(schema_prefix + name, connection=connection)
    neighbour: Any = dj.Schema(schema_prefix + "axb", connection=connection)
    item(neighbour)
    table = item(schema)
    table.insert1((1, "x"))

    @schema
    class Child(dj.Manual):
        definition = """
        -> Item
        ---
        x : int32
        index(x)
        """

    Child.insert1((1, 1))
    assert schema.list_tables() == ["item", "child"]
    assert table.delete() == 1
    schema.drop()
    assert schema.name not in connection.schema_names()
    assert neighbour.list_tables() == ["item"]


def test_sqlite_refuses_schemas_that_differ_in_case_only(tmp_path: Path) -> None:
    connection = dj.Connection(f"sqlite:///{tmp_path / 'a.sqlite'}", safemode=False)
    item(dj.Schema("lab", connection=connection))
    with pytest.raises(dj.DataJointError, match="upper and lower case"):
        dj.Schema("Lab", connection=connection)


def test_schema_that_must_exist(connection: dj.Connection, schema_prefix: str) -> None:
    with pytest.raises(dj.DataJointError, match="create_schema=True"):
        dj.Schema(f"{schema_prefix}no", connection=connection, create_schema=False)
    schema: Any = dj.Schema(f"{schema_prefix}yes", connection=connection, create_tables=False)
    with pytest.raises(dj.MissingTableError, match="create_tables is False"):
        item(schema)


def test_connection_killed_by_the_server(mariadb_url: str, tmp_path: Path) -> None:
    connection = dj.Connection(mariadb_url, safemode=False)
    killer = dj.Connection(mariadb_url)
    schema: Any = dj.Schema("t_killed_lab", connection=connection)
    try:
        table = item(schema)

        def kill_in_the_middle() -> None:
            with connection.transaction():
                table.insert1((1, "a"))
                with connection.cursor() as session:
                    number = session.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
                with killer.cursor() as session:
                    session.exec_driver_sql(f"KILL {number}")
                table.insert1((2, "b"))

        with pytest.raises(dj.LostConnectionError, match=r"127\.0\.0\.1"):
            kill_in_the_middle()
        assert len(table) == 0
        table.insert1((1, "a"))
        assert len(table) == 1
    finally:
        schema.drop()


def test_table_dropped_by_another_process(schema: Any, database_url: str) -> None:
    table = item(schema)
    elsewhere = dj.Connection(database_url, safemode=False)
    dj.Schema(schema.name, connection=elsewhere).drop()
    with pytest.raises(dj.DataJointError):
        len(table)
    again = dj.Schema(schema.name, connection=schema.connection)
    assert len(item(again)) == 0
    elsewhere.close()


def test_many_threads_share_a_connection(schema: Any) -> None:
    table = item(schema)
    barrier = threading.Barrier(24)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            barrier.wait(timeout=30)
            for n in range(5):
                with schema.connection.transaction():
                    table.insert1((number * 5 + n, str(number)))
                    assert (table & {"id": number * 5 + n}).fetch1("name") == str(number)
                schema.connection.catalog.forget(schema.name)
            assert len(table & {"name": str(number)}) == 5
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures
    assert len(table) == 120


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_process_has_connections_of_its_own(schema: Any) -> None:
    table = item(schema)
    table.insert1((1, "parent"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(2, 12):
                table.insert1((number, "child"))
            code = 0 if len(table & {"name": "child"}) == 10 else 2
        finally:
            os._exit(code)
    for _ in range(20):
        assert len(table & {"name": "parent"}) == 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(table) == 11

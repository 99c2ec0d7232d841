"""Connections: errors in our words, threads, forks and processes."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from tests.services.process import PATIENCE, free_port


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


def test_wrong_password_is_not_shown(server_url: str) -> None:
    connection = dj.Connection(server_url.replace("root@", "nobody:sekret@"))
    with pytest.raises(dj.AccessError) as caught:
        connection.schema_names()
    assert "sekret" not in str(caught.value)


def test_a_url_that_names_a_database_which_is_not_there(server_url: str) -> None:
    connection = dj.Connection(f"{server_url.rstrip('/')}/not_there")
    for _ in range(2):
        with pytest.raises(dj.ConfigurationError, match=r"not_there.*Leave the name .* out"):
            connection.schema_names()


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database" * 200)
    for place in (tmp_path, tmp_path / "text.sqlite"):
        with pytest.raises(dj.ConnectionFailedError, match=f"{place}.*may write the file"):
            dj.Schema("lab", connection=dj.Connection(f"sqlite:///{place}"))
    with pytest.raises(dj.ConnectionFailedError, match="cannot be made"):
        dj.Connection(f"sqlite:///{tmp_path / 'text.sqlite' / 'sub' / 'lab.sqlite'}")


@pytest.mark.parametrize(
    "url", ["mysql+pymysql//bob:sekret@host", "mysql://bob:sekret@host:port/", "", "postgresql://bob:sekret@h/"]
)  # fmt: skip
def test_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(dj.ConfigurationError) as caught:
        dj.Connection(url)
    assert "sekret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_stores_are_given_by_their_settings(tmp_path: Path) -> None:
    raw = {"protocol": "file", "location": str(tmp_path / "raw")}
    connection = dj.Connection("sqlite://", stores={"default": "raw", "raw": raw})

    @dj.Schema("lab", connection=connection)
    class Trace(dj.Manual):
        definition = """
        trace : int32
        ---
        samples : <blob@>
        """

    Trace.insert1({"trace": 1, "samples": [1, 2]})
    assert Trace.fetch1("samples") == [1, 2]
    assert any(file.is_file() for file in (tmp_path / "raw").rglob("*"))
    with pytest.raises(dj.ConfigurationError, match=r"Store 'raw'.*location"):
        dj.Connection("sqlite://", stores={"raw": {"protocol": "file"}})


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
    missing = item(schema)
    assert not missing.is_declared
    for use in (len, lambda table: table.insert1((1, "a")), lambda table: table.fetch()):
        with pytest.raises(dj.MissingTableError, match="create_tables=False"):
            use(missing())


def test_connection_killed_by_the_server(server_url: str, tmp_path: Path) -> None:
    connection = dj.Connection(server_url, safemode=False)
    killer = dj.Connection(server_url)
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
            barrier.wait(timeout=PATIENCE)
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
        thread.join(timeout=PATIENCE)
    assert not failures
    assert len(table) == 120


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_in_a_transaction_is_not_in_it(schema: Any) -> None:
    count_table = counter(schema)
    connection = schema.connection
    with connection.transaction:
        count_table.insert1((1,))
        assert in_fork(lambda: not connection.in_transaction and len(count_table()) == 0)
        count_table.insert1((2,))
    assert len(count_table()) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_by_a_make_writes_for_itself(schema: Any) -> None:
    count_table = counter(schema)

    @schema
    class Log(dj.Manual):
        definition = """
        line : int32
        """

    @schema
    class Doubled(dj.Computed):
        definition = """
        -> Count
        """

        def make(self, key: dict[str, Any]) -> None:
            assert in_fork(lambda: Log.insert1((key["n"],)) is None)
            assert in_fork(lambda: refuses(lambda: self.insert1(key)))
            self.insert1(key)

    def refuses(work: Any) -> bool:
        with pytest.raises(dj.DataJointError, match="its rows come from its make"):
            work()
        return True

    count_table.insert1((1,))
    Doubled.populate()
    assert len(Log()) == len(Doubled()) == 1


def counter(schema: Any) -> Any:
    @schema
    class Count(dj.Manual):
        definition = """
        n : int32
        """

    return Count


def in_fork(work: Any) -> bool:
    """Return whether a function is true in a process that is forked for it."""
    child = os.fork()
    if child == 0:
        found = False
        try:
            found = bool(work())
            gc.collect()
        finally:
            os._exit(not found)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


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


def test_transaction_is_a_block_with_or_without_parentheses(schema: Any) -> None:
    table = item(schema)
    with schema.connection.transaction as connection:
        assert connection is schema.connection
        table.insert1((1, "a"))
    with schema.connection.transaction():
        table.insert1((2, "b"))
    assert len(table) == 2


def test_transaction_step_by_step(schema: Any) -> None:
    table, connection = item(schema), schema.connection
    connection.start_transaction()
    table.insert1((1, "a"))
    assert connection.in_transaction
    connection.cancel_transaction()
    assert not connection.in_transaction
    assert len(table) == 0
    connection.start_transaction()
    table.insert1((1, "a"))
    with pytest.raises(dj.QueryError, match="do not nest"):
        connection.start_transaction()
    connection.commit_transaction()
    assert len(table) == 1
    for end in (connection.commit_transaction, connection.cancel_transaction):
        with pytest.raises(dj.QueryError, match="no transaction to end"):
            end()


def test_own_sql(schema: Any) -> None:
    table, connection = item(schema), schema.connection
    table.insert([(1, "50%"), (2, "b")])
    sqlite = connection.url.startswith("sqlite")
    name = f'"{table.name}"' if sqlite else f"`{table.database}`.`{table.table_name}`"
    where = "name LIKE %s AND id %% 2 = 1"
    found = connection.query(f"SELECT id, name FROM {name} WHERE {where}", ("50%",))
    assert list(found) == [(1, "50%")]
    dicts = connection.query(f"SELECT id, name FROM {name} ORDER BY id", as_dict=True)
    assert dicts.fetchone() == {"id": 1, "name": "50%"}
    assert dicts.fetchall() == [{"id": 2, "name": "b"}]
    assert dicts.fetchone() is None
    assert connection.query(f"DELETE FROM {name}").rowcount == 2
    with pytest.raises(dj.QuerySyntaxError):
        connection.query("SELEC 1")


def test_who_and_whether(connection: dj.Connection) -> None:
    assert "@" in connection.get_user()
    assert connection.is_connected
    nobody = dj.Connection(f"mysql+pymysql://bob@127.0.0.1:{free_port()}/")
    assert not nobody.is_connected


@pytest.mark.parametrize("name", ["password", "passwd", "ssl_key_password", "init_command"])
def test_a_secret_in_the_query_of_a_url_is_not_shown(name: str) -> None:
    connection = dj.Connection(f"mysql+pymysql://bob@127.0.0.1:{free_port()}/?{name}=sekret")
    with pytest.raises(dj.DataJointError) as caught:
        connection.query("SELECT 1")
    shown = f"{connection!r} {connection.url} {connection.engine!r} {caught.value}"
    assert "sekret" not in shown
    assert "bob@127.0.0.1" in shown


def test_tls_is_used_declined_and_demanded(mysql_url: str, mariadb_url: str) -> None:
    """The MySQL server has a certificate of its own making; the MariaDB server offers no TLS."""

    def cipher(url: str, **settings: Any) -> str:
        config = type(dj.config)({"database.url": url})
        for setting, value in settings.items():
            config[f"database.{setting}"] = value
        connection = config.connect()
        try:
            return connection.query("SHOW STATUS LIKE 'Ssl_cipher'").fetchone()[1]
        finally:
            connection.close()

    assert cipher(mysql_url)
    assert cipher(mysql_url, use_tls=True)
    assert not cipher(mysql_url, use_tls=False)
    assert not cipher(mariadb_url, use_tls=False)
    for options in (True, {"check_hostname": False}):
        with pytest.raises(dj.DataJointError, match=r"(?i)ssl|tls"):
            cipher(mariadb_url, use_tls=options)
    # Nobody has signed the server's certificate.
    with pytest.raises(dj.DataJointError):
        cipher(mysql_url, use_tls={"verify_cert": True})


def test_commits_of_sqlite_wait_for_the_disk(tmp_path: Path) -> None:
    connection = dj.Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    assert connection.query("PRAGMA synchronous").fetchone()[0] == 2


READER = """
import os, sys
import dj_dagster as dj


def step(action):
    try:
        print(action(), flush=True)
    except dj.DataJointError as error:
        print(type(error).__name__, error, flush=True)
    sys.stdin.readline()


def counted_twice():
    with connection.cursor():
        step(lambda: len(table))


# All that is imported late is imported while this may be root, whose files others cannot read.
warm = dj.Schema("warm", connection=dj.Connection("sqlite:///:memory:"))
warm(type("Item", (dj.Manual,), {"definition": "item : int32"}))
table = dj.FreeTable(warm.connection, "`warm`.`item`")
for _ in range(2):
    step(lambda: table.insert1({"item": 1}))
if os.geteuid() == 0:
    os.setuid(65534)
connection = dj.Connection(sys.argv[1])
table = dj.FreeTable(connection, "`lab`.`item`")
step(lambda: len(table))
step(lambda: table.insert1({"id": 9, "name": "x"}))
step(lambda: len(table))
step(counted_twice)
step(lambda: len(table))
step(lambda: len(table))
"""


def test_a_user_who_may_not_write_a_sqlite_file_reads_it_beside_writers(tmp_path: Path) -> None:
    # The folders of pytest are closed for other users.
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "lab.sqlite"
        owner = dj.Connection(f"sqlite:///{file}")
        table = item(dj.Schema("lab", connection=owner))

        def write(number: int, *, close: bool = False) -> None:
            for place, mode in ((Path(name), 0o755), (file, 0o644)):
                place.chmod(mode)
            table.insert1((number, "x"))
            if close:
                owner.close()
            for place, mode in ((Path(name), 0o555), (file, 0o444)):
                place.chmod(mode)

        write(0, close=True)
        command = [sys.executable, "-c", READER, f"sqlite:///{file}"]
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=tmp_path) as reader:
            told, tell = reader.stdout, reader.stdin
            assert told is not None
            assert tell is not None

            def said(action: Callable[[], None] = lambda: None) -> str:
                """Return what the reader says, and do something before it goes on."""
                line = told.readline().strip()
                action()
                tell.write("\n")
                tell.flush()
                return line

            assert [said(), said()][0] == "None"
            assert said() == "1"
            refused = said(lambda: write(1, close=True))
            assert refused.startswith("AccessError The rows for lab.item were refused: The data")
            assert "cannot be written by this user" in refused
            assert f"{file}" in refused
            assert said() == "2"
            # The file is written while a block reads it, which another client keeps open.
            assert said(lambda: write(2)) == "2"
            assert said().startswith("TransientError The database")
            assert said(lambda: write(3)) == "3"
            assert said() == "4"
        assert reader.returncode == 0
        owner.close()
        Path(name).chmod(0o755)


def test_a_sqlite_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    file, copy = tmp_path / "lab.sqlite", tmp_path / "copy.sqlite"
    connection = dj.Connection(f"sqlite:///{file}")
    table = item(dj.Schema("lab", connection=connection))
    table.insert1((1, "before"))
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    table.insert1((2, "after"))
    held, go = threading.Event(), threading.Event()
    seen: list[int] = []

    def other_thread() -> None:
        seen.append(len(table()))
        held.set()
        go.wait(PATIENCE)
        seen.append(len(table()))

    thread = threading.Thread(target=other_thread)
    thread.start()
    held.wait(PATIENCE)
    for suffix in ("-wal", "-shm"):
        # They belong to the file that goes.
        Path(f"{file}{suffix}").unlink()
    copy.replace(file)
    go.set()
    thread.join(PATIENCE)
    assert seen == [2, 1]
    assert table().to_dicts() == [{"id": 1, "name": "before"}]
    table.insert1((3, "afterwards"))
    with connection.transaction:
        table.insert1((4, "in a transaction"))
    with closing(sqlite3.connect(file)) as client:
        found = client.execute('SELECT id FROM "lab.item" ORDER BY id').fetchall()
    assert found == [(1,), (3,), (4,)]


def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    """Each of them switches the new file to the write-ahead log."""
    for number in range(60):
        url = f"sqlite:///{tmp_path / f'{number}.sqlite'}"
        together = threading.Barrier(8)

        def names(url: str = url, together: threading.Barrier = together) -> list[str]:
            connection = dj.Connection(url)
            together.wait(PATIENCE)
            return connection.schema_names()

        with ThreadPoolExecutor(8) as pool:
            found = [pool.submit(names) for _ in range(8)]
        assert [each.result() for each in found] == [[]] * 8

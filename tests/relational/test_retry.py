"""Deadlocks, locks and lost connections: tried again outside transactions, refused inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.relational.database.sessions import retried
from tests.services.process import PATIENCE


@pytest.fixture
def server(server_url: str, schema_prefix: str) -> Iterator[dj.Connection]:
    connection = dj.Connection(server_url, safemode=False)
    yield connection
    connection.close()


@pytest.fixture
def database_url(server_url: str) -> str:
    """SQLite has one writer at a time and no connection to lose."""
    return server_url


@pytest.fixture
def item(server: dj.Connection, schema_prefix: str) -> Any:
    schema = dj.Schema(f"{schema_prefix}lab", connection=server)

    @schema
    class Item(dj.Manual):
        definition = """
        id : int32
        ---
        score : int32
        """

    Item().insert([(1, 0), (2, 0)])
    return Item


def connection_id(connection: dj.Connection) -> int:
    with connection.cursor() as session:
        return session.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()


def kill(url: str, number: int) -> None:
    killer = dj.Connection(url)
    with killer.cursor() as session:
        session.exec_driver_sql(f"KILL {number}")
        # The server ends the connection in its own time.
        listed = f"SELECT 1 FROM information_schema.processlist WHERE id = {number}"
        while session.exec_driver_sql(listed).first():
            time.sleep(0.01)
        time.sleep(0.05)
    killer.close()


def raising(*errors: Exception) -> tuple[Callable[[], str], list[Exception]]:
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work, left


def test_what_passes_is_tried_again() -> None:
    work, left = raising(dj.TransientError("deadlock"), dj.TransientError("deadlock"))
    assert retried(work, (dj.TransientError,)) == "done"
    assert not left


@pytest.mark.parametrize("error", [dj.DuplicateError("row"), dj.errors.LostCommitError("commit")])
def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    work, left = raising(error, ValueError("a second call"))
    with pytest.raises(type(error)):
        retried(work, (dj.TransientError, dj.LostConnectionError))
    assert len(left) == 1


def test_a_read_survives_a_lost_connection(item: Any, server_url: str) -> None:
    kill(server_url, connection_id(item.connection))
    assert len(item()) == 2


def test_an_insert_survives_a_lost_connection(item: Any, server_url: str) -> None:
    kill(server_url, connection_id(item.connection))
    item.insert([(3, 0), (4, 0)])
    assert len(item()) == 4


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda item: item.insert([(1, 5), (2, 5)], replace=True), [5, 5]),
        (lambda item: (item & "id < 3").delete(), []),
        (lambda item: (item & "id < 3").delete_quick(), []),
    ],
)
def test_a_deadlock_is_tried_again(item: Any, change: Any, left: list[int]) -> None:
    """Two transactions lock two rows in opposite order; outside a transaction the loser retries."""
    connection = item.connection
    holds_first, wants_first = threading.Event(), threading.Event()

    def other() -> None:
        name = f"`{item.database}`.`{item.table_name}`"
        with connection.transaction(), connection.cursor() as session:
            # Many changes: the server picks the smaller transaction as the victim.
            item.insert([(101 + n, 0) for n in range(500)])
            session.exec_driver_sql(f"UPDATE {name} SET score = 1 WHERE id = 2")
            holds_first.set()
            wants_first.wait(PATIENCE)
            session.exec_driver_sql(f"UPDATE {name} SET score = 1 WHERE id = 1")

    thread = threading.Thread(target=other)
    thread.start()
    assert holds_first.wait(PATIENCE)
    threading.Timer(0.3, wants_first.set).start()
    # Row 1 is locked first, then it waits for row 2.
    change(item)
    thread.join(PATIENCE)
    assert (item & "id < 3").to_arrays("score").tolist() == left
    assert len(item & "id > 100") == 500


def test_after_a_lost_connection_a_transaction_is_over(item: Any, server_url: str) -> None:
    def go_on_regardless() -> None:
        with item.connection.transaction():
            item.insert1((3, 0))
            kill(server_url, connection_id(item.connection))
            with pytest.raises(dj.LostConnectionError):
                len(item())
            item.insert1((4, 0))

    with pytest.raises(dj.QueryError, match="run the block again"):
        go_on_regardless()
    assert sorted(item.to_arrays("id")) == [1, 2]
    item.insert1((3, 0))


def test_a_caught_error_does_not_let_half_a_transaction_commit(item: Any, server_url: str) -> None:
    def commit_regardless() -> None:
        with item.connection.transaction():
            item.insert1((3, 0))
            kill(server_url, connection_id(item.connection))
            with pytest.raises(dj.LostConnectionError):
                item.insert1((4, 0))

    with pytest.raises(dj.QueryError, match="rolled back"):
        commit_regardless()
    assert len(item()) == 2


def test_a_connection_lost_at_commit_is_said_to_be_uncertain(item: Any, server_url: str) -> None:
    def lose_it_at_the_end() -> None:
        with item.connection.transaction():
            item.insert1((3, 0))
            kill(server_url, connection_id(item.connection))

    with pytest.raises(dj.errors.LostCommitError, match="look for its rows") as caught:
        lose_it_at_the_end()
    assert not caught.value.transient
    assert len(item()) == 2

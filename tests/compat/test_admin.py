"""Processes and passwords of a server."""

from __future__ import annotations

import builtins
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from tests.services.statements import statement_with_bytes


@pytest.fixture
def user_url(server_url: str) -> Iterator[sa.URL]:
    """A user of this test's own, with the password 'first'."""
    admin = dj.Connection(server_url)
    admin.query("CREATE USER 'compat'@'%' IDENTIFIED BY 'first'")
    yield sa.make_url(server_url).set(username="compat", password="first")
    admin.query("DROP USER 'compat'@'%'")
    admin.close()


def test_set_password(user_url: sa.URL) -> None:
    connection = dj.Connection(user_url)
    dj.set_password("it's % new", connection)
    connection.close()
    with pytest.raises(dj.DataJointError):
        dj.Connection(user_url).ping()
    renewed = dj.Connection(user_url.set(password="it's % new"))
    assert renewed.get_user().startswith("compat@")
    renewed.close()


def test_kill(
    server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, admin = dj.Connection(server_url), dj.Connection(server_url)
    victim.start_transaction()
    (number,) = victim.query("SELECT CONNECTION_ID()").fetchone()
    answers = iter([str(number), "", "q"])
    monkeypatch.setattr(builtins, "input", lambda _: next(answers))
    dj.kill(f"id = {number}", admin)
    assert str(number) in capsys.readouterr().out
    with pytest.raises(dj.LostConnectionError):
        victim.query("SELECT 1")
    victim.cancel_transaction()
    for connection in (victim, admin):
        connection.close()


def test_kill_quick(server_url: str) -> None:
    victim, admin = dj.Connection(server_url), dj.Connection(server_url)
    number = victim.connection_id
    with pytest.raises(dj.DataJointError, match="Say which processes"):
        dj.admin.kill_quick(connection=admin)
    assert dj.admin.kill_quick(f"id = {number}", admin) == 1
    assert dj.admin.kill_quick(f"id = {number}", admin) == 0
    for connection in (victim, admin):
        connection.close()


def test_listing_beside_a_statement_with_bytes(
    server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = dj.Connection(server_url)
    monkeypatch.setattr(builtins, "input", lambda _: "q")
    with statement_with_bytes(server_url) as number:
        dj.kill("info LIKE 'SELECT SLEEP%'", admin)
        assert f"{number}\t" in capsys.readouterr().out
    admin.close()


def test_not_on_sqlite() -> None:
    with pytest.raises(dj.QueryError, match="is a file: it has no server processes"):
        dj.kill(connection=dj.Connection("sqlite://"))

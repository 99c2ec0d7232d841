"""The services that other tests stand on do what those tests need of them."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from playwright.sync_api import Page

from tests.services.database_server import drop_databases
from tests.services.process import accepts, eventually, free_port, server
from tests.services.s3 import bucket_files


def test_each_database_answers(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1 + 1").scalar_one() == 2
    engine.dispose()


def test_only_the_databases_with_the_prefix_are_dropped(server_url: str) -> None:
    mine, other = (f"t{uuid.uuid4().hex[:8]}_" for _ in range(2))
    engine = sqlalchemy.create_engine(server_url)
    with engine.connect() as connection:
        for prefix in (mine, other):
            connection.exec_driver_sql(f"CREATE DATABASE `{prefix}lab`")
        drop_databases(server_url, mine)
        left = connection.exec_driver_sql("SHOW DATABASES").scalars().all()
    engine.dispose()
    drop_databases(server_url, other)
    assert f"{mine}lab" not in left
    assert f"{other}lab" in left


def test_the_s3_server_keeps_bytes(s3_store_settings: dict[str, Any]) -> None:
    path = f"{s3_store_settings['bucket']}/{s3_store_settings['location']}/a"
    bucket_files(s3_store_settings).pipe_file(path, b"\x00dj")
    assert bucket_files(s3_store_settings).cat_file(path) == b"\x00dj"


def test_the_s3_server_refuses_a_wrong_secret(s3_store_settings: dict[str, Any]) -> None:
    stranger = bucket_files({**s3_store_settings, "secret_key": "wrong"})
    with pytest.raises(PermissionError):
        stranger.pipe_file(f"{s3_store_settings['bucket']}/a", b"x")


def test_the_browser_runs_scripts(page: Page) -> None:
    page.set_content("<p id=a>raw</p><script>a.textContent = 'processed'</script>")
    assert page.inner_text("#a") == "processed"


def test_each_process_has_ports_of_its_own() -> None:
    """A server that was killed starts again on its port, which nothing else was given."""
    other = "from tests.services.process import free_port; print(*(free_port() for _ in range(99)))"
    ours = {free_port() for _ in range(99)}
    told = subprocess.run([sys.executable, "-c", other], stdout=subprocess.PIPE, check=True)
    theirs = {int(port) for port in told.stdout.split()}
    assert len(ours) == len(theirs) == 99
    assert ours.isdisjoint(theirs)
    # Linux gives ports from 32768 on to connections, others from 49152 on.
    assert max(ours | theirs) < 32768


def test_a_server_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"]
    broken = server(command, log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(RuntimeError, match=r"code 3\nno disk"), broken:
        pass


def test_a_server_ends_together_with_what_it_started(tmp_path: Path) -> None:
    port = free_port()
    web = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    parent = f"import subprocess; subprocess.Popen({web}); input()"
    # The parent waits for a line that never comes.
    command = [sys.executable, "-c", f"import os; os.dup2(os.pipe()[0], 0); {parent}"]
    with server(command, log=tmp_path / "log", ready=lambda: accepts(port)):
        assert accepts(port)
    eventually(lambda: not accepts(port))

"""Several databases in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import dj_dagster as dj


def declare(instance: dj.Instance, name: str, values: list[int]) -> Any:
    @instance.Schema(name)
    class Item(dj.Manual):
        definition = "item : int32"

    Item.insert({"item": value} for value in values)
    return Item


def test_instances_are_independent(database_url: str, schema_prefix: str, tmp_path: Path) -> None:
    one = dj.Instance(database__url=database_url, safemode=False, jobs__keep_completed=True)
    other = dj.Instance(database__url=f"sqlite:///{tmp_path / 'other.sqlite'}")
    assert (one.config.safemode, other.config.safemode) == (False, True)
    assert one.connection.job_settings.keep_completed
    name = f"{schema_prefix}lab"
    item, same = declare(one, name, [1, 2, 3]), declare(other, name, [7])
    assert (item & "item > 1").delete() == 2
    assert item.keys() == one.FreeTable(item.full_table_name).keys() == [{"item": 1}]
    assert same.keys() == other.VirtualModule("other", name).Item.keys() == [{"item": 7}]
    one.config.safemode = True
    assert one.connection.safemode
    for instance in (one, other):
        instance.connection.close()


def test_a_server_is_named_as_in_datajoint(server_url: str) -> None:
    url = sa.make_url(server_url)
    lab = dj.Instance(url.host, url.username, url.password, port=url.port)
    assert lab.connection.query("SELECT 1").fetchone() == (1,)
    info = lab.connection.conn_info
    assert info == {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "passwd": url.password,
        "ssl_input": None,
    }
    assert str(url.port) in repr(lab)
    lab.connection.close()


def test_threads_may_be_kept_from_sharing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DJ_THREAD_SAFE", "true")
    for use in (
        dj.conn,
        lambda: dj.config.safemode,
        lambda: dj.config["safemode"],
        lambda: setattr(dj.config, "safemode", False),
        lambda: dj.Schema("lab"),
        lambda: dj.FreeTable("lab.session"),
    ):
        with pytest.raises(dj.ThreadSafetyError, match=r"dj\.Instance"):
            use()
    assert dj.config.save_template(tmp_path / "datajoint.json").exists()
    lab = dj.Instance(database__url="sqlite:///:memory:", safemode=False)
    schema = lab.Schema("lab")
    schema(type("Item", (dj.Manual,), {"definition": "item : int32"})).insert1((1,))
    assert lab.FreeTable("lab.item").keys() == [{"item": 1}]
    assert dj.Diagram(schema).direction == "LR"


def test_an_old_connection_follows_settings_that_are_read_again(server_url: str) -> None:
    url = sa.make_url(server_url)
    connection = dj.Connection(f"{url.host}:{url.port}", url.username, url.password)
    assert "not connected yet" in repr(connection)
    dj.config.reread()
    with dj.config.override(display__limit=3):
        assert connection.display.limit == 3
    assert connection.is_connected
    assert repr(connection).endswith(", connected)")
    connection.close()
    assert repr(connection).endswith(", disconnected)")

"""Settings: where they come from, which wins, and that secrets stay secret."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster import defaults


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, no settings in the environment or in memory."""
    for name in [name for name in os.environ if name.startswith("DJ_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(defaults, "_config", None)
    monkeypatch.setattr(defaults, "_connection", None)
    return tmp_path


def write(folder: Path, settings: Any) -> None:
    (folder / "datajoint.json").write_text(json.dumps(settings))


FILE = {
    "database": {"host": "db.example", "port": 3307, "user": "bob", "password": "sekret"},
    "safemode": False,
    "stores": {"raw": {"protocol": "file", "location": "/raw"}},
    "jobs": {"something": "else"},
}


def test_embedded_default(folder: Path) -> None:
    connection = dj.conn()
    assert connection.url == f"sqlite:///{folder / '.dj' / 'lab.sqlite'}"
    assert connection is dj.conn()
    assert connection.stores.names == ["local"]
    assert connection.stores.resolve("") == "local"
    assert dj.config["safemode"] is True
    assert dj.Schema("lab").connection is connection
    assert (folder / ".dj" / "lab.sqlite").exists()


def test_file_is_found_above_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, FILE)
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "down")
    assert dj.config["database.host"] == "db.example"
    assert dj.config.safemode is False
    assert dj.conn().url == "mysql+pymysql://bob:***@db.example:3307"
    assert dj.conn().stores.names == ["local", "raw"]


def test_environment_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, FILE)
    monkeypatch.setenv("DJ_HOST", "other.example")
    monkeypatch.setenv("DJ_SAFEMODE", "true")
    monkeypatch.setenv("DJ_USER", "")
    monkeypatch.setenv(
        "DJ_STORES", '{"more": {"protocol": "file", "location": "/m"}, "default": "more"}'
    )
    assert dj.config["database.host"] == "other.example"
    assert dj.config["safemode"] is True
    assert dj.conn().url == "mysql+pymysql://bob:***@other.example:3307"
    assert sorted(dj.conn().stores.names) == ["local", "more", "raw"]
    assert dj.conn().stores.resolve() == "more"
    monkeypatch.setenv("DJ_DATABASE_URL", "sqlite:///x.sqlite")
    assert dj.conn().url.startswith("mysql")
    assert dj.conn(reset=True).url == "sqlite:///x.sqlite"


def test_only_names_of_ours_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody@else/")
    monkeypatch.setenv("STORES", "{")
    monkeypatch.setenv("SAFEMODE", "false")
    assert dj.config["database.url"] is None
    assert dj.config["safemode"] is True


def test_setting_by_dotted_name(folder: Path) -> None:
    dj.config["database.url"] = f"sqlite:///{folder / 'own.sqlite'}"
    dj.config["safemode"] = False
    assert dj.conn().url.endswith("own.sqlite")
    assert dj.conn().safemode is False
    dj.config["safemode"] = True
    assert dj.conn().safemode is True
    for use in (lambda: dj.config["database.hots"], lambda: dj.config.__setitem__("nosuch", 1)):
        with pytest.raises(dj.ConfigurationError, match=r"no setting.*Known settings: .*safemode"):
            use()


def test_secrets_are_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = {
        "protocol": "s3", "endpoint": "e", "bucket": "bucket", "location": "l",
        "access_key": "sekret", "secret_key": "sekret",
    }  # fmt: skip
    write(folder, {**FILE, "stores": {"s": store}})
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://bob:sekret@h/")
    shown = f"{dj.config!r} {dj.config} {dj.conn()!r} {dj.conn().url} {dj.conn().stores!r}"
    assert "sekret" not in shown


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DJ_PORT", "sekret", "DJ_PORT"),
        ("DJ_SAFEMODE", "sekret", "DJ_SAFEMODE"),
        ("DJ_STORES", "{sekret", "stores.*valid JSON"),
        ("DJ_DATABASE_URL", "mysql//bob:sekret@h", "no database URL"),
        ("DJ_DATABASE_URL", "mysql://bob:sekret@h:port/", "no database URL"),
        ("DJ_DATABASE_URL", "oracle://bob:sekret@h/", "does not speak"),
    ],
)
def test_values_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(dj.ConfigurationError, match=words) as caught:
        dj.conn()
    assert "sekret" not in "".join(traceback.format_exception(caught.value))


def test_assigned_value_that_cannot_be_used() -> None:
    with pytest.raises(dj.ConfigurationError, match="port") as caught:
        dj.config["database.port"] = "sekret"
    assert "sekret" not in "".join(traceback.format_exception(caught.value)).replace(
        'dj.config["database.port"] = "sekret"', ""
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"database": 5}', "5"])
def test_file_that_cannot_be_used(folder: Path, text: str) -> None:
    (folder / "datajoint.json").write_text(text)
    with pytest.raises(dj.ConfigurationError, match=r"datajoint\.json"):
        dj.conn()

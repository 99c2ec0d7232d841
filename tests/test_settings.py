"""Settings: where they come from, which wins, and that secrets stay secret."""

from __future__ import annotations

import json
import os
import pprint
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster import default_connection
from dj_dagster.orchestration import build_definitions


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, no settings in the environment or in memory."""
    for name in [name for name in os.environ if name.startswith("DJ_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(default_connection, "_config", None)
    monkeypatch.setattr(default_connection, "_connection", None)
    return tmp_path


def write(folder: Path, settings: Any) -> None:
    (folder / "datajoint.json").write_text(json.dumps(settings))


FILE = {
    "database": {"host": "db.example", "port": 3307, "user": "bob", "password": "sekret"},
    "safemode": False,
    "stores": {"raw": {"protocol": "file", "location": "/raw"}},
    "jobs": {"keep_completed": True},
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


@pytest.mark.parametrize("stores", [{}, {"raw": {"protocol": "file", "location": "raw"}}])
@pytest.mark.parametrize("url", [None, "sqlite:///own.sqlite"])
def test_a_later_change_of_directory_moves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stores: dict[str, Any], url: str | None
) -> None:
    project, elsewhere = folder / "project", folder / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    write(project, {"stores": stores, "database": {"url": url}})
    monkeypatch.chdir(project)
    store = next(iter(stores), "local")
    schema = dj.Schema("lab")

    @schema
    class Session(dj.Manual):
        definition = "session : int32"

    @schema
    class Trace(dj.Computed):
        definition = f"""
        -> Session
        ---
        trace : <blob@{store}>
        whole : <npy@{store}>
        """

        def make(self, key: dict[str, Any]) -> None:
            os.chdir(elsewhere)
            self.insert1({**key, "trace": "a trace", "whole": np.arange(key["session"])})

    Session.insert({"session": session} for session in range(3))
    Trace.populate({"session": 0})
    monkeypatch.chdir(elsewhere)
    Trace.populate({"session": 1})
    Trace.populate({"session": 2}, processes=2)
    assert list(elsewhere.iterdir()) == []
    monkeypatch.chdir(project)
    assert Trace.to_arrays("trace").tolist() == ["a trace"] * 3
    assert [len(whole.load()) for whole in Trace.to_arrays("whole")] == [0, 1, 2]


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


@pytest.mark.parametrize("named", [False, True])
def test_relative_paths_of_a_file_are_below_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    (folder / "deep").mkdir()
    elsewhere = folder / "deep"
    if named:
        elsewhere = folder.parent
        monkeypatch.setenv("DJ_CONFIG_FILE", os.path.relpath(folder / "datajoint.json", elsewhere))
    tls = {"ca": "lab.pem", "key": "/etc/lab.key", "cert": "~/lab.pem", "verify_cert": True}
    raw = {"protocol": "file", "location": "raw", "stage": "stage"}
    others = {
        "home": {"protocol": "file", "location": "~/raw"},
        "s3": {"protocol": "s3", "endpoint": "e", "bucket": "bucket", "location": "dj"},
    }
    url = "sqlite:///own.sqlite"
    write(
        folder,
        {
            "database": {"url": url, "use_tls": tls},
            "stores": {"default": "raw", "raw": raw, **others},
        },
    )
    monkeypatch.chdir(elsewhere)
    assert dj.conn().url == f"sqlite:///{folder / 'own.sqlite'}"
    assert dj.config.get_store_spec("raw")["location"] == str(folder / "raw")
    assert dj.config.stores["raw"]["stage"] == str(folder / "stage")
    assert {name: dj.config.stores[name] for name in others} == others
    assert dj.config["database.use_tls"] == {**tls, "ca": str(folder / "lab.pem")}
    server = "mysql+pymysql://ada:sesame@db.example/?ssl_ca=lab.pem"
    write(folder, {"database": {"url": server}})
    assert dj.conn(reset=True)._url.query["ssl_ca"] == str(folder / "lab.pem")
    monkeypatch.setenv("DJ_STORES", json.dumps({"raw": raw}))
    monkeypatch.setenv("DJ_DATABASE_URL", url)
    assert dj.conn(reset=True).url == url
    assert dj.config.stores["raw"]["location"] == "raw"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "sqlite://lab.sqlite"}, "DJ_DATABASE_URL is not .*sqlite:///lab.sqlite"),
        ({"url": "sqlite+aiosqlite:///lab.sqlite"}, "DJ_DATABASE_URL is not .* SQLite file"),
        ({"url": "sqlite:///~nobody-here/lab.sqlite"}, "in the home of a user who is not there"),
        ({"url": "mysql+pymysql://db.example/?foo=1"}, "unexpected .*'foo'.*DJ_DATABASE_URL"),
        ({"url": "mysql+pymysql://db.example/?read_timeout=a"}, "wrong option.*'a'"),
        ({"host": "db.example", "use_tls": {"ca": "lab.pem"}}, r"no file .*lab\.pem.*use_tls"),
        ({"host": "db.example", "use_tls": {"caa": "lab.pem"}}, "use_tls.*'caa' is not known"),
    ],
)
def test_database_that_cannot_be_opened(folder: Path, settings: dict[str, Any], words: str) -> None:
    write(folder, {"database": settings})
    with pytest.raises(dj.ConfigurationError, match=words):
        dj.conn().schema_names()


def test_home_in_a_url(folder: Path) -> None:
    dj.Connection("sqlite:///~/lab.sqlite").schema_names()
    assert (folder / "home" / "lab.sqlite").exists()


def test_paths_that_are_saved_elsewhere_stay_where_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dj.config["stores"] = {"raw": {"protocol": "file", "location": "raw"}}
    (folder / "home").mkdir()
    dj.config.save_global()
    dj.config.save_local()
    local = json.loads((folder / "dj_local_conf.json").read_text())
    assert local["stores"]["raw"]["location"] == "raw"
    (folder / "dj_local_conf.json").unlink()
    assert dj.config.found().stores["raw"]["location"] == str(folder / "raw")


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
    with pytest.raises(dj.ConfigurationError, match=r"no setting.*Known settings: .*safemode"):
        dj.config["database.hots"]


def test_names_of_datajoint_2() -> None:
    assert dj.config.jobs.auto_refresh is dj.config["jobs.auto_refresh"] is True
    dj.config.jobs.keep_completed = True
    dj.config.safemode = False
    dj.config["display.limit"] = 5
    dj.config["stores.raw"] = {"protocol": "file", "location": "/raw"}
    assert dj.config["jobs.keep_completed"] is True
    assert dj.config["safemode"] is False
    assert dj.config.display.limit == 5
    assert dj.config["stores.raw.location"] == "/raw"
    with dj.config.override(safemode=True, display__limit=3, mine=1) as config:
        assert (config.safemode, config.display.limit, config["mine"]) == (True, 3, 1)
    assert (dj.config.safemode, dj.config.display.limit, "mine" in dj.config) == (False, 5, False)
    del dj.config["display.limit"]
    assert dj.config["display.limit"] == 12
    with pytest.raises(AttributeError, match="nosuch"):
        _ = dj.config.nosuch
    with pytest.raises(dj.ConfigurationError, match=r"jobs\.stale_timeout.*DJ_JOBS"):
        dj.config["jobs.stale_timeout"] = -1


@pytest.mark.filterwarnings("error")
def test_names_of_datajoint_0_14(folder: Path) -> None:
    config = dj.config
    config["database.host"] = "db.example:3308"
    config["database.user"], config["database.password"] = "bob", "sekret"
    config["enable_python_native_blobs"] = True
    config["fetch_format"] = "frame"
    assert "custom" in config
    config["custom"] = own = {"database.prefix": "lab_"}
    own["root"] = "/data"
    assert config["custom"]["root"] == "/data"
    assert config.get("custom", {}).get("database.prefix", "") == "lab_"
    assert config.get("nosuch", "default") == "default"
    assert config["database.password"] == "sekret"
    assert dj.conn().url == "mysql+pymysql://bob:***@db.example:3308"
    with config(safemode=False, database__user="ann"):
        assert (config["safemode"], config["database.user"]) == (False, "ann")
    assert (config["safemode"], config["database.user"]) == (True, "bob")
    config.save_local()
    assert (folder / "dj_local_conf.json").stat().st_mode & 0o077 == 0
    saved = json.loads((folder / "dj_local_conf.json").read_text())
    assert saved["database.password"] == "sekret"
    assert "safemode" not in saved
    assert {"database.host", "display.limit", "safemode"} <= set(config)
    assert dict(config)["display.limit"] == 12
    with pytest.raises(KeyError):
        config["nosuch"]


def test_unknown_names_are_kept_and_warned_about_once() -> None:
    with pytest.warns(UserWarning, match=r"'cache' is kept") as caught:
        dj.config.update([("cache", "/a"), ("cache", "/b")])
    assert len(caught) == 1
    assert (dj.config["cache"], dj.config.get("cache"), "cache" in dj.config) == ("/b", "/b", True)
    with pytest.warns(UserWarning, match=r"'database\.reconnect' is kept, but nothing here reads"):
        dj.config["database.reconnect"] = False
    assert dj.config["database.reconnect"] is False
    with pytest.warns(UserWarning, match="cannot be turned off"):
        dj.config["enable_python_native_blobs"] = False


def test_file_of_datajoint_0_14(folder: Path) -> None:
    old = {
        "database.host": "old.example", "database.user": "bob", "database.port": 3306,
        "database.reconnect": True, "database.use_tls": None, "loglevel": "INFO", "safemode": False,
        "stores": {"raw": {"protocol": "file", "location": "/raw", "stage": "/tmp"}},
        "custom": {"root": "/data"},
    }  # fmt: skip
    (folder / "dj_local_conf.json").write_text(json.dumps(old))
    assert dj.conn().url == "mysql+pymysql://bob@old.example:3306"
    assert dj.conn().stores.names == ["local", "raw"]
    assert dj.config["custom"] == {"root": "/data"}
    (folder / "more.json").write_text('{"display.limit": 3}')
    dj.config.load("more.json")
    assert dj.config["display.limit"] == 3


def test_secrets_folder(folder: Path) -> None:
    stores = {"s": {"protocol": "s3", "endpoint": "e", "bucket": "bucket", "location": "l"}}
    write(folder, {"database": {"host": "db.example", "user": "bob"}, "stores": stores})
    (folder / ".secrets").mkdir()
    for name, value in (
        ("database.password", "sekret\n"), ("database.user", "nobody"),
        ("stores.s.access_key", "a"), ("stores.s.secret_key", "b"), (".gitignore", "*"),
    ):  # fmt: skip
        (folder / ".secrets" / name).write_text(value)
    assert dj.config["database.password"] == "sekret"
    assert dj.config["database.user"] == "bob"
    assert dj.config["stores"]["s"]["access_key"] == "a"
    assert dj.conn().stores.names == ["local", "s"]


def test_connection_follows_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dj.config["database.url"] = "sqlite:///one.sqlite"
    first = dj.conn()
    dj.config["stores"] = {"default": "a", "a": {"protocol": "file", "location": "/a"}}
    assert first.stores.resolve() == "a"
    dj.config["stores"]["b"] = {"protocol": "file", "location": "/b"}
    assert "b" in first.stores
    dj.config["database.url"] = "sqlite:///two.sqlite"
    assert dj.conn() is first
    monkeypatch.setenv("DJ_SAFEMODE", "false")
    assert dj.conn(reset=True).url == "sqlite:///two.sqlite"
    assert dj.config["safemode"] is False
    assert "b" in dj.conn().stores


def test_connection_arguments() -> None:
    connection = dj.conn("db.example", "bob", "sekret")
    assert connection.url == "mysql+pymysql://bob:***@db.example:3306"
    assert dj.conn("db.example", user="bob") is connection
    with pytest.warns(UserWarning, match="reset=True"):
        assert dj.conn(host="other.example") is connection
    other = dj.conn(host="other.example", reset=True, use_tls={"ca": "/ca.pem"})
    assert other.url.startswith("mysql+pymysql://bob:***@other.example:3306")
    assert "ca.pem" in other.url


def by_name() -> None:
    dj.config["database.host"] = "db.example"


def by_attribute() -> None:
    dj.config.database.host = "db.example"


def by_argument() -> None:
    assert dj.conn("db.example").url == "mysql+pymysql://db.example:3306"


@pytest.mark.parametrize("set_host", [by_name, by_attribute, by_argument])
def test_the_last_word_counts(
    monkeypatch: pytest.MonkeyPatch, set_host: Callable[[], None]
) -> None:
    monkeypatch.setenv("DJ_DATABASE_URL", "sqlite:///from-environment.sqlite")
    assert dj.config["database.url"] == "sqlite:///from-environment.sqlite"
    set_host()
    assert dj.conn().url == "mysql+pymysql://db.example:3306"
    assert dj.conn(reset=True).url == "mysql+pymysql://db.example:3306"
    dj.config["database.url"] = "sqlite:///from-python.sqlite"
    assert dj.conn(reset=True).url == "sqlite:///from-python.sqlite"


def test_what_is_set_as_an_attribute_stays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    dj.config.database.user = "ann"
    dj.config.jobs.keep_completed = True
    monkeypatch.setenv("DJ_HOST", "db.example")
    monkeypatch.setenv("DJ_JOBS_KEEP_COMPLETED", "false")
    assert dj.conn(reset=True).url == "mysql+pymysql://ann@db.example:3306"
    assert dj.config["jobs.keep_completed"] is True


def test_what_concerns_other_machines_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DJ_JOBS_PACKAGES", "scipy, numba")
    monkeypatch.setenv("DJ_JOBS_ON_OTHER_CODE", "refuse")
    monkeypatch.setenv("DJ_DATABASE_SHARED", "true")
    connection = dj.conn(reset=True)
    assert connection.job_settings.packages == ("scipy", "numba")
    assert connection.job_settings.on_other_code == "refuse"
    assert connection.is_shared
    dj.config["database.shared"] = False
    assert not connection.is_shared


def test_parts_that_are_set_after_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://bob:sekret@h:3307/")
    dj.config["database.user"] = "ann"
    dj.config.database.password = "other"
    assert dj.config.url().render_as_string(False) == "mysql+pymysql://ann:other@h:3307/"
    assert dj.conn(user="eve", reset=True).url == "mysql+pymysql://eve:***@h:3307/"
    with dj.config.override(database__host="g", database__port=1):
        assert dj.config.url().render_as_string(False) == "mysql+pymysql://eve:other@g:1"
    assert dj.config.url().render_as_string(False) == "mysql+pymysql://eve:other@h:3307/"
    dj.config["database.url"] = "sqlite:///x.sqlite"
    dj.config["database.user"] = "ann"
    assert dj.conn(reset=True).url == "sqlite:///x.sqlite"


def test_parts_that_a_url_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("USER", "bob"), ("PASS", "sekret"), ("PORT", "3307")):
        monkeypatch.setenv(f"DJ_{name}", value)
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://h/")
    assert dj.conn().url == "mysql+pymysql://bob:***@h:3307/"
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://ann@h:1/")
    assert dj.conn(reset=True).url == "mysql+pymysql://ann@h:1/"


def test_a_host_that_is_not_used_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, {"database": {"host": "db.example", "url": "mysql+pymysql://bob:sekret@h/"}})
    assert dj.conn().url == "mysql+pymysql://bob:***@h/"
    assert "db.example is not used" in caplog.text
    assert "sekret" not in caplog.text
    monkeypatch.setenv("DJ_HOST", "of-environment")
    caplog.clear()
    assert dj.conn(reset=True).url == "mysql+pymysql://of-environment:3306"
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://of-environment/")
    assert dj.conn(reset=True).url == "mysql+pymysql://of-environment/"
    assert not caplog.text


def test_patterns_of_schemas_are_looked_for_on_the_default_connection(folder: Path) -> None:
    dj.config["database.url"] = f"sqlite:///{folder / 'own.sqlite'}"
    schema: Any = dj.Schema("lab_one")

    @schema
    class Subject(dj.Manual):
        definition = "subject : int32"

    definitions = build_definitions("lab_*", state_path=folder / "state.json")
    assert [key.path for key in definitions.resolve_all_asset_keys()] == [["lab_one", "subject"]]


def test_previews_and_jobs_follow(folder: Path) -> None:
    dj.config["display.limit"] = 2
    dj.config["jobs.keep_completed"] = True
    connection = dj.conn()
    assert connection.display.limit == 2
    assert connection.job_settings.keep_completed is True
    dj.config.display.limit = 3
    dj.config["jobs.default_priority"] = 1
    dj.config["download_path"] = str(folder / "down")
    assert connection.display.limit == 3
    assert connection.job_settings.default_priority == 1
    assert connection.download_path == folder / "down"


def test_fetch_returns_what_fetch_format_says() -> None:
    schema: Any = dj.Schema("lab")

    @schema
    class Subject(dj.Lookup):
        definition = "subject : int32"
        contents: ClassVar = [(1,), (2,)]

    assert Subject.fetch().dtype.names == ("subject",)
    dj.config["fetch_format"] = "frame"
    assert Subject.fetch().index.tolist() == [1, 2]
    assert Subject.fetch(format="array")["subject"].tolist() == [1, 2]
    assert Subject.fetch(as_dict=True) == [{"subject": 1}, {"subject": 2}]
    assert Subject.fetch("subject").tolist() == [1, 2]
    with dj.config.override(fetch_format="array"):
        assert Subject.fetch()["subject"].tolist() == [1, 2]
    with pytest.raises(dj.ConfigurationError, match="fetch_format"):
        dj.config["fetch_format"] = "frames"


def test_template(folder: Path) -> None:
    assert dj.config.save_template(minimal=False) == folder / "datajoint.json"
    assert dj.conn(reset=True).url == "mysql+pymysql://localhost:3306"
    with pytest.raises(FileExistsError):
        dj.config.save_template()


def test_store_spec() -> None:
    dj.config["stores"] = {"raw": {"protocol": "file", "location": "/raw"}}
    spec = dj.config.get_store_spec("raw")
    assert (spec["protocol"], spec["location"], spec["hash_prefix"]) == ("file", "/raw", "_hash")
    with pytest.raises(dj.ConfigurationError, match="no store 'rwa'"):
        dj.config.get_store_spec("rwa")


def test_secrets_are_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = {
        "protocol": "s3", "endpoint": "e", "bucket": "bucket", "location": "l",
        "access_key": "sekret", "secret_key": "sekret",
    }  # fmt: skip
    write(folder, {**FILE, "stores": {"s": store}})
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://bob:sekret@h/")
    shown = f"{dj.config!r} {dj.config} {dj.conn()!r} {dj.conn().url} {dj.conn().stores!r}"
    assert "sekret" not in shown


def test_secrets_with_a_misspelt_name_are_not_shown(folder: Path) -> None:
    (folder / ".secrets").mkdir()
    for name in ("database.pasword", "pasword"):
        (folder / ".secrets" / name).write_text("sekret")
    write(folder, {"database": {"pasw": "sekret"}, "mine": "shown"})
    with pytest.warns(UserWarning, match=r"database\.pasword"):
        names = list(dj.config)
    assert "database.pasw" in names
    config = dj.config
    assert "sekret" not in f"{config!r} {config} {[config['database.pasw']]} {config.changes()}"
    assert (config["database.pasword"], config["pasword"]) == ("sekret", "sekret")
    assert "shown" in repr(config)


def test_secrets_are_not_shown_in_what_settings_give(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    dj.config["database.url"] = "mysql+pymysql://bob:sekret@h/?ssl_key_password=sekret"
    dj.config["stores"] = {
        "default": "s",
        "s": {"protocol": "s3", "endpoint": "http://me:sekret@e", "bucket": "bucket",
              "location": "l", "access_key": "sekret", "secret_key": "sekret"},
    }  # fmt: skip
    dj.config["stores"]["late"] = {"protocol": "gcs", "token": "sekret", "bucket": "bucket",
                                   "location": "l"}  # fmt: skip
    dj.config["stores.s.proxy_server"] = "http://p/?signature=sekret"
    dj.config["custom"] = {"site": {"api_key": "sekret", "tokens": ["sekret"]}}
    with pytest.warns(UserWarning, match="external-raw"):
        dj.config["external-raw"] = {"protocol": "s3", "access_key": "sekret"}
    with pytest.warns(UserWarning, match="mailer"):
        dj.config["mailer.password"] = "sekret"
    dj.config["database.use_tls"] = {"ca": "lab.pem", "key_password": "sekret"}
    config = dj.config
    given = [
        config["stores"], config.stores, config.stores["late"], config["stores.s"],
        config.get("stores"), config["custom"], config["external-raw"], config["mailer.password"],
        config["database.use_tls"], config.database, dict(config), list(config.items()),
        config.changes(), config.get_store_spec("s"), config["database.password"],
        config["database.url"],
    ]  # fmt: skip
    for value in given:
        shown = f"{[value]} {pprint.pformat(value)} {value!r}"
        shown += f"{value}" if not isinstance(value, str) else ""
        assert "sekret" not in shown
    # They are what they were all the same.
    assert json.dumps(config["stores"]["late"]["token"]) == '"sekret"'
    assert config["custom"] == {"site": {"api_key": "sekret", "tokens": ["sekret"]}}
    dj.config["stores"] = {"s": {**config["stores"]["s"], "nosuch": "sekret"}}
    with pytest.raises(dj.ConfigurationError) as caught:
        dj.conn()
    assert "sekret" not in f"{caught.value!r} {caught.value.args} {caplog.text}"


def test_stores_remain_the_dict_that_was_given() -> None:
    stores: dict[str, Any] = {}
    dj.config["stores"] = stores
    stores["raw"] = {"protocol": "file", "location": "/raw"}
    assert dj.config["stores"] is stores
    assert "raw" in dj.Instance(database__url="sqlite://", stores=stores).connection.stores


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DJ_PORT", "sekret", "DJ_PORT"),
        ("DJ_SAFEMODE", "sekret", "DJ_SAFEMODE"),
        ("DJ_STORES", "{sekret", "stores.*valid JSON"),
        ("DJ_DATABASE_URL", "mysql//bob:sekret@h", "not a database URL"),
        ("DJ_DATABASE_URL", "mysql://bob:sekret@h:port/", "not a database URL"),
        ("DJ_DATABASE_URL", "mysql+pymysql://bob:a@sekret@h/", "DJ_DATABASE_URL.*%40 for @"),
        ("DJ_DATABASE_URL", "mysql+pymysql://bob:a@b/sekret@h/", "%2F"),
        ("DJ_DATABASE_URL", "oracle://bob:sekret@h/", "unsupported database"),
    ],
)
def test_values_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(dj.ConfigurationError, match=words) as caught:
        dj.conn()
    assert "sekret" not in "".join(traceback.format_exception(caught.value))


def test_variables_that_are_misspelt_or_empty_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DJ_DATABSE_URL", "sqlite:///meant.sqlite")
    monkeypatch.setenv("DJ_OF_MY_OWN", "mine")
    monkeypatch.setenv("DJ_HOST", "")
    dj.conn()
    dj.conn(reset=True)
    assert caplog.text.count("reads the variable DJ_DATABSE_URL. Is DJ_DATABASE_URL meant?") == 1
    assert caplog.text.count("The variable DJ_HOST is set and empty") == 1
    assert "DJ_OF_MY_OWN" not in caplog.text


def test_file_with_the_mark_of_windows(folder: Path) -> None:
    (folder / "datajoint.json").write_text('{"display": {"limit": 3}}', encoding="utf-8-sig")
    assert dj.config["display.limit"] == 3


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


def test_a_store_in_a_path(tmp_path: Path) -> None:
    connection = dj.Connection("localhost", "nobody", "")
    dj.config["stores"] = {"raw": {"protocol": "file", "location": tmp_path, "stage": tmp_path}}
    assert "raw" in connection.stores
    dj.config["stores"] = {"raw": {"protocol": "file", "location": 3}}
    for _ in range(2):
        with pytest.raises(dj.ConfigurationError, match="location"):
            connection.stores.resolve("raw")


def test_a_file_that_is_loaded_leaves_what_the_environment_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJ_HOST", "env.example")
    monkeypatch.setenv("DJ_STORES", '{"raw": {"protocol": "file", "location": "/env"}}')
    more = {**FILE, "stores": {**FILE["stores"], "b": {"protocol": "file", "location": "/b"}}}
    (folder / "more.json").write_text(json.dumps(more))
    dj.config.load(folder / "more.json")
    assert dj.config["database.host"] == "env.example"
    assert dj.config["database.user"] == "bob"
    assert {name: s["location"] for name, s in dj.config.stores.items()} == {
        "raw": "/env",
        "b": "/b",
    }
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        dj.config.load(folder / "none.json")


def test_secrets_of_a_template_wait_to_be_filled_in(folder: Path) -> None:
    dj.config.save_template(minimal=False, create_secrets_dir=True)
    user, password = (folder / ".secrets" / f"database.{name}" for name in ("user", "password"))
    assert (user.read_text(), password.stat().st_mode & 0o077) == ("", 0)
    assert dj.conn(reset=True).url == "mysql+pymysql://localhost:3306"
    user.write_text("ada")
    assert dj.conn(reset=True).url == "mysql+pymysql://ada@localhost:3306"
    assert dj.settings.find_secrets_dir(dj.settings.find_config_file()) == folder / ".secrets"
    assert dj.settings.read_secret_file(folder / ".secrets", "database.user") == "ada"
    assert dj.settings.read_secret_file(folder / ".secrets", "database.password") is None
    dj.config.save_template(folder / "more.json", create_secrets_dir=True)
    assert user.read_text() == "ada"


def test_the_default_store_is_told_where_it_is_configured() -> None:
    store = {"protocol": "file", "location": "/raw"}
    for default, filepaths in (("default", False), ("filepath_default", True)):
        with pytest.raises(dj.ConfigurationError, match=f"stores.{default} is not configured"):
            dj.config.get_store_spec(use_filepath_default=filepaths)
        dj.config["stores"] = {**dj.config.stores, "raw": store, default: "raw"}
        spec = dj.config.get_store_spec(use_filepath_default=filepaths)
        assert spec["location"] == "/raw"


def test_stores_of_0_14_mean_what_they_meant() -> None:
    s3 = {"protocol": "s3", "endpoint": "s3:9000", "bucket": "bucket", "location": ""}
    dj.config["stores"] = {"a": s3, "b": {**s3, "secure": True}}
    assert dj.conn().stores.get("a").settings.secure
    dj.config["era"] = "0.14"
    stores = dj.conn().stores
    assert [stores.get(name).settings.secure for name in "ab"] == [False, True]

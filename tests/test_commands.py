"""Commands that tell how a project is: status, errors, plan, populate and doctor."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.launcher import LaunchRunContext

import dj_dagster as dj
from dj_dagster.cli import cli
from dj_dagster.orchestration.inspection import doctor, launched_doctor, project
from tests.command_line import Command, inside
from tests.services import far_launcher
from tests.services.process import PATIENCE

__all__ = ["inside"]

WORKSPACE = "load_from: [{python_module: {module_name: scales, working_directory: src}}]\n"

SCALES = '''
import os
import dj_dagster as dj
from dj_dagster.orchestration import build_definitions

dj.config["jobs.keep_completed"] = True
schema = dj.Schema(os.environ["LAB"])

@schema
class Subject(dj.Manual):
    definition = """
    subject_id : int32
    ---
    weight : float64
    """

@schema
class Dose(dj.Computed):
    definition = """
    -> Subject
    ---
    dose : float64
    """

    def make(self, key):
        weight = (Subject & key).fetch1("weight")
        if weight < 0:
            raise ValueError("a negative weight")
        self.insert1({**key, "dose": 2 * weight})

@schema
class Answer(dj.Manual):
    definition = """
    -> Dose
    ---
    answer : varchar(20)
    """

@schema
class Plot(dj.Computed):
    definition = """
    -> Dose
    """

    def make(self, key):
        self.insert1(key)

defs = build_definitions(schema)
'''


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'lab.sqlite'}"
    return request.getfixturevalue("mariadb_url")


@pytest.fixture
def command(
    inside: Command,
    tmp_path: Path,
    database_url: str,
    schema_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Command]:
    """Run the command in a project with four tables, without rows."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "scales.py").write_text(SCALES)
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    monkeypatch.setenv("DJ_DATABASE_URL", database_url)
    monkeypatch.setenv("DJ_SAFEMODE", "false")
    monkeypatch.setenv("LAB", f"{schema_prefix}lab")
    yield inside
    dj.conn().close()


FAR = timedelta(hours=5, minutes=30)
"""The distance from UTC of a zone in which neither this machine nor its servers are."""


@pytest.fixture
def far(command: Command, database_url: str) -> Iterator[Command]:
    """Run the command with a database whose clock is of another zone."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TZ", "XXX-05:30")  # POSIX counts west of Greenwich
        if database_url.startswith("sqlite"):
            time.tzset()
        else:
            zone = f"{'&' if '?' in database_url else '?'}init_command=SET time_zone='%2B05:30'"
            monkeypatch.setenv("DJ_DATABASE_URL", database_url + zone)
        yield command
    time.tzset()


def listed(command: Command, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return what a command lists as JSON, by the class of the table."""
    done = command(*arguments, "--json")
    assert done.exit_code == code, done.output
    return {each["table"].split(".", 1)[1]: each for each in json.loads(done.stdout)}


def test_keys_are_counted_listed_planned_and_made(far: Command, schema_prefix: str) -> None:
    command = far
    assert listed(command, "status")["Dose"]["keys"] == 0
    lab = dj.virtual_schema(f"{schema_prefix}lab")
    weights = {1: 20.0, 2: 25.0, 3: -1.0, 4: 30.0}
    lab.Subject.insert([{"subject_id": n, "weight": weight} for n, weight in weights.items()])

    done = command("populate", "Dose+", "--where", "subject_id < 4", "--progress")
    assert done.exit_code == 1
    assert f"{schema_prefix}lab.Dose: 1 failed, 2 made" in done.stdout
    assert "  subject_id=3: ValueError: a negative weight" in done.stdout
    assert "Dose: 3 of 3 keys" in done.stderr

    counted = listed(command, "status", code=1)
    numbers = ("rows", "keys", "made", "pending", "running", "failed", "stale")
    assert [counted["Subject"][name] for name in numbers] == [4, *[None] * 6]
    assert [counted["Dose"][name] for name in numbers] == [2, 4, 2, 1, 0, 1, 0]
    assert [counted["Plot"][name] for name in numbers] == [2, 2, 2, 0, 0, 0, 0]
    plain = command("status", "tier:computed")
    assert plain.exit_code == 1
    heading, dose, plot = (line.split() for line in plain.stdout.splitlines())
    assert heading == ["table", "tier", *numbers]
    assert dose[1:] == ["computed", "2", "4", "2", "1", "0", "1", "0"]
    assert plot[0] == f"{schema_prefix}lab.Plot"

    errors = command("errors", "--traceback")
    assert errors.exit_code == 1
    assert "Dose subject_id=3: ValueError: a negative weight\n" in errors.stdout
    assert 'raise ValueError("a negative weight")' in errors.stdout
    assert command("errors", "Plot").output == "No key has failed.\n"
    began = datetime.now(UTC)
    again = listed(command, "errors", "--retry", code=1)
    assert again["Dose"]["key"] == {"subject_id": 3}
    # The database's clock is of a zone that is neither this machine's nor UTC.
    failed = datetime.fromisoformat(again["Dose"]["time"])
    assert failed.utcoffset() == FAR
    assert abs(failed - began) < timedelta(seconds=PATIENCE)

    # Of the stale keys, one has a row below that a person entered.
    lab.Answer.insert1({"subject_id": 2, "answer": "well"})
    lab.Subject.update1({"subject_id": 1, "weight": 21.0})
    lab.Subject.update1({"subject_id": 2, "weight": 26.0})
    assert listed(command, "status", "Dose", code=1)["Dose"]["stale"] == 2
    planned = listed(command, "plan")
    assert list(planned) == ["Dose", "Plot"]
    assert [planned["Dose"][name] for name in ("rows", "keys", "left", "lost")] == [1, 1, 1, 0]
    assert [planned["Plot"][name] for name in ("rows", "keys", "left", "lost")] == [1, 1, 0, 0]
    assert planned["Dose"]["seconds"] > 0
    planned = listed(command, "plan", "--delete-entered")
    assert [planned["Answer"][name] for name in ("rows", "keys", "lost")] == [1, 0, 1]
    assert planned["Dose"]["keys"] == 2
    said = command("plan", "Plot", "--all").stdout
    assert "2 rows would be deleted, and 2 keys made again, in about 0." in said

    # What comes from a row goes with it; what is computed comes back.
    planned = listed(command, "plan", "Subject", "--where", "subject_id = 2")
    assert [planned[name]["lost"] for name in ("Subject", "Dose", "Answer", "Plot")] == [1] * 4
    assert {each["keys"] for each in planned.values()} == {0}
    planned = listed(command, "plan", "Dose", "--where", "subject_id = 1")
    assert [(each["keys"], each["lost"]) for each in planned.values()] == [(1, 0), (1, 0)]

    # Nothing has been changed by all this, and the plan is what then happens.
    assert listed(command, "status", code=1) == {
        **counted,
        "Dose": {**counted["Dose"], "stale": 2},
        "Answer": {**counted["Answer"], "rows": 1},
    }
    done = command("recompute", "all", "--stale", "--progress")
    assert "Dose: 1 left, 1 made" in done.stdout
    assert "Plot: 1 made" in done.stdout
    assert "Dose: 2 of 2 keys" in done.stderr
    lab.Subject.update1({"subject_id": 3, "weight": 1.0})
    done = command("errors", "--retry")
    assert done.exit_code == 0
    assert done.stdout.endswith("Dose: 1 made\nNo key has failed.\n")
    assert command("populate", "all").exit_code == 0
    assert listed(command, "status")["Plot"]["made"] == 4


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_wrong_command_line_says_what_is_wrong(
    command: Command, tmp_path: Path, schema_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = f"{schema_prefix}lab"
    for arguments, said in (
        (("status", "Dosis"), "which names no table; there are"),
        (("errors", "Dosis"), "which names no table; there are"),
        (("plan", "--all"), "Name the tables whose make changes"),
        (("plan", "Dose", "Plot", "--where", "subject_id = 1"), "Give --where with one table"),
        (("populate",), "Missing argument"),
        (("recompute", "--stale"), "Missing argument"),
        (("recompute", "all"), "--stale, or --all"),
        (("recompute", "Subject", "--stale"), "names no table that make fills"),
        (("populate", "Subject"), "names no table that make fills"),
        (("populate", "all", "--limit", "0"), "0 is not in the range"),
        (("populate", "all", "--where", "subject_id = "), "There is a syntax error"),
        (("populate", "all", "--where", "nosuch = 1"), "no attribute 'nosuch'"),
        (("release", "Dose", "out", "--where", ""), "a condition that is not empty"),
        (("release", "Dose", "out", "--where", "subject_id = "), "There is a syntax error"),
        (("gc", lab, "--store", "nosuch"), "there is no store 'nosuch'"),
        (("gc", lab, "--grace", "nan"), "nan is not a finite number"),
        (("gc", lab, "--keep", "inf"), "inf is not a finite number"),
        (("doctor", "--tag", "slow"), "write NAME=VALUE"),
        (("recompute", "Dose", "--all", "--stale"), "--stale, or --all"),
        (("plan", "Dose", "--stale", "--all"), "Give one of --stale and --all"),
        (("demo", "--headless", "--sessions", "0"), "0 is not in the range"),
        (("sync", "-m", "click"), "The module click has no definitions with tables"),
    ):
        refused = command(*arguments)
        assert refused.exit_code == 2, arguments
        assert said in " ".join(refused.stderr.split()), arguments
    for name in ("status", "errors", "plan"):
        assert command(name, "all").stdout == command(name).stdout != ""
    assert command("gc", lab, lab).stdout == command("gc", lab).stdout
    # A connection would make the folder of a share that is not mounted.
    with monkeypatch.context() as unmounted:
        unmounted.setenv("DJ_DATABASE_URL", f"sqlite:///{tmp_path}/share/lab.sqlite")
        unmounted.setattr("dj_dagster.default_connection._config", None)
        unmounted.setattr("dj_dagster.default_connection._connection", None)
        for arguments in (("status",), ("errors",), ("plan",), ("check", lab), ("gc", lab)):
            refused = command(*arguments)
            assert refused.exit_code == 2
            assert "share/lab.sqlite is not there. Make it or mount it" in refused.stderr
        assert "is not there. Make it or mount it" in command("doctor").stdout
        assert not (tmp_path / "share").exists()
    # Where Dagster's instance is missing, the command line is right.
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for arguments in (("sync",), ("compact-events", "all", "--keep", "1")):
        failed = command(*arguments)
        assert failed.exit_code == 1
        assert "There is no Dagster instance" in str(failed.exception)
    (tmp_path / "workspace.yaml").unlink()
    lost = command("status")
    assert lost.exit_code == 2
    assert "does not say where its tables are" in " ".join(lost.stderr.split())
    diagnosis = command("doctor").stdout
    assert "does not say where its tables are" in diagnosis
    assert "Correct the module" not in diagnosis
    for name, said in (
        ("scale", "no Python module 'scale'"),
        (".", "'.' is not the name of a"),
        ("scale.py", "Write the name without .py: scale."),
        ("scale/tables.py", "is not the name of a Python module"),
    ):
        unknown = command("status", "-m", name)
        assert said in " ".join(unknown.stderr.split())
    dg = 'root_module = "src"\ncode_location_target_module = "src.scales"\n'
    for file, text in (
        ("pyproject.toml", '[tool.dagster]\nmodule_name = "src.scales"\n'),
        ("pyproject.toml", '[[tool.dagster.modules]]\ntype = "module"\nname = "src.scales"\n'),
        ("pyproject.toml", f"[tool.dg.project]\n{dg}"),
        ("dg.toml", f"[project]\n{dg}"),
    ):
        (tmp_path / file).write_text(text)
        assert list(listed(command, "status", "Plot")) == ["Plot"]
        (tmp_path / file).unlink()


def test_a_module_may_have_classes_alone(inside: Command, tmp_path: Path) -> None:
    head = "import dj_dagster as dj\n"
    (tmp_path / "entry.py").write_text(
        f"{head}rows = dj.Schema('rows')\n"
        "@rows\nclass Item(dj.Manual):\n    definition = 'item : int32'\n"
    )
    (tmp_path / "totals.py").write_text(
        f"{head}from entry import Item, rows\n"
        "@rows\nclass Total(dj.Computed):\n    definition = '-> Item'\n"
        "    def make(self, key):\n        self.insert1(key)\n"
    )
    (tmp_path / "whole.py").write_text("from entry import Item\nfrom totals import Total\n")
    for given, tables in (
        (("totals",), ["Total"]),
        (("entry", "totals"), ["Item", "Total"]),
        (("whole",), ["Item", "Total"]),
    ):
        named = [each for name in given for each in ("-m", name)]
        assert list(listed(inside, "status", *named)) == tables
    (tmp_path / "shared.py").write_text("from entry import rows as schema\n")
    (tmp_path / "again.py").write_text("from entry import rows as schema\n")
    both = listed(inside, "status", "-m", "shared", "-m", "again")
    assert list(both) == ["Item", "Total"]
    (tmp_path / "bare.py").write_text("A = 1\n")
    refused = inside("status", "-m", "bare")
    assert refused.exit_code == 2
    assert "nor table classes" in " ".join(refused.stderr.split())


def test_two_code_locations_may_have_files_of_one_name(inside: Command, tmp_path: Path) -> None:
    for name in ("a", "b", ""):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "definitions.py").write_text(
            f"import dj_dagster as dj\n{'import tools' if name == 'a' else ''}\n"
            f"schema = dj.Schema('rig_{name}')\n"
            f"@schema\nclass Item{name}(dj.Manual):\n    definition = 'item : int32'\n"
        )
        (folder / "tools.py").touch()
    entries = [
        f"python_file: {{relative_path: {n}/definitions.py, working_directory: {n}}}" for n in "ab"
    ]
    entries.append("python_module: definitions")
    workspace = tmp_path / "workspace.yaml"
    for named in (entries, entries[::-1]):
        workspace.write_text(f"load_from: [{', '.join(f'{{{each}}}' for each in named)}]\n")
        assert sorted(listed(inside, "status")) == ["Item", "Itema", "Itemb"]
    # A module that they import can have one place alone.
    with (tmp_path / "b" / "definitions.py").open("a") as file:
        file.write("import tools\n")
    for name in ("definitions", "a_definitions", "b_definitions", "tools"):
        sys.modules.pop(name, None)
    refused = inside("status")
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert "Two code locations have modules of one name" in said
    assert {f"{tmp_path / name / 'tools.py'}" for name in "ab"} <= {*re.split(r"\.? ", said)}


def test_definitions_of_a_module_with_several_are_named(inside: Command, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "import dj_dagster as dj\nfrom dj_dagster.orchestration import build_definitions\n"
        + "".join(
            f"{name} = dj.Schema('{name}')\n"
            f"@{name}\nclass Item{name.upper()}(dj.Manual):\n    definition = 'item : int32'\n"
            for name in "ab"
        )
        + "one = build_definitions(a)\ndef other():\n    return build_definitions(b)\n"
        "last = build_definitions(b)\n"
    )
    workspace = tmp_path / "workspace.yaml"
    entries = {
        "python_module: {module_name: two, attribute: one}": ["ItemA"],
        "python_package: {package_name: two, attribute: other}": ["ItemB"],
        "python_file: {relative_path: two.py, attribute: last}": ["ItemB"],
    }
    for entry, tables in entries.items():
        workspace.write_text(f"load_from: [{{{entry}}}]\n")
        assert list(listed(inside, "status")) == tables
    assert list(listed(inside, "status", "-m", "two:one")) == ["ItemA"]
    workspace.write_text(f"load_from: [{', '.join(f'{{{each}}}' for each in list(entries)[:2])}]\n")
    assert list(listed(inside, "status")) == ["ItemA", "ItemB"]
    refused = inside("status", "-m", "two:none")
    assert refused.exit_code == 2
    assert "The module two has no 'none'" in refused.stderr


def diagnosed(command: Command, *, code: int) -> dict[str, tuple[str, str]]:
    done = command("doctor", "--json")
    assert done.exit_code == code, done.output
    return {each["what"]: (each["state"], each["found"]) for each in json.loads(done.stdout)}


def test_the_doctor_finds_what_is_wrong(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    shutil.copy(Path(__file__).parents[1] / "dagster.yaml", tmp_path)
    found = diagnosed(command, code=0)
    assert {what for what, (state, _) in found.items() if state != "fine"} == {"daemon"}
    assert {"database", "clock", "store local", "launcher", "dagster.yaml"} < set(found)
    assert "4 tables" in found["code location"][1]
    assert not [path for path in tmp_path.rglob("doctor*") if path.is_file()]

    # As `dagster dev`, commands have the instance of DAGSTER_HOME rather than that of this folder.
    (tmp_path / "home").mkdir()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        command("status")
        assert (tmp_path / "home" / "history").is_dir()
        (tmp_path / "home" / "dagster.yaml").write_text("storage: {no_such: {}}")
        refused = command("status")
        assert isinstance(refused.exception, dj.ConfigurationError)
        assert f"The Dagster instance of {tmp_path / 'home'} cannot be opened" in str(
            refused.exception
        )

    (tmp_path / "full").write_text("not a folder")
    raw = {"protocol": "file", "location": str(tmp_path / "full")}
    stores = {"default": "raw", "raw": raw}
    monkeypatch.setenv("DJ_STORES", json.dumps(stores))
    dj.conn(reset=True)
    (tmp_path / "dagster.yaml").write_text(
        "run_launcher:\n"
        "  module: dj_dagster.slurm\n"
        "  class: SlurmRunLauncher\n"
        "  config: {folder: /jobs}\n"
        "telemetry: {enabled: false}\n"
        "run_coordinator:\n"
        "  module: dagster._core.run_coordinator\n"
        "  class: DefaultRunCoordinator\n"
    )
    (tmp_path / "workspace.yaml").write_text("load_from: [{python_module: no_such_module}]\n")
    ahead, read = timedelta(seconds=50), doctor.as_datetime
    monkeypatch.setattr(doctor, "as_datetime", lambda value: read(value) + ahead)
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if "webserver" in name else "2")
    found = diagnosed(command, code=1)
    wrong = {what for what, (state, _) in found.items() if state == "wrong"}
    hints = {what for what, (state, _) in found.items() if state == "hint"}
    assert wrong >= {"dagster", "dagster-webserver", "clock", "store raw", "code location"}
    assert hints >= {"run queue", "run monitoring", "dagster.yaml", "daemon"}
    assert "store local" not in found
    assert "50 s ahead of" in found["clock"][1]
    assert "no_such_module" in found["code location"][1]
    assert found["launcher"][1].startswith("SlurmRunLauncher")
    assert found["launcher"][0] == ("fine" if dj.conn().backend.has_server else "wrong")
    assert "stores.raw" in command("doctor").stdout


def test_the_doctor_looks_at_the_stores_of_the_tables(
    inside: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans.py").write_text(
        "import dj_dagster as dj\nschema = dj.Schema('rig')\n@schema\nclass Scan(dj.Manual):\n"
        "    definition = 'scan : int32\\n---\\nraw = null : <blob@ext>'\n"
    )
    stores = {"ext": {"protocol": "file", "location": str(tmp_path / "share")}}
    monkeypatch.setenv("DJ_STORES", json.dumps(stores))

    def found(store: str) -> tuple[str, str]:
        monkeypatch.setattr("dj_dagster.default_connection._config", None)
        dj.conn(reset=True)
        sys.modules.pop("scans", None)
        listed = json.loads(inside("doctor", "-m", "scans", "--json").stdout)
        return next((e["state"], e["found"]) for e in listed if e["what"] == f"store {store}")

    assert found("ext") == ("hint", f"{tmp_path / 'share'} is not there")
    dj.virtual_schema("rig").Scan.insert1({"scan": 1, "raw": [1, 2]})
    assert found("ext")[0] == "fine"
    (tmp_path / "share").rename(tmp_path / "unmounted")
    values = f"{tmp_path / 'share'} is not there, and values of rig.Scan.raw are in it"
    assert found("ext") == ("wrong", values)
    assert not (tmp_path / "share").exists()
    monkeypatch.delenv("DJ_STORES")
    state, said = found("ext")
    assert state == "wrong"
    assert "there is no store 'ext'" in said
    assert said.endswith("Values of rig.Scan.raw are in it.")
    assert diagnosed(inside, code=1).get("database file") is None
    with dj.conn().cursor() as session:
        session.exec_driver_sql("PRAGMA query_only = ON")
    state, said = diagnosed(inside, code=1)["database file"]
    assert (state, said) == ("wrong", f"{dj.conn().url} can be read, and not written")
    dj.conn().close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_doctor_tells_why_a_database_is_not_reached(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJ_DATABASE_URL", "mysql+pymysql://me:secret@127.0.0.1:9/")
    said = command("doctor")
    assert said.exit_code == 1
    assert "wrong  database: ConnectionFailedError" in said.stdout
    assert "secret" not in said.output


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_doctor_looks_from_where_runs_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text(json.dumps({"run_launcher": far_launcher.SETTING}))
    versions = launched_doctor.package_versions

    def execute(context: LaunchRunContext) -> None:
        with pytest.MonkeyPatch.context() as there, project.dagster_instance() as instance:
            other = {**versions(), "numpy": "1.0"}
            there.setattr(launched_doctor, "package_versions", lambda *_: other)
            there.setattr(launched_doctor, "code_versions", lambda *_: {"Dose": "changed"})
            execute_run(InMemoryJob(launched_doctor.doctor_job), context.dagster_run, instance)

    def found(launch: Callable[[LaunchRunContext], object], *options: str) -> dict[str, str]:
        monkeypatch.setattr(far_launcher.FarLauncher, "launch", staticmethod(launch))
        done = command("doctor", "--launcher", "--json", *options)
        listed = [each for each in json.loads(done.stdout) if each["what"].startswith("run: ")]
        return {each["what"]: each["found"] for each in listed if each["state"] == "wrong"}

    wrong = found(execute, "--tag", "queue=slow")
    assert wrong.keys() == {"run: packages", "run: code"}
    assert f"numpy 1.0 (there {versions()['numpy']})" in wrong["run: packages"]
    assert "Plot has another version than on" in wrong["run: code"]
    # A run that nobody begins.
    wrong = found(lambda _: None, "--timeout", "0.1")
    assert "It took longer than 0 s" in wrong["run: launcher"]
    with project.dagster_instance() as instance:
        ended = instance.get_runs()
    assert [run.status.value for run in ended] == ["FAILURE", "SUCCESS"]
    assert ended[1].tags["queue"] == "slow"
    assert not [path for path in tmp_path.rglob("doctor*") if path.is_file()]


def test_each_command_is_on_its_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "commands.md").read_text()
    assert [name for name in cli.commands if f"`{name}" not in page] == []

"""Releases: what others get of results, and whether they can tell that it is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import dj_dagster as dj
from dj_dagster.cli import cli
from dj_dagster.objects.blob.reader import unpack
from dj_dagster.workflow.notes import noted_run
from tests.lab import connect
from tests.test_local_files import NOBODY

pytestmark = pytest.mark.release

TODAY = dj.ReleaseText(name="Scores", license="https://example.org/l", published=date(2026, 11, 1))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[dj.Schema]:
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    yield dj.Schema("lab", connection=connection)
    connection.close()


@pytest.fixture
def score(lab: Any, tmp_path: Path) -> Any:
    """Two subjects with raw files, of each a computed score with parts and objects."""

    @lab
    class Method(dj.Lookup):
        definition = "method : varchar(16)\n---\ngain : float64"
        contents = (("plain", 1.0), ("loud", 2.0))

    @lab
    class Subject(dj.Manual):
        definition = """
        # who was recorded
        subject_id : int32
        ---
        born : date
        raw : <filepath@>
        """

        class Channel(dj.Part):
            definition = "-> master\nchannel : int32"

    @lab
    class Score(dj.Computed):
        definition = """
        -> Subject
        -> Method
        ---
        score : float64
        wave : <blob>       # in the row
        far : <npy@>
        pieces : <object@>
        note = null : varchar(32)
        """

        class Peak(dj.Part):
            definition = "-> master\npeak : int32\n---\nheight : decimal(6,2)"

        def make(self, key: dict[str, Any]) -> None:
            values = np.arange(5.0) + key["subject_id"]
            pieces = tmp_path / "pieces"
            shutil.rmtree(pieces, ignore_errors=True)
            (pieces / "in").mkdir(parents=True)
            (pieces / "in" / "ü 1%.txt").write_text(str(key))
            row = {"score": 2.5, "wave": values, "far": values, "pieces": pieces}
            self.insert1({**key, **row})
            self.Peak.insert([{**key, "peak": n, "height": 10 * n} for n in (2, 1)])

    for subject in (1, 2):
        raw = tmp_path / "store" / "raw" / f"{subject}.bin"
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(bytes([subject]) * 100)
        Subject.insert1((subject, "2026-01-05", f"raw/{subject}.bin"))
        Subject.Channel.insert([(subject, 0), (subject, 1)])
    Score.populate()
    return Score


@pytest.fixture
def released(score: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "release"
    dj.make_release(score & {"subject_id": 1}, folder, text=TODAY)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (place for place in folder.rglob("*") if place.is_file())
    return {place.relative_to(folder).as_posix(): place.read_bytes() for place in files}


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "rows" / f"{table}.parquet").to_pylist()


def problems(folder: Path) -> list[str]:
    return list(dj.verify_release(folder).problems)


def test_a_release_has_the_rows_chosen_with_parts_and_inputs(released: Path) -> None:
    found = rows(released, "lab.Score")
    assert [(row["subject_id"], row["method"]) for row in found] == [(1, "loud"), (1, "plain")]
    np.testing.assert_array_equal(unpack(found[0]["wave"]), np.arange(1.0, 6.0))
    peaks = rows(released, "lab.Score.Peak")
    assert [(row["method"], row["peak"]) for row in peaks] == [
        ("loud", 1),
        ("loud", 2),
        ("plain", 1),
        ("plain", 2),
    ]
    assert [row["subject_id"] for row in rows(released, "lab.Subject")] == [1]
    assert len(rows(released, "lab.Subject.Channel")) == 2
    assert len(rows(released, "lab.Method")) == 2
    field = pq.read_schema(released / "rows" / "lab.Score.parquet").field("wave")
    assert field.metadata == {b"type": b"<blob>", b"comment": b"in the row"}
    definition = (released / "definitions" / "lab.Score.txt").read_text()
    assert "-> Subject" in definition
    assert "pieces" in definition


def test_a_release_has_the_files_of_results_and_names_those_of_inputs(
    released: Path, score: Any, tmp_path: Path
) -> None:
    files = [name for name in contents(released) if name.startswith("files/")]
    assert sum(name.endswith("in/ü 1%.txt") for name in files) == 2
    far = json.loads(rows(released, "lab.Score")[0]["far"])
    value = np.load(released / "files" / "local" / far["path"])
    np.testing.assert_array_equal(value, np.arange(1.0, 6.0))
    assert not [name for name in files if name.endswith(".bin")]
    head = json.loads((released / "release.json").read_text())
    assert head["left_out"] == [{"table": "lab.Subject", "store": "local", "path": "raw/1.bin"}]
    whole = tmp_path / "whole"
    report = dj.make_release(score & {"subject_id": 1}, whole, inputs=True)
    assert (whole / "files" / "local" / "raw" / "1.bin").read_bytes() == b"\1" * 100
    assert not (whole / "files" / "local" / "raw" / "2.bin").exists()
    assert report.left_out == 0
    assert report.objects == len([n for n in contents(whole) if n.startswith("files/")])


def test_provenance_leads_from_results_to_what_was_entered_and_to_the_code(released: Path) -> None:
    import prov.model  # of the extra, without which this file is read too

    document = prov.model.ProvDocument.deserialize(str(released / "prov.json"))
    told = json.loads((released / "prov.json").read_text())
    result = "row:lab.Score/method=loud/subject_id=1"
    assert told["entity"][result]["dj:role"] == "result"
    assert told["entity"][result]["dj:parts"]["$"] in (2, "2")
    derived = {
        (each["prov:generatedEntity"], each["prov:usedEntity"])
        for each in told["wasDerivedFrom"].values()
    }
    assert (result, "row:lab.Subject/subject_id=1") in derived
    assert (result, "row:lab.Method/method=loud") in derived
    made = {each["prov:entity"]: each["prov:activity"] for each in told["wasGeneratedBy"].values()}
    assert made[result] == "make:lab.Score/method=loud/subject_id=1"
    plans = {each["prov:plan"] for each in told["wasAssociatedWith"].values()}
    (plan,) = plans
    assert plan.startswith("code:lab.Score@")
    assert told["entity"][plan]["dj:version"]
    assert "row:lab.Subject/subject_id=2" not in told["entity"]
    members = {each["prov:entity"] for each in told["hadMember"].values()}
    assert "object:local/raw/1.bin" in members
    assert members <= told["entity"].keys()
    assert document.get_records(prov.model.ProvActivity)


def test_provenance_names_the_runs_of_dagster_that_made_rows(score: Any, tmp_path: Path) -> None:
    loud = score & {"subject_id": 1, "method": "loud"}
    loud.delete(prompt=False)
    with noted_run("0a1b-2c"):
        score.populate()
    dj.make_release(score & {"subject_id": 1}, tmp_path / "runs", text=TODAY)
    told = json.loads((tmp_path / "runs" / "prov.json").read_text())
    assert [
        (each["prov:activity"], each["prov:starter"]) for each in told["wasStartedBy"].values()
    ] == [("make:lab.Score/method=loud/subject_id=1", "run:0a1b-2c")]
    run = told["activity"]["run:0a1b-2c"]
    assert run["prov:label"] == "Dagster run 0a1b-2c"


def test_the_crate_describes_each_file(released: Path) -> None:
    crate = json.loads((released / "ro-crate-metadata.json").read_text())
    graph = {each["@id"]: each for each in crate["@graph"]}
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = graph["./"]
    assert (root["name"], root["datePublished"]) == ("Scores", "2026-11-01")
    assert root["license"] == {"@id": "https://example.org/l"}
    parts = {each["@id"] for each in root["hasPart"]}
    assert parts == graph.keys() - {"./", "ro-crate-metadata.json"}
    assert len(parts) == len(contents(released)) - 2
    rows = graph["rows/lab.Score.parquet"]
    assert rows["contentSize"] == str((released / "rows/lab.Score.parquet").stat().st_size)


def test_two_releases_of_the_same_rows_are_equal(released: Path, score: Any) -> None:
    again = released.with_name("again")
    dj.make_release(score & {"subject_id": 1}, again, text=TODAY)
    assert contents(again) == contents(released)
    assert dj.verify_release(again).digest == dj.verify_release(released).digest


def test_a_release_on_another_day_differs_by_the_date_alone(released: Path, score: Any) -> None:
    again = released.with_name("again")
    text = dj.ReleaseText(TODAY.name, license=TODAY.license, published=date(2027, 1, 2))
    dj.make_release(score & {"subject_id": 1}, again, text=text)
    one, other = contents(released), contents(again)
    differing = {name for name in one if one[name] != other[name]}
    assert differing == {"ro-crate-metadata.json", "manifest-sha256.txt"}
    dated = other["ro-crate-metadata.json"].replace(b"2027-01-02", b"2026-11-01")
    assert dated == one["ro-crate-metadata.json"]


def test_a_release_that_nobody_touched_is_whole_without_its_database(
    released: Path, lab: dj.Schema, tmp_path: Path
) -> None:
    lab.connection.close()
    moved = tmp_path / "moved"
    shutil.move(released, moved)
    shutil.rmtree(tmp_path / "store")
    assert not problems(moved)


@pytest.mark.parametrize("pattern", ["*.parquet", "*1%.txt", "prov.json", "ro-crate*", "lab*.txt"])
def test_a_changed_byte_is_found(released: Path, pattern: str) -> None:
    victim = next(iter(sorted(released.rglob(pattern))))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    name = victim.relative_to(released).as_posix()
    assert f"{name} has changed since it was written" in problems(released)


@pytest.mark.parametrize("pattern", ["*.parquet", "*1%.txt", "prov.json", "release.json"])
def test_a_missing_file_is_found(released: Path, pattern: str) -> None:
    victim = next(iter(sorted(released.rglob(pattern))))
    victim.unlink()
    assert problems(released) == [f"{victim.relative_to(released).as_posix()} is missing"]


@pytest.mark.parametrize("name", ["rows/lab.Other.parquet", "notes.txt", "files/local/a b"])
def test_a_file_too_many_is_found(released: Path, name: str) -> None:
    (released / name).write_bytes(b"")
    assert problems(released) == [f"{name} is not part of the release"]


def test_an_empty_folder_too_many_is_found(released: Path) -> None:
    (released / "more" / "and more").mkdir(parents=True)
    assert problems(released) == [
        "The empty folder more/and more is not part of the release",
    ]


def test_the_list_of_checksums_is_read_by_sha256sum(lab: Any, tmp_path: Path) -> None:
    @lab
    class Note(dj.Manual):
        definition = "k : varchar(32)\n---\nfile : <object@>\nvalue : <npy@>"

    folder = tmp_path / "note"
    folder.mkdir()
    for name in ("50%.txt", "a\nb", "a\rb"):
        (folder / name).write_text(name)
    Note.insert([{"k": key, "file": folder, "value": np.ones(2)} for key in ("a b/c", "ü%25")])
    release = dj.make_release(Note, tmp_path / "release", everything=True).folder
    assert not problems(release)
    command = ["sha256sum", "--check", "--strict", "manifest-sha256.txt"]
    done = subprocess.run(command, cwd=release, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = release / "manifest-sha256.txt"
    manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
    (problem,) = problems(release)
    assert "manifest-sha256.txt, line 1, is damaged" in problem


def test_what_cannot_be_read_is_a_problem(released: Path, tmp_path: Path) -> None:
    (released / "ro-crate-metadata.json").write_text("[" * 100_000)
    (released / os.fsdecode(b"\xff")).write_bytes(b"")
    found = problems(released)
    assert "\\udcff is not part of the release" in found
    assert "ro-crate-metadata.json has changed since it was written" in found
    assert any("ro-crate-metadata.json cannot be read: RecursionError" in each for each in found)


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_what_this_user_may_not_read_is_a_problem(released: Path) -> None:
    user = os.geteuid()
    # Root may read all, and nobody else may read the tests' own folders.
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        place = Path(shutil.copytree(released, Path(shared) / "release"))
        (place / "release.json").chmod(0)
        (place / "definitions").chmod(0)
        os.seteuid(user or NOBODY)
        try:
            found = problems(place)
        finally:
            os.seteuid(user)
        (place / "definitions").chmod(0o755)
    assert found == [
        "The folder definitions cannot be read: Permission denied",
        "release.json cannot be read: Permission denied",
    ]


@pytest.mark.parametrize("folder", ["n" * 300, "~nouser/release", "a\0b"])
def test_what_is_not_the_name_of_a_folder_is_refused(score: Any, folder: str) -> None:
    with pytest.raises(dj.ConfigurationError, match=r"is not a path|null byte"):
        dj.verify_release(folder)
    with pytest.raises(dj.ConfigurationError, match="is not a path"):
        dj.make_release(score & {"subject_id": 1}, folder)


def test_a_link_is_not_the_file(released: Path) -> None:
    victim = released / "prov.json"
    victim.rename(released.parent / "elsewhere.json")
    victim.symlink_to(released.parent / "elsewhere.json")
    assert problems(released) == ["prov.json is not a file"]


def test_a_list_that_was_adapted_differs_from_the_description(released: Path) -> None:
    victim, manifest = released / "release.json", released / "manifest-sha256.txt"
    before = dj.verify_release(released).digest
    lines = [line for line in manifest.read_text().splitlines() if "release.json" not in line]
    manifest.write_text("\n".join(lines) + "\n")
    victim.unlink()
    found = problems(released)
    assert "release.json is not in manifest-sha256.txt" in found
    assert "ro-crate-metadata.json describes release.json, which is not listed" in found
    assert dj.verify_release(released).digest != before


@pytest.mark.parametrize("line", ["0" * 64 + "  ../lab.sqlite", "0" * 64 + "  /etc/hosts", "x"])
def test_a_list_that_names_what_is_outside_is_refused(released: Path, line: str) -> None:
    with (released / "manifest-sha256.txt").open("a") as file:
        file.write(f"{line}\n")
    (problem,) = problems(released)
    assert "is damaged" in problem


def test_nothing_never_means_everything(score: Any, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    with pytest.raises(dj.QueryError, match="not restricted"):
        dj.make_release(score, folder)
    with pytest.raises(dj.QueryError, match="no such row"):
        dj.make_release(score & {"subject_id": 7}, folder)
    with pytest.raises(dj.UnknownAttributeError, match="subjekt_id"):
        dj.make_release(score & {"subjekt_id": 1}, folder)
    with pytest.raises(dj.QueryError, match="not restricted"):
        dj.make_release(score & True, folder)
    assert not folder.exists()
    report = dj.make_release(score, folder, everything=True)
    assert report.tables["lab.Score"] == 4


def test_what_is_not_rows_of_a_table_is_refused(score: Any, tmp_path: Path) -> None:
    connection = score.connection
    with pytest.raises(dj.QueryError, match="Rows of one table"):
        dj.make_release((score & "subject_id = 1").proj(), tmp_path / "release")
    with connection.transaction, pytest.raises(dj.QueryError, match="outside of transactions"):
        dj.make_release(score & "subject_id = 1", tmp_path / "release")
    connection.query("CREATE VIEW `lab.best` AS SELECT * FROM `lab.__score`")
    view = dj.FreeTable(connection, "lab.best")
    with pytest.raises(dj.QueryError, match="is a view"):
        dj.make_release(view & "subject_id = 1", tmp_path / "release")


def test_rows_may_be_chosen_by_any_restriction(score: Any, tmp_path: Path) -> None:
    for number, (restriction, count) in enumerate(
        [
            (dj.Top(3, "subject_id DESC"), 3),
            ([{"subject_id": 1}, {"subject_id": 2, "method": "loud"}], 3),
            (dj.Not({"method": "loud"}), 2),
            (score.Peak & "height = 20.00" & {"subject_id": 2}, 2),
        ]
    ):
        report = dj.make_release(score & restriction, tmp_path / str(number))
        assert report.tables["lab.Score"] == count
        assert not problems(report.folder)


def test_a_long_pipeline_can_be_released(lab: Any, tmp_path: Path) -> None:
    """Its queries in queries would be more than SQLite takes."""
    context: dict[str, Any] = {}
    for number in range(12):
        above = f"-> Step{number - 1}" if number else "step : int32"
        part = f"-> master\npiece : int32\n---\n{above if number else 'value = 1 : int32'}"
        piece = type("Piece", (dj.Part,), {"definition": part})
        name = f"Step{number}"
        table = type(name, (dj.Manual,), {"definition": above, "Piece": piece})
        context[name] = dj.Schema("lab", context, connection=lab.connection)(table)
        context[name].insert([{"step": 1}, {"step": 2}])
        context[name].Piece.insert({"step": step, "piece": 0} for step in (1, 2))
    report = dj.make_release(context["Step11"] & {"step": 2}, tmp_path / "long")
    assert set(report.tables.values()) == {1}
    assert len(report.tables) == 24


def test_a_folder_that_holds_something_is_left_alone(released: Path, score: Any) -> None:
    before = contents(released)
    with pytest.raises(dj.ConfigurationError, match="not empty"):
        dj.make_release(score & {"subject_id": 2}, released)
    with pytest.raises(dj.ConfigurationError, match="is inside the release"):
        dj.make_release(score & {"subject_id": 2}, released / "rows" / "more")
    assert contents(released) == before


@pytest.mark.parametrize("pattern", ["*.npy", "ü 1%.txt", "1.bin"])
def test_a_damaged_object_leaves_no_release(score: Any, tmp_path: Path, pattern: str) -> None:
    for file in (tmp_path / "store").rglob(pattern):
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(dj.ObjectError, match=r"lab\..* has changed since it was written"):
        dj.make_release(score & {"subject_id": 1}, tmp_path / "release", inputs=True)
    assert not (tmp_path / "release").exists()


def test_a_missing_object_leaves_no_release(score: Any, tmp_path: Path) -> None:
    for lost in (tmp_path / "store").rglob("*.npy"):
        lost.unlink()
    with pytest.raises(dj.ObjectError):
        dj.make_release(score & {"subject_id": 1}, tmp_path / "out" / "release")
    assert not list((tmp_path / "out").iterdir())


def test_a_file_whose_name_is_not_utf_8_is_named(lab: Any, tmp_path: Path) -> None:
    @lab
    class Note(dj.Manual):
        definition = "k : int32\n---\nfile : <object@>"

    folder = tmp_path / "note"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff")).write_bytes(b"")
    Note.insert1((1, folder))
    with pytest.raises(dj.ObjectError, match=r"udcff' in store 'local' has a name that is not"):
        dj.make_release(Note, tmp_path / "release", everything=True)


def test_a_schema_may_have_a_name_that_is_no_file_name(lab: Any, tmp_path: Path) -> None:
    @dj.Schema("a/b", connection=lab.connection)
    class Note(dj.Manual):
        definition = "k : int32"

    Note.insert1((1,))
    report = dj.make_release(Note, tmp_path / "release", everything=True)
    assert report.tables == {"a/b.Note": 1}
    assert not problems(report.folder)
    assert len(rows(report.folder, "a%2Fb.Note")) == 1


def test_rows_that_refer_to_rows_of_their_own_table(lab: Any, tmp_path: Path) -> None:
    @lab
    class Person(dj.Manual):
        definition = "person : int32\n---\n-> [nullable] self.proj(boss='person')"

    @lab
    class Greeting(dj.Manual):
        definition = "-> Person"

    Person.insert([(5, None), (3, 5), (1, 3), (2, 5)])
    Greeting.insert([(1,), (2,)])
    for number, chosen in enumerate((Greeting & "person = 1", Person & "person = 1")):
        report = dj.make_release(chosen, tmp_path / str(number))
        assert report.tables["lab.Person"] == 3
        told = json.loads((report.folder / "prov.json").read_text())
        derived = {each["prov:usedEntity"] for each in told["wasDerivedFrom"].values()}
        assert {"row:lab.Person/person=3", "row:lab.Person/person=5"} <= derived
        assert derived <= told["entity"].keys()


def test_part_rows_can_be_chosen(score: Any, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    chosen = score.Peak & {"subject_id": 1, "method": "loud", "peak": 2}
    report = dj.make_release(chosen, folder)
    assert report.tables["lab.Score.Peak"] == 1
    assert report.tables["lab.Score"] == 1
    tables = json.loads((folder / "release.json").read_text())["tables"]
    (table,) = (each for each in tables if each["role"] == "result")
    assert (table["rows"], table["made"]) == (1, 2)
    told = json.loads((folder / "prov.json").read_text())
    part = "row:lab.Score.Peak/method=loud/peak=2/subject_id=1"
    assert part in told["entity"]
    # A part is made by its master's make.
    made = {each["prov:entity"]: each["prov:activity"] for each in told["wasGeneratedBy"].values()}
    assert set(made.values()) == {"make:lab.Score/method=loud/subject_id=1"}
    assert part in made
    assert len(told["wasAssociatedWith"]) == 1


def test_an_absent_extra_is_named(
    score: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prov", None)
    with pytest.raises(dj.ConfigurationError, match=r"dj-dagster\[release\]"):
        dj.make_release(score & {"subject_id": 1}, tmp_path / "release")


@pytest.fixture
def command(score: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on the same database."""
    monkeypatch.setattr("dj_dagster.cli.conn", lambda: score.connection)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["release", *arguments])

    return run


def test_the_command_takes_any_name_of_one_table(command: Any, tmp_path: Path) -> None:
    for name in ("Score", "lab/score", "`lab`.`__score`"):
        folder = tmp_path / name.replace("/", "_")
        done = command(name, str(folder), "--where", "subject_id = 1")
        assert done.exit_code == 0, done.output
        assert len(rows(folder, "lab.Score")) == 2


def test_the_command_imports_modules_that_set_up_stores(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab_stores.py").write_text("open('imported', 'w').close()")
    monkeypatch.chdir(tmp_path)
    arguments = ["lab.Score", str(tmp_path / "out"), "--all", "-m", "lab_stores"]
    assert command(*arguments).exit_code == 0
    assert (tmp_path / "imported").exists()
    absent = command("lab.Score", str(tmp_path / "more"), "--all", "-m", "no_such_stores")
    assert absent.exit_code == 2
    assert "There is no Python module 'no_such_stores'" in absent.output
    assert not (tmp_path / "more").exists()


def test_the_command_releases_and_verifies(command: Any, tmp_path: Path) -> None:
    folder = str(tmp_path / "release")
    done = command("lab.Score", folder, "--where", "subject_id = 1", "--where", "method = 'loud'")
    assert done.exit_code == 0, done.output
    digest = done.output.split()[-1]
    assert len(rows(Path(folder), "lab.Score")) == 1
    whole = command("--verify", folder)
    assert whole.exit_code == 0
    assert digest in whole.output
    (Path(folder) / "release.json").unlink()
    lost = command("--verify", folder)
    assert lost.exit_code == 1
    assert "release.json is missing" in lost.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["lab.Score"],
        ["lab.Score", "--where", ""],
        ["lab.Score", "--where", "  "],
        ["lab.Score", "--all", "--where", "subject_id = 1"],
        ["lab.Score", "--where", "subject_id = 9"],
        ["lab.Score", "--where", "subjekt = 1"],
        ["lab.Score", "--where", "1 = 1"],
        ["lab.Score", "--where", "TRUE", "--where", "subject_id = 1"],
        ["lab.Skore", "--all"],
        ["nolab.Score", "--all"],
        ["Skore", "--all"],
        ["+Score", "--all"],
        ["lab.*", "--all"],
        ["lab", "--all"],
    ],
)
def test_the_command_refuses_what_does_not_say_which_rows(
    command: Any, tmp_path: Path, arguments: list[str]
) -> None:
    folder = tmp_path / "release"
    done = command(arguments[0], str(folder), *arguments[1:])
    assert done.exit_code != 0
    assert not folder.exists()

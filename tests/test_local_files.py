"""The folder `.dj`, files of other users, and what is written where somebody works."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dj_dagster import local_files

NOBODY = 65534

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, without any settings of this process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    clean |= {"HOME": str(folder / "home"), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=clean, capture_output=True, text=True
    )


TABLE = (
    """
import dj_dagster as dj

schema = dj.Schema("lab")

@schema
class Note(dj.Manual):
    definition = """
    + "'''"
    + """
    note : int32
    ---
    text : <blob@>
    file = null : <attach>
    """
    + "'''"
    + """
"""
)

ENTER = TABLE + "Note.insert1({'note': 1, 'text': 'kept'})"
READ = TABLE + "print(Note.fetch1('text'))"


def test_a_folder_that_was_unpacked_does_not_show_what_is_put_into_it(tmp_path: Path) -> None:
    (tmp_path / ".dj").mkdir(mode=0o755)
    (tmp_path / "copies").mkdir(mode=0o755)
    made = python(f"import os; os.umask(0o022)\n{ENTER}; dj.backup('copies', 'lab')", tmp_path)
    assert made.returncode == 0, made.stderr
    within = [*(tmp_path / ".dj").iterdir(), *(tmp_path / "copies").iterdir()]
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in within}
    assert {"lab.sqlite", "store", "objects"} <= modes.keys()
    open_ones = {name for name, mode in modes.items() if mode & 0o077}
    assert open_ones == {"backup.json"}


def test_the_embedded_database_is_private_announced_and_found_from_below(tmp_path: Path) -> None:
    made = python(f"import os; os.umask(0o022)\n{ENTER}", tmp_path)
    place = tmp_path / ".dj" / "lab.sqlite"
    assert str(place) in made.stderr, made.stderr
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    files = [file for file in place.parent.rglob("*") if file.is_file()]
    assert place in files
    assert len(files) >= 2
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in files} == {0}
    below = tmp_path / "notebooks" / "old"
    below.mkdir(parents=True)
    found = python(READ, below)
    assert found.stdout == "kept\n", found.stderr
    assert "lab.sqlite" not in found.stderr
    assert list(below.iterdir()) == []


@as_root
@pytest.mark.parametrize("name", ["datajoint.json", "dj_local_conf.json", ".secrets", ".dj"])
def test_files_of_other_users_in_shared_folders_are_left_out(tmp_path: Path, name: str) -> None:
    shared, mine = tmp_path / "shared", tmp_path / "shared" / "mine"
    mine.mkdir(parents=True)
    shared.chmod(0o1777)
    other = shared / name
    if name.endswith(".json"):
        other.write_text(json.dumps({"database": {"host": "other.example"}}))
    else:
        other.mkdir()
        content = "lab.sqlite" if name == ".dj" else "database.host"
        (other / content).write_text("" if name == ".dj" else "other.example")
    os.chown(other, NOBODY, NOBODY)
    here = shared if name == ".secrets" else mine
    code = "import dj_dagster as dj; print(dj.config['database.host'], dj.config.url())"
    found = python(code, here)
    assert found.stdout == f"None sqlite:///{here / '.dj' / 'lab.sqlite'}\n"
    assert str(other) in found.stderr
    # The same files count where nobody else could have put them.
    shared.chmod(0o755)
    trusted = python(code, here)
    assert str(other) not in trusted.stderr
    assert trusted.stdout != found.stdout


@as_root
def test_a_database_of_another_user_in_the_working_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".dj").mkdir()
    tmp_path.chmod(0o1777)
    os.chown(tmp_path / ".dj", NOBODY, NOBODY)
    refused = python(ENTER, tmp_path)
    assert f"{tmp_path / '.dj'} belongs to another user" in refused.stderr
    refused = python(ENTER, tmp_path, DJ_DATABASE_URL="sqlite:///own.sqlite")
    assert "stores.default" in refused.stderr
    code = TABLE.replace("<blob@>", "<blob>") + (
        "Note.insert1({'note': 1, 'text': 0, 'file': 'own.sqlite'})\nNote.fetch1('file')"
    )
    refused = python(code, tmp_path, DJ_DATABASE_URL="sqlite:///second.sqlite")
    assert "set download_path" in refused.stderr
    assert list((tmp_path / ".dj").iterdir()) == []
    assert python("import dj_dagster as dj; dj.list_schemas()", tmp_path).returncode == 1
    tmp_path.chmod(0o755)
    assert python(ENTER, tmp_path).returncode == 0


@as_root
def test_a_closed_folder_of_another_user_is_passed_over() -> None:
    # Pytest's own folders are closed to others as well.
    with tempfile.TemporaryDirectory() as place:
        closed, mine = Path(place) / ".dj", Path(place) / "mine"
        closed.mkdir(mode=0o700)
        (closed / "lab.sqlite").touch()
        mine.mkdir()
        closed.parent.chmod(0o755)
        os.chown(mine, NOBODY, NOBODY)
        code = f"import dj_dagster as dj, os; os.setuid({NOBODY}); print(dj.config.url())"
        found = python(code, mine)
    assert found.stdout == f"sqlite:///{mine / '.dj' / 'lab.sqlite'}\n", found.stderr


@as_root
def test_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "mine.json").write_text("{}")
    link = shared / "datajoint.json"
    link.symlink_to(tmp_path / "mine.json")
    assert local_files.is_trusted(link)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert not local_files.is_trusted(link)


def test_a_named_file_of_settings_is_read_and_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "datajoint.json").write_text(json.dumps({"database": {"host": "near"}}))
    (tmp_path / "lab.json").write_text(json.dumps({"database": {"host": "named"}}))
    code = "import dj_dagster as dj; print(dj.config['database.host'])"
    assert python(code, tmp_path, DJ_CONFIG_FILE="lab.json").stdout == "named\n"
    assert "none.json" in python(code, tmp_path, DJ_CONFIG_FILE="none.json").stderr
    refused = python(code, tmp_path, DJ_CONFIG_FILE="~nobody_here/lab.json")
    assert "DJ_CONFIG_FILE is '~nobody_here/lab.json', in the home of a user" in refused.stderr


@pytest.mark.parametrize("variable", ["DJ_USER", "DJ_PASS"])
def test_an_account_without_a_host_is_refused(tmp_path: Path, variable: str) -> None:
    found = python("import dj_dagster as dj; dj.conn()", tmp_path, **{variable: "hunter2"})
    assert found.returncode != 0
    assert variable in found.stderr
    assert "DJ_HOST" in found.stderr
    assert "hunter2" not in found.stderr
    assert not (tmp_path / ".dj").exists()


def test_attachments_go_to_the_download_folder(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('taken over')")
    work = tmp_path / "work"
    work.mkdir()
    code = TABLE + (
        "Note.insert1({'note': 1, 'text': 0, 'file': '../yaml.py'})\n"
        "print(Note.fetch1('file'))\n"
        "dj.config['download_path'] = 'chosen'\n"
        "print(Note.fetch1('file'))\n"
    )
    found = python(code, work)
    first, second = map(Path, found.stdout.splitlines())
    assert (work / first).parent == work / ".dj" / "downloads", found.stderr
    assert (work / second).parent == work / "chosen"
    assert sorted(each.name for each in work.iterdir()) == [".dj", "chosen"]
    again = python("import yaml, dj_dagster.orchestration", work)
    assert again.returncode == 0, again.stderr

"""The command `dj-dagster`, run as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.cli import cli
from dj_dagster.objects.codecs.bytes import put_content
from tests.command_line import Command, inside
from tests.services.process import PATIENCE

__all__ = ["inside"]

REPOSITORY = Path(__file__).parents[1]


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, on its own defaults but for the given settings."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    command = [sys.executable, "-c", "from dj_dagster.cli import main; main()", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**ours, **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    return tmp_path


def line(output: str, table: str) -> list[str]:
    return next(text for text in output.splitlines() if text.startswith(f"{table} ")).split()


def test_the_headless_demo_makes_everything_and_tells_of_it(folder: Path) -> None:
    (folder / "dagster.yaml").unlink()
    done = run(folder, "demo", "--headless", "--sessions", "3")
    assert done.returncode == 0, done.stderr
    assert "by its new file dagster.yaml" in done.stderr
    assert line(done.stdout, "Session") == ["Session", "manual", "3"]
    assert line(done.stdout, "Processed") == ["Processed", "computed", "3", "3", "of", "3", "0"]
    assert line(done.stdout, "HeartRate") == ["HeartRate", "computed", "6", "6", "of", "6", "0"]
    assert done.stdout.endswith("0 failed; 0 keys pending.\n")
    assert (folder / ".dagster").is_dir(), "the UI would not show these runs"

    # Once more: what is done is not done again, and a key without its file fails alone.
    with sqlite3.connect(folder / ".dj" / "lab.sqlite") as connection:
        values = (1, 150, "2026-01-01 10:00:00", "lost.csv")
        connection.execute('INSERT INTO "lab.session" VALUES (?, ?, ?, ?)', values)
    done = run(folder, "demo", "--headless", "--sessions", "1")
    assert done.returncode == 1
    assert line(done.stdout, "RawData") == ["RawData", "imported", "4", "4", "of", "5", "1"]
    assert line(done.stdout, "HeartRate")[2:6] == ["8", "8", "of", "8"]
    assert "failed: RawData {'subject_id': 1, 'session_id': 150}: FileNotFoundError" in done.stdout


@pytest.mark.parametrize(("demo", "package"), [("pulse", "heartpy"), ("ephys", "spikeinterface")])
def test_a_demo_without_its_extra_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dj.DataJointError, match=f"The demo needs {package}: pip install"):
        cli.main(["demo", demo, "--headless"], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_database_is_one_clear_line_without_the_password(folder: Path) -> None:
    url = "mysql+pymysql://me:secret@127.0.0.1:9/"
    done = run(folder, "demo", "--headless", DJ_DATABASE_URL=url)
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert message.startswith("Error: The database mysql+pymysql://me:***@127.0.0.1:9/ cannot be")
    assert "secret" not in done.stdout + done.stderr


def test_a_database_that_nobody_speaks_is_refused(folder: Path) -> None:
    done = run(folder, "demo", "--headless", DJ_DATABASE_URL="oracle://me:secret@host/")
    assert done.returncode == 1
    assert "oracle://me:***@host/ uses an unsupported database" in done.stderr
    assert "secret" not in done.stderr


def test_gc_lists_and_deletes_garbage(folder: Path) -> None:
    connection = dj.Connection(
        f"sqlite:///{folder}/lab.sqlite",
        stores=dj.Stores({"raw": {"protocol": "file", "location": str(folder / "raw")}}),
    )
    schema = dj.Schema("lab", connection=connection)
    store = connection.stores.get("raw")
    reference = put_content(store, "lab", b"nobody's")
    settings = {
        "DJ_DATABASE_URL": f"sqlite:///{folder}/lab.sqlite",
        "DJ_STORES": json.dumps({"raw": {"protocol": "file", "location": str(folder / "raw")}}),
    }
    assert schema.list_tables() == []
    connection.close()
    refused = run(folder, "gc", "lab", "--delete", "--grace", "0", **settings)
    assert refused.returncode == 1
    assert "did not register" in refused.stderr
    assert store.exists(reference["path"])
    claimed = run(folder, "gc", "lab", "--claim", "--store", "raw", **settings)
    assert claimed.stdout == "store raw: lab belong to this database alone\n"
    listed = run(folder, "gc", "lab", "--paths", "--store", "raw", **settings)
    assert listed.returncode == 0, listed.stderr
    assert "1 young" in listed.stdout
    os.utime(store.full_path(reference["path"]), (0, 0))
    listed = run(folder, "gc", "lab", "--paths", "--store", "raw", **settings)
    assert reference["path"] in listed.stdout
    assert "nothing removed" in listed.stdout
    deleted = run(folder, "gc", "lab", "--delete", "--grace", "1", "--store", "raw", **settings)
    assert "moved 1 (8 B) to the trash" in deleted.stdout, deleted.stderr
    assert not store.exists(reference["path"])
    restored = run(folder, "gc", "lab", "--restore", **settings)
    assert "restored 1 file (8 B)" in restored.stdout, restored.stderr
    assert store.get(reference["path"]) == b"nobody's"
    os.utime(store.full_path(reference["path"]), (0, 0))
    emptied = run(folder, "gc", "lab", "--delete", "--keep", "0", **settings)
    assert "0 files in the trash (0 B), 8 B freed" in emptied.stdout, emptied.stderr


def test_gc_takes_one_thing_at_a_time(folder: Path) -> None:
    refused = run(folder, "gc", "lab", "--delete", "--restore")
    assert refused.returncode == 2
    assert "one of --delete, --restore and --claim" in refused.stderr


def test_sync_shows_keys_without_a_daemon(folder: Path) -> None:
    (folder / "rig.py").write_text(
        "import dj_dagster as dj\n"
        "from dj_dagster.orchestration import build_definitions\n"
        'schema = dj.Schema("rig")\n'
        "@schema\n"
        "class Item(dj.Manual):\n"
        '    definition = "item : int32"\n'
        "Item.insert([(1,), (2,)], skip_duplicates=True)\n"
        "defs = build_definitions(schema)\n"
    )
    done = run(folder, "sync", "-m", "rig")
    assert done.stdout == "rig: 2 partitions added, 0 removed, 2 marked.\n", done.stderr
    done = run(folder, "sync", "-m", "rig")
    assert done.stdout == "rig: 0 partitions added, 0 removed, 0 marked.\n", done.stderr
    (folder / "workspace.yaml").write_text("load_from: [python_module: rig]\n")
    done = run(folder, "sync")
    assert done.stdout.startswith("rig: 0 partitions added"), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("recompute", "all", "--stale"),
        ("sync",),
        ("status",),
        ("compact-events", "all", "--keep", "1"),
        ("check", "lab"),
    ],
)
def test_a_module_that_is_not_there_is_named(folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "half.py").write_text("import no_such_helper\n")
    done = run(folder, *arguments, "-m", "no_such_rig")
    assert done.returncode == 2
    assert "There is no Python module 'no_such_rig'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    # A module of the user's own that fails says where.
    assert "half.py" in run(folder, *arguments, "-m", "half").stderr


def test_commands_read_the_variables_that_dagster_reads(inside: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DJ_DATABASE_URL=sqlite:///{tmp_path}/own.sqlite\n")
    assert "own.sqlite has no schema lab" in inside("check", "lab").stderr
    assert "DJ_DATABASE_URL" not in os.environ


def test_what_was_backed_up_is_restored_after_all_is_lost(inside: Command, tmp_path: Path) -> None:
    @dj.Schema("rig")
    class Item(dj.Manual):
        definition = "item : int32\n---\ntrace : <npy@>"

    Item.insert1((1, np.arange(3)))
    refused = inside("backup", "copies", "rig", "--all")
    assert refused.exit_code == 2
    assert "Name schemas, or give --all" in refused.output
    done = inside("backup", "copies")
    assert done.exit_code == 0, done.output
    assert "1 file of stores" in done.output
    dj.conn().close()
    shutil.rmtree(tmp_path / ".dj")
    dj.conn(reset=True)
    done = inside("restore", "copies")
    assert done.exit_code == 0, done.output
    assert "rig restored; 1 file of stores written" in done.output
    for arguments in (("check",), ("gc",), ("backup", "more"), ("migrate",)):
        refused = inside(*arguments, "rigg")
        assert refused.exit_code == 2
        assert "has no schema rigg; there are rig." in " ".join(refused.stderr.split())
    checked = inside("check", "rig", "--read-data")
    assert checked.stdout == "All is well.\n"
    counted = inside("check", "rig", "--progress")
    assert "rig.item.trace: 1 of 1 rows\n" in counted.stderr
    (copy,) = (tmp_path / "copies" / "objects").rglob("??*/*")
    copy.write_bytes(b"")
    done = inside("restore", "copies", "--dry-run")
    assert done.exit_code == 1
    assert copy.name in done.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dj_dagster.commands.output.Counting.__call__", interrupted)
        inside("check", "rig", "--progress")
    (file,) = (tmp_path / ".dj" / "checks").iterdir()
    resumed = inside("check", "rig")
    assert "going on at rig.item.trace, after 1 rows" in resumed.stderr
    assert str(file) in resumed.stderr
    assert not file.exists()
    dj.conn().close()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt

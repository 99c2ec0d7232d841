"""A project of one's own: made by `init` from the wheel, and tested by pytest's plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dj_dagster as dj
from dj_dagster.cli import cli
from dj_dagster.errors import ConfigurationError
from dj_dagster.temporary.lab import TemporaryLab
from tests.command_line import Command, inside
from tests.services.process import PATIENCE

__all__ = ["inside"]

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).parents[1]

NAMES = {
    ".gitignore",
    "README.md",
    "dagster.yaml",
    "definitions.py",
    "pyproject.toml",
    "tests/test_pipeline.py",
    "workspace.yaml",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no uv here; install it with: pip install uv")
    _run(REPOSITORY, uv, "build", "--wheel", "--quiet", "--out-dir", folder, REPOSITORY)
    (wheel,) = folder.glob("*.whl")
    place = folder / "site"
    _run(
        folder,
        uv,
        "pip",
        "install",
        "--python",
        sys.executable,
        "--quiet",
        "--no-deps",
        "--target",
        place,
        wheel,
    )
    return place


def _run(folder: Path, *command: str | Path, site: Path | None = None) -> str:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    # What the wheel requires comes from here.
    path = {} if site is None else {"PYTHONPATH": str(site)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**ours, **path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_new_project_from_the_wheel_passes_its_test(site: Path, tmp_path: Path) -> None:
    python = sys.executable
    where = _run(tmp_path, python, "-c", "import dj_dagster; print(dj_dagster.__file__)", site=site)
    assert Path(where.strip()).is_relative_to(site)
    said = _run(tmp_path, python, site / "bin" / "dj-dagster", "init", "leaves", site=site)
    assert "  cd leaves\n" in said
    project = tmp_path / "leaves"
    files = {str(p.relative_to(project)) for p in project.rglob("*") if p.is_file()}
    assert files == NAMES
    databases = ["--dj-database", "sqlite"]
    databases += ["--dj-database", "mariadb"] if os.environ.get("CI") or _has_mariadb() else []
    tested = _run(project, python, "-m", "pytest", "-q", *databases, site=site)
    assert f"{len(databases)} passed" in tested
    assert "skipped" not in tested
    assert not (project / ".dj").exists(), "the test has used the project's own lab"
    validated = _run(project, python, "-m", "dagster", "definitions", "validate", site=site)
    assert "Validation successful for code location leaves" in validated


def _has_mariadb() -> bool:
    return bool(shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin"))


def test_init_does_not_write_over_files(inside: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "tests").mkdir(parents=True)
    (tmp_path / "mine" / "tests" / "test_pipeline.py").write_text("mine")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    refused = inside("init", "mine")
    assert refused.exit_code == 2
    assert "has tests/test_pipeline.py already, and nothing was written" in refused.stderr
    assert not (tmp_path / "mine" / "definitions.py").exists()
    (tmp_path / "mine" / "tests" / "test_pipeline.py").unlink()
    assert inside("init", "mine", "--schema", "plants").exit_code == 0
    assert 'dj.Schema("plants")' in (tmp_path / "mine" / "definitions.py").read_text()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    for schema in ("My Lab", "sqlite_lab", "a" * 65):
        assert inside("init", "other", "--schema", schema).exit_code == 2
    assert not (tmp_path / "other").exists()
    for arguments in (("init", ""), ("backup", "", "--all")):
        refused = inside(*arguments)
        assert (refused.exit_code, "the name is empty" in refused.stderr) == (2, True)


def test_init_writes_nothing_where_it_cannot_write_all(inside: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "tests").touch()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "workspace.yaml").symlink_to("nowhere")
    for folder, said in (
        ("file/sub", "file is not a folder that this user may write"),
        ("one", "tests is not a folder that this user may write"),
        ("two", "has workspace.yaml already"),
        ("/proc/none/sub", "nothing was"),
    ):
        refused = inside("init", folder)
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.split())
    assert len(list(tmp_path.rglob("*"))) == 5
    assert "  cd 'my lab'\n" in inside("init", "my lab").stdout


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("pyproject.toml", b"a = =", "pyproject.toml cannot be read: Invalid value"),
        ("pyproject.toml", b'[tool]\ndagster = "x"', "tool.dagster: Input should be a valid dict"),
        ("pyproject.toml", b"tool.dagster.module_name = 3", "module_name: Input should be"),
        ("pyproject.toml", b'tool.dagster.module_name = ""', "module_name: String should have"),
        ("pyproject.toml", b"tool.dg.project.x = 1", "project.root_module: Field required"),
        ("workspace.yaml", b"a: b: c", "workspace.yaml cannot be read: mapping values"),
        ("workspace.yaml", b"\xff\xfe", "workspace.yaml cannot be read: 'utf-8'"),
        ("workspace.yaml", None, "workspace.yaml cannot be read: Input/output error"),
        ("workspace.yaml", b"- definitions", "workspace.yaml does not say where"),
        ("workspace.yaml", b"load_from:", "load_from: Input should be a valid list"),
        ("workspace.yaml", b"load_from: [{python_file: {}}]", "relative_path: Field required"),
        ("workspace.yaml", b"load_from: [{python_file: [x]}]", "0.python_file: Input should"),
        (".env", b"\xff\xfe", ".env cannot be read: 'utf-8'"),
        (".env", None, ".env cannot be read: Input/output error"),
        (".secrets/database.password", b"\xff", "database.password cannot be read: 'utf-8'"),
        ("dagster.yaml", b"storage: {sqlite: {base_dir: /proc/none}}", "dagster.yaml cannot be"),
        ("dagster.yaml", b"- storage", "dagster.yaml cannot be opened"),
    ],
)
def test_a_file_of_the_project_that_cannot_be_read_is_named(
    inside: Command, tmp_path: Path, file: str, content: bytes | None, said: str
) -> None:
    place = tmp_path / file
    place.parent.mkdir(exist_ok=True)
    if content is None:
        place.symlink_to("/proc/self/mem")
    else:
        place.write_bytes(content)
    (tmp_path / "lab.py").write_text(
        "import dj_dagster as dj\n"
        "@dj.Schema('lab')\nclass Item(dj.Manual):\n    definition = 'item : int32'\n"
    )
    named = [] if place.suffix in (".toml", ".yaml") and file != "dagster.yaml" else ["-m", "lab"]
    refused = inside("status", *named)
    if isinstance(refused.exception, ConfigurationError):
        assert said in str(refused.exception)
    else:
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.split())


def test_what_the_readme_of_a_new_project_names_is_there(
    inside: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inside("init", ".", "--schema", "plants").exit_code == 0
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "lab"
    folder.mkdir()
    lab = TemporaryLab(f"sqlite:///{folder / 'lab.sqlite'}", folder)
    try:
        defs = lab.load("definitions").defs
        jobs = {job.name for job in defs.resolve_all_job_defs()}
    finally:
        lab.close()
    text = (tmp_path / "README.md").read_text()
    assert set(re.findall(r"Jobs › (\w+)", text)) <= jobs
    commands = set(re.findall(r"^dj-dagster (\w+)", text, re.MULTILINE))
    assert {"dev", "status", "doctor"} <= commands <= set(cli.commands)


def test_dev_needs_a_project(inside: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = inside("dev")
    assert refused.exit_code == 2
    assert "does not say where its tables are" in refused.stderr
    Path("definitions.py").touch()
    assert inside("dev").stderr.endswith("name a Python module: -m definitions\n")
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, command: started.append(command[4:]))
    for chosen in (["-mdefinitions"], ["--grpc-port", "4000"], ["--module-name=definitions"]):
        assert inside("dev", *chosen).exit_code == 0
        assert started.pop() == chosen
    assert inside("dev", "--port", "4000").exit_code == 2


def test_pytest_without_a_lab_does_not_import_dagster(tmp_path: Path) -> None:
    script = "import sys, dj_dagster.pytest_plugin; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in _run(tmp_path, sys.executable, "-c", script).split()}
    assert "dj_dagster" in loaded
    assert not loaded & {"dagster", "pandas"}


def test_a_lab_leaves_the_folder_of_a_test_to_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "def test_lab(dj_lab, tmp_path):\n"
        "    (tmp_path / 'lab').mkdir()\n"
        "    assert dj_lab.connection.schema_names() == []\n"
        "    assert dj_lab.folder.is_dir()\n"
    )
    pytester.runpytest("--dj-database", "sqlite").assert_outcomes(passed=1)
    refused = pytester.runpytest("-o", "dj_databases=")
    assert refused.ret != 0
    assert "dj_databases is empty: write sqlite or mariadb" in "\n".join(
        [*refused.outlines, *refused.errlines]
    )


def test_a_lab_can_be_asked_for_as_a_test_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import unittest, pytest

        class TestLab(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def lab(self, request, dj_lab):
                self.lab = dj_lab

            def test_lab(self):
                assert self.lab.connection.schema_names() == []

        def test_by_name(request):
            assert request.getfixturevalue("dj_lab").url.startswith("sqlite:")
        """
    )
    pytester.runpytest("--dj-database", "sqlite").assert_outcomes(passed=2)


def test_a_lab_ends_the_transactions_that_a_test_left(
    pytester: pytest.Pytester, mariadb_url: str
) -> None:
    # With that fixture, a machine without MariaDB has been told of.
    del mariadb_url
    pytester.makepyfile(
        """
        import dj_dagster as dj

        LEFT = []

        def test_leaves_a_transaction(dj_lab, dj_database):
            schema = dj.Schema("lab", connection=dj_lab.connection)
            schema(type("Leaf", (dj.Manual,), {"definition": "n : int"}))
            LEFT.append(dj.Connection(dj_database))
            LEFT[0].start_transaction()
            LEFT[0].query("SELECT * FROM lab.leaf")

        def test_finds_nothing(dj_lab):
            assert dj_lab.connection.schema_names() == []
        """
    )
    pytester.runpytest_subprocess("--dj-database", "mariadb").assert_outcomes(passed=2)


def test_a_lab_has_its_own_database_and_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    raw = {"protocol": "s3", "endpoint": "s3.lab.org", "bucket": "raw", "location": "raw"}
    (tmp_path / "datajoint.json").write_text(
        json.dumps({"jobs": {"keep_completed": True}, "stores": {"raw": raw}})
    )
    (tmp_path / "traces.py").write_text(
        "import dj_dagster as dj\n"
        'schema = dj.Schema("lab")\n'
        "@schema\n"
        "class Trace(dj.Manual):\n"
        '    definition = "trace : int32\\n---\\ndata : <blob@raw>"\n'
    )
    (tmp_path / "elsewhere.py").write_text(
        "import dj_dagster as dj\n"
        'schema = dj.Schema("lab", connection=dj.Connection("sqlite:///:memory:"))\n'
    )
    monkeypatch.setenv("DJ_HOST", "db.lab.org")
    before = dict(os.environ)
    for number in range(2):
        folder = tmp_path / f"lab{number}"
        folder.mkdir()
        lab = TemporaryLab(f"sqlite:///{folder / 'lab.sqlite'}", folder)
        traces = lab.load("traces")
        assert len(traces.Trace()) == 0
        traces.Trace.insert1({"trace": 1, "data": [1, 2]})
        assert traces.Trace.fetch1("data") == [1, 2]
        assert list((folder / "stores" / "raw").rglob("*"))
        assert lab.connection.job_settings.keep_completed
        with pytest.raises(ConfigurationError, match="elsewhere has its schema lab in sqlite"):
            lab.load("elsewhere")
        lab.close()
        assert not {"traces", "elsewhere"} & set(sys.modules)
        assert dict(os.environ) == before
    # A module that was imported before the lab is not in it.
    monkeypatch.delenv("DJ_HOST")
    monkeypatch.setattr("dj_dagster.default_connection._config", None)
    monkeypatch.setattr("dj_dagster.default_connection._connection", None)
    import traces  # pyright: ignore[reportMissingImports]

    folder = tmp_path / "lab2"
    folder.mkdir()
    lab = TemporaryLab(f"sqlite:///{folder / 'lab.sqlite'}", folder)
    with pytest.raises(ConfigurationError, match="Import it by the lab's load alone"):
        lab.load("traces")
    lab.close()
    assert len(traces.Trace()) == 0
    dj.conn().close()
    del sys.modules["traces"]


@pytest.mark.parametrize("place", ["project", "dj_dagster", "site-packages"])
def test_a_lab_forgets_the_modules_of_a_project_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    inner = tmp_path / place / "rigs" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / place)
    for name in ("kept", "rigs"):
        (tmp_path / place / name).mkdir(exist_ok=True)
        (tmp_path / place / name / "__init__.py").touch()
    tables = 'import dj_dagster as dj\nschema = dj.Schema("lab")\n'
    # A folder without an __init__.py, and a package that is imported before the lab.
    for file in (inner / "tables.py", tmp_path / place / "kept" / "more.py"):
        file.write_text(tables)
    (inner / "defs.py").write_text("from kept import more\nfrom rigs.inner import tables\n")
    (inner / "fails.py").write_text("from rigs.inner import tables\n1 / 0\n")
    import_module("kept")
    for number, load in enumerate(["fails", "defs", "defs"]):
        folder = tmp_path / f"lab{number}"
        folder.mkdir()
        lab = TemporaryLab(f"sqlite:///{folder / 'lab.sqlite'}", folder)
        if load == "fails":
            with pytest.raises(ZeroDivisionError):
                lab.load("rigs.inner.fails")
        else:
            assert lab.load("rigs.inner.defs").more.schema.connection is lab.connection
        lab.close()
        assert not [name for name in sys.modules if name.startswith("rigs")]
    del sys.modules["kept"]

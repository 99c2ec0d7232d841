"""What is published: the wheel and the source distribution, and the types that others see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "tests" / "example" / "lab.py"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, of which the wheel was built."""
    folder = tmp_path_factory.mktemp("dist")
    run(uv(), "build", "-q", "-o", str(folder), str(REPOSITORY))
    return folder


def uv() -> str:
    """Return the program that this environment was made with."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "install uv"
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dj_dagster"}
    assert "dj_dagster/py.typed" in names
    assert "dj_dagster/demo/pipelines/definitions.py" in names


def test_the_source_distribution_holds_what_the_wheel_is_made_of(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    tops = {name.partition("/")[0] for name in names if name}
    assert tops == {
        "dj_dagster", "pipelines", "dagster.yaml", "README.md", "CHANGELOG.md", "CITATION.cff",
        "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore",
    }  # fmt: skip


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation


@pytest.mark.packages
def test_type_checkers_see_the_types_of_the_installed_package(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    shutil.copy(EXAMPLE, tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(uv(), "venv", "-q", "-p", sys.executable, str(python.parents[1]))
    packages = [str(wheel), "mypy", "basedpyright", "pandas-stubs"]
    run(uv(), "pip", "install", "-q", "-p", str(python), *packages)
    for command in (
        ["mypy", "--strict"],
        ["basedpyright", "--level", "error", "--pythonpath", str(python)],
    ):
        done = subprocess.run(
            [python, "-m", *command, "lab.py"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.findall(r"lab\.py:(\d+).*error", done.stdout)
        assert found == [str(EXAMPLE.read_text().count("\n"))], done.stdout

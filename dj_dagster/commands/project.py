"""Commands about a project: a new one, its UI, and the folder of what they copy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dj_dagster.errors import ConfigurationError, DataJointError
from dj_dagster.lazy import LateModule

if TYPE_CHECKING:
    from dj_dagster.orchestration.inspection import project as of_dagster
else:
    of_dagster = LateModule("dj_dagster.orchestration.inspection.project")

TEMPLATE = Path(__file__).parent / "template"

FILES: Mapping[str, str] = {
    "definitions.py": "definitions.py.txt",
    "workspace.yaml": "workspace.yaml.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "tests/test_pipeline.py": "tests/test_pipeline.py.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
}
"""The files of a new project, and those that they are made from."""

DAGSTER_YAML = "dagster.yaml"
"""The settings of Dagster, which a new project shares with the demo."""

CHOOSE = {"-m", "--module-name", "-f", "--python-file", "-w", "--workspace", "--package-name"}
"""Options of ``dagster dev`` that say where the definitions are."""


def write_project(folder: Path, schema: str = "lab") -> list[str]:
    """Write the files of a new project, and return their names.

    Parameters
    ----------
    folder
        The project's folder, which need not exist.
    schema
        The name of its schema.

    Raises
    ------
    ConfigurationError
        When the folder has files of these names already, or the schema's name is not a word in
        lower case. Nothing is written then.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", schema):
        raise ConfigurationError(
            f"{schema!r} cannot be the name of a schema: write lower-case letters, digits and _."
        )
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "lab"
    words = {"schema": schema, "name": name}
    texts = {file: _filled(TEMPLATE / source, words) for file, source in FILES.items()}
    texts[DAGSTER_YAML] = _dagster_yaml().read_text(encoding="utf-8")
    there = [file for file in texts if (folder / file).exists()]
    if there:
        raise ConfigurationError(
            f"{folder} has {', '.join(there)} already, and nothing was written: name a new folder, "
            "or move these away."
        )
    for file, text in texts.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("x", encoding="utf-8") as stream:
            stream.write(text)
    return sorted(texts)


def _filled(file: Path, words: Mapping[str, str]) -> str:
    text = file.read_text(encoding="utf-8")
    # Python's own braces stay.
    return re.sub(r"\{(schema|name)\}", lambda found: words[found[1]], text)


def _dagster_yaml() -> Path:
    """Return the file inside this package, or that of the source tree's top."""
    installed = TEMPLATE / DAGSTER_YAML
    return installed if installed.is_file() else Path(__file__).parents[2] / DAGSTER_YAML


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--schema", default="lab", show_default=True, help="Name of the schema.")
def init(folder: Path, schema: str) -> None:
    """Make a project of your own in FOLDER: two tables, their test, and settings of Dagster.

    Files that are there are not overwritten: if FOLDER has one of these names, nothing is written,
    and the exit code is 2.
    """
    try:
        written = write_project(folder, schema)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{folder} has {', '.join(written)} now. Next:")
    if folder.resolve() != Path.cwd():
        click.echo(f"  cd {folder}")
    click.echo("  dj-dagster dev   # the UI, at http://127.0.0.1:3000")
    click.echo("  pytest           # the pipeline's tests")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dev(arguments: tuple[str, ...]) -> None:
    """Start the UI and the sensor for the project in this folder, until Ctrl+C.

    This is `dagster dev`, which gets the ARGUMENTS, such as --port 3001.
    """
    if find_spec("dagster_webserver") is None:
        raise DataJointError("The UI is not installed: pip install 'dj-dagster[ui]'")
    if not CHOOSE & {each.partition("=")[0] for each in arguments}:
        try:
            of_dagster.places(Path.cwd())
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error
    # Modules of the project are found from here, as by `python -m`.
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev", *arguments])

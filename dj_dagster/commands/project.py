"""Commands about a project: a new one, and its UI."""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dj_dagster.errors import ConfigurationError, DataJointError
from dj_dagster.lazy import LateModule
from dj_dagster.new_project import write_project

if TYPE_CHECKING:
    from dj_dagster.orchestration.inspection import project as of_dagster
else:
    of_dagster = LateModule("dj_dagster.orchestration.inspection.project")

CHOOSE = re.compile(
    r"-[mfw]|--(module-name|python-file|workspace|package-name|autoload-defs-module-name|grpc-port"
    r"|grpc-socket)(=|$)"
)
"""Options of ``dagster dev`` that say where the definitions are."""


class FolderPath(click.Path):
    """A folder, which need not exist; an empty text, as of a variable that is not set, is none."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("the name is empty. Write '.' for the working directory.", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@click.argument("folder", type=FolderPath())
@click.option("--schema", default="lab", show_default=True, help="Name of the schema.")
def init(folder: Path, schema: str) -> None:
    """Make a project of your own in FOLDER: two tables, their test, and settings of Dagster.

    Files that are there are not overwritten: if FOLDER has one of these names, or cannot be
    written, nothing is written, and the exit code is 2.
    """
    try:
        written = write_project(folder, schema)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{folder} has {', '.join(written)} now. Next:")
    if folder.resolve() != Path.cwd():
        click.echo(f"  cd {shlex.quote(str(folder))}")
    click.echo("  dj-dagster dev   # the UI, at http://127.0.0.1:3000")
    if find_spec("pytest") is None:
        click.echo("  pip install pytest")
    click.echo("  python -m pytest # the pipeline's tests")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dev(arguments: tuple[str, ...]) -> None:
    """Start the UI and the sensor for the project in this folder, until Ctrl+C.

    This is `dagster dev`, which gets the ARGUMENTS, such as --port 3001.
    """
    if find_spec("dagster_webserver") is None:
        raise DataJointError("The UI is not installed: pip install 'dj-dagster[ui]'")
    if not any(map(CHOOSE.match, arguments)):
        try:
            of_dagster.places(Path.cwd())
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error
    # Modules of the project are found from here, as by `python -m`.
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev", *arguments])

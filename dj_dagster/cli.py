"""The command ``dj-dagster``."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from dj_dagster import __version__
from dj_dagster.errors import DataJointError


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """Relational workflows for scientific labs, run by Dagster."""


@cli.command()
@click.option("--headless", is_flag=True, help="Run it here, without the UI, and say how it went.")
@click.option("--sessions", default=5, show_default=True, help="How many sessions to record.")
def demo(headless: bool, sessions: int) -> None:
    """Run the demo pipeline: in the Dagster UI, or here with --headless."""
    if not headless:
        os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev"])
    # The demo's packages are an extra, which other commands do not need.
    try:
        run_headless = import_module("pipelines.demo").run_headless
    except ModuleNotFoundError as error:
        raise DataJointError(
            f"The demo needs {error.name}: pip install 'dj-dagster[demo]'"
        ) from error
    sys.exit(0 if run_headless(sessions) else 1)


def main() -> None:
    """Run the command; what goes wrong is told in one line."""
    try:
        cli()
    except DataJointError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)

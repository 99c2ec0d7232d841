"""The command that looks at a project's setup."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dj_dagster.commands.keys import FiniteRange, modules_option
from dj_dagster.commands.output import as_json, show_json
from dj_dagster.lazy import LateModule

if TYPE_CHECKING:
    from dj_dagster.orchestration.inspection import doctor as looks
    from dj_dagster.orchestration.inspection import launched_doctor as launched
else:
    looks = LateModule("dj_dagster.orchestration.inspection.doctor")
    launched = LateModule("dj_dagster.orchestration.inspection.launched_doctor")

COLOURS = {"fine": "green", "hint": "yellow", "wrong": "red"}


@click.command()
@modules_option
@click.option(
    "--launcher",
    is_flag=True,
    help="Look from where runs run too, by a small run through Dagster's run launcher.",
)
@click.option(
    "--timeout",
    default=300.0,
    type=FiniteRange(min=0),
    show_default=True,
    help="Seconds that this run may take.",
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="NAME=VALUE",
    help="A tag of this run, such as dj-slurm/partition=gpu; may be given several times.",
)
@as_json
def doctor(
    modules: tuple[str, ...], launcher: bool, timeout: float, tags: tuple[str, ...], as_json: bool
) -> None:
    """Say what is wrong with the setup of the project in this folder, and what to do.

    Looks at the versions of packages, the settings, the database and its clock, the stores, the
    code location, and Dagster's instance with its launcher and daemon. One small object is written
    into each store and removed again. The exit code is 1 if something is wrong; hints do not count.
    """
    for tag in tags:
        if tag.find("=") < 1:
            raise click.UsageError(f"--tag {tag}: write NAME=VALUE, as dj-slurm/partition=gpu.")
    found = looks.diagnose(modules)
    if launcher:
        pairs = {name: value for name, _, value in (tag.partition("=") for tag in tags)}
        there = launched.diagnose_launcher(modules, timeout=timeout, tags=pairs)
        found += [replace(each, what=f"run: {each.what}") for each in there]
    wrong = sum(each.state == "wrong" for each in found)
    if as_json:
        show_json(found)
        sys.exit(1 if wrong else 0)
    for each in found:
        mark = click.style(each.state.ljust(5), fg=COLOURS[each.state])
        click.echo(f"{mark}  {each.what}: {each.found}")
        if each.advice:
            click.echo(f"       {each.advice}")
    verb = "is" if wrong == 1 else "are"
    click.echo(f"{wrong} of {len(found)} {verb} wrong." if wrong else "Nothing is wrong.")
    sys.exit(1 if wrong else 0)

"""Commands about the keys of tables: their state and errors, and what makes them (again)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from math import isfinite
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from dj_dagster.commands.output import (
    as_json,
    counting,
    duration,
    show_json,
    show_table,
)
from dj_dagster.defaults import config
from dj_dagster.errors import (
    ConfigurationError,
    DataJointError,
    QueryError,
    QuerySyntaxError,
    UnknownAttributeError,
    counted,
)
from dj_dagster.lazy import LateModule
from dj_dagster.objects.previews import printable

if TYPE_CHECKING:
    import dj_dagster.orchestration as dagster_side
    from dj_dagster.orchestration import synchronization
    from dj_dagster.orchestration.inspection import location, plan, project, status
    from dj_dagster.orchestration.inspection.plan import PlannedTable
    from dj_dagster.orchestration.jobs import populate_job
    from dj_dagster.orchestration.runs.populate_step import Progress
    from dj_dagster.orchestration.tables.table_graph import TableGraph
else:
    # Dagster takes seconds to import, which other commands do not need.
    dagster_side = LateModule("dj_dagster.orchestration")
    location = LateModule("dj_dagster.orchestration.inspection.location")
    status = LateModule("dj_dagster.orchestration.inspection.status")
    plan = LateModule("dj_dagster.orchestration.inspection.plan")
    project = LateModule("dj_dagster.orchestration.inspection.project")
    populate_job = LateModule("dj_dagster.orchestration.jobs.populate_job")
    synchronization = LateModule("dj_dagster.orchestration.synchronization")

C = TypeVar("C", bound=Callable[..., None])
P = ParamSpec("P")
T = TypeVar("T")


def modules_option(function: C) -> C:
    """Add the option by which a command is told where the tables are."""
    return click.option(
        "-m",
        "--module",
        "modules",
        multiple=True,
        help="Python module that has the definitions, a schema, or table classes; lab:defs is one "
        "of several definitions in it. May be given repeatedly. By default what the project in "
        "this folder names, in workspace.yaml or pyproject.toml.",
    )(function)


tables_argument = click.argument("tables", nargs=-1, metavar="[TABLES]...")
progress_option = click.option(
    "--progress/--no-progress", default=None, help="Count keys; by default on a terminal."
)


class FiniteRange(click.FloatRange):
    """A number in a range, which is neither infinite nor ``nan``: that is in no range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that a text stands for."""
        found = float(super().convert(value, param, ctx))
        if not isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


@contextmanager
def usage(*wrong: type[DataJointError]) -> Generator[None]:
    """Turn the error of a wrong name or of wrong SQL into that of a wrong command line, code 2.

    Parameters
    ----------
    wrong
        More errors that what stands on the command line is the reason for.

    Raises
    ------
    click.UsageError
        Instead of these, of a ConfigurationError, of SQL that does not parse, and of an error that
        names an attribute which is not there.
    """
    try:
        yield
    except (ConfigurationError, UnknownAttributeError, QuerySyntaxError, *wrong) as error:
        raise click.UsageError(str(error)) from error


def reading(function: Callable[P, T]) -> Callable[P, T]:
    """Let a command that only reads refuse a database in a folder that is not there."""

    @wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        check_place()
        return function(*args, **options)

    return checked


def check_place() -> None:
    """Refuse a database in a folder that is not there, with code 2."""
    settings = config()
    with usage():
        settings.check_place()


def modules_named(modules: Sequence[str]) -> list[ModuleType]:
    """Return Python modules by name, or without names those of the project in this folder.

    Raises
    ------
    click.UsageError
        If a module is not there, or the folder does not name one.
    """
    with usage():
        return project.modules(modules)


def graph_named(modules: Sequence[str], tables: Sequence[str]) -> TableGraph:
    """Return the tables of a project, after a look whether the given names stand for some.

    Raises
    ------
    click.UsageError
        If a module is not there, or a name does not stand for a table.
    """
    graph = graph_of_named(modules_named(modules))
    with usage():
        status.named(graph, chosen_names(tables))
    return graph


def graph_of_named(modules: Sequence[ModuleType]) -> TableGraph:
    """Return the tables of Python modules.

    Raises
    ------
    click.UsageError
        If a module does not have any.
    """
    with usage():
        return location.graph_of_modules(modules)


def chosen_names(tables: Sequence[str]) -> str | list[str]:
    """Return what the arguments of a command stand for: names of tables, or the word all.

    Commands that take no arguments as well mean all tables by it.
    """
    return "all" if list(tables) in ([], ["all"]) else list(tables)


@click.command("status")
@tables_argument
@modules_option
@click.option("--no-stale", is_flag=True, help="Do not look for stale keys, which takes longest.")
@as_json
@reading
def status_command(
    tables: tuple[str, ...], modules: tuple[str, ...], no_stale: bool, as_json: bool
) -> None:
    """Count the keys of TABLES, or of all: made, pending, running, failed and stale.

    Tables are written as Result, lab.Result, lab.*, Session+ (with all below) or tier:computed.
    Keys and rows stay as they are. The exit code is 1 if a key has failed or a table cannot be
    read.
    """
    graph, chosen = graph_named(modules, tables), chosen_names(tables)
    with project.dagster_instance(ephemeral=True) as instance:
        found = status.status(graph, chosen, stale=not no_stale, instance=instance)
    if as_json:
        show_json(found)
    else:
        columns = ["table", "tier", "rows", "keys", "made", "pending", "running", "failed", "stale"]
        if any(each.unknown for each in found):
            columns.append("unknown")
        listed = [asdict(each) for each in found]
        show_table(columns, [[each[name] for name in columns] for each in listed])
        for each in found:
            if each.error:
                click.echo(f"{each.table} cannot be read: {printable(str(each.error))}")
    sys.exit(1 if any(each.failed or each.error for each in found) else 0)


@click.command("errors")
@tables_argument
@modules_option
@click.option("--retry", is_flag=True, help="Make the failed keys once more, here and now.")
@click.option("--traceback", is_flag=True, help="Show where each error was raised.")
@as_json
@reading
def errors_command(
    tables: tuple[str, ...], modules: tuple[str, ...], retry: bool, traceback: bool, as_json: bool
) -> None:
    """List the failed keys of TABLES, or of all, with their errors.

    With --retry they are made once more, and those are listed that fail again.

    The exit code is 1 if there are failed keys.
    """
    graph, chosen = graph_named(modules, tables), chosen_names(tables)
    if retry:
        with usage():
            done = dagster_side.retry_failed(graph, chosen, progress=counting(None, "keys"))
        if not as_json:
            _show_progress(done, errors=False)
    found = status.failed_keys(graph, chosen)
    if as_json:
        show_json(found)
    else:
        for each in found:
            click.echo(f"{each.table} {each.partition}: {printable(str(each.error))}")
            if traceback and each.traceback:
                lines = printable(each.traceback).splitlines()
                click.echo("".join(f"  {line}\n" for line in lines), nl=False)
        click.echo(_failed(len(found)))
    sys.exit(1 if found else 0)


def _failed(count: int) -> str:
    if count == 0:
        return "No key has failed."
    return f"{counted(count, 'key')} {'has' if count == 1 else 'have'} failed."


@click.command("plan")
@tables_argument
@modules_option
@click.option("--stale", is_flag=True, help="What is stale; the default.")
@click.option("--all", "everything", is_flag=True, help="All keys, as after a change of make.")
@click.option("--where", multiple=True, help="Rows of TABLE, by SQL, that are to be deleted.")
@click.option("--delete-entered", is_flag=True, help="As for recompute.")
@as_json
@reading
def plan_command(
    tables: tuple[str, ...],
    modules: tuple[str, ...],
    stale: bool,
    everything: bool,
    where: tuple[str, ...],
    delete_entered: bool,
    as_json: bool,
) -> None:
    """Say what would be deleted and made again, and how long that takes; nothing is changed.

    With --stale, this is what `recompute --stale` would do now; with --all, what a change of the
    make of TABLES would have recomputed. With --where, it is what deleting these rows of the one
    TABLE would do: rows below them go too, and of these come back what can be made again.

    Times are those that the make of the keys took before, as far as they are recorded.
    """
    if where and (stale or everything or delete_entered or len(tables) != 1):
        raise click.UsageError("Give --where with one table, without --stale and --all.")
    if stale and everything:
        raise click.UsageError("Give one of --stale and --all.")
    if everything and not tables:
        raise click.UsageError("Name the tables whose make changes, or write: plan all --all")
    graph = graph_named(modules, tables)
    with project.dagster_instance(ephemeral=True) as instance, usage():
        found = (
            plan.plan_deletion(graph, tables[0], *where, instance=instance)
            if where
            else plan.plan(
                graph,
                chosen_names(tables),
                stale=not everything,
                delete_entered=delete_entered,
                instance=instance,
            )
        )
    if as_json:
        show_json(found)
    else:
        _show_plan(found)


def _show_plan(found: Sequence[PlannedTable]) -> None:
    if not found:
        click.echo("Nothing would be deleted or made again.")
        return
    columns = ["table", "tier", "rows deleted", "keys made again", "left", "lost", "time"]
    show_table(
        columns,
        [
            [
                each.table,
                each.tier,
                each.rows,
                each.keys,
                each.left,
                each.lost,
                "" if each.seconds is None else duration(each.seconds),
            ]
            for each in found
        ],
    )
    keys = sum(each.keys for each in found)
    rows, lost = sum(each.rows for each in found), sum(each.lost for each in found)
    known = [each.seconds for each in found if each.seconds is not None]
    takes = f", in about {duration(sum(known))} of make" if known else ""
    gone = f", {lost} of them for good" if lost else ""
    deleted, again = counted(rows, "row"), counted(keys, "key")
    click.echo(f"{deleted} would be deleted{gone}, and {again} made again{takes}.")
    untimed = [each.table for each in found if each.keys and each.seconds is None]
    if untimed:
        click.echo(f"No durations are recorded of {', '.join(untimed)}.")
    left = sum(each.left for each in found)
    if left:
        click.echo(
            f"{counted(left, 'key')} would be left: rows below would be lost, or the key source "
            "does not have them any more."
        )


@click.command("populate")
@click.argument("tables", nargs=-1, required=True)
@modules_option
@click.option("--where", multiple=True, help="Keys for which this SQL holds; all given must hold.")
@click.option("--limit", type=click.IntRange(min=1), help="Keys per table, at most.")
@click.option("--retry-errors", is_flag=True, help="Try keys again that failed before.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True)
@progress_option
def populate_command(
    tables: tuple[str, ...],
    modules: tuple[str, ...],
    where: tuple[str, ...],
    limit: int | None,
    retry_errors: bool,
    processes: int,
    progress: bool | None,
) -> None:
    """Make the pending keys of TABLES, parents first; the word all stands for all tables.

    Tables are written as Result, lab.Result, lab.*, Session+ (with all below) or tier:computed.
    Any number of these commands, on any number of machines, share the keys among themselves and
    with Dagster's runs. The exit code is 1 if a key failed.
    """
    graph, chosen = graph_named(modules, tables), chosen_names(tables)
    with usage(QueryError):
        nodes = populate_job.chosen_tables(graph, chosen)
        for text in where:
            populate_job.check_restriction(nodes, text)
    with usage():
        done = dagster_side.populate(
            graph,
            chosen,
            *where,
            limit=limit,
            retry_errors=retry_errors,
            processes=processes,
            progress=counting(progress, "keys"),
        )
    _show_progress(done)
    sys.exit(1 if any(each.failed for each in done) else 0)


def _show_progress(done: Sequence[Progress], *, errors: bool = True) -> None:
    for each in done:
        click.echo(str(each))
        for partition, error in each.failed.items() if errors else ():
            click.echo(printable(f"  {partition}: {error}"))


@click.command()
@click.argument("tables", nargs=-1, required=True)
@modules_option
@click.option("--stale", is_flag=True, help="What is stale.")
@click.option("--all", "everything", is_flag=True, help="All keys that are there.")
@click.option(
    "--delete-entered",
    is_flag=True,
    help="Delete rows below too that no make brings back; otherwise such keys are left.",
)
@progress_option
def recompute(
    tables: tuple[str, ...],
    modules: tuple[str, ...],
    stale: bool,
    everything: bool,
    delete_entered: bool,
    progress: bool | None,
) -> None:
    """Make keys of TABLES again, with all that depends on them; the word all is for all tables.

    Tables are written as Result, lab.Result, lab.*, Session+ (with all below) or tier:computed. The
    command `plan` says before what this would do. The rows of a key are deleted before its make is
    called: if that fails, they stay deleted. The exit code is 1 if a key failed or was left.
    """
    if stale == everything:
        raise click.UsageError("Say which keys to make again: --stale, or --all.")
    graph, chosen = graph_named(modules, tables), chosen_names(tables)
    with project.dagster_instance(ephemeral=True) as instance, usage():
        done = dagster_side.recompute(
            graph,
            chosen,
            stale=stale,
            delete_entered=delete_entered,
            progress=counting(progress, "keys"),
            instance=instance,
        )
    _show_progress(done)
    if not done:
        click.echo("Nothing is stale." if stale else "There are no keys.")
    sys.exit(1 if any(each.failed for each in done) else 0)


@click.command()
@modules_option
def sync(modules: tuple[str, ...]) -> None:
    """Show the keys and rows of all tables in Dagster, once, without a daemon; make nothing."""
    with usage():
        found = [
            (module.__name__, repository)
            for module in project.modules(modules)
            for repository in location.code_locations(module)
        ]
    for name, repository in found:
        click.echo(f"{name}: {synchronization.sync(repository)}.")

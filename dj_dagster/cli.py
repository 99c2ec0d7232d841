"""The command ``dj-dagster``."""

from __future__ import annotations

import atexit
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from gc import freeze
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import click

from dj_dagster import __version__
from dj_dagster.commands.environment import project_environment
from dj_dagster.commands.health import doctor
from dj_dagster.commands.history import compact_command
from dj_dagster.commands.keys import (
    FiniteRange,
    check_place,
    errors_command,
    graph_of_named,
    modules_named,
    plan_command,
    populate_command,
    reading,
    recompute,
    status_command,
    sync,
    usage,
)
from dj_dagster.commands.output import counting, tell
from dj_dagster.commands.project import FolderPath, dev, init
from dj_dagster.defaults import Schema, config, conn
from dj_dagster.errors import DataJointError, QueryError, counted
from dj_dagster.local_files import embedded_folder, is_usable
from dj_dagster.new_project import DAGSTER_YAML, write_settings
from dj_dagster.relational.backup.backup import ALL_SCHEMAS, make_backup, restore_backup
from dj_dagster.relational.backup.contents import open_backup
from dj_dagster.relational.garbage.collector import ALL_STORES, GarbageCollector, garbage_collectors
from dj_dagster.relational.schemas.module_classes import classes_within_reach
from dj_dagster.workflow.computed import AutoPopulate
from dj_dagster.workflow.integrity import check_schema
from dj_dagster.workflow.make import can_make
from dj_dagster.workflow.migration import Migration
from dj_dagster.workflow.release.crate import verify_release
from dj_dagster.workflow.release.release import ReleaseText, make_release, named_rows
from dj_dagster.workflow.release.rerun import rerun_release


def _imported(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> None:
    del option
    if names:
        # A module may connect, which makes the folder of a database; a restore needs it.
        if context.info_name != "restore":
            check_place()
        modules_named(names)


_import_first = click.option(
    "-m",
    "--module",
    multiple=True,
    expose_value=False,
    callback=_imported,
    help="A Python module to import first, where stores or codecs are set up in code. May be given "
    "repeatedly.",
)

DEMOS = {
    "pulse": ("pipelines", "demo", "heartpy"),
    "ephys": ("pipelines.ephys", "ephys", "spikeinterface"),
}
"""The package of each demo, the extra that installs its requirements, and one of these."""


@click.group()
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Relational workflows for scientific labs, run by Dagster."""
    context.with_resource(project_environment())


@cli.command()
@click.argument("which", type=click.Choice(list(DEMOS)), default="pulse")
@click.option("--headless", is_flag=True, help="Run it here, without the UI, and say how it went.")
@click.option(
    "--sessions",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many sessions to record.",
)
def demo(which: str, headless: bool, sessions: int) -> None:
    """Run a demo pipeline: in the Dagster UI, or here with --headless.

    `pulse` takes heart rates from recordings of people's pulses; `ephys` sorts spikes of simulated
    Neuropixels recordings, and needs the extra of that name. Rows, objects and Dagster's history
    stay in the folder in which it is started.
    """
    place, package = _demo_folder(), DEMOS[which][0]
    sys.path.insert(0, str(place))
    program = _demo_program(which)
    if not os.environ.get("DAGSTER_HOME") and write_settings(Path.cwd()):
        tell(f"Dagster's history is kept in this folder, by its new file {DAGSTER_YAML}.")
    if headless:
        sys.exit(0 if program.run_headless(sessions) else 1)
    if which == "ephys":
        program.before_ui(sessions)
    command = [sys.executable, "-m", "dagster", "dev"]
    if Path.cwd() != place or which != "pulse":
        command += ["--module-name", f"{package}.definitions", "--working-directory", str(place)]
    os.execv(sys.executable, command)


@cli.command()
@click.argument("schemas", nargs=-1, required=True)
@click.option("--delete", is_flag=True, help="Move what was found to the trash of its store.")
@click.option("--restore", is_flag=True, help="Move all out of the trash back to where it was.")
@click.option("--claim", is_flag=True, help="Say that rows of this database alone refer to these.")
@click.option(
    "--store",
    "stores",
    multiple=True,
    default=(ALL_STORES,),
    show_default=True,
    help="Only this store; may be given repeatedly.",
)
@click.option(
    "--grace",
    type=FiniteRange(min=0),
    help="Hours for which objects without a row stay; by default gc.grace, a setting in seconds.",
)
@click.option(
    "--keep",
    type=FiniteRange(min=0),
    help="Hours for which objects stay in the trash; by default gc.keep, a setting in seconds.",
)
@click.option(
    "--ignore-unreadable", is_flag=True, help="Go on although not all that may refer can be read."
)
@click.option("--paths", is_flag=True, help="Name each object without a row.")
@reading
@_import_first
def gc(
    schemas: tuple[str, ...],
    delete: bool,
    restore: bool,
    claim: bool,
    stores: tuple[str, ...],
    grace: float | None,
    keep: float | None,
    ignore_unreadable: bool,
    paths: bool,
) -> None:
    """Find the objects of SCHEMAS without a row, and move them to the trash with --delete.

    The exit code is 1 if rows refer to objects that are not there.
    """
    if delete + restore + claim > 1:
        raise click.UsageError("Give one of --delete, --restore and --claim.")
    with usage():
        collectors = garbage_collectors(*_schemas(schemas), stores=stores)
    lost = False
    for collector in collectors:
        if claim:
            _claim(collector, schemas)
            continue
        report = (
            collector.restore()
            if restore
            else collector.collect(
                not delete,
                grace=config()["gc.grace"] if grace is None else grace * 3600,
                keep=config()["gc.keep"] if keep is None else keep * 3600,
                ignore_unreadable=ignore_unreadable,
            )
        )
        click.echo(str(report))
        for garbage in report.garbage if paths else ():
            click.echo(f"  {garbage.path} ({garbage.size} bytes)")
        for path in report.missing:
            click.echo(f"  MISSING {path}")
        lost = lost or bool(report.missing)
    sys.exit(1 if lost else 0)


@cli.command()
@click.argument("schemas", nargs=-1, required=True)
@click.option("--read-data", is_flag=True, help="Decode all values and read all objects.")
@click.option(
    "--progress/--no-progress", default=None, help="Count rows; by default on a terminal."
)
@click.option("--restart", is_flag=True, help="Begin anew, after a check that was interrupted.")
@reading
@_import_first
def check(schemas: tuple[str, ...], read_data: bool, progress: bool | None, restart: bool) -> None:
    """Find missing, damaged, orphaned and unreferenced data in SCHEMAS and their stores.

    A check that is interrupted, even killed, goes on where it was when it is called again: a file
    in the folder .dj/checks keeps its place. The exit code is 1 if anything was found.
    """
    count = 0
    shown = counting(progress, "rows")
    for schema in _schemas(schemas):
        bookmark = _bookmark(schema, read_data=read_data)
        if restart and bookmark is not None:
            bookmark.unlink(missing_ok=True)
        found = check_schema(
            schema,
            read_data=read_data,
            say=tell,
            progress=shown,
            bookmark=bookmark,
        )
        for finding in found:
            click.echo(str(finding))
            count += 1
    click.echo(counted(count, "finding") if count else "All is well.")
    sys.exit(1 if count else 0)


def _bookmark(schema: Schema, *, read_data: bool) -> Path | None:
    """Return the file that keeps the place of a schema's check, None in another user's folder."""
    of, folder = f"{schema.connection.url} {read_data}", embedded_folder()
    if not is_usable(folder):
        return None
    return folder / "checks" / f"{schema.name}-{zlib.crc32(of.encode()):08x}.json"


@cli.command()
@click.argument("folder", type=FolderPath())
@click.argument("schemas", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All schemas of the database.")
@click.option("--read-data", is_flag=True, help="Read the copies of earlier backups as well.")
@click.option("--keep", type=click.IntRange(min=1), help="Remove all but the latest so many.")
@reading
@_import_first
def backup(
    folder: Path, schemas: tuple[str, ...], everything: bool, read_data: bool, keep: int | None
) -> None:
    """Copy SCHEMAS and the objects that their rows refer to into FOLDER, while others write.

    Of SQLite the whole database file is copied.

    Objects that an earlier backup in FOLDER has are not copied again. The exit code is 1 if rows
    refer to objects that are not there.
    """
    if (everything and schemas) or not (everything or schemas or conn().backend.dumps_everything):
        raise click.UsageError("Name schemas, or give --all.")
    chosen = _named_schemas(schemas) or ALL_SCHEMAS
    report = make_backup(conn(), folder, chosen, read_data=read_data, keep=keep, say=tell)
    for problem in report.backup.problems:
        click.echo(problem)
    click.echo(str(report))
    sys.exit(1 if report.backup.problems else 0)


@cli.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="Which backup; the latest by default.")
@click.option(
    "--keep-objects", is_flag=True, help="Let objects be that the stores have already, the same."
)
@click.option("--ignore-damaged", is_flag=True, help="Leave out objects whose copy is damaged.")
@click.option("--dry-run", is_flag=True, help="Read the backup, name what is damaged, and stop.")
@_import_first
def restore(
    folder: Path, name: str | None, keep_objects: bool, ignore_damaged: bool, dry_run: bool
) -> None:
    """Bring back a backup of FOLDER into an empty database, and its objects into their stores.

    The exit code is 1 if a part of the backup is damaged.
    """
    # Before the connection, which may make a new database.
    found = open_backup(folder, name)
    if dry_run:
        damages = 0
        for damage in found.damages():
            click.echo(damage)
            damages += 1
        click.echo(f"{found.place}: {damages} damaged" if damages else f"{found.place} is whole.")
        sys.exit(1 if damages else 0)
    report = restore_backup(
        conn(), folder, name, keep_objects=keep_objects, ignore_damaged=ignore_damaged, say=tell
    )
    for damage in report.damaged:
        click.echo(damage)
    for schema, store in report.foreign:
        click.echo(
            f"Objects of {schema} in store {store} were registered by another database before. If "
            f"that is gone, say so by: dj-dagster gc {schema} --store {store} --claim"
        )
    click.echo(str(report))
    sys.exit(1 if report.damaged else 0)


@cli.command()
@click.argument("what", nargs=-1, required=True, metavar="[TABLE] FOLDER")
@click.option("--where", multiple=True, help="Rows for which this SQL holds; all given must hold.")
@click.option("--all", "everything", is_flag=True, help="All rows of the table.")
@click.option("--inputs", is_flag=True, help="Copy also files of the rows that these come from.")
@click.option("--name", default="", help="Name of the data set.")
@click.option("--description", default="", help="Description of the data set.")
@click.option("--license", "licence", default="", help="Address of its licence.")
@click.option("--verify", is_flag=True, help="Check a release that is there, without a database.")
@click.option("--rerun", is_flag=True, help="Make a release's results again, in an empty database.")
@click.option(
    "-m",
    "--module",
    "modules",
    multiple=True,
    help="A Python module to import first, where stores or codecs are set up in code; for --rerun "
    "one that has the tables, which finds those above them by itself, by default what the project "
    "in this folder names. May be given repeatedly.",
)
@click.option(
    "--tolerance",
    default=0.0,
    type=FiniteRange(min=0),
    help="For --rerun, by how much numbers may differ; by default not at all.",
)
def release(
    what: tuple[str, ...],
    where: tuple[str, ...],
    everything: bool,
    inputs: bool,
    name: str,
    description: str,
    licence: str,
    verify: bool,
    rerun: bool,
    modules: tuple[str, ...],
    tolerance: float,
) -> None:
    """Write rows of TABLE with their files and where they come from into FOLDER, for others.

    TABLE is written as lab.Result, or by another name that is its own. Which of its rows is said
    by --where, or by --all.

    With --verify the files in FOLDER are compared with their checksums. The exit code is 1 if
    something is missing, changed or too many.

    With --rerun what was computed is made again by today's code, from what FOLDER has of entered
    rows and files, in the database and the stores that are set up here, which must be empty. The
    exit code is 1 if the results are not equal.
    """
    if verify or rerun:
        others = (where, everything, inputs, name, description, licence, verify and rerun)
        if len(what) != 1 or any(others):
            raise click.UsageError("Give --verify or --rerun the folder alone.")
        sys.exit(_rerun(what[0], modules, tolerance) if rerun else _verify(what[0]))
    if len(what) != 2:
        raise click.UsageError("Name a table, as lab.Result, and a folder.")
    if everything == bool(where):
        raise click.UsageError("Say which rows by --where, or give --all.")
    check_place()
    if modules:
        modules_named(modules)
    connection = conn()
    with usage(QueryError):
        rows = named_rows(connection, what[0], where, everything=everything)
        # The database reads the conditions.
        bool(rows)
    text = ReleaseText(name, description, licence)
    report = make_release(rows, what[1], everything=everything, inputs=inputs, text=text, say=tell)
    click.echo(str(report))


@cli.command()
@click.argument("schema")
@click.option("--dry-run", is_flag=True, help="Say what would change, and stop.")
@click.option("--undo", is_flag=True, help="Give the schema the layout of 0.14 back.")
@click.option("--confirm", is_flag=True, help="Drop what only 0.14 needs; no undo after that.")
def migrate(schema: str, dry_run: bool, undo: bool, confirm: bool) -> None:
    """Give SCHEMA, which DataJoint 0.14 declared, the layout of DataJoint 2.x.

    All rows are read before and after, and have to be the same. Nobody may write meanwhile. The
    migration can be undone until --confirm.
    """
    if dry_run + undo + confirm > 1:
        raise click.UsageError("Give one of --dry-run, --undo and --confirm.")
    _named_schemas([schema])
    migration = Migration(conn(), schema, tell)
    if dry_run:
        changes = migration.changes()
        click.echo("\n".join(map(str, changes)) or "No column changes.")
    elif undo:
        migration.undo()
        click.echo(f"{schema} is as DataJoint 0.14 left it.")
    elif confirm:
        migration.confirm()
        click.echo(f"{schema} has the layout of DataJoint 2.x for good.")
    else:
        for table, count in migration.run().items():
            click.echo(f"{table}: {counted(count, 'row')}, all the same")
        click.echo(f"Try it, then: dj-dagster migrate {schema} --confirm, or --undo.")


def _verify(folder: str) -> int:
    found = verify_release(folder)
    for problem in found.problems:
        click.echo(problem)
    click.echo(str(found))
    return 1 if found.problems else 0


def _rerun(folder: str, modules: tuple[str, ...], tolerance: float) -> int:
    imported = modules_named(modules)
    shown = [type(node.table) for node in graph_of_named(imported).nodes]
    # A release also has the tables that results were made from, whose classes are elsewhere.
    classes = [
        each
        for each in classes_within_reach(imported, shown)
        if issubclass(each, AutoPopulate) and can_make(each) and each().connection is conn()
    ]
    found = rerun_release(folder, classes, conn(), tolerance=tolerance, say=tell)
    for difference in found.differences:
        click.echo(difference)
    click.echo(str(found))
    return 1 if found.differences else 0


def _schemas(names: Iterable[str]) -> list[Schema]:
    """Return existing schemas, or raise click.UsageError."""
    return [Schema(name, create_schema=False) for name in _named_schemas(names)]


def _named_schemas(names: Iterable[str]) -> list[str]:
    """Return the names of schemas after a look whether all exist, or raise click.UsageError."""
    connection = conn()
    with usage():
        return connection.checked_schemas(names)


def _claim(collector: GarbageCollector, schemas: tuple[str, ...]) -> None:
    others = collector.claim()
    click.echo(f"store {collector.store.name}: {', '.join(schemas)} belong to this database alone")
    for other in others:
        click.echo(f"  forgotten: {other}")


for command in (init, dev, status_command, errors_command, plan_command, populate_command):
    cli.add_command(command)
for command in (recompute, sync, doctor, compact_command):
    cli.add_command(command)


def _demo_program(which: str) -> ModuleType:
    """Import a demo, whose packages are an extra that other commands do not need."""
    package, extra, required = DEMOS[which]
    advice = f"pip install 'dj-dagster[{extra}]'"
    # The import of the tables makes a database before it comes to what may be missing.
    if find_spec(required) is None:
        raise DataJointError(f"The demo needs {required}: {advice}")
    try:
        return import_module(f"{package}.demo")
    except ModuleNotFoundError as error:
        raise DataJointError(f"The demo needs {error.name}: {advice}") from error


def _demo_folder() -> Path:
    """Return the folder of the demos' packages: inside this package, or the source tree's top."""
    here = Path(__file__).parent
    installed = here / "demo"
    return installed if installed.is_dir() else here.parent


class _Callable(ModuleType):
    """A module that can be called as DataJoint's function ``dj.cli`` once it is imported."""

    def __call__(self, args: Sequence[str] | None = None) -> None:
        """Start DataJoint's interpreter; see `dj_dagster.compat.cli`."""
        import_module("dj_dagster.compat.cli").cli(args)


sys.modules[__name__].__class__ = _Callable


def main() -> None:
    """Run the command; print errors in one line."""
    # At its end the interpreter would search all that was imported for garbage: 0.4 s of 1.8.
    atexit.register(freeze)
    try:
        cli()
    except DataJointError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)

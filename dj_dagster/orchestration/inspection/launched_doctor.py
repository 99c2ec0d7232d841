"""A diagnosis from where runs run: a small run, through the instance's own launcher, looks there.

The run needs neither a daemon nor the code location's server. It is told what this machine has, and
compares: versions of packages and of the code, the database, and a small object in each store.
"""

import platform
import sys
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    Field,
    MetadataValue,
    Noneable,
    OpExecutionContext,
    Permissive,
    in_process_executor,
    job,
    op,
)

from dj_dagster.default_connection import conn
from dj_dagster.errors import DataJointError, named_text
from dj_dagster.orchestration._dagster import (
    CodePointer,
    EngineEventData,
    JobPythonOrigin,
    LaunchRunContext,
    RepositoryPythonOrigin,
    WorkerStatus,
)
from dj_dagster.orchestration.inspection import project
from dj_dagster.orchestration.inspection.doctor import (
    Diagnosis,
    diagnose_machine,
    looked,
    missing_folder,
    used_stores,
)
from dj_dagster.orchestration.inspection.location import graph_of_modules
from dj_dagster.orchestration.runs.node_code import code_versions, package_versions
from dj_dagster.orchestration.sharing import launcher_name, launches_elsewhere
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.references import identity_of

# Dagster reads the annotation of `context` as an object: no postponed annotations here.

PATIENCE = 300.0
"""Seconds that the run may take, with its time in a queue."""

_BREATH = 0.5
_SILENT = 3
"""Looks at a launcher that has lost the run after which it is given up."""

_SAID = "dj_dagster/diagnosis"
"""The metadata of the run's event that holds what it has found."""

_LOCATION, _PROBE = "code location", "dj-dagster doctor"


def diagnose_launcher(
    modules: Sequence[str] = (),
    folder: Path | None = None,
    *,
    timeout: float = PATIENCE,
    tags: Mapping[str, str] | None = None,
) -> list[Diagnosis]:
    """Look at packages, settings, database, clock, stores and code location from where runs run.

    Parameters
    ----------
    modules, folder
        See `diagnose`.
    timeout
        Seconds after which the run is cancelled.
    tags
        Tags of the run, by which a launcher chooses where it runs: ``dj-slurm/partition``.
    """
    return list(looked("launcher", lambda: _launched(modules, folder, timeout, tags or {})))


def _launched(
    modules: Sequence[str], folder: Path | None, timeout: float, tags: Mapping[str, str]
) -> Iterator[Diagnosis]:
    with project.dagster_instance() as instance:
        name = launcher_name(instance)
        if not launches_elsewhere(instance):
            yield Diagnosis("launcher", "fine", f"{name}: runs are processes of this machine")
            return
        place = (folder or Path.cwd()).resolve()
        with _expected(modules, place) as expected:
            config = {"modules": list(modules), "folder": str(place), "expected": expected}
            run = _create(instance, config, tags)
            ended = _followed(instance, run, timeout)
        yield from _told(instance, ended, name)


def _told(instance: DagsterInstance, run: DagsterRun, name: str) -> Iterator[Diagnosis]:
    """Yield what a run has found, or why it has not."""
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    said = [event.get_dagster_event().engine_event_data.metadata for event in events]
    for metadata in said:
        if _SAID in metadata:
            found: Any = metadata[_SAID].value
            yield from (Diagnosis(**each) for each in found)
            return
    words = "; ".join(
        event.get_dagster_event().message or ""
        for event in instance.all_logs(run.run_id)
        if event.is_dagster_event and event.get_dagster_event().is_failure
    )
    yield Diagnosis(
        "launcher",
        "wrong",
        f"{name} did not bring run {run.run_id} to its end ({run.status.value}): {words}",
        "The run's log in the UI has the launcher's own words. Where runs run, the interpreter and "
        "dj_dagster must be there under the paths that the log names, and Dagster's storage must "
        "be reached.",
    )


def _create(
    instance: DagsterInstance, config: Mapping[str, Any], tags: Mapping[str, str]
) -> DagsterRun:
    pointer = CodePointer.from_module(__name__, "defs", working_directory=None)
    origin = RepositoryPythonOrigin(sys.executable, pointer, entry_point=["dagster"])
    run = instance.create_run_for_job(
        doctor_job,
        run_config={"ops": {look_around.name: {"config": config}}},
        tags=tags,
        job_code_origin=JobPythonOrigin(doctor_job.name, origin),
    )
    # The daemon's queue does not know a run without a code location.
    starts = DagsterEvent(DagsterEventType.RUN_STARTING.value, run.job_name)
    instance.report_dagster_event(starts, run_id=run.run_id)
    starting = _now(instance, run)
    instance.run_launcher.launch_run(LaunchRunContext(starting, None))
    return starting


def _followed(instance: DagsterInstance, run: DagsterRun, timeout: float) -> DagsterRun:
    """Return a run when it has ended; one that is lost or takes too long is ended here."""
    deadline, silent = time.monotonic() + timeout, 0
    launcher = instance.run_launcher
    while not run.is_finished:
        time.sleep(_BREATH)
        run = _now(instance, run)
        if run.status == DagsterRunStatus.STARTED and launcher.supports_check_run_worker_health:
            health = launcher.check_run_worker_health(run)
            lost = health.status in (WorkerStatus.FAILED, WorkerStatus.NOT_FOUND)
            silent = silent + 1 if lost else 0
            if silent >= _SILENT and not _now(instance, run).is_finished:
                instance.report_run_failed(run, health.msg)
        if time.monotonic() > deadline and not _now(instance, run).is_finished:
            words = launcher.get_run_worker_debug_info(run) or ""
            with suppress(Exception):
                launcher.terminate(run.run_id)
            instance.report_run_failed(run, f"It took longer than {timeout:.0f} s. {words}")
    return _now(instance, run)


def _now(instance: DagsterInstance, run: DagsterRun) -> DagsterRun:
    return instance.get_run_by_id(run.run_id) or run


@contextmanager
def _expected(modules: Sequence[str], folder: Path) -> Generator[dict[str, Any]]:
    """Tell what this machine has, with a small object in each store until the block ends."""
    connection = conn()
    graph = _graph(modules, folder)
    probes: dict[str, str] = {}
    try:
        for name in used_stores(connection):
            if missing_folder(connection, name) is not None:
                continue
            path = f"doctor-{uuid.uuid4().hex}"
            # What is wrong with it from here, `diagnose` says.
            with suppress(DataJointError):
                connection.stores.get(name).put(path, _PROBE.encode())
                probes[name] = path
        yield {
            "host": platform.node(),
            "packages": dict(package_versions(connection.job_settings.packages)),
            "code": code_versions(graph, graph.nodes),
            "url": connection.url,
            "databases": _identities(connection, graph),
            "stores": probes,
        }
    finally:
        for name, path in probes.items():
            with suppress(DataJointError):
                connection.stores.get(name).delete(path)


def _graph(modules: Sequence[str], folder: Path) -> TableGraph:
    try:
        return graph_of_modules(project.modules(modules, folder))
    except Exception:
        # The look at the code location says why.
        return TableGraph(())


def _identities(connection: Connection, graph: TableGraph) -> dict[str, str]:
    found = dict[str, str]()
    for schema in {node.name.schema for node in graph.nodes}:
        with suppress(DataJointError):
            if identity := identity_of(connection, schema, create=False):
                found[schema] = identity
    return found


CONFIG = {
    "modules": Field([str], default_value=[]),
    "folder": Field(Noneable(str), default_value=None),
    "expected": Field(Permissive(), default_value={}),
}


@op(config_schema=CONFIG)
def look_around(context: OpExecutionContext) -> None:
    """Look at the machine that executes this, and write what was found into the run's log."""
    config: Mapping[str, Any] = context.op_config
    expected, folder = config["expected"], Path(config["folder"] or Path.cwd())
    looks, graph = diagnose_machine(config["modules"], folder)
    found = [each for each in looks if each.state != "hint"]
    known = {each.what for each in found if each.state == "wrong"}
    if "database" not in known:
        found += looked("stores", lambda: _other_stores(expected.get("stores", {}), known))
        if _LOCATION not in known:
            found += looked("database", lambda: _other_database(expected, graph))
            found += looked("code", lambda: _other_code(expected, graph))
    found += _other_packages(expected)
    place = f"from {platform.node()}, in {Path.cwd()} with {sys.executable}"
    shown = [replace(each, found=f"{each.found}; {place}") for each in found[:1]] + found[1:]
    data = {_SAID: MetadataValue.json([asdict(each) for each in shown])}
    context.instance.report_engine_event(
        f"{sum(each.state == 'wrong' for each in found)} of {len(found)} looks found a fault.",
        context.run,
        EngineEventData(data),
    )


def _other_stores(probes: Mapping[str, str], known: set[str]) -> Iterator[Diagnosis]:
    """Yield the stores that are others here than on the machine of the command."""
    stores = conn().stores
    for name, path in probes.items():
        what = f"store {name}"
        if what in known:
            continue
        try:
            is_same = name in stores and stores.get(name).exists(path)
        except DataJointError as error:
            yield Diagnosis(what, "wrong", named_text(error))
            continue
        if not is_same:
            place = stores.get(name).url() if name in stores else "not configured"
            yield Diagnosis(
                what,
                "wrong",
                f"it is another one here ({place}): an object that was just written is not there",
                "Let all machines have the folder under one path, or use a bucket; give runs the "
                f"same settings stores.{name}.",
            )


def _other_database(expected: Mapping[str, Any], graph: TableGraph) -> Iterator[Diagnosis]:
    here, there = _identities(conn(), graph), expected.get("databases", {})
    known = here.keys() & there.keys()
    other = any(here[name] != there[name] for name in known)
    url = conn().url
    if other or (not known and url != expected.get("url", url)):
        yield Diagnosis(
            "database",
            "wrong",
            f"it is another one here, {url}",
            "Give runs the same DJ_DATABASE_URL, and use a server.",
        )


def _other_code(expected: Mapping[str, Any], graph: TableGraph) -> Iterator[Diagnosis]:
    here, there = code_versions(graph, graph.nodes), expected.get("code", {})
    other = [title for title, version in there.items() if here.get(title) != version]
    if other:
        yield Diagnosis(
            "code",
            "wrong",
            f"make of {', '.join(other)} has another version than on {expected['host']}",
            "Give all machines the same code.",
        )


def _other_packages(expected: Mapping[str, Any]) -> Iterator[Diagnosis]:
    there: Mapping[str, str] = expected.get("packages", {})
    here = package_versions(tuple(name for name in there if name != "python"))
    other = [
        f"{name} {here.get(name)} (there {version})"
        for name, version in there.items()
        if here.get(name) != version
    ]
    if other:
        yield Diagnosis(
            "packages",
            "wrong",
            f"{', '.join(other)} differ from those on {expected['host']}",
            "Install the same versions on all machines, from a lock file.",
        )


@job(name="dj_dagster_doctor", executor_def=in_process_executor)
def doctor_job() -> None:
    """Look at the machine that executes this."""
    look_around()


defs = Definitions(jobs=[doctor_job])

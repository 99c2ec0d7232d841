"""A diagnosis of a project's setup: what is wrong, and what to do."""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
import yaml
from dagster import DagsterInstance
from packaging.requirements import Requirement

from dj_dagster.default_connection import config, conn
from dj_dagster.errors import ConfigurationError, DataJointError, counted, named_text, text_of
from dj_dagster.model.types import parse_type
from dj_dagster.objects.stores.store_settings import FileStoreSettings
from dj_dagster.orchestration.inspection import project
from dj_dagster.orchestration.inspection.location import graph_of_modules
from dj_dagster.orchestration.sharing import (
    launcher_name,
    launches_elsewhere,
    stored_attributes,
    unshared,
    unshared_database,
)
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.backends.common import as_datetime
from dj_dagster.relational.database.connection import Connection
from dj_dagster.settings_mapping import CONFIG_FILE, find_config_file

State = Literal["fine", "hint", "wrong"]

OWN = "dj-dagster"

TWINS = ("dagster-webserver", "dagster-graphql", "dagster-dg-cli")
"""Packages that have the version of Dagster."""

CLOCK, CLOCK_STORE = 2.0, 60.0
"""Seconds by which the clocks of the database and of a store may differ."""

QUARTER = 900.0
"""Time zones differ by whole quarters of an hour, in seconds."""


QUEUE = "QueuedRunCoordinator"
"""The coordinator that bounds the number of runs at once."""


@dataclass(frozen=True)
class Diagnosis:
    """One finding of the doctor.

    Attributes
    ----------
    what
        The part that was looked at: ``"database"``, ``"store raw"``.
    state
        ``"fine"``, ``"hint"`` for what may be meant so, or ``"wrong"``.
    found
        The finding in words.
    advice
        The advice; empty if the part is fine.
    """

    what: str
    state: State
    found: str
    advice: str = ""


def diagnose(modules: Sequence[str] = (), folder: Path | None = None) -> list[Diagnosis]:
    """Look at packages, settings, database, clock, stores, code location and Dagster's instance.

    One small object is written into each store and removed again; nothing else is changed. A
    configured store whose folder is not there is left so.

    Parameters
    ----------
    modules
        Python modules that have definitions or a schema; by default those that the folder names.
    folder
        The project's folder, by default the working directory.
    """
    found, graph = diagnose_machine(modules, folder)
    return [*found, *looked("dagster.yaml", lambda: _instance(graph))]


def diagnose_machine(
    modules: Sequence[str] = (), folder: Path | None = None
) -> tuple[list[Diagnosis], TableGraph]:
    """Look at what each machine needs that executes runs; return the tables, too, if found.

    For the parameters see `diagnose`.
    """
    graphs = list[TableGraph]()
    found = [*_versions(), *looked("settings", _settings)]
    found += looked("database", _database)
    if all(each.state != "wrong" for each in found if each.what == "database"):
        # The stores are those of the tables.
        location = [*looked("code location", lambda: _location(modules, folder, graphs))]
        nodes = graphs[0].nodes if graphs else ()
        found += [*looked("clock", _clock), *_stores(conn(), nodes), *location]
    return found, graphs[0] if graphs else TableGraph(())


def looked(what: str, look: Callable[[], Iterable[Diagnosis]]) -> Iterator[Diagnosis]:
    """Yield what a look finds; an error that ends it is what it has found."""
    try:
        yield from look()
    except DataJointError as error:
        yield Diagnosis(what, "wrong", named_text(error), _ADVICE.get(what, ""))
    except Exception as error:
        # A module of the user's own, or Dagster, may raise anything.
        text = f"{type(error).__name__}: {error}"
        yield Diagnosis(what, "wrong", text, _ADVICE.get(what, ""))


_ADVICE = {
    "settings": "Correct the file or the variable that the message names.",
    "database": "Start the server, or correct DJ_DATABASE_URL, or DJ_HOST, DJ_USER and DJ_PASS.",
    "clock": "The user needs the right to read from the database.",
    "code location": "Correct the module: `dagster definitions validate` shows where it fails.",
    "dagster.yaml": "Correct dagster.yaml, or the DAGSTER_HOME of the environment.",
}


def _versions() -> Iterator[Diagnosis]:
    yield Diagnosis("Python", "fine", f"{platform.python_version()} on {platform.platform()}")
    wrong = False
    for text in metadata.requires(OWN) or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        have = _version(requirement.name)
        if have is None or not requirement.specifier.contains(have, prereleases=True):
            wrong = True
            found = f"{have or 'missing'}, and {OWN} needs {requirement.specifier}"
            advice = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Diagnosis(requirement.name, "wrong", found, advice)
    dagster = _version("dagster")
    for name in TWINS:
        have = _version(name)
        if have is not None and have != dagster:
            wrong = True
            advice = f"pip install '{name}=={dagster}'"
            yield Diagnosis(name, "wrong", f"{have}, and dagster is {dagster}", advice)
    if _version(TWINS[0]) is None:
        yield Diagnosis(TWINS[0], "hint", "missing: there is no UI", f"pip install '{OWN}[ui]'")
    if not wrong:
        yield Diagnosis("packages", "fine", f"{OWN} {_version(OWN)}, dagster {dagster}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _settings() -> Iterator[Diagnosis]:
    config()
    file = os.environ.get(CONFIG_FILE) or find_config_file()
    names = sorted(name for name in os.environ if name.startswith("DJ_"))
    from_environment = f"the environment ({', '.join(names)})" if names else ""
    sources = [str(each) for each in (file, from_environment) if each]
    yield Diagnosis("settings", "fine", " and ".join(sources) or "the defaults")


def _database() -> Iterator[Diagnosis]:
    config().check_place()
    connection = conn()
    began = time.perf_counter()
    schemas = connection.schema_names()
    took = 1000 * (time.perf_counter() - began)
    found = f"{connection.url} answers in {took:.0f} ms; schemas: {len(schemas)}"
    yield Diagnosis("database", "fine", found)
    with connection.cursor() as session:
        if not connection.backend.is_writable(session):
            found = f"{connection.url} can be read, and not written"
            advice = "Give this user the right to write the file and its folder."
            yield Diagnosis("database file", "wrong", found, advice)


def _clock() -> Iterator[Diagnosis]:
    connection = conn()
    now = connection.backend.now(parse_type("datetime(3)"))
    before = datetime.now(UTC).replace(tzinfo=None)
    theirs = as_datetime(connection.rows(sa.select(now))[0][0])
    after = datetime.now(UTC).replace(tzinfo=None)
    off = (theirs - before - (after - before) / 2).total_seconds()
    # The database may tell the time of its own zone.
    off -= QUARTER * round(off / QUARTER)
    if abs(off) <= CLOCK + (after - before).total_seconds():
        yield Diagnosis("clock", "fine", f"the database's clock differs by {abs(off):.1f} s")
        return
    word = "ahead of" if off > 0 else "behind"
    yield Diagnosis(
        "clock",
        "wrong",
        f"the database's clock is {abs(off):.0f} s {word} this machine's",
        "Let both follow a time server (NTP): times of jobs and of Dagster's events are compared.",
    )


def used_stores(connection: Connection) -> list[str]:
    """Return the stores in use: the embedded one is there beside others that take its place."""
    given, default = config()["stores"], connection.stores.resolve()
    return [name for name in connection.stores.names if name in given or name == default]


def _stores(connection: Connection, nodes: Sequence[TableNode]) -> Iterator[Diagnosis]:
    # The folder of the embedded store may be one that a server's user may not write.
    for name in used_stores(connection):
        yield from looked(f"store {name}", lambda name=name: _store(connection, name, nodes))
    lacking = dict[tuple[str, str], list[str]]()
    for node in nodes:
        stores = node.table.connection.stores
        for attribute, chain in stored_attributes(node):
            try:
                stores.resolve(chain.store, chain.codecs[-1].default_store)
            except ConfigurationError as error:
                problem = chain.store or "default", text_of(error)
                lacking.setdefault(problem, []).append(f"{node.title}.{attribute}")
    for (name, problem), attributes in lacking.items():
        # The error says by itself what to do.
        what = f"{problem} Values of {', '.join(attributes)} are in it."
        yield Diagnosis(f"store {name}", "wrong", what)


def missing_folder(connection: Connection, name: str) -> Path | None:
    """Return the folder of a configured store if it is not there, as a share that is not mounted.

    A write would make it, and hide that it is missing.
    """
    settings = connection.stores.settings(name)
    if name not in config()["stores"] or not isinstance(settings, FileStoreSettings):
        return None
    folder = Path(settings.location)
    return None if os.path.lexists(folder) else folder


def _referring(connection: Connection, name: str, nodes: Iterable[TableNode]) -> Iterator[str]:
    """Yield the attributes of tables that have values in a store."""
    for node in nodes:
        table = node.table
        for attribute, chain in stored_attributes(node) if table.connection is connection else ():
            with suppress(DataJointError):
                of = connection.stores.resolve(chain.store, chain.codecs[-1].default_store)
                if of == name and table & f"`{attribute}` IS NOT NULL":
                    yield f"{node.title}.{attribute}"


def _store(connection: Connection, name: str, nodes: Sequence[TableNode]) -> Iterator[Diagnosis]:
    folder = missing_folder(connection, name)
    if folder is not None:
        referring = list(_referring(connection, name, nodes))
        found = f"{folder} is not there"
        yield Diagnosis(
            f"store {name}",
            "wrong" if referring else "hint",
            f"{found}, and values of {', '.join(referring)} are in it" if referring else found,
            "Mount it if it is a share, or bring it back; a new one is made at the first write.",
        )
        return
    store, what = connection.stores.get(name), f"store {name}"
    path, data = f"doctor-{uuid.uuid4().hex}", b"dj-dagster doctor"
    advice = "Give this user the right to write, read and delete there, or correct the settings "
    advice += f"stores.{name}."
    try:
        began = time.time()
        store.put(path, data)
        same, modified = store.get(path) == data, store.stat(path).modified
        store.delete(path)
    except DataJointError as error:
        yield Diagnosis(what, "wrong", named_text(error), advice)
        return
    place = store.url()
    if not same:
        yield Diagnosis(what, "wrong", f"{place} gives back other bytes than were written", advice)
        return
    off = modified - began
    if abs(off) > CLOCK_STORE:
        yield Diagnosis(
            what,
            "wrong",
            f"{place} works, but its clock differs by {abs(off):.0f} s from this machine's",
            "Let both follow a time server (NTP): `gc` spares objects by their age.",
        )
        return
    yield Diagnosis(what, "fine", f"{place} was written, read and cleared")


def _location(
    modules: Sequence[str], folder: Path | None, graphs: list[TableGraph]
) -> Iterator[Diagnosis]:
    try:
        graph = graph_of_modules(project.modules(modules, folder))
    except ConfigurationError as error:
        # It says by itself what to do.
        yield Diagnosis("code location", "wrong", text_of(error))
        return
    graphs.append(graph)
    schemas = sorted({node.name.schema for node in graph.nodes})
    filled = len(graph.populated)
    found = f"{counted(len(graph.nodes), 'table')} in {', '.join(schemas)}; make fills {filled}"
    if filled:
        yield Diagnosis("code location", "fine", found)
        return
    yield Diagnosis(
        "code location",
        "hint",
        found,
        "Give build_definitions the schema whose classes have a make, not the names of schemas.",
    )


def _instance(graph: TableGraph) -> Iterator[Diagnosis]:
    home = os.environ.get("DAGSTER_HOME") or None
    file = Path("dagster.yaml")
    if home is None and not file.is_file():
        yield Diagnosis(
            "dagster.yaml",
            "hint",
            "there is none here, and DAGSTER_HOME is not set: the history is lost at Dagster's end",
            f"Run this in the project's folder, or set DAGSTER_HOME; `{OWN} init` writes a file.",
        )
        return
    if home is not None and file.is_file() and Path(home).resolve() != Path.cwd():
        yield Diagnosis(
            "dagster.yaml",
            "hint",
            f"the file in this folder is not read, as DAGSTER_HOME is {home}",
            "Unset DAGSTER_HOME, set it to this folder, or remove the file.",
        )
    lost = list(_history(file)) if home is None else []
    yield from lost
    with project.dagster_instance() as instance:
        yield from _launcher(instance, graph)
        for look in (_coordinator, _monitoring, _daemon, _sensors):
            yield from look(instance)
    if not lost:
        yield Diagnosis("dagster.yaml", "fine", f"the instance is that of {home or Path.cwd()}")


def _history(file: Path) -> Iterator[Diagnosis]:
    """Look whether `dagster dev` keeps its history, which it does not by default."""
    said: dict[str, object] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    lacking = [name for name in ("storage", "local_artifact_storage") if name not in said]
    if lacking:
        yield Diagnosis(
            "dagster.yaml",
            "hint",
            f"it does not set {' and '.join(lacking)}: the history is lost at Dagster's end",
            f"Set them with a base_dir, as in the file that `{OWN} init` writes.",
        )


def _launcher(instance: DagsterInstance, graph: TableGraph) -> Iterator[Diagnosis]:
    name = launcher_name(instance)
    if not launches_elsewhere(instance):
        yield Diagnosis("launcher", "fine", f"{name}: runs are processes of this machine")
        return
    found = unshared(graph.nodes) if graph.nodes else unshared_database(conn())
    for each in found:
        what = f"{name} starts runs on other machines, and {each.what}"
        yield Diagnosis("launcher", "wrong", what, each.advice)
    if not found:
        yield Diagnosis("launcher", "fine", f"{name}: runs are on other machines")


def _coordinator(instance: DagsterInstance) -> Iterator[Diagnosis]:
    names = [cls.__name__ for cls in type(instance.run_coordinator).__mro__]
    if QUEUE not in names:
        yield Diagnosis(
            "run queue",
            "hint",
            "runs start at once, however many there are",
            f"Set run_coordinator to {QUEUE}, with max_concurrent_runs.",
        )
    else:
        yield Diagnosis("run queue", "fine", names[0])


def _monitoring(instance: DagsterInstance) -> Iterator[Diagnosis]:
    if not instance.run_monitoring_enabled:
        yield Diagnosis(
            "run monitoring",
            "hint",
            "off: a run whose process has died stays as started, and its keys wait for it",
            "Write run_monitoring: {enabled: true} into dagster.yaml.",
        )


def _daemon(instance: DagsterInstance) -> Iterator[Diagnosis]:
    states = instance.get_daemon_statuses()
    down = sorted(name for name, each in states.items() if each.required and not each.healthy)
    if not down:
        yield Diagnosis("daemon", "fine", "running")
        return
    yield Diagnosis(
        "daemon",
        "hint",
        "not running, so that the sensor does not see new rows"
        if "SENSOR" in down
        else f"{', '.join(down)} not running",
        f"Start `{OWN} dev`, or `dagster-daemon run` beside `dagster-webserver`.",
    )


def _sensors(instance: DagsterInstance) -> Iterator[Diagnosis]:
    for state in instance.all_instigator_state():
        if state.instigator_name.startswith("populate_sensor") and not state.is_running:
            yield Diagnosis(
                "sensor",
                "hint",
                f"{state.instigator_name} is turned off, so that new rows are not computed",
                "Turn it on under Automation in the UI.",
            )

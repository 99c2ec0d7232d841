"""The numbers of a pipeline's keys by their state, and its failed keys with their errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from dagster import DagsterInstance, RunFailureSensorContext

from dj_dagster.errors import DataJointError, named_text
from dj_dagster.model.heading import Value
from dj_dagster.model.names import Tier
from dj_dagster.orchestration.inspection.location import Given, graph_of
from dj_dagster.orchestration.runs.run_records import ALL
from dj_dagster.orchestration.runs.stale_marks import ages
from dj_dagster.orchestration.tables.grains import encode_key
from dj_dagster.orchestration.tables.table_graph import TableGraph, Tables
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.algebra.operators import project
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import make_window
from dj_dagster.workflow.jobs import queues
from dj_dagster.workflow.make import without
from dj_dagster.workflow.pending import rows_of


@dataclass(frozen=True)
class TableStatus:
    """The state of one table.

    The numbers of keys are None for tables that `make` does not fill here.

    Attributes
    ----------
    table, tier
        The table as users name it, ``"lab.Session"``, and its tier.
    rows
        The number of its rows.
    keys, made
        The number of keys that `make` can be given, and of those that are in the table.
    pending, running, failed
        The numbers of the other keys: those that wait, those that a worker has claimed, and those
        whose last `make` has failed.
    stale, unknown
        The numbers of keys in the table that other code, or rows that have changed since, have
        made; and of those for which this is not known. None if they were not counted.
    error
        The reason why the table could not be read, else empty. All numbers are None then.
    """

    table: str
    tier: str
    rows: int | None = None
    keys: int | None = None
    made: int | None = None
    pending: int | None = None
    running: int | None = None
    failed: int | None = None
    stale: int | None = None
    unknown: int | None = None
    error: str = ""


def status(
    given: Given | Iterable[Given],
    tables: Tables = ALL,
    *,
    stale: bool = True,
    connection: Connection | None = None,
    instance: DagsterInstance | None = None,
) -> list[TableStatus]:
    """Return the state of tables, parents first; nothing is changed.

    Parameters
    ----------
    given, connection
        The result of `build_definitions`, or what it takes.
    tables
        Tables by name, class or asset key; ``"all"`` for all. See `dj_dagster.model.selection` for
        the names.
    stale
        Whether to find the stale keys, for which the rows that each key refers to are read.
    instance
        The Dagster instance that knows the code versions of keys without a note in the database.

    Raises
    ------
    ConfigurationError
        When a name does not stand for a table, or `given` does not have tables.

    Examples
    --------
    >>> from dj_dagster.relational.schemas.schema import Schema
    >>> from dj_dagster.relational.table import Manual
    >>> schema = Schema("lab", connection=Connection("sqlite:///:memory:"))
    >>> @schema
    ... class Subject(Manual):
    ...     definition = "subject_id : int32"
    >>> Subject.insert([(1,), (2,)])
    >>> [(each.table, each.rows) for each in status(schema)]
    [('lab.Subject', 2)]
    """
    graph = graph_of(given, connection=connection)
    where = instance or DagsterInstance.ephemeral()
    return [_status(where, graph, node, stale=stale) for node in named(graph, tables)]


def named(graph: TableGraph, tables: Tables) -> list[TableNode]:
    """Return the tables that users mean, parents first; all of them for ``"all"``.

    Raises
    ------
    ConfigurationError
        When a name does not stand for a table.
    """
    if isinstance(tables, str) and tables == ALL:
        return list(graph.nodes)
    return graph.chosen(tables, "tables")


def _status(
    instance: DagsterInstance, graph: TableGraph, node: TableNode, *, stale: bool
) -> TableStatus:
    tier = node.tier.value
    try:
        rows = len(node.table)
        if not node.populated:
            return TableStatus(node.title, tier, rows)
        remaining, keys = node.populator.progress()
        jobs = _jobs(node)
        waiting = max(0, remaining - sum(jobs.values()))
        old = unknown = None
        if stale:
            *_, found = ages(instance, graph, node)
            old, unknown = found.stale, found.unknown
    except DataJointError as error:
        return TableStatus(node.title, tier, error=named_text(error))
    return TableStatus(
        node.title,
        tier,
        rows,
        keys,
        keys - remaining,
        waiting,
        jobs["reserved"],
        jobs["error"],
        old,
        unknown,
    )


def _jobs(node: TableNode) -> dict[str, int]:
    """Return the numbers of unmade keys whose jobs are in certain statuses."""
    counts: dict[str, int] = {"reserved": 0, "error": 0, "ignore": 0}
    # A queue that does not exist is not created, because looking changes nothing.
    for queue in queues(node.table.connection, [node.table]):
        for state in counts:
            unmade = without(queue.rows.node(state), rows_of(node.table))
            counts[state] = fetch.count(queue.connection, unmade)
    return counts


@dataclass(frozen=True)
class FailedKey:
    """A key whose last `make` has failed.

    Attributes
    ----------
    table
        The table as users name it.
    key
        The key that `make` was given.
    partition
        The key as one text, as Dagster spells it: ``"subject_id=1/session_id=3"``.
    error, traceback
        The text of the error, and where it was raised; the latter may be empty.
    time
        The time at which it failed, by the clock of the database and with its time zone.
    """

    table: str
    key: Mapping[str, Value]
    partition: str
    error: str
    traceback: str
    time: datetime | None


def failed_keys(
    given: Given | Iterable[Given],
    tables: Tables = ALL,
    *,
    connection: Connection | None = None,
) -> list[FailedKey]:
    """Return the failed keys of tables with their errors, parents first; nothing is changed.

    Errors are kept in job queues, which only tables with foreign keys in their primary key have.

    Parameters
    ----------
    given, tables, connection
        See `status`.

    Raises
    ------
    ConfigurationError
        See `status`.
    DataJointError
        When the database cannot be used.
    """
    graph = graph_of(given, connection=connection)
    return [each for node in named(graph, tables) for each in _failed(node)]


def _failed(node: TableNode) -> Iterator[FailedKey]:
    # Tables that another code location fills have queues as well.
    if node.tier not in (Tier.IMPORTED, Tier.COMPUTED):
        return
    for queue in queues(node.table.connection, [node.table]):
        jobs = queue.rows
        unmade = without(jobs.node("error"), rows_of(node.table))
        names = [*jobs.key, "error_message", "error_stack", "completed_time"]
        found = project(unmade, *names, completed_unix="unix_timestamp(completed_time)")
        window = make_window(jobs.key, None, None, found.heading)
        attributes = [jobs.heading[name] for name in jobs.key]
        for *row, error, stack, time, seconds in fetch.rows(
            jobs.connection, found, [*names, "completed_unix"], window
        ):
            key = dict(zip(jobs.key, row, strict=True))
            partition = encode_key(attributes, key)
            at = None if time is None else _zoned(time, float(seconds))
            yield FailedKey(node.title, key, partition, error, str(stack or ""), at)


def _zoned(time: datetime, seconds: float) -> datetime:
    """Return a time of the database's zone with that zone, known from the seconds since 1970.

    Databases keep times without a zone. The zone is that of the session, and differs in summer.
    """
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    minutes = round((time - moment).total_seconds() / 60)
    return time.replace(tzinfo=timezone(timedelta(minutes=minutes)))


def failed_in_run(context: RunFailureSensorContext) -> dict[str, str]:
    """Return the keys that have failed in a run, with their errors, for a sensor of failed runs.

    Parameters
    ----------
    context
        The context that a function with `dagster.run_failure_sensor` is given.

    Returns
    -------
    dict
        ``{"lab.Spikes session_id=3": "ValueError: ..."}``, of 500 keys at most. It is empty if
        the run has failed for another reason, which ``context.failure_event.message`` tells.
    """
    found: dict[str, str] = {}
    for event in context.get_step_failure_events():
        failure = event.step_failure_data.user_failure_data
        listed: Any = failure.metadata.get("failed_keys") if failure is not None else None
        if listed is not None:
            found |= listed.value
    return found

"""Pending, failed and stale keys made in this process, without a run of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dagster import DagsterInstance

from dj_dagster.orchestration.inspection.location import Given, graph_of
from dj_dagster.orchestration.inspection.status import failed_keys
from dj_dagster.orchestration.jobs.populate_job import (
    check_limit,
    check_restriction,
    check_stale,
    chosen_tables,
    keys_to_make_again,
)
from dj_dagster.orchestration.runs.populate_step import Progress
from dj_dagster.orchestration.runs.run_records import ALL
from dj_dagster.orchestration.runs.stale_marks import Aging
from dj_dagster.orchestration.runs.work import (
    HERE,
    RECOMPUTE,
    STALE,
    OnExisting,
    Work,
    made_again,
    outcomes,
)
from dj_dagster.orchestration.tables.table_graph import Tables
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.algebra.condition import repeatable
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.populate import Key, KeyOutcome

Told = Callable[[str, int, int], None]
"""Called with a table, the number of its keys that have an outcome, and the number of all."""


def populate(
    given: Given | Iterable[Given],
    tables: Tables,
    *restrictions: object,
    limit: int | None = None,
    retry_errors: bool = False,
    processes: int = 1,
    progress: Told | None = None,
    connection: Connection | None = None,
) -> list[Progress]:
    """Make pending keys of tables, parents first, in this process.

    The other keys are made although one fails. Several such calls, and Dagster's own runs, share
    the keys. Dagster need not run; its sensor shows the outcome when it evaluates the tables.

    Parameters
    ----------
    given, connection
        The result of `build_definitions`, or what it takes.
    tables
        Tables by name, class or asset key; ``"all"`` for those that `make` fills. See
        `dj_dagster.model.selection` for the names.
    *restrictions
        Conditions on the keys, all of which must hold for each of the tables.
    limit
        The number of keys of each table, at most.
    retry_errors
        Whether keys are tried again that failed before.
    processes
        The number of worker processes.
    progress
        Called after each key.

    Returns
    -------
    list of Progress
        The outcomes of the keys, by table.

    Raises
    ------
    ConfigurationError
        When `tables` is empty, or has a name that is not the name of a table that `make` fills; if
        `limit` or `processes` is below 1.
    QueryError
        If a restriction would choose every key by accident.
    """
    nodes = chosen_tables(graph_of(given, connection=connection), tables)
    work = Work(processes)
    check_limit(limit)
    restrictions = repeatable(restrictions)
    for restriction in restrictions:
        check_restriction(nodes, restriction)
    found: list[Progress] = []
    for node in nodes:
        keys = node.pending(*restrictions, limit=limit, retry_errors=retry_errors)
        found.append(_made(node, keys, work, progress, retry_errors=retry_errors))
    return found


def retry_failed(
    given: Given | Iterable[Given],
    tables: Tables = ALL,
    *,
    progress: Told | None = None,
    connection: Connection | None = None,
) -> list[Progress]:
    """Make the failed keys of tables once more, parents first, in this process.

    Parameters
    ----------
    given, tables, progress, connection
        See `populate`.

    Returns
    -------
    list of Progress
        The outcomes of the keys, by table.

    Raises
    ------
    ConfigurationError
        See `populate`.
    """
    graph = graph_of(given, connection=connection)
    found: list[Progress] = []
    for node in chosen_tables(graph, tables):
        keys = [dict(each.key) for each in failed_keys(graph, node.key)]
        if keys:
            found.append(_made(node, keys, Work(), progress, retry_errors=True))
    return found


def recompute(
    given: Given | Iterable[Given],
    tables: Tables = ALL,
    *,
    stale: bool = True,
    delete_entered: bool = False,
    progress: Told | None = None,
    connection: Connection | None = None,
    instance: DagsterInstance | None = None,
) -> list[Progress]:
    """Make stale keys again, with all that depends on them, in this process.

    The rows of a key are deleted before its `make` is called: if that fails, they stay deleted. The
    other keys are made although one fails. Dagster need not run; its sensor shows the outcome
    when it evaluates the tables.

    Parameters
    ----------
    given, tables, progress, connection
        See `populate`.
    stale
        Whether only stale keys are made again; otherwise all keys of the tables are.
    delete_entered
        Whether dependent rows that no `make` brings back are deleted: rows that people entered, and
        rows whose key is not in the key source any more. Otherwise such keys are left.
    instance
        The Dagster instance that knows the code versions of keys without a note in the database.

    Returns
    -------
    list of Progress
        The outcomes of the keys, by table.

    Raises
    ------
    ConfigurationError
        See `populate`.
    DataJointError
        When the database cannot be used.
    """
    check_stale(stale)
    graph = graph_of(given, connection=connection)
    where = instance or DagsterInstance.ephemeral()
    existing = OnExisting(STALE if stale else RECOMPUTE, delete_entered, {})
    found: list[Progress] = []
    for node, keys in keys_to_make_again(where, graph, tables, existing):
        aging = Aging(where, graph, node)
        made = made_again(graph, aging, node, keys, existing, retry_errors=True, work=HERE)
        found.append(_counted(node, len(keys), made, progress))
    return found


def _made(
    node: TableNode, keys: Sequence[Key], work: Work, told: Told | None, *, retry_errors: bool
) -> Progress:
    made = outcomes(node, keys, retry_errors=retry_errors, work=work)
    return _counted(node, len(keys), made, told)


def _counted(
    node: TableNode, total: int, made: Iterable[KeyOutcome], told: Told | None
) -> Progress:
    progress = Progress(node.title, total=total)
    for outcome in made:
        partition = node.grain.encode(outcome.key) if node.grain else node.title
        progress.add(partition, outcome)
        if told is not None:
            told(node.title, min(progress.done, total), total)
    return progress

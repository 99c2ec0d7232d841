"""Jobs from the launchpad that make keys, populate and recompute, and schedules of their runs."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dagster import Any as AnyConfig
from dagster import (
    AssetKey,
    DagsterInstance,
    DefaultScheduleStatus,
    Field,
    JobDefinition,
    OpExecutionContext,
    ScalarUnion,
    ScheduleDefinition,
    op,
)
from dagster import job as dagster_job

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.heading import Key
from dj_dagster.model.selection import texts
from dj_dagster.orchestration.arguments import check_kind
from dj_dagster.orchestration.merge import TABLES, belonging, renamable
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.node_code import planned_tags
from dj_dagster.orchestration.runs.populate_step import (
    Progress,
    Step,
    populate_table,
    raise_if_failed,
)
from dj_dagster.orchestration.runs.run_records import ALL, TABLES_TAG, run_tags
from dj_dagster.orchestration.runs.stale_marks import Aging
from dj_dagster.orchestration.runs.work import (
    DELETE_ENTERED,
    HERE,
    SKIP,
    STALE,
    OnExisting,
    Work,
    on_existing,
)
from dj_dagster.orchestration.sharing import refuse_unshared
from dj_dagster.orchestration.tables.partitions import sync_partitions
from dj_dagster.orchestration.tables.table_graph import TableGraph, Tables
from dj_dagster.orchestration.tables.table_node import OwnPopulator, TableNode
from dj_dagster.relational.algebra.condition import refuse_oversights
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.workflow.make import KeySource

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


JOB_NAME = "populate"
OP_NAME = "populate_tables"  # a job and an op cannot share a name

TABLES_CONFIG = Field(
    ScalarUnion(str, [str]),
    default_value=ALL,
    description="Tables as 'Processed', 'lab.*' or 'Session+'; all: those that make fills.",
)

CONFIG = {
    "tables": TABLES_CONFIG,
    "restriction": Field(
        AnyConfig,
        is_required=False,
        description='Which keys: {subject_id: 3}, "subject_id < 3", or a list of which any holds.',
    ),
    "limit": Field(int, is_required=False, description="Keys per table, at most."),
    "retry_errors": Field(
        bool, default_value=False, description="Whether to try keys again that failed before."
    ),
    "on_existing": on_existing(SKIP),
    "delete_entered": DELETE_ENTERED,
}


def populate_job(pipeline: Pipeline) -> JobDefinition:
    """Return the populate job, which by default makes everything that is pending.

    Tables are filled parents first, so that one launch fills a chain of them.
    """
    return renamable(partial(_populate_job, pipeline.graph, pipeline.works), pipeline)


def _populate_job(graph: TableGraph, works: Mapping[AssetKey, Work], end: str) -> JobDefinition:

    @op(name=OP_NAME + end, config_schema=CONFIG, tags=planned_tags(graph, graph.populated))
    def populate(context: OpExecutionContext) -> None:
        refuse_unshared(context.instance, graph)
        config: dict[str, Any] = context.op_config
        nodes = chosen_tables(graph, config["tables"])
        check_limit(config.get("limit"))
        if "restriction" in config:
            check_restriction(nodes, config["restriction"])
        step = Step.of(context, graph, nodes)
        progress = [_populate(step, config, graph, n, works.get(n.key, HERE)) for n in nodes]
        end_run(context, nodes, progress)

    @dagster_job(
        name=JOB_NAME + end,
        description="Makes what is pending, in all tables or in those that the config names.",
    )
    def populate_tables() -> None:
        populate()

    return populate_tables


def chosen_tables(graph: TableGraph, given: Tables, place: str = "tables") -> list[TableNode]:
    """Return the tables that users mean, parents first; those that `make` fills for ``"all"``.

    Raises
    ------
    ConfigurationError
        When `given` is empty, or has a name that does not stand for a table that `make` fills.
    """
    names = table_names(given, place)
    return list(graph.populated) if names == ALL else graph.filled(names, place)


def table_names(given: Tables, place: str = "tables") -> str | list[str]:
    """Return the names of tables as texts, a single name as a list of one; ``"all"`` as it is.

    Raises
    ------
    ConfigurationError
        When `given` is empty, or has something that does not stand for a table.
    """
    if isinstance(given, str) and given == ALL:
        return ALL
    found = texts(given, place)
    if not found:
        raise ConfigurationError(f"An empty list of tables is none: name some, or write {ALL!r}.")
    return found


def check_stale(stale: object) -> None:
    """Refuse other values than True for stale keys and False for all.

    Raises
    ------
    ConfigurationError
        When `stale` is not a bool.
    """
    if not isinstance(stale, bool):
        raise ConfigurationError(
            f"stale is {stale!r}: write True for the stale keys, or False for all keys."
        )


def check_limit(limit: int | None) -> None:
    """Refuse a limit of less than one key.

    Raises
    ------
    ConfigurationError
        When `limit` is below 1, or not a whole number.
    """
    is_whole = isinstance(limit, int) and not isinstance(limit, bool)
    if limit is not None and not (is_whole and limit >= 1):
        raise ConfigurationError(
            f"limit is {limit!r}: write 1 or more, or leave it out for no limit."
        )


def check_said(restriction: object) -> None:
    """Refuse an empty restriction, alone or in a list, because it would choose every key.

    Raises
    ------
    ConfigurationError
        When the restriction is empty, or a truth value.
    """
    if isinstance(restriction, list):
        for each in restriction:
            check_said(each)
    elif isinstance(restriction, bool | None) or restriction == {} or not str(restriction).strip():
        raise ConfigurationError(
            f"A restriction of {restriction!r} restricts nothing: leave it out for all keys of the "
            "tables, or say which."
        )


def check_restriction(nodes: Iterable[TableNode], restriction: object) -> None:
    """Refuse a restriction that would choose every key of a table that lacks its names.

    Raises
    ------
    ConfigurationError
        If the restriction is empty, or has a name that none of the tables has; the error lists
        the names of the tables.
    QueryError
        If a table has none of the restriction's names.
    """
    check_said(restriction)
    nodes = list(nodes)
    _check_names(nodes, restriction)
    for node in nodes:
        if isinstance(node.populator, OwnPopulator):
            KeySource(node.populator.table).check(restriction)
        else:
            refuse_oversights((node.table & restriction).node, f"populate {node.title}")


def _check_names(nodes: Iterable[TableNode], restriction: object) -> None:
    known = {name: None for node in nodes for name in _names(node)}
    for name in _named(restriction):
        if name not in known:
            raise ConfigurationError(
                f"no table here has an attribute {name!r} to restrict by; there are "
                f"{', '.join(known) or 'none'}"
            )


def _names(node: TableNode) -> Iterable[str]:
    for table in (node.table, *node.table.parents(as_objects=True)):
        yield from table.heading.names
    if isinstance(node.populator, OwnPopulator):
        yield from node.populator.key_source.heading.names


def _named(restriction: object) -> Iterator[str]:
    if isinstance(restriction, dict):
        yield from map(_attribute, restriction)
    elif isinstance(restriction, list):
        for each in restriction:
            yield from _named(each)


def _attribute(name: object) -> str:
    """Return the attribute of a name, which may be a path into the attribute's JSON."""
    return str(name).partition(".")[0]


def fill(
    step: Step,
    graph: TableGraph,
    node: TableNode,
    keys: list[Key],
    *,
    retry_errors: bool,
    work: Work,
    existing: OnExisting,
) -> Progress:
    """Make keys of a table in a run without partitions; see `populate_table`."""
    if node.grain is not None:
        # Dagster does not show marks of unregistered partitions.
        sync_partitions(step.instance, graph, node.grain)
    return populate_table(
        step, graph, node, keys, retry_errors=retry_errors, work=work, existing=existing
    )


def end_run(
    context: OpExecutionContext, nodes: Iterable[TableNode], progress: Sequence[Progress]
) -> None:
    """Tag a run with its tables and keys, and fail it if keys have failed.

    Raises
    ------
    dagster.Failure
        See `raise_if_failed`.
    """
    keys = sum(each.done for each in progress)
    context.instance.add_run_tags(context.run_id, run_tags(nodes, keys))
    raise_if_failed(*progress)


def _populate(
    step: Step, config: Mapping[str, Any], graph: TableGraph, node: TableNode, work: Work
) -> Progress:
    restrictions = [config["restriction"]] if "restriction" in config else []
    retry_errors = config["retry_errors"] or step.again
    limit = config.get("limit")
    there = _there(step.instance, graph, node, config["on_existing"], restrictions)[:limit]
    left = None if limit is None else limit - len(there)
    new = node.pending(*restrictions, limit=left, retry_errors=retry_errors) if left != 0 else []
    existing = OnExisting(config["on_existing"], config["delete_entered"])
    return fill(
        step, graph, node, there + new, retry_errors=retry_errors, work=work, existing=existing
    )


def _there(
    instance: DagsterInstance,
    graph: TableGraph,
    node: TableNode,
    choice: str,
    restrictions: Sequence[object],
) -> list[Key]:
    """Return the keys of a table that are to be made again."""
    if choice == SKIP:
        return []
    if restrictions and isinstance(node.populator, OwnPopulator):
        # Like pending keys, these can be restricted by the parents' attributes too.
        chosen = KeySource(node.populator.table).restricted(*restrictions)
        restrictions = [QueryExpression(node.table.connection, chosen)]
    if choice == STALE:
        return Aging(instance, graph, node).stale(*restrictions)
    return [key for page in node.staleness.pages(*restrictions) for key in page]


RECOMPUTE_JOB = "recompute"
RECOMPUTE_OP = "recompute_stale"

RECOMPUTE_CONFIG = {"tables": TABLES_CONFIG, "delete_entered": DELETE_ENTERED}


def recompute_job(pipeline: Pipeline) -> JobDefinition:
    """Return the job that makes stale keys again, with all that depends on them, parents first."""
    return renamable(partial(_recompute_job, pipeline.graph, pipeline.works), pipeline)


def _recompute_job(graph: TableGraph, works: Mapping[AssetKey, Work], end: str) -> JobDefinition:

    tags = planned_tags(graph, graph.populated)

    @op(name=RECOMPUTE_OP + end, config_schema=RECOMPUTE_CONFIG, tags=tags)
    def recompute_op(context: OpExecutionContext) -> None:
        refuse_unshared(context.instance, graph)
        config: dict[str, Any] = context.op_config
        existing = OnExisting(STALE, config["delete_entered"], {})
        step = Step.of(context, graph, graph.populated)
        progress, nodes = list[Progress](), list[TableNode]()
        for node, keys in keys_to_make_again(context.instance, graph, config["tables"], existing):
            work = works.get(node.key, HERE)
            nodes.append(node)
            progress.append(
                fill(step, graph, node, keys, retry_errors=True, work=work, existing=existing)
            )
        end_run(context, nodes, progress)

    @dagster_job(
        name=RECOMPUTE_JOB + end,
        description="Makes again what is stale, for make or a row that it refers to has changed, "
        "with all that depends on it.",
    )
    def recompute_tables() -> None:
        recompute_op()

    return recompute_tables


def keys_to_make_again(
    instance: DagsterInstance,
    graph: TableGraph,
    tables: Tables,
    existing: OnExisting,
) -> Iterator[tuple[TableNode, list[Key]]]:
    """Yield tables, parents first, with their keys to make again.

    These are the chosen keys, and those that were deleted with the keys of parents.
    """
    wanted = {node.key for node in chosen_tables(graph, tables)}
    for node in graph.populated:
        keys: list[Key] = []
        if node.key in wanted:
            pages = node.staleness.pages()
            keys = (
                Aging(instance, graph, node).stale()
                if existing.choice == STALE
                else [key for page in pages for key in node.respelled(page)]
            )
        keys += node.respelled((existing.gone or {}).get(node.name, []))
        if keys:
            yield node, keys


def populate_schedule(
    cron: str,
    tables: Tables = ALL,
    *,
    restriction: object = None,
    limit: int | None = None,
    retry_errors: bool = False,
    name: str | None = None,
    timezone: str | None = None,
    running: bool = True,
) -> ScheduleDefinition:
    """Return a schedule that makes pending keys.

    Parameters
    ----------
    cron
        The times: minute, hour, day of the month, month, day of the week.
    tables
        Tables by name, class or asset key; ``"all"`` for those that `make` fills. See
        `dj_dagster.model.selection` for the names.
    restriction, limit, retry_errors
        See the config of the populate job.
    name
        The name of the schedule; by default made of the tables' names.
    timezone
        The time zone of `cron`, such as ``"Europe/Berlin"``; UTC by default.
    running
        Whether the schedule is on from the start.

    Raises
    ------
    ConfigurationError
        When the list of tables, or the restriction, is empty, or the limit is below 1.
    dagster.DagsterInvalidDefinitionError
        When `cron` or `timezone` is invalid.

    Examples
    --------
    >>> populate_schedule("0 3 * * *", tables=["lab.Processed"]).name
    'populate_lab_processed'
    """
    config: dict[str, object] = {"retry_errors": retry_errors}
    check_limit(limit)
    if limit is not None:
        config["limit"] = limit
    if restriction is not None:
        try:
            json.dumps(restriction)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The schedule's restriction cannot be kept in a run's config ({error}): write a "
                "text, or a dict or list of texts and numbers."
            ) from None
        if restriction == []:
            raise ConfigurationError(
                "The schedule's restriction is an empty list, which chooses nothing: leave it out "
                "for all keys of the tables, or say which."
            )
        check_said(restriction)
        config["restriction"] = restriction
    job = JOB_NAME, OP_NAME
    return _schedule(job, cron, tables, config, name, timezone, running=running)


def recompute_schedule(
    cron: str,
    tables: Tables = ALL,
    *,
    delete_entered: bool = False,
    name: str | None = None,
    timezone: str | None = None,
    running: bool = True,
) -> ScheduleDefinition:
    """Return a schedule that makes stale keys again.

    Parameters
    ----------
    delete_entered
        Whether dependent rows that no `make` brings back are deleted, see `recompute`. Otherwise
        such keys are left.
    cron, tables, name, timezone, running
        See `populate_schedule`.

    Raises
    ------
    ConfigurationError
        When the list of tables is empty.
    dagster.DagsterInvalidDefinitionError
        When `cron` or `timezone` is invalid.

    Examples
    --------
    >>> recompute_schedule("0 3 * * 6").name
    'recompute_all'
    """
    job = RECOMPUTE_JOB, RECOMPUTE_OP
    config = {"delete_entered": delete_entered}
    return _schedule(job, cron, tables, config, name, timezone, running=running)


def table_schedules(pipeline: Pipeline, schedules: Iterable[Any]) -> list[Any]:
    """Return schedules as those of a pipeline: definitions with several pipelines rename them.

    Raises
    ------
    ConfigurationError
        When a schedule has a name that does not stand for a table that `make` fills: it is refused
        when definitions are built, not when it runs.
    """
    found = list(schedules)
    for schedule in found:
        if isinstance(schedule, ScheduleDefinition) and TABLES in schedule.metadata:
            names: Any = schedule.metadata[TABLES].value
            chosen_tables(pipeline.graph, names, f"The schedule {schedule.name}")
    return belonging(pipeline, found)


def _schedule(
    of: tuple[str, str],
    cron: str,
    tables: Tables,
    config: Mapping[str, object],
    name: str | None,
    timezone: str | None,
    *,
    running: bool,
) -> ScheduleDefinition:
    """Return a schedule of one of our jobs, given with its op; the job's name can get an end."""
    check_kind(f"{of[0]}_schedule: running", running, bool, "True or False")
    job, op = of
    names = table_names(tables)
    text = names if isinstance(names, str) else ", ".join(names)
    return renamable(
        lambda end: ScheduleDefinition(
            name=name or _schedule_name(job, names) + end,
            job_name=job + end,
            cron_schedule=cron,
            execution_timezone=timezone,
            run_config={"ops": {op + end: {"config": {"tables": names, **config}}}},
            metadata={TABLES: names},
            tags={TABLES_TAG: text},
            default_status=(
                DefaultScheduleStatus.RUNNING if running else DefaultScheduleStatus.STOPPED
            ),
        )
    )


def _schedule_name(job: str, tables: str | list[str]) -> str:
    names = [tables] if isinstance(tables, str) else tables
    # A name of signs only, such as ``*``, stands for every table.
    words = [re.sub(r"\W+_*", "_", table).strip("_").lower() or ALL for table in names]
    return "_".join([job, *words])

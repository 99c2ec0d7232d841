"""The job that traces a result: its rows' ancestors, table by table, up to what people entered."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from dagster import Field, JobDefinition, MetadataValue, OpExecutionContext, String, op
from dagster import job as dagster_job

from dj_dagster.errors import ConfigurationError, QueryError
from dj_dagster.model.heading import Row
from dj_dagster.model.names import Tier, title
from dj_dagster.orchestration.arguments import check_kind
from dj_dagster.orchestration.merge import renamable
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.diagrams.diagram import rows_above
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import make_window
from dj_dagster.relational.table import Table

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


JOB_NAME = "trace"
ROWS_SHOWN = 20
"""Rows of each table that are shown, at most."""


@dataclass(frozen=True)
class TracedTable:
    """The rows of one table that a result was made from.

    Attributes
    ----------
    count
        The number of these rows.
    rows
        The keys of the first `ROWS_SHOWN` of these rows.
    """

    title: str
    tier: Tier
    count: int
    rows: Sequence[Row]

    def __str__(self) -> str:
        more = [f"  ... {self.count - len(self.rows)} more"] if self.count > len(self.rows) else []
        lines = [f"  {_spelled(row)}" for row in self.rows]
        return "\n".join([f"{self.title} ({self.tier.value}, {self.count})", *lines, *more])


@dataclass(frozen=True)
class Trace:
    """A result and all rows that it was made from: the result first, its inputs last."""

    tables: Sequence[TracedTable]

    def __str__(self) -> str:
        return "\n".join(map(str, self.tables))

    @property
    def markdown(self) -> str:
        """The trace as a table in Markdown."""
        head = "| table | tier | rows | keys |\n|---|---|---|---|"
        lines = [
            f"| {t.title} | {t.tier.value} | {t.count} | {'<br>'.join(map(_spelled, t.rows))} |"
            for t in self.tables
        ]
        return "\n".join([head, *lines])


def trace(result: Table | type[Table]) -> Trace:
    """Return the chain from a result to the rows that people entered, by foreign keys.

    Parameters
    ----------
    result
        A table, restricted to the rows to trace: ``trace(Processed & key)``.

    Raises
    ------
    QueryError
        If `result` is empty.
    ConfigurationError
        If it is not a table.

    Examples
    --------
    ::

        print(trace(Processed & {"session_id": 3}))
        # lab.Processed (computed, 1)
        # subject_id=1, session_id=3
        # lab.Session (manual, 1)
        # subject_id=1, session_id=3
    """
    table = result() if isinstance(result, type) else result
    check_kind("The argument result", table, Table, "a table, such as Processed & key")
    if not table:
        raise QueryError(f"{title(table.name)} has no such row: there is nothing to trace.")
    connection = table.connection
    found: list[TracedTable] = []
    for name, nodes in reversed(rows_above(connection, table.node, table.name).items()):
        sibling = table._sibling(name)
        names = sibling.primary_key
        rows: list[Row] = []
        for node in nodes:
            window = make_window(names, ROWS_SHOWN, None, node.heading)
            rows += fetch.as_dicts(names, fetch.rows(connection, node, names, window))
        count = sum(fetch.count(connection, node) for node in nodes)
        found.append(TracedTable(title(name), sibling.tier, count, rows[:ROWS_SHOWN]))
    return Trace(found)


def trace_job(pipeline: Pipeline) -> JobDefinition:
    """Return the job that shows the trace of a partition; assets name it in their metadata."""
    return renamable(partial(_trace_job, pipeline.graph), pipeline)


def _trace_job(graph: TableGraph, end: str) -> JobDefinition:
    fields = {
        "table": Field(String, description="As 'Processed' or 'lab.Processed'."),
        "partition": Field(String, description="Which row or rows, as the UI spells partitions."),
    }

    @op(name="trace_rows" + end, config_schema=fields)
    def trace_rows(context: OpExecutionContext) -> None:
        config: dict[str, str] = context.op_config
        node = graph.single(config["table"], "table")
        found = trace(_rows(node, config["partition"]))
        context.log.info(f"\n{found}")
        context.add_output_metadata({"trace": MetadataValue.md(found.markdown)})

    @dagster_job(name=JOB_NAME + end, description="Shows what a result was made from.")
    def show_trace() -> None:
        trace_rows()

    return show_trace


def _rows(node: TableNode, partition: str) -> Table:
    if node.grain is None:
        raise ConfigurationError(f"{node.title} has no partitions; trace one of a table below it")
    return node.table & node.grain.decode(partition)


def _spelled(row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items()) or "the single row"

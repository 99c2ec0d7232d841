"""Jobs that enter rows from the launchpad, one for each table that people fill."""

# Dagster reads the annotation of `context` as an object: no postponed annotations here.
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import (
    Array,
    Failure,
    Field,
    JobDefinition,
    Noneable,
    OpExecutionContext,
    Shape,
    String,
    op,
)
from dagster import job as dagster_job

from dj_dagster.errors import DataJointError, InvalidValueError
from dj_dagster.model.names import Tier
from dj_dagster.model.types import Family
from dj_dagster.orchestration.entry_config import attribute_field, rows_field
from dj_dagster.orchestration.entry_files import EntryFiles
from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.naming import op_name
from dj_dagster.orchestration.registered import register
from dj_dagster.orchestration.row_marks import ROWS
from dj_dagster.orchestration.step import Step
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode

PREFIX = "insert__"


def entry_jobs(graph: TableGraph, folders: Sequence[str | Path] = ()) -> list[JobDefinition]:
    """Return a job for each Manual table: ``insert__lab__session`` for ``lab.Session``.

    Its config has a field for each attribute. Rows of parts are entered with their masters', or
    later; rows can come from a CSV file instead. All rows of a launch are inserted, or none.

    Parameters
    ----------
    folders
        Folders of the machine that runs the jobs, from which CSV files and files to store may be
        taken. Without any, no file is: whoever opens the launchpad need not have an account there.
    """
    files = EntryFiles(folders)
    return [
        _entry_job(graph, node, files)
        for node in graph.nodes
        if node.tier is Tier.MANUAL and node.master is None
    ]


def job_name(node: TableNode) -> str:
    """Return the name of a table's job."""
    return PREFIX + op_name(node.key)


def _entry_job(graph: TableGraph, node: TableNode, files: EntryFiles) -> JobDefinition:
    parts = {part.key.path[-1]: part for part in graph.parts(node)}

    @op(name=f"{job_name(node)}__rows", config_schema=_config(node, parts))
    def insert_rows(context: OpExecutionContext) -> None:
        try:
            _insert(context, node, parts, context.op_config, files)
        except DataJointError as error:
            # Dagster shows what a failure says before the stack, and that of others below it.
            raise Failure(description=str(error), allow_retries=False) from error

    @dagster_job(
        name=job_name(node),
        description=f"Inserts rows into {node.title}, from the launchpad or a CSV file.",
    )
    def insert() -> None:
        insert_rows()

    return insert


def _config(node: TableNode, parts: Mapping[str, TableNode]) -> dict[str, Field]:
    config = {
        "rows": rows_field(node.table.heading, op_name(node.key)),
        "csv": Field(
            Noneable(String),
            is_required=False,
            description="A CSV file in one of the entry_folders; its first line has names.",
        ),
        "skip_duplicates": Field(
            bool,
            default_value=False,
            description="Whether rows with a key that is there are left out, instead of refused.",
        ),
    }
    if parts:
        shapes = {name: _part_rows(part) for name, part in parts.items()}
        config["parts"] = Field(
            Shape(shapes), is_required=False, description="Rows of its parts, with the key."
        )
    return config


def _part_rows(part: TableNode) -> Field:
    fields = {
        attribute.name: attribute_field(attribute, op_name(part.key))
        for attribute in part.table.heading.attributes.values()
    }
    return Field(Array(Shape(fields)), default_value=[])


def _insert(
    context: OpExecutionContext,
    node: TableNode,
    parts: Mapping[str, TableNode],
    config: Mapping[str, Any],
    files: EntryFiles,
) -> None:
    rows, file = _rows(node, config["rows"]), config.get("csv")
    of_parts = {name: _rows(parts[name], each) for name, each in config.get("parts", {}).items()}
    if not rows and not file and not any(of_parts.values()):
        raise InvalidValueError(f"There is no row for {node.title}: write rows, or the path csv.")
    files.check(node, rows)
    for name, each in of_parts.items():
        files.check(parts[name], each)
    options = {"skip_duplicates": config["skip_duplicates"]}
    before = len(node.table)
    with node.table.connection.transaction:
        if file:
            files.insert(node, file, **options)
        if rows:
            node.table.insert(rows, **options)
        for name, each in of_parts.items():
            if each:
                parts[name].table.insert(each, **options)
    count = len(node.table)
    context.log.info(f"{count - before} rows inserted into {node.title}")
    context.add_output_metadata({"rows_inserted": count - before, ROWS: count})
    _mark(context, node, rows)
    for name, each in of_parts.items():
        _mark(context, parts[name], each)


def _rows(node: TableNode, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the values that were left empty: these get their defaults.

    The launchpad has no bytes, hence texts stand for them.
    """
    attributes = node.table.heading.attributes.items()
    bytes_of = {name for name, a in attributes if a.type and a.type.family is Family.BYTES}
    return [
        {
            name: value.encode() if name in bytes_of and isinstance(value, str) else value
            for name, value in row.items()
            if value is not None
        }
        for row in rows
    ]


def _mark(context: OpExecutionContext, node: TableNode, rows: Sequence[Mapping[str, Any]]) -> None:
    """Show rows at once; those whose key the server or a file gave are seen by the sensor."""
    grain = node.grain
    if grain is None or any(name not in row for row in rows for name in grain.names):
        return
    partitions = grain.encode_all(rows)
    register(context.instance, grain, partitions)
    marks = (Mark(node.key, partition) for partition in partitions)
    write_marks(context.instance, marks, Step.of(context).origin)

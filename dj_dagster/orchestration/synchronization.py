"""Partitions and marks made true to the tables once, without a daemon."""

from __future__ import annotations

from collections.abc import Callable

from dagster import DagsterInstance, Definitions, RepositoryDefinition

from dj_dagster.errors import ConfigurationError, PopulateError, named_text
from dj_dagster.orchestration.arguments import check_kind
from dj_dagster.orchestration.inspection.project import dagster_instance
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.shown_marks import mark_row_count, mark_single, unmarked_pages
from dj_dagster.orchestration.runs.stale_marks import first_marks
from dj_dagster.orchestration.sensor.sensor_settings import Guard
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import Changes, sync_partitions
from dj_dagster.orchestration.tables.table_node import TableNode


def sync(
    definitions: Definitions | RepositoryDefinition, *, instance: DagsterInstance | None = None
) -> Changes:
    """Register the partitions of all tables and mark their rows, once.

    The sensor does so all the time. Without a daemon, or before one has started, this function
    makes keys and rows appear in the UI; it does not call any `make`.

    Parameters
    ----------
    definitions
        The result of `build_definitions`, which may be merged with others.
    instance
        The Dagster instance; by default that of DAGSTER_HOME or, where this is not set, of the
        ``dagster.yaml`` in the working directory.

    Returns
    -------
    Changes
        The numbers of partitions that were added and removed, and of marks that were written.

    Raises
    ------
    ConfigurationError
        When a Dagster instance is not found, or the definitions do not come from
        `build_definitions`.
    PopulateError
        When tables could not be read, after all others were synchronized.

    Examples
    --------
    >>> from dj_dagster.orchestration import build_definitions
    >>> from dj_dagster.relational.database.connection import Connection
    >>> from dj_dagster.relational.schemas.schema import Schema
    >>> from dj_dagster.relational.table import Manual
    >>> schema = Schema("lab", connection=Connection("sqlite:///:memory:"))
    >>> @schema
    ... class Subject(Manual):
    ...     definition = "subject_id : int32"
    >>> Subject.insert([(1,), (2,)])
    >>> with DagsterInstance.ephemeral() as instance:
    ...     print(sync(build_definitions(schema), instance=instance))
    2 partitions added, 0 removed, 2 marked
    """
    kinds = (Definitions, RepositoryDefinition)
    check_kind("The argument definitions", definitions, kinds, "what build_definitions returned")
    repository = (
        definitions.get_repository_def() if isinstance(definitions, Definitions) else definitions
    )
    pipelines = pipelines_of(repository.sensor_defs)
    if not pipelines:
        raise ConfigurationError(
            "The definitions have no tables: give what build_definitions returned."
        )
    done, guard = _Sync(instance or dagster_instance()), Guard()
    for pipeline in pipelines:
        graph = pipeline.graph
        for grain in graph.grains:
            connection = graph.of_grain(grain)[0].table.connection
            guard.attempt(grain.name, connection, done.register, pipeline, grain)
        for node in graph.nodes:
            guard.attempt(node.title, node.table.connection, done.mark, pipeline, node)
    if guard.errors:
        told = "\n".join(f"{what}: {named_text(error)}" for what, error in guard.errors.items())
        raise PopulateError(f"{done.changes}, but these could not be read:\n{told}")
    return done.changes


class _Sync:
    """The steps of a synchronization, and a count of its changes."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance
        self.changes = Changes()

    def register(self, pipeline: Pipeline, grain: Grain) -> None:
        """Register the partitions of a grain."""
        self.changes += sync_partitions(self._instance, pipeline.graph, grain)

    def mark(self, pipeline: Pipeline, node: TableNode) -> None:
        """Mark the rows of a table that nobody has marked."""
        if node.key in pipeline.managed:
            return
        if node.grain is None:
            mark: Callable[[DagsterInstance, TableNode], int] = (
                mark_single if node.populated else mark_row_count
            )
            self.changes += Changes(marked=mark(self._instance, node))
            return
        for page in unmarked_pages(self._instance, node):
            marks = first_marks(self._instance, pipeline.graph, node, page)
            self.changes += Changes(marked=write_marks(self._instance, marks))

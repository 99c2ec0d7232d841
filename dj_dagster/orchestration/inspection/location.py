"""The tables of code locations: of definitions, of schemas, or of modules that have these."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, cast

from dagster import (
    DagsterInvariantViolationError,
    Definitions,
    RepositoryDefinition,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration._dagster import (
    loadable_targets_from_loaded_module,
    repository_def_from_target_def,
)
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.tables.collection import SchemaLike, collect
from dj_dagster.orchestration.tables.table_graph import TableGraph, joined, table_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.module_classes import own_classes
from dj_dagster.relational.schemas.schema import Schema

Given = Definitions | RepositoryDefinition | TableGraph | SchemaLike
"""A source of tables: definitions, or an argument that `build_definitions` takes."""


def graph_of(given: Given | Iterable[Given], *, connection: Connection | None = None) -> TableGraph:
    """Return the tables of definitions, schemas or modules, together.

    Parameters
    ----------
    given
        The result of `build_definitions`, or what it takes: schemas, modules that have a
        ``schema`` or table classes, patterns of schema names; or several of these.
    connection
        The connection for patterns; the default connection if None.

    Raises
    ------
    ConfigurationError
        When the definitions do not have tables, and as `build_definitions` does.
    """
    known = (TableGraph, Definitions, RepositoryDefinition)
    # Definitions are tuples too, as other records of Dagster are.
    several = isinstance(given, list | tuple) and not isinstance(given, known)
    listed: list[Any] = list(cast("Any", given)) if several else [given]
    graphs = [each for each in listed if isinstance(each, TableGraph)]
    repositories = [
        each.get_repository_def() if isinstance(each, Definitions) else each
        for each in listed
        if isinstance(each, Definitions | RepositoryDefinition)
    ]
    graphs += [graph for each in repositories for graph in _graphs(each)]
    schemas = [each for each in listed if not isinstance(each, known)]
    if schemas:
        graphs.append(table_graph(collect(schemas, connection=connection)))
    if not graphs:
        raise ConfigurationError(
            "The definitions have no tables: give what build_definitions returned."
        )
    return graphs[0] if len(graphs) == 1 else joined(graphs)


def repositories_of(module: ModuleType) -> list[RepositoryDefinition]:
    """Return the code locations of a Python module, in any form that Dagster loads."""
    targets = loadable_targets_from_loaded_module(module)
    found = (repository_def_from_target_def(target.target_definition) for target in targets)
    return [repository for repository in found if repository is not None]


def code_locations(module: ModuleType) -> list[RepositoryDefinition]:
    """Return those of `repositories_of` that have tables.

    Raises
    ------
    ConfigurationError
        When there is none.
    """
    why = ""
    try:
        found = [each for each in repositories_of(module) if _graphs(each)]
    except DagsterInvariantViolationError as error:
        found, why = [], f" {error}"
    if not found:
        raise ConfigurationError(
            f"The module {module.__name__} has no definitions with tables for Dagster: give it "
            f"what build_definitions returned.{why}"
        )
    return found


def graph_of_modules(modules: Iterable[ModuleType]) -> TableGraph:
    """Return the tables of Python modules, which have definitions, a ``schema`` or classes.

    A schema that several modules share counts once.

    Raises
    ------
    ConfigurationError
        When a module has none of these.
    """
    found = [each for module in modules for each in _given(module)]
    return graph_of(list({id(each): each for each in found}.values()))


def _given(module: ModuleType) -> list[Any]:
    why = "there are no tables in its definitions"
    try:
        found = repositories_of(module)
    except DagsterInvariantViolationError as error:
        found, why = [], str(error)
    if any(map(_graphs, found)):
        return list(found)
    if isinstance(getattr(module, "schema", None), Schema):
        return [module.schema]
    if hasattr(module, "schema") or own_classes(module):
        return [module]
    raise ConfigurationError(
        f"The module {module.__name__} has neither the result of build_definitions, nor a schema, "
        f"nor table classes: {why}"
    )


def _graphs(repository: RepositoryDefinition) -> list[TableGraph]:
    return [pipeline.graph for pipeline in pipelines_of(repository.sensor_defs)]

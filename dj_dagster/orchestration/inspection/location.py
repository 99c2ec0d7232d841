"""The tables of a code location: of definitions, of schemas, or of what a folder names."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml
from dagster import (
    DagsterInstance,
    DagsterInvariantViolationError,
    Definitions,
    RepositoryDefinition,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration._dagster import (
    InstanceRef,
    loadable_targets_from_loaded_module,
    repository_def_from_target_def,
)
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.tables.collection import SchemaLike, collect, module_named
from dj_dagster.orchestration.tables.table_graph import TableGraph, table_graph
from dj_dagster.relational.database.connection import Connection

Given = Definitions | RepositoryDefinition | TableGraph | SchemaLike
"""What has tables: definitions, or what `build_definitions` takes."""


def graph_of(given: Given | Iterable[Given], *, connection: Connection | None = None) -> TableGraph:
    """Return the tables of definitions, schemas or modules, together.

    Parameters
    ----------
    given
        The result of `build_definitions`, or what it takes: schemas, modules that have a
        ``schema``, patterns of schema names; or several of these.
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
    return _joined(graphs)


def repositories_of(module: ModuleType) -> list[RepositoryDefinition]:
    """Return the code locations of a Python module, in any form that Dagster loads."""
    targets = loadable_targets_from_loaded_module(module)
    found = (repository_def_from_target_def(target.target_definition) for target in targets)
    return [repository for repository in found if repository is not None]


def graph_of_modules(names: Sequence[str] = (), folder: Path | None = None) -> TableGraph:
    """Return the tables of Python modules, which have definitions or a ``schema``.

    Parameters
    ----------
    names
        The modules; by default those that the folder names for Dagster, see `located`.
    folder
        The project's folder, by default the working directory. Modules are looked for there first.

    Raises
    ------
    ConfigurationError
        When a module is not there or has neither, or the folder does not name one.
    """
    place = Path.cwd() if folder is None else folder
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    modules = list(map(module_named, names)) if names else located(place)
    return graph_of([each for module in modules for each in _given(module)])


def located(folder: Path) -> list[ModuleType]:
    """Return the modules that a folder names for Dagster, in the files that Dagster reads.

    These are ``[tool.dagster]`` or ``[tool.dg.project]`` in ``pyproject.toml``, or else
    ``workspace.yaml``.

    Raises
    ------
    ConfigurationError
        When the folder does not have such a file, or a module that it names is not there.
    """
    return [_loaded(each, folder) for each in places(folder)]


def dagster_instance(*, ephemeral: bool = False) -> DagsterInstance:
    """Return the instance of the ``dagster.yaml`` here, or else that of DAGSTER_HOME.

    Parameters
    ----------
    ephemeral
        Whether to return an empty instance in memory where there is neither.

    Raises
    ------
    ConfigurationError
        When there is neither.
    """
    if Path("dagster.yaml").is_file():
        return DagsterInstance.from_ref(InstanceRef.from_dir(str(Path.cwd())))
    try:
        return DagsterInstance.get()
    except Exception as error:
        if ephemeral:
            return DagsterInstance.ephemeral()
        raise ConfigurationError(
            "There is no Dagster instance to show the keys in: set DAGSTER_HOME to its folder, or "
            "run this where dagster.yaml is."
        ) from error


def _given(module: ModuleType) -> list[Any]:
    why = "there are no tables in its definitions"
    try:
        found = repositories_of(module)
    except DagsterInvariantViolationError as error:
        found, why = [], str(error)
    if any(map(_graphs, found)):
        return list(found)
    if hasattr(module, "schema"):
        return [module]
    raise ConfigurationError(
        f"The module {module.__name__} has neither the result of build_definitions nor a schema: "
        f"{why}"
    )


def _graphs(repository: RepositoryDefinition) -> list[TableGraph]:
    return [pipeline.graph for pipeline in pipelines_of(repository.sensor_defs)]


def _joined(graphs: Sequence[TableGraph]) -> TableGraph:
    if not graphs:
        raise ConfigurationError(
            "The definitions have no tables: give what build_definitions returned."
        )
    if len(graphs) == 1:
        return graphs[0]
    nodes = {node.key: node for graph in graphs for node in graph.nodes}
    return TableGraph(
        tuple(nodes.values()),
        frozenset(key for graph in graphs for key in graph.blocking),
        {key: version for graph in graphs for key, version in graph.versions.items()},
        {key: each for graph in graphs for key, each in graph.described.items()},
    )


Place = tuple[str, str, str]
"""The kind of a code location, ``module`` or ``file``; its name; and the folder it is in."""


def places(folder: Path) -> list[Place]:
    """Return the code locations that a folder names for Dagster.

    Raises
    ------
    ConfigurationError
        When it does not name one.
    """
    found = _named(folder)
    if not found:
        raise ConfigurationError(
            f"{folder} does not say where its tables are: run this in the folder of a project, "
            "which has a workspace.yaml, or name a Python module by --module."
        )
    return found


def _named(folder: Path) -> list[Place]:
    project = folder / "pyproject.toml"
    tool: Any = {}
    if project.is_file():
        tool = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {})
    name = tool.get("dagster", {}).get("module_name")
    if name is None and "project" in tool.get("dg", {}):
        of_dg = tool["dg"]["project"]
        name = of_dg.get("code_location_target_module", f"{of_dg['root_module']}.definitions")
    if name is not None:
        return [("module", name, ".")]
    workspace = folder / "workspace.yaml"
    if not workspace.is_file():
        return []
    listed: Any = yaml.safe_load(workspace.read_text(encoding="utf-8")) or {}
    return [place for each in listed.get("load_from", ()) for place in _places(each)]


_KINDS = {
    "python_module": ("module", "module_name"),
    "python_package": ("module", "package_name"),
    "python_file": ("file", "relative_path"),
}
"""What an entry of ``workspace.yaml`` is called, what it names, and the field that has the name."""


def _places(entry: Mapping[str, Any]) -> list[Place]:
    found: list[Place] = []
    for key, (kind, name) in _KINDS.items():
        given = entry.get(key)
        if given is not None:
            said: Any = given if isinstance(given, dict) else {name: given}
            found.append((kind, said[name], said.get("working_directory", ".")))
    return found


def _loaded(place: Place, folder: Path) -> ModuleType:
    kind, name, working_directory = place
    within = str((folder / working_directory).resolve())
    if within not in sys.path:
        sys.path.insert(0, within)
    if kind == "module":
        return module_named(name)
    path = folder / name
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"workspace.yaml names {path}, which is not a Python file.")
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module

"""The code that the process of a run has: noted with the run, and compared with what was planned.

A run is planned by a code location and executed by another process, perhaps on another machine days
later. The plan has the versions of `make` in the tags of its steps; the process computes its own.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata

from dagster import AssetExecutionContext, DagsterRun, Failure, OpExecutionContext

from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

PLANNED_TAG = "dj_dagster/code_versions"
"""The tag of a step with the versions of the code of its tables, as JSON."""

OTHER_CODE_TAG = "dj_dagster/other_code"
"""The tag of a run whose process has other code than planned, with the run's id and the tables.

A run that is executed again begins with the tags of the run that it repeats; the id tells the two
apart.
"""

_REFUSED = "refused"
_PACKAGES = ("dj-dagster", "dagster", "numpy", "sqlalchemy")


@cache
def package_versions(packages: tuple[str, ...] = ()) -> Mapping[str, str]:
    """Return the versions of Python and of packages that this process has.

    Parameters
    ----------
    packages
        The packages besides dj_dagster and the main ones that it uses.

    Examples
    --------
    >>> list(package_versions(("no-such-package",)))
    ['python', 'dj-dagster', 'dagster', 'numpy', 'sqlalchemy', 'no-such-package']
    """
    names = dict.fromkeys((*_PACKAGES, *packages))
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def versions_text(nodes: Iterable[TableNode]) -> str:
    """Return the versions in this process, with those of the packages that the settings name."""
    connections = dict.fromkeys(node.table.connection for node in nodes)
    named = (connection.job_settings.packages for connection in connections)
    packages = tuple(dict.fromkeys(name for names in named for name in names))
    return ", ".join(f"{name} {version}" for name, version in package_versions(packages).items())


def code_versions(graph: TableGraph, nodes: Iterable[TableNode]) -> dict[str, str]:
    """Return the versions of the code that this process has for tables, by the tables' titles."""
    found = {node.title: graph.versions.get(node.key) for node in nodes}
    return {title: version for title, version in found.items() if version is not None}


def planned_tags(graph: TableGraph, nodes: Iterable[TableNode]) -> dict[str, str]:
    """Return the tags of a step by which its process knows the planned versions of the code."""
    return {PLANNED_TAG: json.dumps(code_versions(graph, nodes))}


def compare_code(
    context: AssetExecutionContext | OpExecutionContext,
    graph: TableGraph,
    nodes: Iterable[TableNode],
) -> None:
    """Compare the code of tables with the code that a run was planned with.

    A difference is told in the run's log and tags, or refused, see
    `dj_dagster.model.job_settings.JobSettings.on_other_code`.

    Raises
    ------
    dagster.Failure
        If the settings refuse other code.
    """
    nodes = list(nodes)
    planned, own = _planned(context), code_versions(graph, nodes)
    other = [
        f"{title} has version {version} and was planned with {planned[title]}"
        for title, version in own.items()
        if planned.get(title, version) != version
    ]
    if not other:
        return
    is_refused = any(node.table.connection.job_settings.on_other_code == "refuse" for node in nodes)
    what, run_id = "; ".join(other), context.run.run_id
    state = _REFUSED if is_refused else "used"
    context.instance.add_run_tags(run_id, {OTHER_CODE_TAG: f"{run_id} {state}: {what}"})
    text = f"This process, on {platform.node()}, has other code than the code location: {what}."
    if is_refused:
        raise Failure(
            f"{text} Nothing was made. Give all machines the same code and reload the code "
            'location, or set jobs.on_other_code to "warn".',
            allow_retries=False,
        )
    context.log.warning(text)


def was_refused(run: DagsterRun) -> bool:
    """Return whether a run was refused because of its process's code."""
    return run.tags.get(OTHER_CODE_TAG, "").startswith(f"{run.run_id} {_REFUSED}")


def _planned(context: AssetExecutionContext | OpExecutionContext) -> Mapping[str, str]:
    plan_id = context.run.execution_plan_snapshot_id
    if plan_id is None:
        return {}
    key = context.get_step_execution_context().step.key
    steps = context.instance.get_execution_plan_snapshot(plan_id).steps
    tags = next((step.tags or {} for step in steps if step.key == key), {})
    return json.loads(tags.get(PLANNED_TAG, "{}"))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"

"""Asset checks of tables, for pending, stale, orphaned, unreadable, damaged and late rows."""

# Dagster reads the annotation of `context` as an object: no postponed annotations here.
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, cast

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckKey,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    DagsterInstance,
    multi_asset_check,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.selection import texts
from dj_dagster.model.types import Family
from dj_dagster.orchestration.arguments import check_kind
from dj_dagster.orchestration.runs.shown_marks import checked_marks
from dj_dagster.orchestration.runs.stale_marks import CURRENT, CodeWatch, ages
from dj_dagster.orchestration.sensor.sensor_settings import DueTables
from dj_dagster.orchestration.tables.table_graph import Blocking, TableGraph, Tables
from dj_dagster.orchestration.tables.table_node import TableNode, op_name
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.integrity import check_table
from dj_dagster.workflow.pending import orphans

COMPLETE, PARTS, PARENTS, FRESH = "complete", "parts", "parents", "fresh"
READABLE, INTACT = "readable", "intact"

Numbers = Mapping[str, int | float | str]


@dataclass(frozen=True)
class TableChecks:
    """The checks that tables have.

    The sensor evaluates the checks of a table itself after the table has changed, once its runs
    have ended. The runs that the sensor starts evaluate only the blocking checks.

    Attributes
    ----------
    complete
        Whether tables that `make` fills are checked for keys that are pending or failed.
    current
        Whether these tables are checked for keys that were made before a change of `make` or of a
        row that they refer to. The sensor evaluates this check itself when it sees such a change.
    parts
        Whether tables with parts are checked for rows of parts without their master's.
    parents
        Whether tables with foreign keys are checked for rows whose parent is not there.
    readable
        Whether tables are checked for keys that are not values of their types. Other programs may
        have written such keys, which are left out of all work.
    intact
        Whether tables are checked for values that cannot be decoded and objects that are missing
        or damaged: ``"sizes"`` compares the sizes of objects, ``"data"`` reads all. This check
        takes long, so the sensor leaves it out; it is evaluated on request, alone or with the other
        checks of a table. `check_schedule` is for whole schemas and their stores.
    freshness
        The greatest age of a table's last row: ``{"lab.Session": timedelta(days=1)}``, with ``*``
        for anything in the names. The least counts where several fit a table. Tables are given by
        name, class or asset key here; see `dj_dagster.model.selection` for the names.
    blocking
        Tables whose checks must pass before the same run fills the tables below them.

    Raises
    ------
    ConfigurationError
        When one of them has a value that it cannot have.
    """

    complete: bool = True
    current: bool = True
    parts: bool = True
    parents: bool = True
    readable: bool = True
    intact: Literal["sizes", "data"] | None = None
    freshness: Mapping[Any, timedelta] = field(default_factory=dict[Any, timedelta])
    blocking: Tables = ()

    def __post_init__(self) -> None:
        for name in ("complete", "current", "parts", "parents", "readable"):
            check_kind(f"TableChecks({name})", vars(self)[name], bool, "True or False")
        if self.intact not in (None, "sizes", "data"):
            raise ConfigurationError(
                f"TableChecks(intact) is {self.intact!r}: give 'sizes', 'data' or None."
            )
        words = "a mapping such as {'lab.Session': timedelta(days=1)}"
        check_kind("TableChecks(freshness)", self.freshness, Mapping, words)
        for table, window in self.freshness.items():
            place = f"TableChecks(freshness) of {table!r}"
            check_kind(place, window, timedelta, "a timedelta, such as timedelta(days=1)")


def checks_of(graph: TableGraph, wanted: TableChecks) -> list[AssetChecksDefinition]:
    """Return the checks of all tables, one definition a table.

    Raises
    ------
    ConfigurationError
        When a name does not fit any table.
    """
    wanted = _resolved(wanted, graph)
    found = (_of_table(graph, node, wanted) for node in graph.nodes)
    return [checks for checks in found if checks is not None]


def code_watch(graph: TableGraph, wanted: TableChecks) -> CodeWatch:
    """Return the evaluator of the check `current`, for one Dagster instance."""
    nodes = [node for node in graph.populated if graph.versions.get(node.key)]
    return CodeWatch(graph, nodes if wanted.current else ())


def check_watch(graph: TableGraph, wanted: TableChecks) -> "CheckWatch":
    """Return the evaluator of the other checks of changed tables, for one Dagster instance."""
    wanted = _resolved(wanted, graph)
    found = {node.key: _checks(graph, node, wanted) for node in graph.nodes}
    # `CodeWatch` reports `current`; `intact` takes too long for the sensor.
    return CheckWatch(
        {
            key: {name: check for name, check in checks.items() if name not in (CURRENT, INTACT)}
            for key, checks in found.items()
        }
    )


def blocking_checks(definitions: Iterable[AssetChecksDefinition]) -> Blocking:
    """Return the blocking checks of each asset, with those that cannot be evaluated apart."""
    found: defaultdict[AssetKey, set[AssetCheckKey]] = defaultdict(set)
    for definition in definitions:
        for spec in definition.check_specs:
            if spec.blocking:
                alone = [spec.key] if definition.can_subset else definition.check_keys
                found[spec.asset_key].update(alone)
    return {key: frozenset(checks) for key, checks in found.items()}


Check = Callable[[DagsterInstance], tuple[bool, Numbers]]


class CheckWatch:
    """An evaluator of the checks of changed tables, which reports the results that are new.

    Parameters
    ----------
    checks
        The checks of each table.
    """

    def __init__(self, checks: Mapping[AssetKey, Mapping[str, Check]]) -> None:
        self._checks = {key: found for key, found in checks.items() if found}
        self._due = DueTables()

    def note(self, key: AssetKey | None) -> None:
        """Note that a table has changed."""
        if key is not None and key in self._checks:
            self._due.note(key)

    def ready(self, busy: Collection[AssetKey]) -> list[AssetKey]:
        """Return the changed tables to report now, see `DueTables`."""
        return self._due.ready(busy)

    def report(self, instance: DagsterInstance, key: AssetKey) -> None:
        """Evaluate the checks of a table; report what is new, or told before its last mark."""
        began = time.monotonic()
        self._due.take(key)
        names = {AssetCheckKey(key, name): check for name, check in self._checks[key].items()}
        before = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(names))
        mark = checked_marks(instance, [key]).get(key)
        rows = 0.0
        for check_key, check in names.items():
            passed, numbers = check(instance)
            rows += sum(each for each in numbers.values() if isinstance(each, int))
            record = before.get(check_key)
            said = record.evaluation if record is not None else None
            # A check that a run was to evaluate, and did not reach, has a plan in its place.
            is_said = isinstance(said, AssetCheckEvaluation)
            if is_said and _told(said) == (passed, numbers, mark):
                continue
            evaluation = AssetCheckEvaluation(
                asset_key=key,
                check_name=check_key.name,
                passed=passed,
                severity=AssetCheckSeverity.WARN,
                # Dagster accepts such metadata, although its annotation does not say so.
                metadata=cast(Any, dict(numbers)),
                target_materialization_data=mark,
            )
            instance.report_runless_asset_event(evaluation)
        self._due.looked(key, began, rows)


def _told(evaluation: AssetCheckEvaluation) -> tuple[bool, Mapping[str, object], object]:
    """Return what an evaluation told: whether it passed, its numbers, and the mark before it."""
    numbers = {name: each.value for name, each in evaluation.metadata.items()}
    return evaluation.passed, numbers, evaluation.target_materialization_data


def _resolved(wanted: TableChecks, graph: TableGraph) -> TableChecks:
    """Return the wanted checks with the asset keys of tables instead of other names."""
    least: dict[AssetKey, timedelta] = {}
    for given, window in wanted.freshness.items():
        for node in graph.chosen(given, "TableChecks.freshness"):
            least[node.key] = min(window, least.get(node.key, window))
    blocking = [node.key for node in graph.chosen(wanted.blocking, "TableChecks.blocking")]
    return replace(wanted, freshness=least, blocking=blocking)


def _of_table(
    graph: TableGraph, node: TableNode, wanted: TableChecks
) -> AssetChecksDefinition | None:
    checks = _checks(graph, node, wanted)
    if not checks:
        return None
    blocking = node.key.to_user_string() in texts(wanted.blocking, "")
    specs = [
        AssetCheckSpec(
            name,
            asset=node.key,
            description=_SAID[name],
            # Stale, orphaned or unreadable old rows must not keep new ones from being made.
            blocking=blocking and name not in (CURRENT, PARENTS, READABLE, INTACT),
        )
        for name in checks
    ]
    strict = {spec.key for spec in specs if spec.blocking}

    @multi_asset_check(name=f"{op_name(node.key)}__checks", specs=specs, can_subset=True)
    def check(context: AssetCheckExecutionContext) -> Iterable[AssetCheckResult]:
        for key in context.selected_asset_check_keys:
            passed, numbers = checks[key.name](context.instance)
            yield AssetCheckResult(
                passed=passed,
                check_name=key.name,
                asset_key=key.asset_key,
                # Dagster keeps back what is below a failed check of this severity only.
                severity=AssetCheckSeverity.ERROR if key in strict else AssetCheckSeverity.WARN,
                metadata=dict(numbers),
            )

    return check


def _checks(graph: TableGraph, node: TableNode, wanted: TableChecks) -> dict[str, Check]:
    checks: dict[str, Check] = {}
    if wanted.complete and node.populated:
        checks[COMPLETE] = lambda _: _complete(node)
    if wanted.current and node.populated and graph.versions.get(node.key) is not None:
        checks[CURRENT] = lambda instance: _current(instance, graph, node)
    parts = graph.parts(node)
    if wanted.parts and parts:
        checks[PARTS] = lambda _: _with_master(node, parts)
    if wanted.parents and node.table.foreign_keys:
        checks[PARENTS] = lambda _: _with_parents(node)
    if wanted.readable and _has_texts(node):
        checks[READABLE] = lambda _: _readable(node)
    if wanted.intact:
        checks[INTACT] = lambda _: _intact(node, read_data=wanted.intact == "data")
    window = wanted.freshness.get(node.key)
    if window is not None:
        checks[FRESH] = lambda instance: _fresh(instance, node, window)
    return checks


_SAID = {
    COMPLETE: "No key is pending or failed.",
    CURRENT: "Every key was made by make as it is now, from rows as they are now. Stale ones are "
    "made again by Materialize, or all of them by the job recompute.",
    PARTS: "Each row of a part has its master's row.",
    PARENTS: "Each row has the rows that it refers to.",
    READABLE: "Each key is a value of its type. Keys that are not are left out of all work.",
    INTACT: "Each value can be decoded, and each object is what was written.",
    FRESH: "The last row came lately.",
}


def _has_texts(node: TableNode) -> bool:
    """Return whether the database may hold keys that are not values of their types.

    SQLite, for example, stores dates and decimals as texts, which may be anything else. Integers
    are always values of their type.
    """
    table = node.table
    kinds = [table.heading[name].type for name in table.primary_key]
    backend = table.connection.backend
    texts = () if backend.checks_values else (Family.STRING, Family.ENUM)
    return any(
        kind is not None and (backend.decoder(kind) is not None or kind.family in texts)
        for kind in kinds
    )


def _readable(node: TableNode) -> tuple[bool, Numbers]:
    table = node.table
    _, errors = fetch.readable(table.connection, table.node, table.primary_key)
    first = {"first": str(errors[0])} if errors else {}
    return not errors, {"unreadable": len(errors), **first}


def _intact(node: TableNode, *, read_data: bool) -> tuple[bool, Numbers]:
    found = list(map(str, check_table(node.table, read_data=read_data)))
    return not found, {"findings": len(found), **({"first": found[0]} if found else {})}


def _complete(node: TableNode) -> tuple[bool, Numbers]:
    remaining, total = node.populator.progress()
    failed = node.populator.failed()
    # As `dj-dagster status` counts them: a failed key does not wait to be made.
    numbers = {
        "pending": max(0, remaining - failed),
        "failed": failed,
        "done": total - remaining,
        "keys": total,
    }
    return remaining == 0, numbers


def _current(instance: DagsterInstance, graph: TableGraph, node: TableNode) -> tuple[bool, Numbers]:
    *_, found = ages(instance, graph, node)
    return not found.stale, found.metadata


def _with_master(node: TableNode, parts: Iterable[TableNode]) -> tuple[bool, Numbers]:
    # By the key alone: other attributes may have equal names and different meanings.
    master = node.table.proj()
    orphans, numbers = 0, {"rows": len(master)}
    for part in parts:
        name = part.key.path[-1]
        orphans += len(part.table.proj() - master)
        numbers[f"rows_{name}"] = len(part.table)
        numbers[f"without_{name}"] = len(master - part.table.proj())
    return orphans == 0, {"orphans": orphans, **numbers}


def _with_parents(node: TableNode) -> tuple[bool, Numbers]:
    found = orphans(node.table)
    return found == 0, {"orphans": found, "rows": len(node.table)}


def _fresh(instance: DagsterInstance, node: TableNode, window: timedelta) -> tuple[bool, Numbers]:
    event = instance.get_latest_materialization_event(node.key)
    if event is None:
        return False, {"hours_allowed": window.total_seconds() / 3600}
    hours = (time.time() - event.timestamp) / 3600
    allowed = window.total_seconds() / 3600
    return hours <= allowed, {"hours": hours, "hours_allowed": allowed}

"""The merge of several results of `build_definitions` into one code location.

`Definitions.merge`, by which Dagster also joins components, refuses jobs and sensors with equal
names and different resources under one key, and does not offer libraries a hook to change that.
This module wraps it for definitions that come from here: the names of their sensors, jobs and
schedules then end with those of their schemas, ``populate_sensor__lab``, and one IO manager serves
all tables. Other definitions pass unchanged.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

from dagster import (
    BetaWarning,
    Definitions,
    JobDefinition,
    ScheduleDefinition,
    SensorDefinition,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration._dagster import ObjectMetadataValue
from dj_dagster.orchestration.io_manager import TableIOManager
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.run_records import ALL

T = TypeVar("T")

_FIELDS = (
    "assets",
    "schedules",
    "sensors",
    "jobs",
    "resources",
    "executor",
    "loggers",
    "asset_checks",
    "metadata",
    "component_tree",
)


TABLES = "dj/tables"
"""Metadata of a schedule: the tables that it names."""

ORIGIN = "dj/origin"
"""Metadata of jobs, sensors and schedules: how they are made; Dagster keeps it in their copies."""


@dataclass(frozen=True, eq=False)
class Origin:
    """The origin of a job, sensor or schedule of ours.

    Attributes
    ----------
    make
        The function that makes it, called with the end of its name.
    pipeline
        The pipeline that it belongs to, None for a schedule in definitions of the user's own.
    """

    make: Callable[[str], Any]
    pipeline: Pipeline | None = None

    def made(self, end: str, metadata: Mapping[str, Any] | None = None) -> Any:
        """Return a copy whose name has an end, with the metadata that another copy has got."""
        new = self.make(end)
        marked = {**new.metadata, **(metadata or {}), ORIGIN: ObjectMetadataValue(self)}
        if isinstance(new, JobDefinition):
            return new.with_metadata(marked)
        with warnings.catch_warnings():
            # Dagster passes on the owners, which are a new feature of it.
            warnings.simplefilter("ignore", BetaWarning)
            return new.with_attributes(metadata=marked)


def renamable(make: Callable[[str], T], pipeline: Pipeline | None = None) -> T:
    """Return the job, sensor or schedule of `make`, so that its name can get an end later."""
    return Origin(make, pipeline).made("")


def belonging(pipeline: Pipeline, things: Iterable[Any]) -> list[Any]:
    """Return jobs, sensors and schedules, with those of ours assigned to a pipeline."""
    return [
        replace(origin, pipeline=pipeline).made("", thing.metadata)
        if (origin := _origin(thing)) is not None
        else thing
        for thing in things
    ]


def _origin(thing: object) -> Origin | None:
    if not isinstance(thing, JobDefinition | SensorDefinition | ScheduleDefinition):
        return None
    mark = thing.metadata.get(ORIGIN)
    found = mark.instance if isinstance(mark, ObjectMetadataValue) else None
    return found if isinstance(found, Origin) else None


def pipelines_of(sensors: Iterable[Any]) -> dict[Pipeline, Any]:
    """Return the pipelines of sensors, each with its sensor; other sensors are left out."""
    return {pipeline: each for each in sensors if (pipeline := _pipeline(each)) is not None}


def _pipeline(thing: object) -> Pipeline | None:
    origin = _origin(thing)
    return origin.pipeline if origin is not None else None


def ends(pipelines: Sequence[Pipeline]) -> list[str]:
    """Return the end of the names of each of several pipelines.

    Pipelines with the same schemas and different tables are told apart by their first tables.
    """
    of = [pipeline.schemas for pipeline in pipelines]
    words = [
        schemas if of.count(schemas) == 1 else [min(n.title for n in pipeline.graph.nodes)]
        for schemas, pipeline in zip(of, pipelines, strict=True)
    ]
    return [f"__{re.sub(r'[^A-Za-z0-9_]+', '_', '_'.join(each))}" for each in words]


def told_apart(def_sets: Sequence[Definitions]) -> list[Definitions]:
    """Return definitions with a different name for each pipeline's parts, and one IO manager."""
    things = [thing for each in def_sets for thing in (*(each.jobs or ()), *(each.sensors or ()))]
    pipelines = list(pipelines_of(things))
    if len(pipelines) < 2:
        return list(def_sets)
    end_of = dict(zip(pipelines, ends(pipelines), strict=True))

    def renamed(thing: Any) -> list[Any]:
        origin = _origin(thing)
        if origin is None or (origin.pipeline is None and TABLES not in thing.metadata):
            return [thing]
        of = [origin.pipeline] if origin.pipeline is not None else _holding(pipelines, thing)
        return [origin.made(end_of[pipeline], thing.metadata) for pipeline in of]

    shared = _shared(def_sets)
    found: list[Definitions] = []
    for each in def_sets:
        fields: dict[str, Any] = {name: getattr(each, name) for name in _FIELDS}
        for name in ("jobs", "sensors", "schedules"):
            fields[name] = [new for thing in fields[name] or () for new in renamed(thing)]
        fields["resources"] = {
            key: shared.get(key, value) if isinstance(value, TableIOManager) else value
            for key, value in (fields["resources"] or {}).items()
        }
        found.append(Definitions(**fields))
    return found


def _holding(pipelines: Iterable[Pipeline], schedule: ScheduleDefinition) -> list[Pipeline]:
    """Return the pipelines in which a schedule is to run its job: those that fill its tables.

    Raises
    ------
    ConfigurationError
        When none of the pipelines fills all of them.
    """
    names: Any = schedule.metadata[TABLES].value
    found = [each for each in pipelines if names == ALL or each.fills(names)]
    if not found:
        raise ConfigurationError(
            f"The schedule {schedule.name} is for {', '.join(names)}, and none of the pipelines "
            "that are joined here fills all of these: write a schedule for each."
        )
    return found


def _shared(def_sets: Iterable[Definitions]) -> dict[str, TableIOManager]:
    """Return the IO manager for the tables of all definitions, by resource key."""
    found: dict[str, dict[TableIOManager, None]] = {}
    for each in def_sets:
        for key, value in (each.resources or {}).items():
            if isinstance(value, TableIOManager):
                found.setdefault(key, {})[value] = None
    return {
        key: TableIOManager.joined(managers) if len(managers) > 1 else next(iter(managers))
        for key, managers in found.items()
    }


def _wrapped(merge: Callable[..., Definitions]) -> Callable[..., Definitions]:
    @wraps(merge)
    def merge_apart(*def_sets: Definitions) -> Definitions:
        return merge(*told_apart(def_sets))

    return merge_apart


Definitions.merge = staticmethod(_wrapped(Definitions.merge))

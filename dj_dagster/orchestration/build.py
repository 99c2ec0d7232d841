"""`build_definitions`, which makes the Dagster definitions of a code location from schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from dagster import AssetChecksDefinition, Definitions, ExecutorDefinition

from dj_dagster.orchestration.arguments import check_kind, listed
from dj_dagster.orchestration.checks import TableChecks
from dj_dagster.orchestration.io_manager import table_resources
from dj_dagster.orchestration.jobs.entry_jobs import Folders, entry_jobs
from dj_dagster.orchestration.jobs.populate_job import populate_job, recompute_job, table_schedules
from dj_dagster.orchestration.jobs.trace_job import trace_job
from dj_dagster.orchestration.merge import belonging
from dj_dagster.orchestration.pipeline import Asset, PartitionsWanted, read_pipeline, table_checks
from dj_dagster.orchestration.runs.assets import table_assets
from dj_dagster.orchestration.runs.chained_steps import chain_executor
from dj_dagster.orchestration.sensor.sensor import populate_sensor
from dj_dagster.orchestration.sensor.sensor_settings import SensorSettings
from dj_dagster.orchestration.tables.collection import SchemaLike
from dj_dagster.orchestration.tables.table_graph import Tables
from dj_dagster.orchestration.translator import TableTranslator
from dj_dagster.relational.database.connection import Connection


def build_definitions(
    schemas: SchemaLike | Iterable[SchemaLike],
    *,
    connection: Connection | None = None,
    select: Tables | None = None,
    exclude: Tables = (),
    translator: TableTranslator | None = None,
    partition_by: PartitionsWanted | None = None,
    checks: TableChecks | None = None,
    assets: Sequence[Asset] = (),
    asset_checks: Sequence[AssetChecksDefinition] = (),
    jobs: Sequence[Any] = (),
    schedules: Sequence[Any] = (),
    sensors: Sequence[Any] = (),
    resources: Mapping[str, Any] | None = None,
    executor: ExecutorDefinition | None = None,
    sensor_settings: SensorSettings | None = None,
    state_path: Path | None = None,
    entry_folders: Folders = (),
) -> Definitions:
    """Return the assets, checks, jobs, sensor and IO manager for all tables of some schemas.

    Parameters
    ----------
    schemas
        Any of these, or several:

        - a `Schema` or a module that has one called ``schema``: the tables that have classes;
        - another module with table classes: those that it declares or, without any, those that it
          imports;
        - a pattern of schema names, ``"lab_*"``: all tables of the schemas in the database that
          have such names. Tables without a class are shown, but cannot be filled;
        - a schema of DataJoint itself: its tables, filled by their own `make`.
    connection
        The connection for patterns; the default connection if None.
    select, exclude
        Tables to have and to leave out, by name, class or asset key; all by default. Parts go with
        their masters. Names are those of `dj_dagster.model.selection`: ``"lab.Session"``, a schema
        ``"lab"``, ``"tier:computed"``, with ``*`` for anything, ``"Session+"`` with all below.
    translator
        The translator of tables into assets; a `TableTranslator` by default.
    partition_by
        The first attributes of the key that tell a table's partitions apart, by name, class or
        asset key: ``{"lab.Spikes": "subject_id"}``. One partition then stands for many keys. Of
        several that fit a table, the one that fits fewest tables counts.
    checks
        The checks of the tables; see `TableChecks` for the default.
    assets
        Ordinary assets of yours. One that has the key of a Manual or Lookup table stands for that
        table: what it returns is written there when its `io_manager_key` is
        ``"table_io_manager"``.
    asset_checks
        Asset checks of yours. Runs of the sensor evaluate those of tables that are blocking.
    jobs, schedules, sensors, resources
        Further definitions of yours, as in `dagster.Definitions`.
    executor
        The executor of the runs; see `chain_executor` for the default. In runs of another, a failed
        key keeps back all keys of the tables below.
    sensor_settings
        Batch size, interval and bounds of the sensor.
    state_path
        The file that keeps the tables found by patterns, so that the code location loads while the
        database is down; by default one file a database, under DAGSTER_HOME or in ``.dagster``.
    entry_folders
        Folders of the machine that runs the entry jobs, from which the launchpad may take CSV files
        and files to store. Without folders it takes rows only.

    Notes
    -----
    The parts come from functions of their own, for teams that want to put them together:
    `read_pipeline` reads the tables, `table_assets`, `table_checks`, `entry_jobs`, `populate_job`,
    `recompute_job`, `trace_job`, `table_schedules`, `populate_sensor` and `table_resources` build
    from them.

    `Definitions.merge` joins several results with different tables; Dagster joins components with
    it, too. The names of the sensors, of the jobs ``populate``, ``recompute`` and ``trace``, and of
    the schedules given here then end with those of their schemas, ``populate__lab``, and one IO
    manager serves all tables.

    Raises
    ------
    ConfigurationError
        When an asset of yours has the key of a table that `make` fills, a schema comes twice, a
        name does not fit any table, `partition_by` does not name the first attributes of a key, the
        translator returns something else than it should, or an argument is of another kind.
    DataJointError
        When the database cannot be reached.

    Examples
    --------
    >>> from dj_dagster.relational.schemas.schema import Schema
    >>> from dj_dagster.relational.table import Manual
    >>> schema = Schema("lab", connection=Connection("sqlite:///:memory:"))
    >>> @schema
    ... class Subject(Manual):
    ...     definition = "subject_id : int32"
    >>> defs = build_definitions(schema)
    >>> [spec.key.path for spec in defs.resolve_all_asset_specs()]
    [['lab', 'subject']]
    """
    words = "a mapping of names to resources"
    check_kind("The argument resources", resources, (Mapping, NoneType), words)
    kinds = (ExecutorDefinition, NoneType)
    check_kind("The argument executor", executor, kinds, "an executor of Dagster")
    jobs = listed("The argument jobs", jobs, "jobs")
    schedules = listed("The argument schedules", schedules, "schedules")
    sensors = listed("The argument sensors", sensors, "sensors")
    pipeline = read_pipeline(
        schemas,
        connection=connection,
        select=select,
        exclude=exclude,
        translator=translator,
        partition_by=partition_by,
        checks=checks,
        assets=assets,
        asset_checks=asset_checks,
        sensor_settings=sensor_settings,
        state_path=state_path,
    )
    return Definitions(
        assets=table_assets(pipeline),
        asset_checks=table_checks(pipeline),
        jobs=[
            *entry_jobs(pipeline, entry_folders),
            populate_job(pipeline),
            recompute_job(pipeline),
            trace_job(pipeline),
            *belonging(pipeline, jobs),
        ],
        schedules=table_schedules(pipeline, schedules),
        sensors=[populate_sensor(pipeline), *sensors],
        resources={**table_resources(pipeline), **(resources or {})},
        executor=executor or chain_executor(),
    )

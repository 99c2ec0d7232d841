"""The orchestration floor: tables as Dagster assets that keep themselves up to date."""

from importlib.metadata import version

from dagster_shared.libraries import DagsterLibraryRegistry

from dj_dagster.orchestration.build import build_definitions
from dj_dagster.orchestration.checks import TableChecks
from dj_dagster.orchestration.component import PipelineComponent
from dj_dagster.orchestration.database_resource import DatabaseResource
from dj_dagster.orchestration.history import CompactedTable, compact_events
from dj_dagster.orchestration.inspection.doctor import Diagnosis, diagnose
from dj_dagster.orchestration.inspection.launched_doctor import diagnose_launcher
from dj_dagster.orchestration.inspection.plan import PlannedTable, plan, plan_deletion
from dj_dagster.orchestration.inspection.status import (
    FailedKey,
    TableStatus,
    failed_in_run,
    failed_keys,
    status,
)
from dj_dagster.orchestration.io_manager import TableIOManager, table_resources
from dj_dagster.orchestration.jobs.entry_jobs import entry_jobs
from dj_dagster.orchestration.jobs.local_populate import populate, recompute, retry_failed
from dj_dagster.orchestration.jobs.populate_job import (
    populate_job,
    populate_schedule,
    recompute_job,
    recompute_schedule,
    table_schedules,
)
from dj_dagster.orchestration.jobs.schema_jobs import (
    check_job,
    check_schedule,
    garbage_job,
    garbage_schedule,
)
from dj_dagster.orchestration.jobs.trace_job import Trace, trace, trace_job
from dj_dagster.orchestration.pipeline import Pipeline, read_pipeline, table_checks
from dj_dagster.orchestration.runs.assets import table_assets
from dj_dagster.orchestration.runs.chained_steps import chain_executor
from dj_dagster.orchestration.runs.work import Work
from dj_dagster.orchestration.scaffold import new_pipeline
from dj_dagster.orchestration.sensor.folder_sensor import folder_sensor
from dj_dagster.orchestration.sensor.sensor import populate_sensor
from dj_dagster.orchestration.sensor.sensor_settings import (
    RetryPolicy,
    SensorSettings,
    TableSettings,
)
from dj_dagster.orchestration.synchronization import sync
from dj_dagster.orchestration.tables.grains import Grain, decode_key, encode_key
from dj_dagster.orchestration.tables.table_node import asset_key
from dj_dagster.orchestration.translator import TableProps, TableTranslator, figure_metadata

__all__ = [
    "CompactedTable",
    "DatabaseResource",
    "Diagnosis",
    "FailedKey",
    "Grain",
    "Pipeline",
    "PipelineComponent",
    "PlannedTable",
    "RetryPolicy",
    "SensorSettings",
    "TableChecks",
    "TableIOManager",
    "TableProps",
    "TableSettings",
    "TableStatus",
    "TableTranslator",
    "Trace",
    "Work",
    "asset_key",
    "build_definitions",
    "chain_executor",
    "check_job",
    "check_schedule",
    "compact_events",
    "decode_key",
    "diagnose",
    "diagnose_launcher",
    "encode_key",
    "entry_jobs",
    "failed_in_run",
    "failed_keys",
    "figure_metadata",
    "folder_sensor",
    "garbage_job",
    "garbage_schedule",
    "new_pipeline",
    "plan",
    "plan_deletion",
    "populate",
    "populate_job",
    "populate_schedule",
    "populate_sensor",
    "read_pipeline",
    "recompute",
    "recompute_job",
    "recompute_schedule",
    "retry_failed",
    "status",
    "sync",
    "table_assets",
    "table_checks",
    "table_resources",
    "table_schedules",
    "trace",
    "trace_job",
]

DagsterLibraryRegistry.register("dj-dagster", version("dj-dagster"), is_dagster_package=False)

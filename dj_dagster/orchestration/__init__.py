"""The orchestration floor: tables as Dagster assets that keep themselves up to date."""

from importlib.metadata import version

from dagster_shared.libraries import DagsterLibraryRegistry

from dj_dagster.orchestration.build import build_definitions, chain_executor
from dj_dagster.orchestration.checks import TableChecks
from dj_dagster.orchestration.component import PipelineComponent
from dj_dagster.orchestration.database_resource import DatabaseResource
from dj_dagster.orchestration.io_manager import TableIOManager
from dj_dagster.orchestration.jobs.recompute_job import recompute
from dj_dagster.orchestration.jobs.schedules import populate_schedule, recompute_schedule
from dj_dagster.orchestration.jobs.schema_jobs import (
    check_job,
    check_schedule,
    garbage_job,
    garbage_schedule,
)
from dj_dagster.orchestration.jobs.trace_job import Trace, trace
from dj_dagster.orchestration.pictures import figure_metadata
from dj_dagster.orchestration.runs.work import Work
from dj_dagster.orchestration.sensor.folder_sensor import folder_sensor
from dj_dagster.orchestration.sensor.sensor_settings import (
    RetryPolicy,
    SensorSettings,
    TableSettings,
)
from dj_dagster.orchestration.synchronization import sync
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partition_keys import decode_key, encode_key
from dj_dagster.orchestration.translator import TableProps, TableTranslator

__all__ = [
    "DatabaseResource",
    "Grain",
    "PipelineComponent",
    "RetryPolicy",
    "SensorSettings",
    "TableChecks",
    "TableIOManager",
    "TableProps",
    "TableSettings",
    "TableTranslator",
    "Trace",
    "Work",
    "build_definitions",
    "chain_executor",
    "check_job",
    "check_schedule",
    "decode_key",
    "encode_key",
    "figure_metadata",
    "folder_sensor",
    "garbage_job",
    "garbage_schedule",
    "populate_schedule",
    "recompute",
    "recompute_schedule",
    "sync",
    "trace",
]

DagsterLibraryRegistry.register("dj-dagster", version("dj-dagster"), is_dagster_package=False)

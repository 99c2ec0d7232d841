"""Unpublished names of Dagster, which this package imports only here.

A minor release of Dagster may move any of them. `tests/orchestration/test_dagster_contract.py` uses
each as this package does; `pyproject.toml` allows only the minor releases that passed this test.
"""

from __future__ import annotations

import dagster

try:
    from dagster._core.code_pointer import CodePointer
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (
        AssetCheckEvaluationTargetMaterializationData,
    )
    from dagster._core.definitions.data_version import (
        CODE_VERSION_TAG,
        DATA_VERSION_TAG,
        DEFAULT_DATA_VERSION,
        NULL_EVENT_POINTER,
        extract_data_version_from_entry,
        get_input_data_version_tag,
        get_input_event_pointer_tag,
    )
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.definitions.metadata.metadata_value import ObjectMetadataValue
    from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
    from dagster._core.definitions.reconstruct import repository_def_from_target_def
    from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
    from dagster._core.events import (
        AssetMaterializationPlannedData,
        AssetObservationData,
        EngineEventData,
        StepMaterializationData,
    )
    from dagster._core.execution.api import create_execution_plan, execute_run
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.active import ActiveExecution
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.plan.step import ExecutionStep
    from dagster._core.execution.retries import RetryMode
    from dagster._core.execution.step_dependency_config import StepDependencyConfig
    from dagster._core.executor.in_process import InProcessExecutor
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
    from dagster._core.launcher import LaunchRunContext, WorkerStatus
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster._core.snap import snapshot_from_execution_plan
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecord,
        AssetCheckExecutionRecordStatus,
    )
    from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
    from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
    from dagster._core.storage.event_log.schema import (
        AssetEventTagsTable,
        AssetKeyTable,
        DynamicPartitionsTable,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.runs.schema import RunsTable
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
    from dagster._core.storage.tags import (
        ASSET_PARTITION_RANGE_END_TAG,
        ASSET_PARTITION_RANGE_START_TAG,
        AUTO_MATERIALIZE_TAG,
        BACKFILL_ID_TAG,
        PARTITION_NAME_TAG,
        PRIORITY_TAG,
        RUN_KEY_TAG,
        SENSOR_NAME_TAG,
    )
    from dagster._core.utils import make_new_run_id
    from dagster._core.workspace.autodiscovery import loadable_targets_from_loaded_module
    from dagster._serdes import deserialize_value, serialize_value
except ImportError as error:
    raise ImportError(
        f"This release of dj_dagster works with Dagster 1.13, and {dagster.__version__} is "
        f"installed: {error}. Install 'dagster>=1.13,<1.14', or a newer dj_dagster."
    ) from error

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "AUTO_MATERIALIZE_TAG",
    "BACKFILL_ID_TAG",
    "CODE_VERSION_TAG",
    "DATA_VERSION_TAG",
    "DEFAULT_DATA_VERSION",
    "NOT_FINISHED_STATUSES",
    "NULL_EVENT_POINTER",
    "PARTITION_NAME_TAG",
    "PRIORITY_TAG",
    "RUNLESS_JOB_NAME",
    "RUNLESS_RUN_ID",
    "RUN_KEY_TAG",
    "SENSOR_NAME_TAG",
    "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION",
    "ActiveExecution",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionRecordStatus",
    "AssetEventTagsTable",
    "AssetKeyTable",
    "AssetMaterializationPlannedData",
    "AssetObservationData",
    "CodePointer",
    "DefaultPartitionsSubset",
    "DynamicPartitionsTable",
    "EngineEventData",
    "ExecutionPlan",
    "ExecutionStep",
    "InMemoryJob",
    "InProcessExecutor",
    "InstanceRef",
    "JobPythonOrigin",
    "LaunchRunContext",
    "ObjectMetadataValue",
    "PlanOrchestrationContext",
    "RepositoryPythonOrigin",
    "RetryMode",
    "RunsTable",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqlRunStorage",
    "SqliteEventLogStorage",
    "StepDependencyConfig",
    "StepMaterializationData",
    "WorkerStatus",
    "create_execution_plan",
    "deserialize_value",
    "execute_run",
    "extract_data_version_from_entry",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
    "loadable_targets_from_loaded_module",
    "make_new_run_id",
    "repository_def_from_target_def",
    "serialize_value",
    "snapshot_from_execution_plan",
]

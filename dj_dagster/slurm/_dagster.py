"""Unpublished names of Dagster that run launchers are written with, imported only here.

They stand apart from those of `dj_dagster.orchestration`, so that the launcher loads no tables. The
tests on a real Slurm use each; `pyproject.toml` allows only the minor releases that passed them.
"""

from __future__ import annotations

import dagster

try:
    from dagster._config import UserConfigSchema
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.launcher import (
        CheckRunHealthResult,
        LaunchRunContext,
        ResumeRunContext,
        RunLauncher,
        WorkerStatus,
    )
    from dagster._daemon.monitoring import RESUME_RUN_LOG_MESSAGE
    from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
    from dagster._serdes import (
        ConfigurableClass,
        ConfigurableClassData,
        deserialize_value,
        serialize_value,
    )
    from dagster._utils.hosted_user_process import recon_repository_from_origin
except ImportError as error:
    raise ImportError(
        f"The launcher for Slurm works with Dagster 1.13, and {dagster.__version__} is "
        f"installed: {error}. Install 'dagster>=1.13,<1.14', or a newer dj_dagster."
    ) from error

__all__ = [
    "RESUME_RUN_LOG_MESSAGE",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "ExecuteRunArgs",
    "InstanceRef",
    "LaunchRunContext",
    "ResumeRunArgs",
    "ResumeRunContext",
    "RunLauncher",
    "UserConfigSchema",
    "WorkerStatus",
    "deserialize_value",
    "recon_repository_from_origin",
    "serialize_value",
]

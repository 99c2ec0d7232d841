"""The Dagster instance, with its history, of the demos that run without the UI."""

from __future__ import annotations

from pathlib import Path

from dagster import DagsterInstance
from dagster._core.instance import InstanceRef


def history() -> DagsterInstance:
    """Return the instance that `dagster dev` uses in this folder, so that its UI shows the runs.

    In a folder without ``dagster.yaml``, it is a temporary instance.
    """
    if Path("dagster.yaml").is_file():
        return DagsterInstance.from_ref(InstanceRef.from_dir(str(Path.cwd())))
    return DagsterInstance.ephemeral()

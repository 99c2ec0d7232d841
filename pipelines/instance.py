"""Where the demos that run without the UI keep Dagster's history."""

from __future__ import annotations

from pathlib import Path

from dagster import DagsterInstance
from dagster._core.instance import InstanceRef


def history() -> DagsterInstance:
    """Return the instance that `dagster dev` uses in this folder, so that its UI shows the runs.

    Where there is no ``dagster.yaml``, it is one that is forgotten at its end.
    """
    if Path("dagster.yaml").is_file():
        return DagsterInstance.from_ref(InstanceRef.from_dir(str(Path.cwd())))
    return DagsterInstance.ephemeral()

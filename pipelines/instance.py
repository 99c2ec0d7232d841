"""The Dagster instance, with its history, of the demos that run without the UI."""

from __future__ import annotations

from dagster import DagsterInstance

from dj_dagster.orchestration.inspection.project import dagster_instance


def history() -> DagsterInstance:
    """Return the instance that `dagster dev` uses in this folder, so that its UI shows the runs.

    In a folder without ``dagster.yaml``, and without DAGSTER_HOME, it is a temporary instance.
    """
    return dagster_instance(ephemeral=True)

"""Tags by which tables and run launchers know of each other, without importing each other."""

from __future__ import annotations

from collections.abc import Mapping

from dagster import DagsterInstance, DagsterRun

HERE_ONLY_TAG = "dj_dagster/here_only"
"""The tag of steps that other machines can't execute; its value says why, and what to do."""

HELPERS_TAG = "dj_dagster/helpers"
"""The tag of a run that has helpers, with the run's id and their number; its launcher sets it."""


def step_tags(instance: DagsterInstance, run: DagsterRun) -> Mapping[str, Mapping[str, str]]:
    """Return the tags of the steps that a run executes, by the step's name.

    By these a launcher tells where and with what the run runs. Those of tables come from
    `TableTranslator.get_op_tags`.
    """
    if run.execution_plan_snapshot_id is None:
        return {}
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    chosen = plan.step_keys_to_execute
    return {step.key: step.tags or {} for step in plan.steps if step.key in chosen}


def must_stay(step: str, tags: Mapping[str, str]) -> str | None:
    """Return why other machines can't execute a step, None if they can."""
    reason = tags.get(HERE_ONLY_TAG)
    return None if reason is None else f"Step {step} can't leave this machine. {reason}"

"""The tags of a run's steps, by which run launchers tell where and with what it runs."""

from __future__ import annotations

from collections.abc import Mapping

from dagster import DagsterInstance, DagsterRun

HERE_ONLY_TAG = "dj_dagster/here_only"
"""Tag of steps that other machines can't execute, with the reason; our tables have it of need."""


def step_tags(instance: DagsterInstance, run: DagsterRun) -> Mapping[str, Mapping[str, str]]:
    """Return the tags of the steps that a run executes, by the step's name.

    Those of tables come from `TableTranslator.get_op_tags`.
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

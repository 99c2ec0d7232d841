"""The executor of runs, in which tables go on below failed keys and all else waits for success."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from dagster import DagsterEvent, Executor, ExecutorDefinition, InitExecutorContext, executor

from dj_dagster.orchestration._dagster import (
    ActiveExecution,
    ExecutionPlan,
    ExecutionStep,
    InProcessExecutor,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
)
from dj_dagster.orchestration.runs.node_code import PLANNED_TAG


@cache
def chain_executor() -> ExecutorDefinition:
    """Return the default executor: one process, in which tables go on below failed keys.

    A table's step fails when some of its keys fail. The tables below it start nevertheless, for the
    other keys, and so do the checks of the table. All other steps start as in Dagster's own
    executor: when the steps above them have succeeded, and blocking checks have passed.

    It is the same each time, so that Dagster merges definitions that have it.
    """

    @executor(name="in_process")
    def in_process(context: InitExecutorContext) -> Executor:
        del context
        # With this setting Dagster asks the methods of `_Steps` which steps may start.
        when = StepDependencyConfig(require_upstream_step_success=False)
        return _ChainExecutor(RetryMode.ENABLED, when)

    return in_process


class _ChainExecutor(InProcessExecutor):
    """Dagster's executor with the rule of `_Steps`."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        plan = _Plan._make(execution_plan)
        context = PlanOrchestrationContext(
            plan_context.plan_data._replace(execution_plan=plan),
            plan_context.log,
            self,
            plan_context.output_capture,
            plan_context.resume_from_failure,
        )
        yield from super().execute(context, plan)


class _Plan(ExecutionPlan):
    def start(self, *args: Any, **options: Any) -> ActiveExecution:
        return _Steps(self, *args, **options)


class _Steps(ActiveExecution):
    """The state of a run's steps: which of them may start, and which cannot start any more."""

    def _all_upstream_outputs_failed_or_abandoned(self, step_key: str) -> bool:
        """Return whether a step cannot start any more."""
        return self._is_after_all(step_key) and any(
            above in self._abandoned or not self._goes_on(above, step_key)
            for above in self._pending[step_key] & (self._failed | self._abandoned)
        )

    def _all_upstream_outputs_produced(self, step_key: str) -> bool:
        """Return whether a step may start; Dagster asks once the method above has said no."""
        return self._is_after_all(step_key)

    def _is_after_all(self, step_key: str) -> bool:
        ended = self._success | self._skipped | self._failed | self._abandoned
        return self._pending[step_key] <= ended

    def _goes_on(self, failed: str, step_key: str) -> bool:
        """Return whether a step starts below a failed one: a table whose other keys are made."""
        above, step = self.get_step_by_key(failed), self.get_step_by_key(step_key)
        outputs = [
            output
            for each in step.step_inputs
            for output in each.get_step_output_handle_dependencies()
            if output.step_key == failed
        ]
        return (
            _is_of_table(above)
            and (_is_of_table(step) or _is_check(step))
            and self._step_outputs.issuperset(outputs)
        )


def _is_of_table(step: ExecutionStep) -> bool:
    return PLANNED_TAG in (step.tags or {})


def _is_check(step: ExecutionStep) -> bool:
    # The outputs of what is not selected in a run are neither.
    found = [each.properties for each in step.step_outputs]
    is_asset = any(each.asset_key is not None for each in found)
    return not is_asset and any(each.asset_check_key is not None for each in found)

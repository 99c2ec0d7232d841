"""Runs whose process was killed while nobody watched it.

A code server reports the end of the run processes that it has started. One that is started anew
knows nothing of those before it, and Dagster has such a run at work for ever, its keys with it.
"""

from __future__ import annotations

import os

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from dj_dagster.orchestration.attempts import FAILED_TAG
from dj_dagster.workflow.liveness import is_gone, process_mark

PROCESS_TAG = "dj_dagster/process"
"""The id of the run and which process it is: a run that is executed again begins with all tags of
the one that it repeats, whose process may be gone."""

AT_WORK = (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)


def note_process(instance: DagsterInstance, run: DagsterRun) -> None:
    """Note with a run which process it is, so that its end can be seen.

    What the tags of a run that is executed again tell of the one before is taken back.
    """
    again = run.parent_run_id is not None
    # The step knows the tags as they were when its process began.
    now = (instance.get_run_by_id(run.run_id) if again else None) or run
    if _process(now) is not None:
        return
    mark = _mark(instance, run)
    if again or mark:
        told = {FAILED_TAG: "0"} if FAILED_TAG in now.tags else {}
        instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{run.run_id} {mark}", **told})


def _mark(instance: DagsterInstance, run: DagsterRun) -> str:
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    logged = (event.get_dagster_event().engine_event_data.metadata for event in events)
    told = {str(metadata["pid"].value) for metadata in logged if "pid" in metadata}
    # A step may have a process of its own; the run's is the one that Dagster has told of.
    own = (process for process in (os.getppid(), os.getpid()) if str(process) in told)
    return next(map(process_mark, own), "")


def _process(run: DagsterRun) -> str | None:
    """Return the mark of a run's process, None before there is one of this run."""
    run_id, _, mark = run.tags.get(PROCESS_TAG, "").partition(" ")
    return mark if run_id == run.run_id else None


def end_lost_runs(instance: DagsterInstance) -> None:
    """Have the runs fail that are at work by Dagster's books, and whose process is gone."""
    for run in instance.get_runs(RunsFilter(statuses=list(AT_WORK))):
        if not is_gone(_process(run) or ""):
            continue
        # It may have ended well since it was read.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in AT_WORK:
            instance.report_run_failed(
                now, "The process of this run is gone: it ended, or was killed, without a word."
            )

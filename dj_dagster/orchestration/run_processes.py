"""Runs whose process was killed while nobody watched it.

A code server reports the end of the run processes that it has started. One that is started anew
knows nothing of those before it, and Dagster has such a run at work for ever, its keys with it.
"""

from __future__ import annotations

import os

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from dj_dagster.workflow.liveness import is_gone, process_mark

PROCESS_TAG = "dj_dagster/process"

AT_WORK = (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)


def note_process(instance: DagsterInstance, run: DagsterRun) -> None:
    """Note with a run which process it is, so that its end can be seen."""
    if PROCESS_TAG in run.tags:
        return
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    told = " ".join(event.message or "" for event in events)
    # A step may have a process of its own; the run's is the one that Dagster has told of.
    for process in (os.getppid(), os.getpid()):
        if f"(pid: {process})" in told:
            instance.add_run_tags(run.run_id, {PROCESS_TAG: process_mark(process)})
            return


def end_lost_runs(instance: DagsterInstance) -> None:
    """Have the runs fail that are at work by Dagster's books, and whose process is gone."""
    for run in instance.get_runs(RunsFilter(statuses=list(AT_WORK))):
        if not is_gone(run.tags.get(PROCESS_TAG, "")):
            continue
        # It may have ended well since it was read.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in AT_WORK:
            instance.report_run_failed(
                now, "The process of this run is gone: it ended, or was killed, without a word."
            )

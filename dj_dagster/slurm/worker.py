"""The process of a run on a node: what `dagster api execute_run` does, on behalf of a job.

Started as ``python -m dj_dagster.slurm.worker FILE``.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from dj_dagster.slurm._dagster import InstanceRef, deserialize_value
from dj_dagster.slurm.resources import ATTEMPT_TAG, JOB_TAG, MARK

_OVER = {DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}


def main(path: Path) -> None:
    """Do what the file says, unless another job of the run was submitted since."""
    try:
        order = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        print(f"{path} is gone: the run is over, or another job has it.", flush=True)
        return
    # It may hold passwords, and a job runs once.
    path.unlink()
    args: Any = deserialize_value(order["arguments"])
    ref, run_id, attempt = args.instance_ref, args.run_id, order["attempt"]
    os.environ[MARK] = run_id
    if not _begin(ref, run_id, attempt):
        return
    watch = (ref, run_id, attempt, order["poll_seconds"])
    threading.Thread(target=end_if_replaced, args=watch, daemon=True).start()
    sys.argv = ["dagster", "api", order["command"], order["arguments"]]
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


def _begin(ref: InstanceRef, run_id: str, attempt: str) -> bool:
    """Record which job this is and where; return whether it is to work on the run."""
    job, node = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURMD_NODENAME", "")
    with DagsterInstance.from_ref(ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or _is_replaced(run, attempt):
            print(f"Run {run_id} is gone, or another job has it.", flush=True)
            return False
        # The submitter may have died before it knew the number.
        instance.add_run_tags(run_id, {JOB_TAG: job})
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, f"Slurm job {job} began after the run was cancelled.")
            return False
        instance.report_engine_event(
            f"Slurm job {job} runs on {node} with {sys.executable} in {Path.cwd()}.", run
        )
    return True


def end_if_replaced(ref: InstanceRef, run_id: str, attempt: str, poll_seconds: float) -> None:
    """End this process and all that it started once the run is not its own any more.

    A node that Slurm has given up may work on without hearing of it.
    """
    over = 0
    with DagsterInstance.from_ref(ref) as instance:
        while True:
            threading.Event().wait(poll_seconds)
            try:
                run = instance.get_run_by_id(run_id)
            except Exception:
                # Without the database nothing is made either; it may come back.
                continue
            # The end of a run by its own worker comes some time before that of the process.
            over = over + 1 if run is not None and run.status in _OVER else 0
            if run is None or _is_replaced(run, attempt) or over > _LAST_LOOKS:
                print(f"Run {run_id} is over, or another job has it: ending.", flush=True)
                os.killpg(os.getpgrp(), signal.SIGKILL)


_LAST_LOOKS = 3
"""Looks at a run that is over before its process is ended."""


def _is_replaced(run: DagsterRun, attempt: str) -> bool:
    return run.tags.get(ATTEMPT_TAG) != attempt


if __name__ == "__main__":
    main(Path(sys.argv[1]))

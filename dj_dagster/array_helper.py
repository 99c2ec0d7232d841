"""The process of a job in an array of Slurm: it makes keys of a run that another job executes.

Started as ``python -m dj_dagster.array_helper FILE``, by the launcher for Slurm.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from dagster import DagsterInstance

from dj_dagster.errors import counted
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.runs.helping import help_run
from dj_dagster.slurm._dagster import deserialize_value, recon_repository_from_origin
from dj_dagster.slurm.resources import MARK
from dj_dagster.slurm.worker import end_if_replaced


def main(path: Path) -> None:
    """Help with the run that the file names, until it has ended or another job has it."""
    try:
        order = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        print("The run is over: another helper has removed its file.", flush=True)
        return
    args: Any = deserialize_value(order["arguments"])
    ref, run_id = args.instance_ref, args.run_id
    os.environ[MARK] = run_id
    watch = (ref, run_id, order["attempt"], order["poll_seconds"])
    threading.Thread(target=end_if_replaced, args=watch, daemon=True).start()
    origin = args.job_origin.repository_origin
    repository = recon_repository_from_origin(origin).get_definition()
    with DagsterInstance.from_ref(ref) as instance:
        made = help_run(instance, run_id, pipelines_of(repository.sensor_defs))
    print(f"This process made {counted(made, 'key')} of run {run_id}.", flush=True)
    # It may hold passwords.
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A Dagster project without tables, whose ops say where they ran and wait as they are told."""

import os
import time
from pathlib import Path

import dagster as dg


def note(*words: object) -> None:
    """Add a line to the notes, in one write."""
    with Path(os.environ["SLURM_TEST_NOTES"]).open("ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\n").encode())


@dg.op(tags={"dj-slurm/cpus": "2", "dj-slurm/time": "5"})
def measure(context: dg.OpExecutionContext) -> int:
    """Say on which node this is."""
    note("measure", context.run_id, os.environ["SLURM_JOB_ID"], os.environ["SLURM_CPUS_PER_TASK"])
    return 6


@dg.op
def multiply(context: dg.OpExecutionContext, number: int) -> None:
    """Use what the other op gave."""
    note("multiply", context.run_id, number * 7)


@dg.job(executor_def=dg.in_process_executor)
def plain() -> None:
    """Hand a value from op to op."""
    multiply(measure())


@dg.op(config_schema={"gate": str, "megabytes": dg.Field(int, default_value=0)})
def wait(context: dg.OpExecutionContext) -> None:
    """Use some memory, and wait until a file is there."""
    used = bytearray(context.op_config["megabytes"] * 1_000_000)
    note("wait", context.run_id, os.environ["SLURM_JOB_ID"], os.environ["SLURMD_NODENAME"])
    while not Path(context.op_config["gate"]).exists():
        time.sleep(0.05)
    del used
    note("waited", context.run_id, os.environ["SLURM_JOB_ID"])


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    """Work until a file is there."""
    wait()


@dg.job
def waiting_apart() -> None:
    """Work until a file is there, in a process for each step, as Dagster does by default."""
    wait()


defs = dg.Definitions(jobs=[plain, waiting, waiting_apart])

"""The jobs of runs: what they are told, how they are submitted, and what becomes of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from dj_dagster.launcher_tags import HELPERS_TAG, step_tags
from dj_dagster.slurm._dagster import ExecuteRunArgs, InstanceRef, ResumeRunArgs, serialize_value
from dj_dagster.slurm.commands import Slurm, SlurmError
from dj_dagster.slurm.health import Fate, Verdict, judge
from dj_dagster.slurm.resources import (
    ARRAY,
    ATTEMPT_TAG,
    JOB_TAG,
    SlurmRequestError,
    options,
    requested,
)
from dj_dagster.slurm.settings import Settings

_WORKER, _HELPER = "dj_dagster.slurm.worker", "dj_dagster.array_helper"

_HELPERS = "-helpers"
"""The end of the names of jobs that help with a run."""


@dataclass(frozen=True)
class RunJobs:
    """The jobs of an instance's runs."""

    instance: DagsterInstance
    slurm: Slurm
    settings: Settings

    def submit(self, run: DagsterRun) -> None:
        """Submit a job that executes a run, or goes on with one that has begun.

        A run that can't be submitted has failed, with Slurm's words.
        """
        try:
            self._submit(run)
        except (SlurmError, SlurmRequestError, OSError) as error:
            self.instance.report_run_failed(run, f"The run was not submitted to Slurm. {error}")

    def _submit(self, run: DagsterRun) -> None:
        number = attempt_of(run) + 1
        asked = requested(self.settings.defaults, step_tags(self.instance, run), run.tags)
        order, output = self.files(run.run_id, number)
        helpers = int(asked.get(ARRAY, 1)) - 1
        self.drop_orders(run.run_id)
        self._write_order(run, number, order)
        # From now on no earlier job works on the run.
        tags = {ATTEMPT_TAG: f"{run.run_id}/{number}", JOB_TAG: ""}
        tags |= {HELPERS_TAG: f"{run.run_id} {helpers}"} if helpers else {}
        self.instance.add_run_tags(run.run_id, tags)
        name, asked_options = job_name(run.run_id, number), options(asked)
        job = self._send(run, name, _WORKER, order, _literal(output), asked_options)
        self.instance.add_run_tags(run.run_id, {JOB_TAG: job})
        wishes = ", ".join(f"{name} {value}" for name, value in asked.items())
        self.instance.report_engine_event(
            f"Submitted to Slurm as job {job}{wishes and f', with {wishes}'}. It runs "
            f"{self._python(run)} in {self._folder} and writes its output to {output}.",
            run,
        )
        if helpers:
            self._submit_helpers(run, number, job, [f"--array=1-{helpers}", *asked_options])

    def _submit_helpers(self, run: DagsterRun, number: int, job: str, asked: list[str]) -> None:
        """Submit the jobs that help with a run, which works alone if they are refused."""
        folder = self.settings.folder / run.run_id
        order, output = folder / f"{number}.helpers.json", f"{_literal(folder)}/{number}.%a.out"
        name = f"{job_name(run.run_id, number)}{_HELPERS}"
        try:
            # They begin once the run's own job has: until then it may be cancelled.
            after = f"--dependency=after:{job}"
            self._write_order(run, number, order)
            helpers = self._send(run, name, _HELPER, order, output, [after, *asked])
            text = f"Submitted to Slurm as array {helpers}, which helps with the run."
        except (SlurmError, OSError) as error:
            text = f"The run works alone, for its helpers were not submitted to Slurm. {error}"
        self.instance.report_engine_event(text, run)

    def _send(
        self,
        run: DagsterRun,
        name: str,
        module: str,
        order: Path,
        output: str,
        asked: list[str],
    ) -> str:
        """Submit a job that does what a file says, and return its number."""
        command = f"{shlex.quote(self._python(run))} -m {module} {shlex.quote(str(order))}"
        try:
            return self.slurm.submit(
                # Only a login shell has `module`, and the like.
                f"#!/bin/bash -l\n{self.settings.setup}\nexec {command}\n"
                if self.settings.setup
                else f"#!/bin/sh\nexec {command}\n",
                name,
                [
                    # Slurm itself would start the run anew, instead of going on with it.
                    "--no-requeue",
                    f"--chdir={self._folder}",
                    f"--output={output}",
                    *asked,
                    *self.settings.options,
                ],
            )
        except SlurmError:
            order.unlink(missing_ok=True)
            raise

    @property
    def _folder(self) -> str:
        return self.settings.working_directory or str(Path.cwd())

    def judge(self, run: DagsterRun, job: str) -> Verdict:
        """Return what became of a run's job."""
        output = self.files(run.run_id, attempt_of(run))[1]
        return judge(self.slurm, job, output, self.settings)

    def settle(self, run: DagsterRun, verdict: Verdict) -> None:
        """Record the end of a run that does not go on; one that may gets the tags for it."""
        if verdict.fate is Fate.CANCELED:
            if run.status != DagsterRunStatus.CANCELING:
                self.instance.report_run_canceling(run, verdict.message)
            self.end_canceled(run, verdict.message)
        elif verdict.fate is Fate.FAILED:
            self.drop_orders(run.run_id)
            self.instance.report_run_failed(run, verdict.message)
        elif verdict.more:
            self.instance.add_run_tags(run.run_id, verdict.more)

    def end_canceled(self, run: DagsterRun, message: str) -> None:
        """Record that a run has been cancelled, whose job has ended or had not begun."""
        self.drop_orders(run.run_id)
        self.instance.report_run_canceled(run, message)

    def drop_orders(self, run_id: str) -> None:
        """Remove the files of jobs that have not begun; they may hold passwords."""
        for order in (self.settings.folder / run_id).glob("*.json"):
            order.unlink(missing_ok=True)

    def files(self, run_id: str, attempt: int) -> tuple[Path, Path]:
        """Return the files of a job: what it has to do, and its output."""
        folder = self.settings.folder / run_id
        return folder / f"{attempt}.json", folder / f"{attempt}.out"

    def _python(self, run: DagsterRun) -> str:
        origin = run.job_code_origin
        return self.settings.python or (origin.executable_path if origin else sys.executable)

    def _write_order(self, run: DagsterRun, attempt: int, path: Path) -> None:
        """Write what a job has to do: a file, for it may be too long for a command line.

        Nobody else may read it, for the instance's settings may hold passwords.
        """
        origin = run.job_code_origin
        if origin is None:
            raise SlurmError(
                f"Run {run.run_id} does not say where its code is: launch it from a code location.",
                transient=False,
            )
        begun = run.status == DagsterRunStatus.STARTED
        args = (ResumeRunArgs if begun else ExecuteRunArgs)(
            job_origin=origin,
            run_id=run.run_id,
            instance_ref=_patient(self.instance.get_ref()),
            set_exit_code_on_failure=True,
        )
        order = {
            "command": "resume_run" if begun else "execute_run",
            "arguments": serialize_value(args),
            "attempt": f"{run.run_id}/{attempt}",
            "poll_seconds": self.settings.poll_seconds,
        }
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(order, file)


def _literal(output: Path) -> str:
    """Return a path for ``sbatch --output``, which replaces ``%j`` and the like."""
    return str(output).replace("%", "%%")


def attempt_of(run: DagsterRun) -> int:
    """Return how often a run was submitted.

    A run that is executed again begins with all tags of the run that it repeats: only tags with the
    run's own id count.
    """
    run_id, _, number = run.tags.get(ATTEMPT_TAG, "").rpartition("/")
    return int(number) if run_id == run.run_id else 0


def job_of(run: DagsterRun) -> str:
    """Return the number of a run's job, empty if it has none, or if it is being submitted."""
    return run.tags.get(JOB_TAG, "") if attempt_of(run) else ""


def job_name(run_id: str, attempt: int) -> str:
    """Return the name of a job, by which it is found if its number was lost."""
    return f"dagster-{run_id}-{attempt}"


def run_of(name: str) -> str | None:
    """Return the run of a job by the job's name, None for a job of somebody else.

    Examples
    --------
    >>> run_of(job_name("0af2-11", 3))
    '0af2-11'
    """
    found = re.fullmatch(rf"dagster-(.+)-\d+(?:{_HELPERS})?", name)
    return found[1] if found else None


def _patient(ref: InstanceRef) -> InstanceRef:
    """Return the instance for a job, in which an interrupted run is not a failed one.

    Slurm ends jobs by the same signal if they are cancelled, preempted or out of time. Dagster lets
    a run be that it believes will be resumed; then the daemon, which asks Slurm, decides.
    """
    monitoring: Any = ref.settings.get("run_monitoring") or {}
    patient = {**monitoring, "enabled": True, "max_resume_run_attempts": sys.maxsize}
    return ref._replace(settings={**ref.settings, "run_monitoring": patient})

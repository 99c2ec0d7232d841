"""The health of a run's job, as Slurm reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from dj_dagster.slurm.commands import Job, Slurm, SlurmError
from dj_dagster.slurm.resources import PREFIX, grown
from dj_dagster.slurm.settings import Settings

_LINES = 40
"""Lines of a job's output that come into the run's log."""

_GROWS = {"TIMEOUT": "time", "OUT_OF_MEMORY": "memory"}


class Fate(Enum):
    """The measure that a run needs."""

    ALIVE = "its job waits or works"
    LOST = "its job has ended before it, and another one may go on"
    FAILED = "its job has ended before it, for good"
    CANCELED = "its job was cancelled"


@dataclass(frozen=True)
class Verdict:
    """The outcome of a job.

    Attributes
    ----------
    message
        The words of Slurm, and the end of the job's output if it went wrong.
    more
        Tags of the run by which its next job gets more time or memory.
    """

    fate: Fate
    message: str
    more: Mapping[str, str] = field(default_factory=dict[str, str])


def judge(slurm: Slurm, number: str, output: Path, settings: Settings) -> Verdict:
    """Return what became of a job whose run has not ended.

    A job that Slurm does not know is lost: Slurm forgets a job some minutes after its end. While
    Slurm does not answer the job counts as alive, for it goes on without the controller.
    """
    try:
        job = slurm.job(number)
        if job is not None and job.ended:
            # An answer of some seconds ago may be older than the job's last words.
            job = slurm.job(number, now=True)
    except SlurmError as error:
        return Verdict(Fate.ALIVE, f"Slurm does not answer: {error}")
    if job is None:
        words = f"Slurm does not know job {number} any more, and the run has not ended."
        return Verdict(Fate.LOST, _with_output(words, output))
    if not job.ended:
        return Verdict(Fate.ALIVE, f"{job}.")
    if job.state == "CANCELLED":
        return Verdict(Fate.CANCELED, f"{job}: it was cancelled in Slurm.")
    message = _with_output(_last_words(slurm, job), output)
    # One that completed before its run was ended by a signal, not by Slurm.
    if job.state in settings.resume_after or job.state == "COMPLETED":
        return Verdict(Fate.LOST, message, _more(job, settings.growth))
    return Verdict(Fate.FAILED, message)


def output_tail(output: Path) -> str:
    """Return the last lines of a job's output; empty if there is none."""
    try:
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LINES:])


def _last_words(slurm: Slurm, job: Job) -> str:
    code = slurm.exit_code(job.id)
    ended = f", exit code {code}" if code else ""
    return f"{job}{ended}, and the run has not ended."


def _with_output(words: str, output: Path) -> str:
    tail = output_tail(output)
    if not tail:
        return f"{words}\nIt left no output in {output}."
    return f"{words}\nThe end of its output, {output}:\n{tail}"


def _more(job: Job, factor: float) -> Mapping[str, str]:
    name = _GROWS.get(job.state)
    if name is None:
        return {}
    value = grown(name, job.time_limit if name == "time" else job.memory, factor)
    return {f"{PREFIX}{name}": value} if value else {}

"""Slurm's commands as functions: submit a job, ask for jobs, cancel one."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ENDED = frozenset(
    {
        *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "BOOT_FAIL"),
        *("NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"),
    }
)
"""States in which a job stays; in any other it is waiting, running or being cleaned up."""

# Slurm's `-o` formats are made for programs and the same in all releases; no field before the
# reason may hold a bar.
_FORMAT = "%i|%T|%j|%N|%l|%m|%r"

_AWAY = re.compile(
    r"unable to contact|socket timed out|connection (?:refused|reset|timed out)|zero bytes"
    r"|temporarily|try again|standby mode|communication|protocol authentication error",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d")
_UNKNOWN = re.compile(r"invalid job id", re.IGNORECASE)

_PATIENCE = 120
"""Seconds that a command may take; Slurm's own ones try for half a minute."""


class SlurmError(Exception):
    """A refusal by Slurm, in its own words.

    Attributes
    ----------
    transient
        Whether the same may well work later: the controller did not answer.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True)
class Job:
    """A job as Slurm sees it.

    Attributes
    ----------
    state
        ``"PENDING"``, ``"RUNNING"``, ``"NODE_FAIL"``, …
    name
        The name under which it was submitted.
    nodes
        Where it runs, or ran; empty if it never began.
    time_limit, memory
        The resources that it may use, as Slurm writes them.
    reason
        Why it waits or has ended, as Slurm says it.
    """

    id: str
    state: str
    name: str
    nodes: str
    time_limit: str
    memory: str
    reason: str

    @property
    def ended(self) -> bool:
        """Whether the job's state is final."""
        return self.state in ENDED

    def __str__(self) -> str:
        nodes = f" on {self.nodes}" if self.nodes else ""
        reason = "" if self.reason in ("", "None") else f" ({self.reason})"
        return f"Slurm job {self.id} is {self.state}{reason}{nodes}"


@dataclass
class Slurm:
    """Slurm's commands on this machine.

    Attributes
    ----------
    retries, delay
        The number of times that a submission is repeated if the controller is away, and the
        seconds before the first repetition, which double each time.
    fresh
        Seconds for which what `squeue` said of all jobs counts. Sites with many runs do not ask
        the controller for each.
    """

    retries: int = 4
    delay: float = 2
    fresh: float = 5
    _jobs: Mapping[str, Job] = field(default_factory=dict[str, Job])
    _asked: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, script: str, name: str, options: Sequence[str]) -> str:
        """Submit a script as a job, and return the job's number.

        Raises
        ------
        SlurmError
            If Slurm refuses the job, or does not answer for all repetitions.
        """
        command = ["sbatch", "--parsable", f"--job-name={name}", *options]
        for delay in (self.delay * 2**n for n in range(self.retries)):
            try:
                return _number(_run(command, script))
            except SlurmError as error:
                if not error.transient:
                    raise
            time.sleep(delay)
            # An answer that was lost is not a submission that was lost.
            with contextlib.suppress(SlurmError):
                if submitted := self.number_of(name):
                    return submitted
        return _number(_run(command, script))

    def jobs(self, *, now: bool = False) -> Mapping[str, Job]:
        """Return our jobs by their numbers, those that have ended some minutes ago among them.

        Parameters
        ----------
        now
            Whether an answer of some seconds ago does not do.

        Raises
        ------
        SlurmError
            If Slurm does not answer.
        """
        with self._lock:
            if now or time.monotonic() - self._asked > self.fresh:
                found = _jobs(_run(["squeue", "-h", "-t", "all", "--me", "-o", _FORMAT]))
                self._jobs, self._asked = found, time.monotonic()
            return self._jobs

    def job(self, number: str, *, now: bool = False) -> Job | None:
        """Return a job, None if Slurm does not know it (any more); see `jobs`."""
        known = self.jobs(now=now).get(number)
        if known is not None:
            return known
        # Younger than the answer, or of another user.
        try:
            printed = _run(["squeue", "-h", "-t", "all", "-j", number, "-o", _FORMAT])
        except SlurmError as error:
            if _UNKNOWN.search(str(error)):
                return None
            raise
        return _jobs(printed).get(number)

    def exit_code(self, number: str) -> str:
        """Return how a job's script ended, as code and signal: ``"1:0"``; empty if not known."""
        try:
            printed = _run(["scontrol", "show", "job", "--oneliner", number])
        except SlurmError:
            return ""
        found = re.search(r"\bExitCode=(\d+:\d+)", printed)
        return found[1] if found else ""

    def cancel(self, number: str) -> None:
        """Cancel a job; one that is over or unknown is left.

        Raises
        ------
        SlurmError
            If Slurm does not answer, or does not let us.
        """
        try:
            _run(["scancel", number])
        except SlurmError as error:
            if not _UNKNOWN.search(str(error)):
                raise

    def number_of(self, name: str) -> str | None:
        """Return the number of the job of that name, None if there is none."""
        printed = _run(["squeue", "-h", "-t", "all", "-n", name, "-o", "%i"])
        return printed.split()[0] if printed.strip() else None


def _run(command: Sequence[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            command,
            input=os.fsencode(text),
            capture_output=True,
            timeout=_PATIENCE,
            # Words by which failures are told apart, and numbers, are not translated.
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise SlurmError(
            f"There is no {command[0]} on this machine's PATH: install Slurm's client commands.",
            transient=False,
        ) from None
    except subprocess.TimeoutExpired:
        message = f"{command[0]} did not answer in {_PATIENCE} seconds."
        raise SlurmError(message, transient=True) from None
    # Other jobs may have any bytes in their names.
    printed, errors = (each.decode(errors="replace") for each in (done.stdout, done.stderr))
    if done.returncode == 0:
        return printed
    words = errors.strip() or f"{command[0]} ended with code {done.returncode}."
    raise SlurmError(words, transient=bool(_AWAY.search(words)))


def _number(printed: str) -> str:
    # With several clusters the cluster's name follows.
    return printed.strip().split(";")[0]


def _jobs(printed: str) -> Mapping[str, Job]:
    # A name or a reason may have ends of lines: what follows them is left out, as are such jobs of
    # others. Ours have names without.
    rows = (line.split("|", 6) for line in printed.split("\n"))
    return {row[0]: Job(*row) for row in rows if len(row) == 7 and _NUMBER.match(row[0])}

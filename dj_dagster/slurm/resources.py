"""Resources that a run asks Slurm for: the tags of the run and of its steps, over defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dj_dagster.launcher_tags import must_stay

PREFIX = "dj-slurm/"
"""The beginning of the tags."""

JOB_TAG = f"{PREFIX}job_id"
"""Tag with the number of a run's job, of the latest if it was resumed."""

ATTEMPT_TAG = f"{PREFIX}attempt"
"""Tag with a run's id and how often it was submitted. Only the latest job may work on it."""

ARRAY = "array"
"""The name of the number of jobs that share one run of tables; there is one by default."""

MARK = "DJ_SLURM_RUN"
"""Environment variable of the process of a run and of all that it starts, with the run's id."""


class SlurmRequestError(ValueError):
    """A request that Slurm could not understand, or steps that do not fit into one job."""


@dataclass(frozen=True)
class Resource:
    """One thing to ask for.

    Attributes
    ----------
    flag
        The option of ``sbatch``; empty for what is not an option of the run's own job.
    form
        A regular expression that values match.
    example
        Advice: what to write instead of a wrong value.
    """

    flag: str
    form: str
    example: str


_NAMES = r"[\w.@+-]+(,[\w.@+-]+)*"

RESOURCES: Mapping[str, Resource] = {
    "partition": Resource("--partition", _NAMES, "the name of a partition"),
    "account": Resource("--account", _NAMES, "the name of an account"),
    "qos": Resource("--qos", _NAMES, "the name of a quality of service"),
    "time": Resource(
        "--time",
        r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|UNLIMITED",
        "minutes such as 90, hours:minutes:seconds such as 1:30:00, or days-hours such as 2-12",
    ),
    "cpus": Resource("--cpus-per-task", r"[1-9]\d*", "a number such as 4"),
    "memory": Resource("--mem", r"\d+[KMGT]?", "megabytes such as 500, or with a unit, as 16G"),
    "gres": Resource("--gres", r"[\w.-]+(:[\w.,:=-]+)?", "such as gpu:1 or gpu:a100:2"),
    ARRAY: Resource("", r"[1-9]\d{0,3}", "a number of jobs such as 4"),
}


def requested(
    defaults: Mapping[str, str],
    steps: Mapping[str, Mapping[str, str]],
    run_tags: Mapping[str, str],
) -> dict[str, str]:
    """Return what a run asks for, by the names of `RESOURCES`.

    Tags of the run have the last word, then those of its steps, then the defaults. Of several steps
    in one job the greatest time, memory and number of CPUs count.

    Parameters
    ----------
    steps
        The tags of each step, by the step's name.

    Raises
    ------
    SlurmRequestError
        If a value is wrong, a tag unknown, two steps want different things of one job, or a step
        must stay on Dagster's own machine.

    Examples
    --------
    >>> steps = {"sort": {"dj-slurm/gres": "gpu:1", "dj-slurm/time": "90"}}
    >>> requested({"time": "10", "cpus": "2"}, steps, {"dj-slurm/time": "2:00:00"})
    {'time': '2:00:00', 'cpus': '2', 'gres': 'gpu:1'}
    """
    asked = {**_read(defaults.items(), "The default {} of the run launcher")}
    by_steps: dict[str, tuple[str, str]] = {}
    given = _own(run_tags)
    for step, tags in steps.items():
        if reason := must_stay(step, tags):
            raise SlurmRequestError(reason)
        for name, value in _read(_own(tags).items(), f"Tag {PREFIX}{{}} of step {step}").items():
            other, before = by_steps.get(name, (step, value))
            if name in _SIZES:
                value = max(before, value, key=_SIZES[name])
            elif value != before and name not in given:
                raise SlurmRequestError(
                    f"Steps {other} and {step} are in one run, and one job can't have "
                    f"{PREFIX}{name} {before} and {value}: start them in runs of their own, or "
                    "give the run this tag."
                )
            by_steps[name] = (step, value)
    asked |= {name: value for name, (_, value) in by_steps.items()}
    return asked | _read(given.items(), f"The run's tag {PREFIX}{{}}")


def options(asked: Mapping[str, str]) -> list[str]:
    """Return the options of ``sbatch`` for what a run asks for."""
    flags = {name: RESOURCES[name].flag for name in asked}
    return [f"{flags[name]}={value}" for name, value in asked.items() if flags[name]]


def seconds(limit: str) -> float:
    """Return the seconds of a time as Slurm writes it; 0 stands for a job without a limit.

    Words of Slurm for a limit that is not a time, such as ``Partition_Limit``, are 0 seconds.

    Examples
    --------
    >>> seconds("90"), seconds("1:30"), seconds("1:30:00"), seconds("1-12"), seconds("1-0:30")
    (5400, 90, 5400, 129600, 88200)
    >>> seconds("0"), seconds("Partition_Limit")
    (inf, 0.0)
    """
    if limit == "UNLIMITED":
        return float("inf")
    if not re.fullmatch(RESOURCES["time"].form, limit, re.ASCII):
        return 0.0
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, over = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, over = parts
    else:
        # Without days, one number is minutes and two are minutes and seconds.
        hours, minutes, over = 0, parts[0], (*parts, 0)[1]
    return (((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + over) or float("inf")


def megabytes(memory: str) -> float:
    """Return the megabytes of a size as Slurm writes it; 0 stands for all that a node has.

    Examples
    --------
    >>> megabytes("500"), megabytes("1.50G"), megabytes("0")
    (500.0, 1536.0, inf)
    """
    found = re.match(r"([\d.]+)([KMGTP]?)", memory)
    if found is None:
        return 0.0
    size = float(found[1]) * 1024.0 ** ("KMGTP".index(found[2] or "M") - 1)
    return size or float("inf")


def grown(name: str, value: str, factor: float) -> str | None:
    """Return more of a time or of a memory, None where Slurm does not tell a limit to raise.

    Examples
    --------
    >>> grown("time", "1:00:00", 2), grown("memory", "1500M", 2), grown("memory", "0", 2)
    ('120:00', '3000M', None)
    """
    size = _SIZES[name](value) * factor
    if size == float("inf") or not size:
        return None
    return f"{int(size) // 60}:{int(size) % 60:02}" if name == "time" else f"{int(size)}M"


_SIZES = {"time": seconds, "memory": megabytes, "cpus": int, ARRAY: int}
"""Comparable values of the resources that can be raised."""


def _own(tags: Mapping[str, str]) -> dict[str, str]:
    # The launcher's own tags have the same beginning.
    given = {tag for tag in tags if tag.startswith(PREFIX)} - {JOB_TAG, ATTEMPT_TAG}
    return {tag.removeprefix(PREFIX): tags[tag] for tag in sorted(given)}


def _read(given: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    read: dict[str, str] = {}
    for name, value in given:
        resource = RESOURCES.get(name)
        if resource is None:
            raise SlurmRequestError(
                f"{where.format(name)} is not known: there are {', '.join(RESOURCES)}."
            )
        text = str(value).strip()
        if not re.fullmatch(resource.form, text, re.ASCII):
            raise SlurmRequestError(f"{where.format(name)} is {value!r}: write {resource.example}.")
        read[name] = text
    return read

"""The launcher's settings, as `dagster.yaml` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from dagster import (
    Array,
    DagsterInvalidConfigError,
    Enum,
    EnumValue,
    Field,
    IntSource,
    StringSource,
)

from dj_dagster.slurm.commands import ENDED
from dj_dagster.slurm.resources import SlurmRequestError, requested

RESUMABLE = ("NODE_FAIL", "PREEMPTED")
"""States after which a run is resumed unless the settings say otherwise."""

_OWN_OPTIONS = {
    "--array": "the tag dj-slurm/array lets several jobs work on a run",
    "--chdir": "write working_directory",
    "--dependency": "the launcher lets helpers wait for their run",
    "--job-name": "the launcher finds jobs by the names that it gives",
    "--output": "outputs are in folder",
    "--parsable": "the launcher sets it",
    "--requeue": "write resume_after",
    "--test-only": "jobs would never run",
    "--wait": "the daemon would stand still",
    "--wrap": "the launcher brings the script; write setup",
}
"""Options of ``sbatch`` that `options` may not have, with what to do instead."""

_SHORT = {
    "a": "--array",
    "D": "--chdir",
    "d": "--dependency",
    "J": "--job-name",
    "o": "--output",
    "W": "--wait",
}

_STATES = Enum("SlurmState", [EnumValue(state) for state in sorted(ENDED - {"CANCELLED"})])


@dataclass(frozen=True)
class Settings:
    """The launcher's settings; `config_type` says what each means.

    Attributes
    ----------
    defaults
        The resources of a run whose tags do not say, by the names of `resources.RESOURCES`.
    """

    folder: Path
    defaults: Mapping[str, str]
    options: tuple[str, ...] = ()
    setup: str = ""
    python: str | None = None
    working_directory: str | None = None
    resume_after: frozenset[str] = frozenset(RESUMABLE)
    growth: float = 2
    retries: int = 4
    poll_seconds: int = 10


def config_type() -> dict[str, Any]:
    """Return the schema of the launcher's part of `dagster.yaml`."""

    def default(what: str) -> Field:
        return Field(StringSource, is_required=False, description=f"{what} of a job by default.")

    return {
        "folder": Field(
            StringSource,
            description="A folder that all nodes and Dagster's own machine have under this path. "
            "It holds the arguments and the output of each job.",
        ),
        "partition": default("The partition"),
        "account": default("The account"),
        "qos": default("The quality of service"),
        "time": default('The time limit, in quotes ("2:00:00")'),
        "memory": default('The memory of each node, such as "8G"'),
        "gres": default("The generic resources, such as gpu:1,"),
        "cpus": Field(IntSource, is_required=False, description="The CPUs of a job by default."),
        "options": Field(
            Array(StringSource),
            default_value=[],
            description="More options of sbatch, such as --constraint=avx2.",
        ),
        "setup": Field(
            StringSource,
            default_value="",
            description="Lines of shell before Python starts, such as module load.",
        ),
        "python": Field(
            StringSource,
            is_required=False,
            description="The nodes' interpreter; that of the code location when left out.",
        ),
        "working_directory": Field(
            StringSource,
            is_required=False,
            description="Where a job starts; where Dagster's daemon runs when left out.",
        ),
        "resume_after": Field(
            Array(_STATES),
            default_value=list(RESUMABLE),
            description="Slurm's states after which a run is resumed, at most "
            "run_monitoring.max_resume_run_attempts times. After TIMEOUT it gets more time, after "
            "OUT_OF_MEMORY more memory.",
        ),
        "growth": Field(float, default_value=2.0, description="How many times as much that is."),
        "retries": Field(
            IntSource,
            default_value=4,
            description="How often a submission is repeated while the controller does not answer, "
            "after 2, 4, 8, … seconds.",
        ),
        "poll_seconds": Field(
            IntSource,
            default_value=10,
            description="Seconds between two looks at jobs that wait, and of a job at whether it "
            "has been replaced.",
        ),
    }


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings that Dagster has read.

    Raises
    ------
    DagsterInvalidConfigError
        If a setting has a value with which runs could not be submitted or watched.
    """
    _check(config)
    names = ("partition", "account", "qos", "time", "cpus", "memory", "gres")
    defaults = {name: str(config[name]) for name in names if name in config}
    try:
        requested(defaults, {}, {})
    except SlurmRequestError as error:
        raise DagsterInvalidConfigError(str(error), [], config) from None
    return Settings(
        folder=Path(config["folder"]).expanduser(),
        defaults=defaults,
        options=tuple(config["options"]),
        setup=config["setup"],
        python=config.get("python"),
        working_directory=config.get("working_directory"),
        resume_after=frozenset(config["resume_after"]),
        growth=config["growth"],
        retries=config["retries"],
        poll_seconds=config["poll_seconds"],
    )


def _own_option(option: str) -> str | None:
    """Return the option of the launcher's own that a text sets; ``sbatch`` takes beginnings."""
    if not option.startswith("--"):
        return _SHORT.get(option[1:2]) if option.startswith("-") else None
    name = option.partition("=")[0]
    return next((own for own in _OWN_OPTIONS if len(name) > 3 and own.startswith(name)), None)


def _is_whole(folder: str) -> bool:
    try:
        return Path(folder).expanduser().is_absolute()
    except RuntimeError:
        # It is in the home of a user who is not there.
        return False


def _check(config: Mapping[str, Any]) -> None:
    wrong = {
        # Each process would take a relative path for another folder.
        "folder": (
            not _is_whole(config["folder"]),
            "the whole path of a folder that all nodes have",
        ),
        "growth": (not 1 <= config["growth"] < inf, "a number such as 2, 1 or more"),
        "retries": (config["retries"] < 0, "0 or more"),
        "poll_seconds": (config["poll_seconds"] < 1, "seconds, 1 or more"),
    }
    for name, (is_wrong, words) in wrong.items():
        if is_wrong:
            said = f"The setting {name} of the run launcher is {config[name]!r}: write {words}."
            raise DagsterInvalidConfigError(said, [], config)
    for option in config["options"]:
        if own := _own_option(option):
            raise DagsterInvalidConfigError(
                f"The setting options of the run launcher has {option!r}: leave it out, for "
                f"{_OWN_OPTIONS[own]}.",
                [],
                config,
            )

"""The queue of a run: the tags of the run and of its steps, over the launcher's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dj_dagster.celery._dagster import (
    DAGSTER_CELERY_QUEUE_TAG,
    DAGSTER_CELERY_RUN_PRIORITY_TAG,
    DAGSTER_CELERY_STEP_PRIORITY_TAG,
)
from dj_dagster.launcher_tags import must_stay

MIDDLE = 5
"""The priority of a run that has no tag for it."""

GREATEST = 9
"""The priority of what comes first; 0 comes last."""


class DestinationError(ValueError):
    """A priority that is not a number, steps of one run in two queues, or one that must stay."""


@dataclass(frozen=True)
class Destination:
    """The queue and priority of a run.

    Attributes
    ----------
    queue
        The queue that workers take it from.
    priority
        From 0 to 9. The run with the greatest is taken first.
    """

    queue: str
    priority: int = MIDDLE


def destination(
    default_queue: str, steps: Mapping[str, Mapping[str, str]], run_tags: Mapping[str, str]
) -> Destination:
    """Return where a run goes.

    Tags of the run have the last word, then those of its steps. The greatest priority of a step
    counts.

    Parameters
    ----------
    steps
        The tags of each step, by the step's name.

    Raises
    ------
    DestinationError
        If a priority is wrong, two steps name two queues, or a step must stay on Dagster's own
        machine.

    Examples
    --------
    >>> steps = {"sort": {"dagster-celery/queue": "gpu"}, "plot": {"dagster-celery/priority": "2"}}
    >>> destination("dagster", steps, {})
    Destination(queue='gpu', priority=2)
    >>> destination("dagster", steps, {"dagster-celery/queue": "slow"})
    Destination(queue='slow', priority=2)
    """
    if reason := next(filter(None, (must_stay(step, tags) for step, tags in steps.items())), None):
        raise DestinationError(reason)
    queue = run_tags.get(DAGSTER_CELERY_QUEUE_TAG) or _queue(steps) or default_queue
    given = run_tags.get(DAGSTER_CELERY_RUN_PRIORITY_TAG)
    if given is not None:
        where = f"The run's tag {DAGSTER_CELERY_RUN_PRIORITY_TAG}"
        return Destination(queue, _priority(given, where))
    tag = DAGSTER_CELERY_STEP_PRIORITY_TAG
    wanted = [
        _priority(tags[tag], f"Tag {tag} of step {step}")
        for step, tags in steps.items()
        if tag in tags
    ]
    return Destination(queue, max(wanted, default=MIDDLE))


def _queue(steps: Mapping[str, Mapping[str, str]]) -> str | None:
    named: tuple[str, str] | None = None
    for step, tags in steps.items():
        queue = tags.get(DAGSTER_CELERY_QUEUE_TAG)
        if queue is None:
            continue
        if named is not None and named[1] != queue:
            raise DestinationError(
                f"Steps {named[0]} and {step} are in one run, which can't be in the queues "
                f"{named[1]} and {queue}: start them in runs of their own, or give the run the tag "
                f"{DAGSTER_CELERY_QUEUE_TAG}."
            )
        named = (step, queue)
    return named and named[1]


def _priority(value: str, where: str) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and int(text) <= GREATEST):
        raise DestinationError(f"{where} is {value!r}: write a number from 0 (last) to 9 (first).")
    return int(text)

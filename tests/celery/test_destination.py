"""Where a run goes, by the tags of its steps; errors say what to do."""

from __future__ import annotations

import pytest

from dj_dagster.celery.destination import DestinationError, destination

QUEUE, PRIORITY = "dagster-celery/queue", "dagster-celery/priority"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            {"sort": {QUEUE: "gpu"}, "plot": {QUEUE: "slow"}},
            "Steps sort and plot are in one run, which can't be in the queues gpu and slow",
        ),
        ({"sort": {PRIORITY: "10"}}, "priority of step sort is '10': write a number from 0"),
        (
            {"sort": {"dj_dagster/here_only": "The database is in a file."}},
            "Step sort can't leave this machine. The database is in a file.",
        ),
    ],
)
def test_steps_that_cannot_be_sent_together_are_refused(
    steps: dict[str, dict[str, str]], said: str
) -> None:
    with pytest.raises(DestinationError, match=said):
        destination("dagster", steps, {})


def test_the_tag_of_the_run_settles_what_its_steps_do_not_agree_on() -> None:
    steps = {"sort": {QUEUE: "gpu"}, "plot": {QUEUE: "slow"}}
    assert destination("dagster", steps, {QUEUE: "gpu"}).queue == "gpu"

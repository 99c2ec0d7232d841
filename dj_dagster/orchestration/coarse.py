"""Partitions that stand for many keys: what became of them together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dj_dagster.errors import PopulateError
from dj_dagster.orchestration.grains import Grain
from dj_dagster.workflow.populate import KeyOutcome, Status

ERRORS_SHOWN = 5
"""Failed keys of a partition whose errors are told, at most; all are in the table's jobs."""

_PRECEDENCE: Sequence[Status] = ("failed", "left", "made", "present", "reserved", "missing")


def by_partition(
    outcomes: Iterable[KeyOutcome], grain: Grain, sizes: Mapping[str, int]
) -> Iterator[KeyOutcome]:
    """Yield one outcome a partition, as soon as all its keys are through.

    Parameters
    ----------
    sizes
        How many keys are tried of each partition.
    """
    waiting: dict[str, list[KeyOutcome]] = {}
    for outcome in outcomes:
        partition = grain.encode(outcome.key)
        waiting.setdefault(partition, []).append(outcome)
        if len(waiting[partition]) >= sizes.get(partition, 0):
            yield merged(waiting.pop(partition), grain.names)
    for rest in waiting.values():
        yield merged(rest, grain.names)


def merged(outcomes: Sequence[KeyOutcome], names: Sequence[str]) -> KeyOutcome:
    """Return what became of the keys of one partition: failed when one of them has.

    Parameters
    ----------
    outcomes
        Of its keys that were tried, one at least.
    names
        The attributes that the partition is named by.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    met = {outcome.status for outcome in outcomes}
    status: Status = next(each for each in _PRECEDENCE if each in met)
    told = failed[:ERRORS_SHOWN]
    return KeyOutcome(
        key={name: outcomes[0].key[name] for name in names},
        status=status,
        seconds=sum(outcome.seconds for outcome in outcomes),
        rows=sum(outcome.rows for outcome in outcomes),
        bytes=sum(outcome.bytes for outcome in outcomes),
        error=_error(len(outcomes), failed, told) if failed else None,
        traceback="\n".join(f"{outcome.key}\n{outcome.traceback}" for outcome in told),
    )


def _error(tried: int, failed: Sequence[KeyOutcome], told: Sequence[KeyOutcome]) -> PopulateError:
    texts = "; ".join(f"{outcome.key}: {outcome.message}" for outcome in told)
    more = ", ..." if len(failed) > len(told) else ""
    return PopulateError(f"{len(failed)} of {tried} keys failed: {texts}{more}")

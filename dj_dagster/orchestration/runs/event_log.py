"""Writing and watching marks of partitions in Dagster's event log, for any Dagster project.

An event that is written by itself costs more than the work on a key. Here all marks of a table go
to the storage together. Nothing here knows of tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterable, Mapping
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from dagster import AssetKey, AssetObservation, DagsterEvent, DagsterEventType, DagsterInstance
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.orchestration._dagster import AssetObservationData, SqlEventLogStorageTable
from dj_dagster.orchestration.runs.event_storage import store_batch
from dj_dagster.orchestration.runs.marks import MADE, OUTSIDE, Batch, Mark, Origin

OUT_OF_ORDER = 1_000
"""Numbers of events that may be given before an event becomes visible to others, at most."""

LEAD = 10.0
"""Seconds that a mark's time may be ahead of the clock when many marks share a millisecond."""


class Clock:
    """A clock that gives each mark of a table a millisecond of its own, after that of the last.

    The UI shows only one of several events with the same millisecond.
    """

    def __init__(self) -> None:
        self._last: dict[AssetKey, int] = {}
        self._lock = threading.Lock()

    def times(self, key: AssetKey, wanted: Iterable[float]) -> list[float]:
        """Return the wanted times, or times that are a little later.

        No time is moved to more than `LEAD` ahead of the clock; times that would be share one.
        """
        found: list[float] = []
        with self._lock:
            # In whole milliseconds, as the UI reads them; halves keep clear of rounding.
            last, most = self._last.get(key, 0), int((time.time() + LEAD) * 1000)
            for each in wanted:
                instant = int(each * 1000)
                if instant <= last:
                    instant = last + 1 if last < most else last
                    each = (instant + 0.5) / 1000
                last = instant
                found.append(each)
            self._last[key] = last
        return found


_CLOCK = Clock()


def write_marks(instance: DagsterInstance, marks: Iterable[Mark], origin: Origin = OUTSIDE) -> int:
    """Write marks to the event log, and return how many.

    The marks of one table are written in their order, except that plans come first and notes last.
    Dagster caches the partitions with events: it reads first the number of the last
    materialisation, then that of the last plan, and goes on behind the greater one. It would
    therefore never see materialisations that are written between the two reads if a plan followed
    them.
    """
    given = sorted(marks, key=lambda mark: tuple(mark.key.path))
    made = {(mark.key, mark.partition) for mark in given if mark.kind == MADE}
    for key, group in groupby(given, key=lambda mark: mark.key):
        alike = list(group)
        times = _CLOCK.times(key, [mark.time for mark in alike])
        timed = sorted(zip(alike, times, strict=True), key=lambda each: _place(each[0], made))
        for _, some in groupby(timed, key=lambda each: _place(each[0], made)):
            together = list(some)
            batch = Batch([mark for mark, _ in together], [at for _, at in together], origin)
            store_batch(instance, batch)
    return len(given)


class MarkWatch:
    """A watch on all assets of a Dagster instance that sees new marks, whoever wrote them."""

    def __init__(self) -> None:
        # The last event that was seen, and the last marks by asset.
        self._seen: int | None = None
        self._last: dict[str, int] = {}

    def marked(self, connection: SAConnection) -> set[AssetKey]:
        """Return the assets with marks since the last look, and an empty set at the first look.

        Parameters
        ----------
        connection
            A connection to the index of the event log.
        """
        columns, is_first = SqlEventLogStorageTable.c, self._seen is None
        seen = self._seen
        if seen is None:
            seen = connection.execute(sa.select(sa.func.max(columns.id))).scalar() or 0
        found = connection.execute(
            sa.select(columns.asset_key, sa.func.max(columns.id))
            .where(columns.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value)
            .where(columns.id > seen - OUT_OF_ORDER)
            .group_by(columns.asset_key)
        )
        last = {str(key): int(number) for key, number in found if key is not None}
        new = [key for key, number in last.items() if number > self._last.get(key, 0)]
        self._last.update(last)
        self._seen = max(seen, *self._last.values(), 0)
        keys = [] if is_first else map(AssetKey.from_db_string, new)
        return {key for key in keys if key is not None}


def _place(mark: Mark, made: Container[tuple[AssetKey, str | None]]) -> int:
    """Return the place of a mark in the order of writing the marks of its table."""
    if not mark.planned:
        return mark.kind + 1
    # A plan and a materialisation of one partition: the plan comes later, to show it as failed.
    return 2 if (mark.key, mark.partition) in made else 0


def observe(
    instance: DagsterInstance, key: AssetKey, metadata: Mapping[str, Any], origin: Origin
) -> None:
    """Put metadata into a table's own events, without a materialisation."""
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_OBSERVATION.value,
        job_name=origin.job_name,
        step_key=origin.step_key,
        event_specific_data=AssetObservationData(AssetObservation(key, metadata=metadata)),
    )
    instance.report_dagster_event(event, run_id=origin.run_id)

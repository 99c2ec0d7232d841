"""Transitions of the sensor: its events, the work that they make, and the owners of the work.

A tick first detects events. `EFFECTS` is the table of the work that each event makes: for the table
of the event, for the tables whose keys come from that table, and for those whose rows become stale
with its rows. `SensorState.note` is the only way from an event to work.

Each kind of work has one owner, which notes it, does it, and alone clears it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import Enum, auto


class Event(Enum):
    """The events that the sensor detects; the comments describe them."""

    ROWS_APPENDED = auto()  # Rows are new at a table's end.
    KEYS_CHANGED = auto()  # Keys came or went anywhere in a table.
    VALUES_CHANGED = auto()  # Other values than keys changed.
    KEYS_FREED = auto()  # A job queue has let go of keys, or the worker that held them died.
    JOBS_FAILED = auto()  # Jobs have failed, or have lost their errors.
    QUEUE_READ = auto()  # A job queue was looked at.
    FAILURES_IN_DOUBT = auto()  # All failures of a table are looked at anew.
    RUN_ENDED = auto()  # A run that held keys has ended, or was never created.
    TABLE_RUN_ENDED = auto()  # A run that held a whole table has ended.
    MASTER_RUN_ENDED = auto()  # A run that held keys of a part's master has ended.
    KEYS_RETRIED = auto()  # Failed keys are due once more.
    PARTITIONS_LOST = auto()  # A person has removed partitions.
    EVENTS_LOST = auto()  # A person has wiped an asset, or removed runs.
    PARENTS_RESTORED = auto()  # Partitions of a grain are there again.
    MARKS_WITHDRAWN = auto()  # Marks of rows that are gone were taken back.
    MARKS_AGED = auto()  # Marks that show which rows are stale have changed.
    MARKS_WRITTEN = auto()  # A table has marks that are newer than the results of its checks.
    NOTES_WRITTEN = auto()  # Notes on rows that were made were written in a table's schema.


class Work(Enum):
    """The kinds of work for a table, in some rows or in all; the comments name the owners."""

    REQUEST = auto()  # Find pending keys, and request their runs: `RunRequester`.
    RETRY = auto()  # Read which failed keys are to be tried again, and when: `Retries`.
    REGISTER = auto()  # Register the partitions of keys: `Partitions`.
    COMPARE = auto()  # Compare the partitions of the grain with the rows: `Partitions`.
    MARK = auto()  # Mark the rows without a mark: `NewMarks`.
    WITHDRAW = auto()  # Take back the marks of rows that are gone: `Withdrawals`.
    AGE = auto()  # Have marks show which rows are stale: `StaleMarks`.
    RENEW = auto()  # Find out whether stale rows were made again unchanged: `StaleMarks`.
    PROVE = auto()  # Compare the failures that Dagster shows with the jobs: `FailureMarks`.
    CHECK = auto()  # Evaluate the checks: `CheckWatch`.
    COUNT = auto()  # Count the stale rows for the check `current`: `CodeWatch`.
    RECOUNT = auto()  # Count them after new marks, which Dagster compares checks with: `CodeWatch`.


REQUEST, RETRY, REGISTER, COMPARE, MARK, WITHDRAW, AGE, RENEW, PROVE, CHECK, COUNT, RECOUNT = Work

OF_PARTITIONS: Set[Work] = {REGISTER, COMPARE, WITHDRAW, RENEW, PROVE}
"""Work that only tables with partitions have."""

OF_MADE: Set[Work] = {REQUEST, RETRY, AGE, RENEW, PROVE, RECOUNT}
"""Work that only tables filled by `make` have."""


@dataclass(frozen=True)
class Effects:
    """The work that an event makes.

    Attributes
    ----------
    itself
        The work for the table of the event.
    readers
        The work for the tables whose keys come from that table. After a change of values these are
        only the tables with a key source of their own, because other keys come from keys alone.
    dependents
        The work for the tables whose rows become stale with its rows.
    """

    itself: Set[Work]
    readers: Set[Work] = frozenset()
    dependents: Set[Work] = frozenset()


EFFECTS: Mapping[Event, Effects] = {
    Event.ROWS_APPENDED: Effects({CHECK, MARK, REGISTER, AGE}, {CHECK, REQUEST, REGISTER}, {AGE}),
    Event.KEYS_CHANGED: Effects(
        {CHECK, MARK, REGISTER, AGE, COMPARE, WITHDRAW, REQUEST},
        {CHECK, REQUEST, REGISTER, COMPARE},
        {AGE},
    ),
    Event.VALUES_CHANGED: Effects({CHECK, AGE}, {CHECK, REQUEST, REGISTER, COMPARE}, {AGE}),
    Event.KEYS_FREED: Effects({REQUEST}),
    Event.JOBS_FAILED: Effects({CHECK, PROVE}),
    Event.QUEUE_READ: Effects({RETRY}),
    Event.FAILURES_IN_DOUBT: Effects({PROVE}),
    Event.RUN_ENDED: Effects({CHECK, REQUEST, MARK, PROVE}),
    Event.TABLE_RUN_ENDED: Effects({CHECK, REQUEST, MARK}),
    Event.MASTER_RUN_ENDED: Effects({MARK}),
    Event.KEYS_RETRIED: Effects({CHECK, REQUEST, MARK, PROVE}),
    Event.PARTITIONS_LOST: Effects({COMPARE}),
    Event.EVENTS_LOST: Effects({CHECK, MARK, PROVE}),
    Event.PARENTS_RESTORED: Effects({REQUEST}),
    Event.MARKS_WITHDRAWN: Effects({PROVE}),
    Event.MARKS_AGED: Effects({COUNT}),
    Event.MARKS_WRITTEN: Effects({CHECK, RECOUNT}),
    Event.NOTES_WRITTEN: Effects({RENEW}),
}

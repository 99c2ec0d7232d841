"""What has become of keys after faults: each committed once, and in one make at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection

from dj_dagster.errors import DataJointError
from tests.orchestration.fault_lab import FaultLab
from tests.services.process import eventually

TABLES = ("measured", "analysed")


class Entry(threading.Thread):
    """A person who enters some keys every half second, whatever happens to the database.

    Attributes
    ----------
    count
        How many keys there are; they are numbered from 0.
    """

    def __init__(self, lab: FaultLab, rate: float) -> None:
        super().__init__(name="entry", daemon=True)
        self.count = 0
        self._lab = lab
        self._rate = rate
        self._ended = threading.Event()

    def run(self) -> None:
        """Enter keys until `stop`; those whose entry has failed are entered again."""
        entered = 0.0
        while not self._ended.wait(0.5):
            entered += self._rate / 2
            self._enter(int(entered))

    def stop(self) -> int:
        """Let the last keys be entered, and return the number of all."""
        self._ended.set()
        self.join()
        return self.count

    def _enter(self, count: int) -> None:
        def entered() -> bool:
            with contextlib.suppress(DataJointError):
                self._lab.insert(range(self.count, count))
                return True
            return False

        if count > self.count:
            eventually(entered)
            self.count = count


def keep_commits(lab: FaultLab) -> None:
    """Let the database note each row that is committed, and each that is deleted.

    The code server has made the tables by then, or makes them soon.
    """
    eventually(lambda: _has_tables(lab))
    connection = lab.connection
    try:
        connection.query("CREATE DATABASE audit")
        connection.query("CREATE TABLE audit.rows (what varchar(16), item int, pid int)")
        for name in TABLES:
            for event, row, what in (("INSERT", "NEW", name), ("DELETE", "OLD", "deleted")):
                connection.query(
                    f"CREATE TRIGGER faults.{name}_{event} AFTER {event} ON faults.__{name} FOR "
                    f"EACH ROW INSERT INTO audit.rows VALUES ('{what}', {row}.item, {row}.pid)"
                )
    finally:
        connection.close()


def _has_tables(lab: FaultLab) -> bool:
    with contextlib.suppress(DataJointError):
        return bool(lab.counts())
    return False


def check_commits(lab: FaultLab, count: int) -> None:
    """Assert that the rows of each key were committed exactly once, and not one was deleted."""
    connection = lab.connection
    try:
        found = connection.query(
            "SELECT what, count(*), count(DISTINCT item) FROM audit.rows GROUP BY what"
        ).fetchall()
    finally:
        connection.close()
    assert {what: numbers for what, *numbers in found} == {name: [count, count] for name in TABLES}


def check_makes(lab: FaultLab, stopped: Collection[int]) -> int:
    """Assert that no key was in two makes at once; return how many makes were repeated.

    A process that was stopped for longer than its lease may end a make that another has taken
    over: it is refused when it writes its rows.
    """
    repeated = 0
    seen = set[tuple[str, str]]()
    open_calls = dict[tuple[str, str], str]()
    for kind, table, item, pid, _ in lab.calls():
        key = table, item
        if kind == "start":
            repeated += key in seen
            seen.add(key)
            open_calls[key] = pid
        elif open_calls.get(key) != pid:
            assert int(pid) in stopped, f"{key} was made by {pid} and {open_calls.get(key)} at once"
        else:
            del open_calls[key]
    return repeated

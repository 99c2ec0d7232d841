"""Whether the process that claimed a key is still there."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from dj_dagster.relational.database.connection import Connection

CLOSING_TIME = 0.2
"""Seconds that a server may take to notice that a process is gone."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Who holds a key, since when, and until when without a sign of life.

    Attributes
    ----------
    row
        The job's key.
    until
        A time after `since` is the end of a lease; DataJoint itself gives none.
    """

    row: tuple[object, ...]
    host: str
    pid: int
    connection_id: int
    since: datetime
    until: datetime

    def has_expired(self, now: datetime) -> bool:
        """Whether its lease has run out."""
        return self.since < self.until < now

    def is_local(self) -> bool:
        """Whether it is one of this machine."""
        return self.host == platform.node()

    def process_is_gone(self, now: datetime) -> bool:
        """Whether the process does not run, or another runs under its number."""
        if not _runs(self.pid):
            return True
        age = _process_age(self.pid)
        # The two ages are measured by two clocks.
        return age is not None and age + 2 < (now - self.since).total_seconds()


def dead(
    connection: Connection, reservations: Iterable[Reservation], now: datetime
) -> list[Reservation]:
    """Return the reservations whose worker is gone.

    A worker of this machine is gone when its process is, and the server has no connection of it
    any more: containers may share a machine's name, but not its process numbers. Any other is taken
    for gone when its lease has run out.
    """
    held = list(reservations)
    expired = [item for item in held if item.has_expired(now)]
    gone = [
        item
        for item in held
        if item not in expired and item.is_local() and item.process_is_gone(now)
    ]
    if gone and connection.backend.name == "mysql":
        gone = _disconnected(connection, gone, now)
    return expired + gone


def _disconnected(
    connection: Connection, gone: list[Reservation], now: datetime
) -> list[Reservation]:
    deadline = time.monotonic() + CLOSING_TIME
    # A server that was started since numbers its connections from the beginning.
    uptime = connection.rows(sa.text("SHOW GLOBAL STATUS LIKE 'Uptime'"))[0][1]
    started = now - timedelta(seconds=int(uptime) + 1)
    before = [item for item in gone if item.since < started]
    gone = [item for item in gone if item.since >= started]
    while True:
        sql = sa.text("SELECT id FROM information_schema.processlist")
        connected = {number for (number,) in connection.rows(sql)}
        if not any(item.connection_id in connected for item in gone):
            return before + gone
        if time.monotonic() > deadline:
            return before + [item for item in gone if item.connection_id not in connected]
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]


def _process_age(pid: int) -> float | None:
    """Return the seconds that a process has been running, None where that is not known."""
    fields = _stat(pid)
    if len(fields) < 20:
        return None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return Linux's account of a process from its state on, nothing on other systems."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return text.rpartition(")")[2].split()
    except OSError:
        return []

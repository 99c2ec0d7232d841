"""The liveness of processes that have claimed keys."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dj_dagster.lazy import LateModule
from dj_dagster.relational.database.connection import Connection

if TYPE_CHECKING:
    from psutil import Process

# It is installed only on other systems than Linux, and takes 55 ms to import.
psutil: Any = LateModule("psutil")

CLOSING_TIME = 0.2
"""Seconds that a server may take to notice that a process is gone."""

RENEWAL = 15.0
"""Seconds after which a worker renews its leases, at most."""

MARGIN = 10.0
"""Seconds by which a renewal may be late."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The reservation of a key: its worker, its time, and the end of its lease.

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

    @property
    def is_leased(self) -> bool:
        """Whether the reservation has a lease."""
        return self.since < self.until

    def has_expired(self, now: datetime) -> bool:
        """Whether the lease has run out."""
        return self.is_leased and self.until < now

    def last_sign(self, lease: float) -> datetime:
        """Return the time of the last renewal, for a lease of a number of seconds."""
        return max(self.since, self.until - timedelta(seconds=lease))

    def is_local(self) -> bool:
        """Whether the worker is on this machine."""
        return self.host == platform.node()

    def process_is_gone(self, now: datetime) -> bool:
        """Whether the worker's process has ended, or another process has its number."""
        if not _runs(self.pid):
            return True
        age = _process_age(self.pid)
        # The two ages are measured by two clocks.
        return age is not None and age + 2 < (now - self.since).total_seconds()


def process_mark(pid: int) -> str:
    """Return a text that identifies a process of this machine among all, including later ones."""
    try:
        # Containers may share a machine's name, but not its process numbers.
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = "-"
    return " ".join([platform.node(), space, str(pid), *_beginning(pid)])


def is_gone(mark: str) -> bool:
    """Whether a process has ended; False where that cannot be known from here."""
    here, words = process_mark(os.getpid()).split(), mark.split()
    if words[:2] != here[:2] or len(words) < 3:
        return False
    return not _runs(int(words[2])) or process_mark(int(words[2])).split() != words


def renewal(lease: float) -> float:
    """Return the seconds after which a worker renews a lease of a number of seconds."""
    return min(lease / 4, RENEWAL)


def dead(
    connection: Connection, reservations: Iterable[Reservation], now: datetime
) -> list[Reservation]:
    """Return the reservations whose worker is gone.

    A worker of this machine is gone when its process is, and the server no longer has its
    connection: containers may share a machine's name, but not its process numbers. Any other worker
    is taken to be gone when its lease has run out.

    A start of the server ends all connections and numbers them anew. Workers are then given time to
    renew their leases.
    """
    held = list(reservations)
    expired = [item for item in held if item.has_expired(now)]
    gone = [
        item
        for item in held
        if item not in expired and item.is_local() and item.process_is_gone(now)
    ]
    uptime = connection.read(connection.backend.uptime) if expired or gone else None
    if uptime is None:
        return expired + gone
    return _unheard(connection, expired, gone, now, uptime)


def _unheard(
    connection: Connection,
    expired: list[Reservation],
    gone: list[Reservation],
    now: datetime,
    uptime: int,
) -> list[Reservation]:
    """Return the reservations of workers without a connection to the server."""
    lease = connection.job_settings.lease
    # The server counts whole seconds.
    earliest = now - timedelta(seconds=uptime + 1)
    latest = now - timedelta(seconds=uptime - 1)
    is_early = uptime < renewal(lease) + MARGIN
    found = [item for item in expired if not is_early or item.last_sign(lease) > latest]
    numbered: list[Reservation] = []
    for item in gone:
        if item.last_sign(lease) > latest or (not item.is_leased and item.since > earliest):
            numbered.append(item)
        elif not item.is_leased or not is_early:
            found.append(item)
    return found + _disconnected(connection, numbered)


def _disconnected(connection: Connection, gone: list[Reservation]) -> list[Reservation]:
    deadline = time.monotonic() + CLOSING_TIME
    table = connection.read(connection.backend.processes) if gone else None
    while gone:
        connected = {number for (number,) in connection.rows(sa.text(f"SELECT id FROM {table}"))}
        left = [item for item in gone if item.connection_id not in connected]
        if len(left) == len(gone) or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def _runs(pid: int) -> bool:
    if not _is_linux():
        return _process(pid) is not None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return _stat(pid)[:1] != ["Z"]


def _process_age(pid: int) -> float | None:
    """Return the seconds that a process has been running, None if not known."""
    if not _is_linux():
        began = _beginning(pid)
        return time.time() - float(began[0]) if began else None
    fields = _stat(pid)
    if len(fields) < 20:
        return None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _beginning(pid: int) -> list[str]:
    """Return the start time of a process, in Linux's ticks or in seconds; empty if not known."""
    if _is_linux():
        return _stat(pid)[19:20]
    try:
        process = _process(pid)
        return [] if process is None else [f"{process.create_time():.2f}"]
    except psutil.Error:
        return []


def _is_linux() -> bool:
    # On Linux the kernel is asked: psutil's start times follow the clock, which may be set, and it
    # takes processes of other users to be gone where /proc hides them.
    return platform.system() == "Linux"


def _process(pid: int) -> Process | None:
    """Return a process by psutil, None if it has ended, including zombies."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.AccessDenied:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _stat(pid: int) -> list[str]:
    """Return Linux's fields of a process from its state on, empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return text.rpartition(")")[2].split()
    except OSError:
        return []

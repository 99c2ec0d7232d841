"""The liveness of processes that have claimed keys, on this machine and on others.

Only processes of this machine can be asked for. Machines may share a name, and so may containers,
each of which numbers its processes from one. What a worker notes as its host therefore identifies
the process among those of all machines; a worker of any other machine is believed to live until its
lease, which it renews by the database's clock, has run out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dj_dagster.lazy import LateModule
from dj_dagster.relational.database.connection import Connection

if TYPE_CHECKING:
    from psutil import Process

# It is installed only on other systems than Linux, and takes 55 ms to import.
psutil: Any = LateModule("psutil")

CLOSING_TIME = 1.0
"""Seconds that a server may take to notice that a process is gone, beside other work."""

RENEWAL = 15.0
"""Seconds after which a worker renews its leases, at most."""

MARGIN = 10.0
"""Seconds by which a renewal may be late."""

_HOST_LENGTH = 255
"""Characters of a host that a job's row holds."""

_WORD = re.compile(r"(?P<name>.*) (?P<numbering>[0-9a-f]{8})\.(?P<beginning>[\d.]*)", re.DOTALL)
"""A host as `own_host` writes it; DataJoint writes the name alone."""

_FIRST_SPACE = "pid:[4026531836]"
"""The space of process numbers outside of containers, which is the same on each Linux machine."""


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
        """Whether the worker's process, if it lives, is among those that are seen from here."""
        if word := _WORD.fullmatch(self.host):
            name = platform.node()
            return name.startswith(word["name"]) and word["numbering"] == _numbering()
        # DataJoint notes the name alone. It gives no leases, so that nothing else could tell.
        return not self.is_leased and self.host == platform.node()

    def process_is_gone(self, now: datetime) -> bool:
        """Whether the process of a local worker has ended, or another process has its number."""
        if not _runs(self.pid):
            return True
        if word := _WORD.fullmatch(self.host):
            return "".join(_beginning(self.pid)) != word["beginning"]
        age = _process_age(self.pid)
        # The two ages are measured by two clocks.
        return age is not None and age + 2 < (now - self.since).total_seconds()


def own_host() -> str:
    """Return what this process notes as its host, which no other process has.

    The machine's name comes first, then a word for people to ignore: which process numbers are
    meant, and when the process of the number began.
    """
    return _host(platform.node(), _numbering(), os.getpid())


@cache
def _host(name: str, numbering: str, pid: int) -> str:
    end = f" {numbering}.{''.join(_beginning(pid))}"
    return f"{name[: _HOST_LENGTH - len(end)]}{end}"


def process_mark(pid: int) -> str:
    """Return a text that identifies a process of this machine among all, including later ones."""
    place = f"{_space()}/{_digest(_machine())}"
    began = "".join(_beginning(pid)) or "-"
    return " ".join([platform.node(), place, str(pid), began, _digest(_start())])


def is_gone(mark: str) -> bool:
    """Whether a process has ended; False where that cannot be known from here."""
    here, words = process_mark(os.getpid()).split(), mark.split()
    if len(words) != len(here) or words[:2] != here[:2]:
        return False
    if words[-1] != here[-1]:
        # The machine was started anew. Of containers, two may have the same name and number.
        return words[1].startswith((_FIRST_SPACE, "-"))
    return not _runs(int(words[2])) or process_mark(int(words[2])).split() != words


@cache
def _numbering() -> str:
    """Return a word for the numbers of processes here: of a started machine, or of a container.

    Containers share their machine's start, and machines the number of their first space.
    """
    return _digest(f"{_space()} {_start() or _machine()}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _space() -> str:
    """Return Linux's name of the space of process numbers, which each container has for itself."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "-"


def _start() -> str:
    """Return a text that is new at each start of the machine, empty if there is none."""
    return _text("/proc/sys/kernel/random/boot_id")


def _machine() -> str:
    """Return a text that differs between machines and stays; containers may lack it."""
    return _text("/etc/machine-id") if _is_linux() else str(uuid.getnode())


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def renewal(lease: float) -> float:
    """Return the seconds after which a worker renews a lease of a number of seconds."""
    return min(lease / 4, RENEWAL)


def elapsed() -> float:
    """Return the seconds since some moment, with those in which the machine was asleep."""
    # Linux's usual clock stands still meanwhile.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def dead(
    connection: Connection, reservations: Iterable[Reservation], now: datetime
) -> list[Reservation]:
    """Return the reservations whose worker is gone.

    A worker of this machine is gone when its process is, and the server no longer has its
    connection. Any other worker is taken to be gone when its lease has run out.

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

"""CPU time of all processes that a benchmark starts, also of those that other servers start for it.

Jobs of Slurm and tasks of Celery are not among the descendants of a benchmark, but they inherit its
environment. Processes are looked at again and again, as some end before all is done; the last
instants of these are missed. Linux only.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Self

MARK = "BENCHMARK_PROCESSES"
"""The variable that tells the processes of a benchmark from all others."""

EVERY = 0.1
"""Seconds between two looks."""


class CPUWatch:
    """A watch over the processes that a block starts, which have a mark in their environment."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}"
        self._seconds: dict[tuple[str, str], tuple[str, float]] = {}
        self._others: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        os.environ[MARK] = self._mark
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        del os.environ[MARK]
        self._stop.set()
        self._thread.join()

    def seconds(self) -> Mapping[str, float]:
        """Return the CPU seconds so far, by the name of the program."""
        total: dict[str, float] = defaultdict(float)
        with self._lock:
            self._look()
            for program, seconds in self._seconds.values():
                total[program] += seconds
        return total

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            with self._lock:
                self._look()

    def _look(self) -> None:
        parents = dict[str, tuple[str, str]]()
        for place in Path("/proc").glob("[0-9]*"):
            try:
                stat = (place / "stat").read_text()
            except OSError:
                continue
            program = stat.partition("(")[2].rpartition(")")[0]
            fields = stat.rpartition(")")[2].split()
            process = place.name, fields[19]
            parents[place.name] = process
            if process in self._others:
                continue
            if process not in self._seconds and not self._is_ours(place, parents.get(fields[1])):
                # A child of this process has its environment until it begins its program.
                if fields[1] != self._mark:
                    self._others.add(process)
                continue
            cpu = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
            self._seconds[process] = program, cpu

    def _is_ours(self, place: Path, parent: tuple[str, str] | None) -> bool:
        # PostgreSQL writes over the environment of its processes, but not over that of the first.
        if parent in self._seconds:
            return True
        try:
            given = (place / "environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return f"{MARK}={self._mark}".encode() in given

"""Faults on an engine: what each breaks, for how long, and what it has hit.

A fault is a function that breaks something at work, mends it some seconds later, and returns words
on what it has hit; none if there was nothing to hit.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import psutil

from tests.engines.lab import LEASE, LOST_AFTER, CeleryEngine, EngineLab, SlurmEngine
from tests.services.postgres import PostgresServer

Fault = Callable[[], str]


@dataclass
class Faults:
    """The faults that every engine has.

    Attributes
    ----------
    history
        The server of Dagster's history, if that can be killed.
    stopped
        Processes that were stopped for longer than their leases, and went on.
    """

    lab: EngineLab
    chosen: random.Random
    history: PostgresServer | None = None
    stopped: set[int] = field(default_factory=set[int])

    def all(self) -> Mapping[str, Fault]:
        """Return the faults by name."""
        return {
            "run worker killed": self.kill_run,
            "daemon killed": lambda: self.kill_part("daemon"),
            "code server killed": lambda: self.kill_part("code"),
            "sessions ended": lambda: self.kill_part("sessions"),
            "database killed": lambda: self.kill_part("database"),
            "cancelled in Dagster": lambda: self.kill_part("cancel"),
            "withdrawn in the engine": self.withdraw,
            "node killed": self.kill_node,
            "node stopped": self.stop_node,
            "node works unheard": self.unheard,
            **({"history killed": self.kill_history} if self.history else {}),
        }

    def kill_run(self) -> str:
        """End a process that makes a key."""
        process = self._victim()
        if process is None:
            return ""
        with contextlib.suppress(psutil.Error):  # it has ended by itself
            node = self.lab.engine.node_of(process)
            process.kill()
            return f"process {process.pid} on {node}" if node else ""
        return ""

    def kill_part(self, what: str) -> str:
        """End a part of the lab, while a key is being made."""
        at_work = self._at_work()
        return at_work if at_work and self.lab.lab.kill(what) else ""

    def kill_history(self) -> str:
        """End the server of Dagster's history, and start it after a while."""
        assert self.history is not None
        at_work = self._at_work()
        if not at_work:
            return ""
        self.history.kill()
        seconds = self._wait(0, LOST_AFTER)
        self.history.start()
        return f"{at_work}, for {seconds:.0f} s"

    def withdraw(self) -> str:
        """End a run that has begun, in the engine."""
        numbers = self.lab.begun()
        if not numbers or self._victim() is None:
            return ""
        number = self.chosen.choice(numbers)
        self.lab.engine.withdraw(number)
        return number[-8:]

    def kill_node(self) -> str:
        """End a node at work without a word, and start it after a while."""
        node = self._node()
        if not node:
            return ""
        self.lab.engine.kill(node)
        seconds = self._wait(0, 2 * LOST_AFTER)
        self.lab.engine.start(node)
        return f"{node}, for {seconds:.0f} s"

    def stop_node(self) -> str:
        """Stop all that a node does for longer than its leases, and let it go on."""
        node = self._node()
        if not node:
            return ""
        stopped = self.lab.engine.processes(node)
        self.stopped |= {process.pid for process in stopped}
        seconds = self._pause(stopped, LEASE + 2, LEASE + LOST_AFTER)
        return f"{node}, {len(stopped)} processes for {seconds:.0f} s"

    def unheard(self) -> str:
        """Let a node be silent until it is given up, while it works on."""
        node = self._node()
        if not node:
            return ""
        daemon, *_ = self.lab.engine.processes(node)
        seconds = self._pause([daemon], LOST_AFTER, 2 * LOST_AFTER + 5)
        return f"{node}, for {seconds:.0f} s"

    def _pause(self, processes: Iterable[psutil.Process], least: float, most: float) -> float:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        try:
            return self._wait(least, most)
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def _wait(self, least: float, most: float) -> float:
        seconds = self.chosen.uniform(least, most)
        time.sleep(seconds)
        return seconds

    def _at_work(self) -> str:
        number = len(self.lab.at_work())
        return f"{number} at work" if number else ""

    def _victim(self) -> psutil.Process | None:
        found = self.lab.at_work()
        return self.chosen.choice(found) if found else None

    def _node(self) -> str:
        process = self._victim()
        if process is None:
            return ""
        with contextlib.suppress(psutil.Error):
            return self.lab.engine.node_of(process)
        return ""


@dataclass
class SlurmFaults(Faults):
    """Faults on Slurm."""

    def all(self) -> Mapping[str, Fault]:
        return {
            **super().all(),
            "preempted": self.preempt,
            "controller killed": lambda: self.controller(kill=True),
            "controller restarted": lambda: self.controller(kill=False),
        }

    @property
    def _engine(self) -> SlurmEngine:
        assert isinstance(self.lab.engine, SlurmEngine)
        return self.lab.engine

    def preempt(self) -> str:
        """Let a job of somebody else take a node from one of ours."""
        node = self._node()
        if not node:
            return ""
        words = ["sbatch", "-p", "urgent", "-w", node, "-N", "1", "-c", "2", "-o", "/dev/null"]
        self._engine.cluster.run(*words, "--wrap", "sleep 3")
        return node

    def controller(self, *, kill: bool) -> str:
        """End the controller, and start it after a while."""
        if self._victim() is None:
            return ""
        cluster = self._engine.cluster
        (cluster.kill if kill else cluster.end)("slurmctld")
        seconds = self._wait(0, LOST_AFTER)
        cluster.start("slurmctld")
        return f"for {seconds:.0f} s"


@dataclass
class CeleryFaults(Faults):
    """Faults on Celery."""

    def all(self) -> Mapping[str, Fault]:
        return {
            **super().all(),
            "worker restarted": self.restart_worker,
            "Redis killed": self.kill_redis,
            "Redis has lost all": self.forget,
        }

    @property
    def _engine(self) -> CeleryEngine:
        assert isinstance(self.lab.engine, CeleryEngine)
        return self.lab.engine

    def restart_worker(self) -> str:
        """End a worker in order, as an update does, and start it again."""
        node = self._node()
        if not node:
            return ""
        self._engine.end(node)
        self._engine.start(node)
        return node

    def kill_redis(self) -> str:
        """End the server, and start it after a while."""
        if self._victim() is None:
            return ""
        self._engine.redis.kill()
        seconds = self._wait(0, LOST_AFTER)
        self._engine.redis.start()
        return f"for {seconds:.0f} s"

    def forget(self) -> str:
        """Let Redis lose what waits, and the records of what works."""
        at_work = self._at_work()
        if at_work:
            self._engine.forget()
        return at_work


def sequence(names: Iterable[str], count: int, chosen: random.Random) -> list[str]:
    """Return as many faults in random order, in which each comes about as often as any other."""
    names, found = [*names], list[str]()
    while len(found) < count:
        found += chosen.sample(names, len(names))
    return found[:count]

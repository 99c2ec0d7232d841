"""Execution of `make` inside a step: in the process of the step, or in worker processes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from dj_dagster.errors import ConfigurationError, PopulateError
from dj_dagster.orchestration.tables.table_node import OwnPopulator, TableNode
from dj_dagster.workflow.attempt import KeyOutcome
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import KeySource, PopulatedTable
from dj_dagster.workflow.pending import Key
from dj_dagster.workflow.populate import PopulateOptions, check_populable, chosen
from dj_dagster.workflow.workers import WorkerPool, WorkerProcess


@dataclass(frozen=True)
class Work:
    """The way in which a step makes keys.

    Attributes
    ----------
    processes
        The number of worker processes of a run, for a `make` that keeps a core busy.
    timeout
        Seconds after which a `make` is killed, and its key fails. Keys are then made in worker
        processes, as with `isolate` or more than one process.
    isolate
        Whether a `make` that ends its process fails its key alone instead of the whole run.

    Raises
    ------
    ConfigurationError
        When `processes` is below 1, or `timeout` is not positive.
    """

    processes: int = 1
    timeout: float | None = None
    isolate: bool = False

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ConfigurationError(f"Work(processes={self.processes}): write 1 or more")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigurationError(f"Work(timeout={self.timeout}): write seconds, or None")

    @property
    def apart(self) -> bool:
        """Whether keys are made in worker processes."""
        return self.processes > 1 or self.timeout is not None or self.isolate


HERE = Work()
"""The default: keys are made in the process of the step, one after another."""


def outcomes(
    node: TableNode, keys: Iterable[Mapping[str, Any]] | None, *, retry_errors: bool, work: Work
) -> Iterator[KeyOutcome]:
    """Make keys of a table, all pending ones for None; see `TableNode.outcomes`."""
    if work.apart and isinstance(node.filled_by, OwnPopulator):
        node = replace(node, filled_by=ProcessPopulator(node.filled_by.table, work))
    return node.outcomes(keys, retry_errors=retry_errors)


class MakeTimeoutError(PopulateError):
    """A `make` took longer than its timeout."""


class WorkerDiedError(PopulateError):
    """The process that made a key ended early or was killed."""


class ProcessPopulator(OwnPopulator):
    """The populator of a table of ours that uses worker processes."""

    def __init__(self, table: PopulatedTable, work: Work) -> None:
        super().__init__(table)
        self._work = work

    def make(
        self, keys: Iterable[Mapping[str, Any]] | None, *, retry_errors: bool
    ) -> Generator[KeyOutcome]:
        """Make keys as `populate_keys` does."""
        check_populable(self.table)
        source = KeySource(self.table)
        wanted, options = chosen(source, keys, retry_errors=retry_errors, reserve=self.reservable)
        pool = TimedPool(self.table, options, wanted, self._work)
        with closing(pool.outcomes()) as made:
            yield from made


class TimedPool(WorkerPool):
    """Worker processes with a timeout: one that takes too long for a key is killed."""

    def __init__(
        self, table: PopulatedTable, options: PopulateOptions, keys: Iterable[Key], work: Work
    ) -> None:
        super().__init__(table, options, keys, work.processes, None)
        self._timeout = work.timeout
        self._late: set[tuple[Any, ...]] = set()

    def _ready(self) -> list[WorkerProcess]:
        ready = super()._ready()
        if self._timeout is not None:
            ready += [w for w in self._workers if w not in ready and self._is_late(w)]
        return ready

    def _is_late(self, worker: WorkerProcess) -> bool:
        key, since = worker.current_key(), worker.status.since
        if key is None or self._timeout is None or time.monotonic() - since < self._timeout:
            return False
        self._late.add(tuple(key.values()))
        worker.process.kill()
        worker.process.join()
        return True

    def _failed(self, key: Key, code: int | None) -> KeyOutcome:
        if tuple(key.values()) in self._late:
            text = f"make took longer than {self._timeout:g} s and was killed"
            error: PopulateError = MakeTimeoutError(text)
        else:
            error = WorkerDiedError(str(super()._failed(key, code).error))
        outcome = KeyOutcome(key, "failed", self._timeout or 0.0, error=error)
        if self._options.reserve:
            JobQueue(self._table).error(key, outcome.message, str(error))
        return outcome

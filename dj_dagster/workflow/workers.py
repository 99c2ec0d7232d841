"""Worker processes that make keys; if one dies, the others go on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from dj_dagster.errors import DataJointError, PopulateError, text_of
from dj_dagster.model.heading import Key, Values
from dj_dagster.workflow.attempt import KeyOutcome, ends_process, exit_on_sigterm
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import KeySource, PopulatedTable
from dj_dagster.workflow.pending import is_present
from dj_dagster.workflow.populate import PopulateLoop, PopulateOptions, next_size

LOOK = 0.5
"""Seconds between two checks that the workers live, as their children may hold the pipes open."""

GRACE = 5.0
"""Seconds within which a worker must stop."""


@dataclass
class WorkerProcess:
    """A worker process as its parent sees it.

    Attributes
    ----------
    status
        The key that it makes, shared with it.
    size
        The number of keys that it is given together.
    share, reported
        The keys that it was given last, and those of them with a reported outcome.
    """

    process: BaseProcess
    pipe: Pipe
    status: SharedStatus
    size: int = 1
    share: list[Key] = field(default_factory=list[Key])
    reported: dict[Values, KeyOutcome] = field(default_factory=dict[Values, KeyOutcome])

    @property
    def left(self) -> int:
        """The number of keys that the worker has not reported yet."""
        return len(self.share) - len(self.reported)

    def unreported(self) -> list[Key]:
        """Return the keys that the worker has not reported yet."""
        return [key for key in self.share if tuple(key.values()) not in self.reported]

    def current_key(self) -> Key | None:
        """Return the key that the worker makes, None between keys."""
        position = self.status.position
        return None if position == NONE else self.share[position]


class WorkerPool:
    """Worker processes of one `populate`.

    They are forked where the system can, so that tables of notebooks and scripts need not be
    imported. They are not daemons, so that a `make` can have processes of its own.

    Parameters
    ----------
    processes
        The number of processes, None for one a core; there are no more than keys.
    limit
        The number of calls of `make`, at most.
    """

    def __init__(
        self,
        table: PopulatedTable,
        options: PopulateOptions,
        keys: Iterable[Key],
        processes: int | None,
        limit: int | None,
    ) -> None:
        if table.connection.is_in_memory:
            raise PopulateError(
                "A database in memory is seen by one process only: populate it with processes=1."
            )
        fork = "fork" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("fork" if fork else "spawn")
        self._table = table
        # What the parent has chosen is not sent to the workers, nor can it always be.
        self._options = replace(options, restrictions=(), keys=None)
        self._waiting = deque(keys)
        self._allowed = len(self._waiting) if limit is None else limit
        self._unclear: set[Values] = set()
        self._lost = 0
        self._size = max(1, min(processes or os.cpu_count() or 1, len(self._waiting)))
        self._workers = list[WorkerProcess]()

    def outcomes(self) -> Generator[KeyOutcome]:
        """Yield the outcome of each key as soon as it is known.

        Raises
        ------
        PopulateError
            If workers die again and again without having begun a key.
        """
        done = False
        try:
            for _ in range(self._size if self._waiting else 0):
                self._start()
            while self._assign():
                for worker in self._ready():
                    yield from self._heard(worker)
            done = True
        finally:
            self._stop(gently=done)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        status = SharedStatus(self._context)
        # Pipe ends that a fork inherits would keep pipes open after this process is gone.
        others = [worker.pipe for worker in self._workers] + [ours]
        inherited = others if self._context.get_start_method() == "fork" else []
        process = self._context.Process(
            target=serve,
            args=(type(self._table), self._options, theirs, status, inherited),
            name=f"populate {self._table.class_name}",
            daemon=False,
        )
        process.start()
        theirs.close()
        self._workers.append(WorkerProcess(process, ours, status))

    def _assign(self) -> bool:
        """Give keys to idle workers; return whether a worker is at work."""
        for worker in self._workers:
            room = self._allowed - sum(other.left for other in self._workers)
            count = min(len(self._waiting), room)
            if not worker.left and count > 0:
                # Towards the end shares are smaller, so that all workers end together.
                size = min(worker.size, -(-count // (2 * len(self._workers))))
                worker.share = [self._waiting.popleft() for _ in range(size)]
                worker.reported = {}
                # A broken pipe is noticed when it is read.
                with contextlib.suppress(OSError):
                    worker.pipe.send(worker.share)
        return any(worker.left for worker in self._workers)

    def _ready(self) -> list[WorkerProcess]:
        """Wait for workers, and return those that have sent outcomes or are gone."""
        busy = [worker for worker in self._workers if worker.left]
        heard = wait([worker.pipe for worker in busy], LOOK)
        return [w for w in busy if w.pipe in heard or not w.process.is_alive()]

    def _heard(self, worker: WorkerProcess) -> Generator[KeyOutcome]:
        try:
            while worker.pipe.poll():
                outcomes = [restored(item) for item in worker.pipe.recv()]
                worker.reported |= {tuple(o.key.values()): o for o in outcomes}
                busy = sum(outcome.seconds for outcome in outcomes)
                worker.size = next_size(worker.size, len(outcomes), busy)
                for outcome in outcomes:
                    yield self._counted(outcome)
        except (EOFError, OSError, pickle.UnpicklingError):
            worker.process.join(GRACE)
        if not worker.process.is_alive() and worker.left:
            yield from self._bury(worker)

    def _counted(self, outcome: KeyOutcome) -> KeyOutcome:
        if outcome.status in ("present", "reserved") and self._was_made(outcome.key):
            outcome = replace(outcome, status="made")
        self._allowed -= outcome.status in ("made", "failed")
        return outcome

    def _was_made(self, key: Key) -> bool:
        """Whether a worker made a key, and died before it could report this."""
        return tuple(key.values()) in self._unclear and is_present(self._table, key)

    def _bury(self, worker: WorkerProcess) -> Generator[KeyOutcome]:
        """Fail the key at which a worker died; give the rest of its share to other workers."""
        self._workers.remove(worker)
        worker.pipe.close()
        culprit = worker.current_key()
        rest = [key for key in worker.unreported() if key is not culprit]
        # Some of them may have been made, which the next worker finds out.
        self._unclear |= {tuple(key.values()) for key in rest}
        self._settle_jobs(worker)
        if culprit is not None:
            yield self._counted(self._failed(culprit, worker.process.exitcode))
        self._lost += culprit is None
        if self._lost > 2 * self._size:
            raise PopulateError(
                f"The worker processes of {self._table.name} end before they make a key, the last "
                f"{_ending(worker.process.exitcode)}."
            )
        self._waiting.extendleft(reversed(rest))
        if self._waiting:
            self._start()

    def _settle_jobs(self, worker: WorkerProcess) -> None:
        """End the jobs that a dead worker finished, and free the jobs that it held."""
        if not self._options.reserve:
            return
        queue, done = JobQueue(self._table), ("made", "present")
        finished = {
            queue.row(outcome.key): outcome.seconds or None
            for outcome in worker.reported.values()
            if outcome.status in done
        }
        if finished:
            keep = self._table.connection.job_settings.keep_completed
            queue.rows.complete(finished, keep=keep)
        queue.release_dead()

    def _failed(self, key: Key, code: int | None) -> KeyOutcome:
        error = PopulateError(
            f"The worker process that made {key} of {self._table.name} {_ending(code)}."
        )
        outcome = KeyOutcome(key, "failed", error=error)
        if self._options.reserve:
            JobQueue(self._table).error(key, outcome.message, str(error))
        return outcome

    def _stop(self, *, gently: bool) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.close()
            if not gently:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        if self._options.reserve and not gently:
            # A worker that was stopped during its first claim could not give the keys back.
            with contextlib.suppress(DataJointError):
                JobQueue(self._table).release_dead()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


NONE = -1
"""The number that stands for a worker between keys."""

REPORT = 0.02
"""Seconds that an outcome waits for others to be reported with."""


class SharedStatus:
    """The key that a worker process makes, in memory that its parent sees too."""

    def __init__(self, context: BaseContext) -> None:
        self._position = context.RawValue("q", NONE)
        self._since = context.RawValue("d", 0.0)

    @property
    def position(self) -> int:
        """The number in the share of the key at work, `NONE` between keys."""
        return int(self._position.value)

    @property
    def since(self) -> float:
        """The time when the worker began with that key, by `time.monotonic`."""
        return float(self._since.value)

    def begin(self, position: int) -> None:
        """Note that a key is begun."""
        # The time is set first, so that the parent does not see this key with an earlier time.
        self._since.value = time.monotonic()
        self._position.value = position

    def end(self) -> None:
        """Note that the worker is between keys."""
        self._position.value = NONE


def serve(
    table_class: type[PopulatedTable],
    options: PopulateOptions,
    pipe: Pipe,
    status: SharedStatus,
    inherited: list[Pipe],
) -> None:
    """Make the keys of the shares that come through a pipe, until the pipe is closed."""
    for other in inherited:
        other.close()
    positions: dict[Values, int] = {}

    def before(key: Key) -> None:
        status.begin(positions[tuple(key.values())])

    try:
        with exit_on_sigterm():
            loop = PopulateLoop(KeySource(table_class()), options, before)
            while True:
                share: list[Key] = pipe.recv()
                positions.clear()
                positions.update((tuple(key.values()), number) for number, key in enumerate(share))
                _report(pipe, loop.outcomes(share), status)
    except EOFError:
        # All keys are done, or the parent is gone.
        return
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):
        status.end()
        os._exit(1)


def _report(pipe: Pipe, outcomes: Generator[KeyOutcome], status: SharedStatus) -> None:
    found: list[object] = []
    sent = time.monotonic()
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            status.end()
            found.append(_portable(outcome))
            if time.monotonic() - sent > REPORT:
                pipe.send(found)
                found, sent = [], time.monotonic()
    if found:
        pipe.send(found)


def _portable(outcome: KeyOutcome) -> tuple[KeyOutcome, tuple[str, str] | None]:
    """Return an outcome that can be sent, with the text of an exception that cannot."""
    error = outcome.error
    if error is None:
        return outcome, None
    try:
        pickle.loads(pickle.dumps(error))
    except BaseException as own:
        if ends_process(own):
            raise
        return replace(outcome, error=None), (type(error).__name__, text_of(error))
    return outcome, None


def restored(item: tuple[KeyOutcome, tuple[str, str] | None]) -> KeyOutcome:
    """Return an outcome as it was before it was sent, its error with its traceback as a note."""
    outcome, told = item
    if told is not None:
        name, text = told
        outcome = replace(outcome, error=type(name, (PopulateError,), {})(text))
    if outcome.error is not None and outcome.traceback:
        # The exception's own notes may have any type.
        with contextlib.suppress(Exception):
            outcome.error.add_note(f"In a worker process:\n{outcome.traceback}")
    return outcome

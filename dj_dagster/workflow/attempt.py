"""One attempt to make a key: its `make` writes all rows or none, and the attempt has an outcome."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import sqlalchemy as sa

from dj_dagster.errors import DataJointError, DuplicateError, PopulateError, named_text
from dj_dagster.model.heading import Key, Values
from dj_dagster.objects.blob.format import Array
from dj_dagster.relational.algebra.condition import make_condition
from dj_dagster.relational.database.write import job_version, unit_of_work
from dj_dagster.relational.database.write_buffer import MakeCall, WriteBuffer
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.inserting.encode import RowEncoder
from dj_dagster.relational.inserting.row_sources import Batch
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.values import is_data_frame, is_series
from dj_dagster.workflow.make import MakeInThreeParts, PopulatedTable, Upstream, in_three_parts
from dj_dagster.workflow.pending import has_parents, is_present, rows_of

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Parts = Generator[object, object, object]
"""A `make` that yields what it has fetched, then what it has computed."""


Status = Literal["made", "present", "missing", "reserved", "failed", "left"]


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """The outcome of one key.

    Attributes
    ----------
    status
        ``made`` now; ``present`` already; ``missing`` from the key source, for example because a
        parent's row is not there (yet), or was deleted meanwhile; ``reserved`` by another worker,
        not due yet, failed before or to be ignored; ``failed`` now; ``left`` as it was, because
        rows depend on it that no `make` brings back.
    seconds
        Wall time of `make` and its commit.
    rows, bytes
        Rows written, parts included, and the size of their packed blobs.
    error, traceback
        The reason of a failure.
    is_empty
        Whether `make` inserted no row of the table itself.
    """

    key: Key
    status: Status
    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    error: BaseException | None = None
    traceback: str = ""
    is_empty: bool = False

    @property
    def message(self) -> str:
        """The error in a line, ``""`` without an error."""
        return "" if self.error is None else named_text(self.error)


class KeyRunner:
    """A runner that makes key after key of a table, each in a unit of work.

    Times and versions are noted in the table's hidden columns.

    Parameters
    ----------
    must_insert
        Whether a make must insert a row of the table.
    make_kwargs
        Passed to each `make`, or to `make_fetch` alone where the make is in three parts.
    before
        Called with each key before it is made.
    """

    def __init__(
        self,
        table: PopulatedTable,
        *,
        must_insert: bool = False,
        make_kwargs: Mapping[str, object] | None = None,
        before: Callable[[Key], None] | None = None,
    ) -> None:
        self._table = table
        self._before = before
        self._must_insert = must_insert
        self._kwargs = dict(make_kwargs or {})
        parts = (part().name for part in type(table).part_classes())
        self._allowed = frozenset({table.name, *parts})
        # The name of the 0.12 era.
        self._make: Callable[..., Any] = getattr(table, "_make_tuples", None) or table.make
        old = hasattr(table, "_make_tuples")
        self._three_parts = None if old else in_three_parts(table)
        self._has_metadata = "_job_start_time" in table.heading.all_attributes
        self._version = job_version(table.connection.job_settings) if self._has_metadata else ""

    def make(self, key: Key) -> KeyOutcome:
        """Make a key that is believed to be pending; raise only errors that end the process.

        At the level DEBUG, the log has DataJoint's messages, which programs read.
        """
        if self._before is not None:
            self._before(key)
        is_logged = logger.isEnabledFor(logging.DEBUG)
        what = f"making {key} -> {self._table.full_table_name}" if is_logged else ""
        if is_logged:
            logger.debug("M%s", what[1:])
        began, started = datetime.now(), time.perf_counter()
        try:
            written = self._write_rows(key)
            seconds = time.perf_counter() - started
        except BaseException as error:
            if ends_process(error):
                raise
            outcome = self._without_rows(key, error, time.perf_counter() - started)
        else:
            if self._has_metadata:
                self._note(key, began, seconds)
            rows = sum(written.written.values())
            is_empty = not written.written.get(self._table.name)
            outcome = KeyOutcome(key, "made", seconds, rows, written.bytes, is_empty=is_empty)
        if is_logged and outcome.status == "made":
            logger.debug("Success %s", what)
        elif is_logged and outcome.status == "failed":
            logger.debug("Error %s - %s", what, outcome.message)
        return outcome

    def _write_rows(self, key: Key) -> WriteBuffer:
        """Call `make`, and write what it inserted in one short transaction, or nothing."""
        table = self._table
        with (
            unit_of_work(table.connection, self._allowed, self._call(key)) as buffer,
            table.upstream_from(key),
            surroundings_kept(),
        ):
            if self._three_parts is not None:
                self._in_three_parts(self._three_parts, key, buffer)
            else:
                buffer.is_transaction = True
                started = self._make(dict(key), **self._kwargs)
                if isinstance(started, Generator):
                    buffer.is_transaction = False
                    self._as_generator(started, key, buffer)
            if self._must_insert and not buffer.written.get(table.name):
                raise PopulateError(
                    f"make() of {table.name} inserted no row for {key}. Insert one, or leave such "
                    "keys out by defining key_source."
                )
        return buffer

    def _without_rows(self, key: Key, error: BaseException, seconds: float) -> KeyOutcome:
        """Return the outcome of a key whose `make` or transaction raised an error."""
        # A make that calls sys.exit fails its key, but not the keys behind it.
        if isinstance(error, DuplicateError) and is_present(self._table, key):
            return KeyOutcome(key, "present")
        if self._is_gone(key):
            return KeyOutcome(key, "missing")
        return KeyOutcome(key, "failed", seconds, error=error, traceback=_stack(error))

    def _is_gone(self, key: Key) -> bool:
        """Whether a parent's row was deleted while its key was made."""
        try:
            return not has_parents(self._table, key)
        except DataJointError:
            return False

    def _note(self, key: Key, began: datetime, seconds: float) -> None:
        """Note the time of a make; the key is made, although this should fail."""
        table = self._table
        lowering = Lowering(table.connection.backend)
        target, over = lowering.target(rows_of(table))
        where = lowering.where(make_condition(key, table.heading), over, table.heading)
        kind = table.heading["_job_start_time"].type
        encode = table.connection.backend.encoder(kind) if kind else None
        values = {
            "_job_start_time": encode(began) if encode else began,
            "_job_duration": seconds,
            "_job_version": self._version,
        }
        try:
            table.connection.execute(sa.update(target).where(where).values(values))
        except DataJointError as error:
            warnings.warn(f"{table.name} {key}: {error}", stacklevel=2)

    def _call(self, key: Mapping[str, object]) -> MakeCall | None:
        """Return the record of the rows that a make reads and may write, None if not wanted."""
        table, wanted = self._table, self._table.connection.provenance
        if not wanted.strict:
            return MakeCall(table.name, key) if wanted.capture else None
        row = Batch({name: [value] for name, value in key.items()}, 1)
        (encoded,) = RowEncoder(table.connection, table.stored, partial=True).encode([row])
        values = (column[0] for column in encoded.values)
        return MakeCall(
            table.name,
            key,
            dict(zip(encoded.columns, values, strict=True)),
            readable=self._allowed | Upstream(table, key).tables,
            writable=self._allowed,
        )

    def _in_three_parts(
        self, table: MakeInThreeParts, key: Mapping[str, object], buffer: WriteBuffer
    ) -> None:
        fetched = self._tuple(table.make_fetch(dict(key), **self._kwargs), "make_fetch")
        before = content_hash(fetched)
        computed = self._tuple(table.make_compute(dict(key), *fetched), "make_compute")
        del fetched
        self._begin(buffer)
        again = self._tuple(table.make_fetch(dict(key), **self._kwargs), "make_fetch")
        self._compare(before, again, key)
        table.make_insert(dict(key), *computed)

    def _as_generator(self, started: Parts, key: Mapping[str, object], buffer: WriteBuffer) -> None:
        try:
            before = content_hash(next(started))
            computed = next(started)
        except StopIteration:
            raise PopulateError(
                f"make() of {self._table.name} is a generator: it must yield what it fetched, then "
                "what it computed, and insert after that."
            ) from None
        started.close()
        self._begin(buffer)
        again: Parts = self._make(dict(key), **self._kwargs)
        self._compare(before, next(again), key)
        try:
            again.send(computed)
        except StopIteration:
            return
        again.close()

    def _begin(self, buffer: WriteBuffer) -> None:
        """Open the transaction in which inputs are read again and rows are written."""
        if not self._table.connection.holds_transaction:
            buffer.transaction.enter_context(self._table.connection.open_transaction())

    def _compare(self, before: bytes, again: object, key: Mapping[str, object]) -> None:
        if content_hash(again) != before:
            raise PopulateError(
                f"The inputs of {self._table.name} for {dict(key)} have changed while it was "
                "computed: what was fetched the second time differs. Nothing was written; make the "
                "key again."
            )

    def _tuple(self, value: object, step: str) -> Values:
        if isinstance(value, tuple | list):
            return tuple(value)
        raise PopulateError(
            f"{step} of {self._table.name} returned {type(value).__name__}, not a tuple: write "
            "return (value,) for a single one."
        )


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as own:
        if ends_process(own):
            raise
        # Such as a syntax error with an invalid place.
        lines = traceback.format_tb(error.__traceback__)
        return "".join(["Traceback (most recent call last):\n", *lines, type(error).__name__, "\n"])


STREAMS = ((1, "stdout"), (2, "stderr"))


@contextmanager
def surroundings_kept() -> Generator[None]:
    """Undo a change of directory and a closed output; end a copy of the process.

    A forked child that a `make` does not end would return from the `make` too, and go on with the
    keys of its parent. Such a child is ended here.
    """
    process, folder = os.getpid(), _folder()
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)
        if folder is not None and _folder() != folder:
            with suppress(OSError):
                os.chdir(folder)
        for number, name in STREAMS:
            _reopen(number, name)


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _reopen(number: int, name: str) -> None:
    """Open a closed output stream anew, and direct a closed descriptor to the null device.

    Otherwise output would fail, or go into the next file that gets the free descriptor.
    """
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
    stream = getattr(sys, name)
    if stream is not None and stream.closed:
        setattr(sys, name, os.fdopen(number, "w", errors="backslashreplace", closefd=False))


def content_hash(value: object) -> bytes:
    """Return a hash that is equal for values of equal types and content, in any process.

    Order matters except in sets and mappings. NaN equals itself. A query stands for its rows.

    Raises
    ------
    PopulateError
        For an object whose content cannot be hashed, such as an open file.

    Examples
    --------
    >>> content_hash([1, {"a": 2.0, "b": None}]) == content_hash([1, {"b": None, "a": 2.0}])
    True
    >>> content_hash([1, 2]) == content_hash([2, 1])
    False
    """
    state = hashlib.blake2b(digest_size=16)
    _Hashing(state.update).add(value)
    return state.digest()


class _Hashing:
    """A hash of values, each behind a mark of its type and size to keep them distinct."""

    def __init__(self, update: Callable[[bytes | memoryview], None]) -> None:
        self._update = update
        self._inside: list[int] = []

    def add(self, value: object) -> None:
        match value:
            case None | bool() | int() | float() | complex() | str():
                self._put(type(value).__name__, repr(value).encode(errors="surrogatepass"))
            case bytes() | bytearray() | memoryview():
                self._put("bytes", bytes(value))
            case np.ndarray() | np.generic():
                self._array(np.asarray(value), type(value).__name__)
            case _ if is_data_frame(value) or is_series(value):
                self._frame(value)
            case QueryExpression():
                self._each("query", value.to_dicts(order_by="KEY" if value.primary_key else None))
            case _:
                self._nested(value)

    def _put(self, kind: str, content: bytes | memoryview) -> None:
        self._update(f"{kind} {len(content)} ".encode())
        self._update(content)

    def _nested(self, value: object) -> None:
        if id(value) in self._inside:
            # A value that holds itself is hashed as the number of steps up to itself.
            self._put("cycle", str(self._inside[::-1].index(id(value))).encode())
            return
        self._inside.append(id(value))
        match value:
            case list() | tuple():
                self._each(type(value).__name__, value)
            case Mapping():
                self._unordered("mapping", value.items())
            case Set():
                self._unordered("set", value)
            case _:
                self._object(value)
        self._inside.pop()

    def _each(self, kind: str, items: Sequence[object]) -> None:
        self._put(kind, str(len(items)).encode())
        for item in items:
            self.add(item)

    def _unordered(self, kind: str, items: Iterable[object]) -> None:
        self._put(kind, b"".join(sorted(map(content_hash, items))))

    def _array(self, array: Array, kind: str) -> None:
        self._put(kind, f"{array.dtype.descr} {array.shape}".encode())
        if array.dtype.hasobject:
            self._each("items", array.ravel().tolist())
        elif array.size and array.dtype.itemsize:
            # Arrays of datetimes do not offer a buffer.
            self._put("data", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _frame(self, frame: pd.DataFrame | pd.Series) -> None:
        content = frame.reset_index()
        self._each(type(frame).__name__, [str(name) for name in content.columns])
        for position in range(content.shape[1]):
            self._array(content.iloc[:, position].to_numpy(), "column")

    def _object(self, value: object) -> None:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            self._unordered(kind, [(name, getattr(value, name)) for name in names])
            return
        if (held := getattr(value, "__dict__", None)) and not isinstance(value, type):
            # A pickle would distinguish equal texts from one text that is used twice.
            self._unordered(kind, held.items())
            return
        try:
            self._put(kind, pickle.dumps(value, protocol=4))
        except Exception as error:
            raise PopulateError(
                f"make_fetch returned {value!r} ({kind}), whose content cannot be compared: "
                f"{error}. Return arrays, numbers, texts, and lists, dicts or dataclasses of these."
            ) from error


@contextmanager
def exit_on_sigterm() -> Generator[None]:
    """Let SIGTERM raise `SystemExit` inside; threads other than the main one cannot change that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _spare_children()
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class ToldToEnd(SystemExit):
    """The exception for SIGTERM, which differs from that of a `make` that calls `sys.exit`."""


def ends_process(error: BaseException) -> bool:
    """Whether an exception asks the process to end; all other exceptions of a `make` fail its key.

    Among the others are asyncio's exception for a cancelled task, and those of other libraries for
    a timeout.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, BaseExceptionGroup):
        return any(map(ends_process, error.exceptions))
    # Dagster raises an interrupt of its own in a cancelled run; this floor does not import Dagster.
    hosts = (kind.__module__.partition(".")[0] for kind in type(error).__mro__)
    return isinstance(error, KeyboardInterrupt | ToldToEnd) or "dagster" in hosts


def _leave(number: int, frame: object) -> None:
    del number, frame
    raise ToldToEnd("ended by SIGTERM")


@cache
def _spare_children() -> None:
    """Have SIGTERM end processes at once that a make forks, such as those of a pool.

    In such a process an exception can come too late, before a wait for a lock: the process would
    wait for ever, and its pool with it.
    """
    os.register_at_fork(after_in_child=_end_at_once)


def _end_at_once() -> None:
    if signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

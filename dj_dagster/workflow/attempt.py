"""One key tried: made, found there already, or failed."""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, DuplicateError, named_text
from dj_dagster.relational.algebra.condition import make_condition
from dj_dagster.relational.provenance import job_version
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import Key, has_parents, is_present, rows_of
from dj_dagster.workflow.running import MakeRunner
from dj_dagster.workflow.sigterm import ends_process

logger = logging.getLogger(__name__)

Status = Literal["made", "present", "missing", "reserved", "failed", "left"]


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What became of one key.

    Attributes
    ----------
    status
        ``made`` now; ``present`` already; ``missing`` from the key source, for example because a
        parent's row is not there (yet), or was deleted meanwhile; ``reserved`` by another worker,
        not due yet, failed before or to be ignored; ``failed`` now; ``left`` as it was, for rows
        that people entered depend on it.
    seconds
        Wall time of `make` and its commit.
    rows, bytes
        Rows written, parts included, and the size of their packed blobs.
    error, traceback
        Why it failed.
    """

    key: Key
    status: Status
    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    error: BaseException | None = None
    traceback: str = ""

    @property
    def message(self) -> str:
        """The error in a line, ``""`` where there is none."""
        return "" if self.error is None else named_text(self.error)


class Attempts:
    """Tries keys of a table, and notes in its hidden columns how its rows came to be.

    Parameters
    ----------
    must_insert, make_kwargs
        See `MakeRunner`.
    before
        Called with each key before it is made.
    """

    def __init__(
        self,
        table: Makes,
        *,
        must_insert: bool,
        make_kwargs: Mapping[str, Any] | None,
        before: Callable[[Key], None] | None = None,
    ) -> None:
        self._table = table
        self._before = before
        self._runner = MakeRunner(table, must_insert=must_insert, make_kwargs=make_kwargs)
        self._has_metadata = "_job_start_time" in table.heading.all_attributes
        self._version = job_version(table.connection.job_settings) if self._has_metadata else ""

    def make(self, key: Key) -> KeyOutcome:
        """Make a key that is believed to be pending; only what stops the process is raised.

        At the level of debugging the log tells of it in DataJoint's words, which programs read.
        """
        if not logger.isEnabledFor(logging.DEBUG):
            return self._attempt(key)
        what = f"making {key} -> {self._table.full_table_name}"
        logger.debug("M%s", what[1:])
        outcome = self._attempt(key)
        if outcome.status == "made":
            logger.debug("Success %s", what)
        elif outcome.status == "failed":
            logger.debug("Error %s - %s", what, outcome.message)
        return outcome

    def _attempt(self, key: Key) -> KeyOutcome:
        if self._before is not None:
            self._before(key)
        began, started = datetime.now(), time.perf_counter()
        try:
            made = self._runner.run(key)
            seconds = time.perf_counter() - started
        except BaseException as error:
            if ends_process(error):
                raise
            # A make that calls sys.exit fails its key, not those behind it.
            if isinstance(error, DuplicateError) and is_present(self._table, key):
                return KeyOutcome(key, "present")
            if self._is_gone(key):
                return KeyOutcome(key, "missing")
            seconds = time.perf_counter() - started
            return KeyOutcome(key, "failed", seconds, error=error, traceback=_stack(error))
        if self._has_metadata:
            try:
                self._note(key, began, seconds)
            except DataJointError as error:
                # The rows are in: the key is made, whatever is known of how long it took.
                warnings.warn(f"{self._table.name} {key}: {error}", stacklevel=2)
        return KeyOutcome(key, "made", seconds, made.rows, made.bytes)

    def _is_gone(self, key: Key) -> bool:
        """Whether a parent's row was deleted while its key was made."""
        try:
            return not has_parents(self._table, key)
        except DataJointError:
            return False

    def _note(self, key: Key, began: datetime, seconds: float) -> None:
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
        table.connection.execute(sa.update(target).where(where).values(values))


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as own:
        if ends_process(own):
            raise
        # Such as a syntax error whose place is no place.
        lines = traceback.format_tb(error.__traceback__)
        return "".join(["Traceback (most recent call last):\n", *lines, type(error).__name__, "\n"])

"""Settings of the sensor: sizes, times, retries, and settings of single tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.selection import Candidate, by_table
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

TRANSIENT = (
    "TransientError",
    "LostConnectionError",
    "LostCommitError",
    "ConnectionFailedError",
    "ConnectionError",
    "ConnectionResetError",
    "ConnectionRefusedError",
    "ConnectionAbortedError",
    "BrokenPipeError",
    "TimeoutError",
    "WorkerDiedError",
)
"""Names of exceptions for which the key need not be at fault.

The database or the network was, or the process was killed, possibly because of another process.
"""


@dataclass(frozen=True)
class RetryPolicy:
    """The automatic retries of failed keys; keys with other errors wait for a person.

    Attributes
    ----------
    attempts
        The total number of times that a key is tried.
    delay, backoff
        Seconds until the second attempt, and the factor of each further wait.
    errors
        Names of the exceptions after which a key is tried again.

    Examples
    --------
    >>> [RetryPolicy(delay=10).wait(failures) for failures in (1, 2, 3)]
    [10.0, 20.0, 40.0]
    """

    attempts: int = 5
    delay: float = 15.0
    backoff: float = 2.0
    errors: Sequence[str] = TRANSIENT

    def covers(self, message: str) -> bool:
        """Whether the policy has an error, given as the job queue keeps it."""
        return message.partition(":")[0] in self.errors

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after a number of failures."""
        return float(self.delay * self.backoff ** (failures - 1))


DEFAULT_RETRIES = RetryPolicy()
NO_RETRIES = RetryPolicy(attempts=1)


@dataclass(frozen=True)
class TableSettings:
    """The settings of one table that differ from those of the sensor.

    Attributes
    ----------
    automatic
        Whether the sensor starts runs for the table; otherwise a person or a schedule must.
    batch_size, retries
        See `SensorSettings`. The smallest batch size counts for tables that are made together.
    priority
        The priority of its runs in Dagster's queue; higher is sooner.
    """

    automatic: bool = True
    batch_size: int = 0
    priority: int = 0
    retries: RetryPolicy | None = None


@dataclass(frozen=True)
class SensorSettings:
    """The settings of the sensor.

    Attributes
    ----------
    interval
        Seconds between ticks, at least. Dagster looks at sensors every 5 s or so. With 5 here, a
        look that comes a moment early would not cause a tick, and every other tick would be lost.
    batch_size
        Keys of one run, at most. A run costs 2 s of processor time before its first key.
    max_batches
        Runs that one tick asks for, at most, in each grain.
    tick_seconds
        Seconds after which a tick does not begin work that can wait. Long work, such as the look at
        a million rows when a code server starts, is done in pieces of a second or so; the remaining
        pieces come in the next ticks, after the keys of new rows. Dagster gives up a tick after
        60 s, and evaluates other sensors between two ticks.
    max_marks
        Marks that one tick writes for rows it finds, at most, in each table.
    attempts
        The number of times that a batch is run while its keys stay pending without an error.
    retries
        The policy for automatic retries.
    tables
        Settings of single tables, by name, class or asset key:
        ``{"Spikes": TableSettings(batch_size=20)}``. Of several that fit a table, the one that fits
        fewest tables counts. See `dj_dagster.model.selection` for the names.
    sweep
        Seconds after which everything is looked at, whether or not the database reports a change;
        more if such a look would take more than a twentieth of the time.

    Raises
    ------
    ConfigurationError
        When a number is below 1, or a time is below 0.
    """

    interval: int = 3
    batch_size: int = 1000
    max_batches: int = 10
    tick_seconds: float = 5.0
    max_marks: int = 100_000
    attempts: int = 3
    sweep: float = 600.0
    retries: RetryPolicy = DEFAULT_RETRIES
    tables: Mapping[Any, TableSettings] = field(default_factory=dict[Any, TableSettings])

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_batches", "max_marks", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"SensorSettings({name}={getattr(self, name)}): write 1 or more"
                )
        for name in ("interval", "tick_seconds", "sweep"):
            if getattr(self, name) < 0:
                raise ConfigurationError(
                    f"SensorSettings({name}={getattr(self, name)}): write seconds, 0 or more"
                )

    def of(self, node: TableNode) -> TableSettings:
        """Return the settings of a table, completed by those of the sensor.

        The settings must be those of `resolved`.
        """
        own = self.tables.get(node.key) or TableSettings()
        return replace(
            own,
            batch_size=own.batch_size or self.batch_size,
            retries=own.retries or self.retries,
        )

    def resolved(self, graph: TableGraph, left_out: Sequence[Candidate] = ()) -> SensorSettings:
        """Return the settings with those of single tables by asset key.

        Parameters
        ----------
        left_out
            Tables that may have settings although they are not in the graph.

        Raises
        ------
        ConfigurationError
            When a name does not stand for a table: its settings would be ignored.
        """
        found = by_table(self.tables, graph.candidates, "SensorSettings.tables", left_out)
        known = graph.by_name
        return replace(
            self, tables={known[name].key: own for name, own in found.items() if name in known}
        )

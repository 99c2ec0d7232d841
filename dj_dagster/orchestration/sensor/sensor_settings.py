"""Settings of the sensor: sizes, times, retries, and what is different for single tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration.tables.naming import short_name
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
"""Names of exceptions that need not say anything of the key.

The database or the network was at fault, or the process was killed, maybe for another's sake.
"""


@dataclass(frozen=True)
class RetryPolicy:
    """When a key that failed is tried again by itself; all others wait for a person.

    Attributes
    ----------
    attempts
        How often a key is tried in all.
    delay, backoff
        Seconds until the second attempt, and by what each further wait is longer.
    errors
        Names of the exceptions.

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
        """Whether an error, as the job queue keeps it, is one of these."""
        return message.partition(":")[0] in self.errors

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after so many failures."""
        return float(self.delay * self.backoff ** (failures - 1))


DEFAULT_RETRIES = RetryPolicy()
NO_RETRIES = RetryPolicy(attempts=1)


@dataclass(frozen=True)
class TableSettings:
    """What is different for one table.

    Attributes
    ----------
    automatic
        Whether the sensor starts runs for it; without, a person or a schedule does.
    batch_size, retries
        See `SensorSettings`. Of tables that are made together the smallest batch counts.
    priority
        Of its runs in Dagster's queue; higher is sooner.
    """

    automatic: bool = True
    batch_size: int = 0
    priority: int = 0
    retries: RetryPolicy | None = None


@dataclass(frozen=True)
class SensorSettings:
    """How the sensor works.

    Attributes
    ----------
    interval
        Seconds between ticks, at least. Dagster looks at sensors every 5 s or so; with 5 here a
        look that comes a moment early would find the time not up, and every other one be lost.
    batch_size
        Keys of one run, at most. A run costs 2 s of processor time before its first key.
    max_batches
        Runs that one tick asks for, at most, in each grain.
    tick_seconds
        Seconds after which a tick begins nothing more that can wait. What takes long, as a look at
        a million rows does when a code server starts, is done in pieces of a second or so; those
        that are left come in the next ticks, after the keys of new rows. Dagster gives up a tick
        after 60 s, and evaluates other sensors between two of them.
    max_marks
        Marks that one tick writes for rows it finds, at most, in each table.
    attempts
        How often the same batch is run while its keys stay pending without an error.
    retries
        Which errors are tried again by themselves.
    tables
        Settings of single tables, by name: ``{"Spikes": TableSettings(batch_size=20)}``.
    sweep
        Seconds after which everything is looked at, whether or not the database says that it has
        changed; more where that takes more than a twentieth of the time.
    """

    interval: int = 3
    batch_size: int = 1000
    max_batches: int = 10
    tick_seconds: float = 5.0
    max_marks: int = 100_000
    attempts: int = 3
    sweep: float = 600.0
    retries: RetryPolicy = DEFAULT_RETRIES
    tables: Mapping[str, TableSettings] = field(default_factory=dict[str, TableSettings])

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
        """Return the settings of a table, those of all tables where it has none of its own."""
        own = self.tables.get(node.title) or self.tables.get(short_name(node.name))
        own = own or TableSettings()
        return replace(
            own,
            batch_size=own.batch_size or self.batch_size,
            retries=own.retries or self.retries,
        )

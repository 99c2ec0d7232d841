"""A table as Dagster sees it: its source, its key, its op, and the populator that fills it.

Runs and the sensor fill tables by the protocol `Populator`, which tables of DataJoint follow too,
see `datajoint_tables`.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import cleandoc
from itertools import chain
from typing import Any, Protocol

from dagster import (
    AssetKey,
)

from dj_dagster.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DataJointError,
    PopulateError,
)
from dj_dagster.model.heading import Key, Value
from dj_dagster.model.names import TableName, Tier, class_names, parse_table_name, snake_case, title
from dj_dagster.model.selection import Candidate
from dj_dagster.model.types import Family
from dj_dagster.orchestration.tables.grains import Grain, by_partition
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.describe import Spelling, definition_of
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import is_only_found
from dj_dagster.workflow.collation import keys_respelled, origins
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import (
    KeySource,
    PopulatedTable,
    blaming,
    can_make,
    has_own_key_source,
    own_key_source,
)
from dj_dagster.workflow.notes import Staleness
from dj_dagster.workflow.pending import progress
from dj_dagster.workflow.populate import KeyOutcome, pending_keys, populate_keys, queue_of

# Dagster makes names of ops' inputs from keys, and replaces these two signs itself.
_OUTSIDE_KEYS = re.compile(r"[^A-Za-z0-9_.-]")


def asset_key(table: TableName | Table | type[Table]) -> AssetKey:
    """Return the key of a table's asset: ``[schema, table]``, or ``[schema, master, part]``.

    The names are those of the classes in snake case. Assets and checks of your own name a table by
    it: ``@asset(deps=[asset_key(Session)])``. Characters of a schema's name that Dagster does not
    take are written as their code: that of ``lab 1`` is ``lab_x20_1``.

    Raises
    ------
    ConfigurationError
        When `table` is something else.

    Examples
    --------
    >>> asset_key(TableName("lab", "__processed")).path
    ['lab', 'processed']
    >>> asset_key(TableName("lab", "session__trial")).path
    ['lab', 'session', 'trial']
    """
    if isinstance(table, TableName):
        name = table
    else:
        given: Any = table
        if isinstance(given, type) and issubclass(given, Table):
            given = given()
        name = getattr(given, "name", None)
        if not isinstance(name, TableName):
            raise ConfigurationError(f"asset_key has {table!r}: give a table or its class.")
    schema = _OUTSIDE_KEYS.sub(lambda found: f"_x{ord(found[0]):x}_", name.schema)
    return AssetKey([schema, *map(snake_case, class_names(name))])


def op_name(key: AssetKey) -> str:
    """Return the name of the op that fills a table; Dagster allows letters, digits and ``_``."""
    return "__".join(dagster_name(part) for part in key.path)


def entry_job_name(key: AssetKey) -> str:
    """Return the name of the job by which people enter rows of a table."""
    return f"insert__{op_name(key)}"


def dagster_name(text: str) -> str:
    """Return a text with only letters, digits and ``_``, as Dagster requires of names."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


@dataclass(frozen=True)
class TableNode:
    """One table as Dagster sees it.

    Attributes
    ----------
    grain
        The grain of the table's partitions; a part has its master's. None for tables without
        partitions: tables with one row at most, and lookup tables that do not share their key.
    master
        The asset key of a part's master.
    parents
        Asset keys of the tables that the foreign keys refer to, each once; a part's master first.
    filled_by
        The populator that fills the table, None for tables that `make` does not fill here.
    definition
        The text that declares the table.
    """

    table: Table
    name: TableName
    key: AssetKey
    tier: Tier
    grain: Grain | None = None
    master: AssetKey | None = None
    parents: tuple[AssetKey, ...] = ()
    filled_by: Populator | None = None
    definition: str = ""

    @property
    def populated(self) -> bool:
        """Whether `make` fills the table here, and not people or other programs."""
        return self.filled_by is not None

    @property
    def populator(self) -> Populator:
        """The populator that fills the table.

        Raises
        ------
        PopulateError
            When people or other programs enter its rows.
        """
        if self.filled_by is not None:
            return self.filled_by
        raise PopulateError(f"{self.title} is {self.tier.value}: there is nothing to make in it")

    @property
    def reservable(self) -> bool:
        """Whether the table has a job queue: its keys are those of other tables."""
        return self.populator.reservable

    @cached_property
    def coarse(self) -> bool:
        """Whether a partition stands for many keys of `make`, being a prefix of them."""
        if self.grain is None or self.filled_by is None:
            return False
        return set(self.grain.names) < set(self.filled_by.key_names)

    @property
    def staleness(self) -> Staleness:
        """The ages of the table's keys, by the notes on them."""
        return Staleness(self.table, self.populator.key_names, self.populator.source)

    def pending(
        self, *restrictions: object, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """Return the keys that `make` has still to be given."""
        found = self.populator.pending(*restrictions, limit=limit, retry_errors=retry_errors)
        return self.respelled(found)

    def respelled(self, keys: Sequence[Key]) -> list[Key]:
        """Return keys as partitions spell them.

        A server takes texts for equal that differ in case or accents; their spelling is that of the
        table that first declares them, so that a key has one partition in all tables.
        """
        return keys_respelled(self.table, keys)

    def partitions_of(self, rows: Iterable[Mapping[str, Value]]) -> list[str]:
        """Return the partition of each row; empty for a table without partitions."""
        grain = self.grain
        if grain is None:
            return []
        found = list(map(grain.encode, rows))
        renamed = self.renamed(found)
        return [renamed.get(partition, partition) for partition in found]

    def spelled(self, partitions: Sequence[str], known: Container[str]) -> list[str]:
        """Return partitions of rows, each once, as they are spelled in Dagster.

        Parameters
        ----------
        known
            Partitions in Dagster, for which the database need not be asked.
        """
        renamed = self.renamed([each for each in partitions if each not in known])
        return list(dict.fromkeys(renamed.get(each, each) for each in partitions))

    def renamed(self, partitions: Sequence[str]) -> dict[str, str]:
        """Return those of some partitions of rows that are spelled otherwise in Dagster.

        See `respelled`.
        """
        grain = self.grain
        if grain is None or not partitions or not origins(self.table, grain.names):
            return {}
        keys = self.respelled(list(map(grain.decode, partitions)))
        found = zip(partitions, map(grain.encode, keys), strict=True)
        return {old: new for old, new in found if old != new}

    def outcomes(
        self, keys: Iterable[Mapping[str, Value]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """Make keys, all pending ones for None, and yield their outcomes.

        With partitions that are coarser than keys there is one outcome a partition, and `keys` may
        be keys of `make` or of partitions.
        """
        grain = self.grain
        if not self.coarse or grain is None:
            if keys is None and origins(self.table, self.populator.key_names):
                keys = self.pending(retry_errors=retry_errors)
            yield from self.populator.make(keys, retry_errors=retry_errors)
            return
        wanted = None if keys is None else [{n: key[n] for n in grain.names} for key in keys]
        chosen = () if wanted is None else (wanted,)
        pending = self.pending(*chosen, retry_errors=retry_errors) if wanted != [] else []
        pending.sort(key=grain.encode)
        busy = Counter(map(grain.encode, pending))
        made = self.populator.make(pending, retry_errors=retry_errors)
        for outcome in by_partition(made, grain, busy):
            # Keys that failed before may not have been tried again.
            whole = outcome.status != "made" or self.finished([grain.encode(outcome.key)])
            yield outcome if whole else replace(outcome, status="reserved")
        for key in wanted or ():
            if grain.encode(key) not in busy:
                yield KeyOutcome(key, "present" if self.table & key else "missing")

    @property
    def title(self) -> str:
        """The table as a user names it: ``"lab.Session.Trial"``."""
        return title(self.name)

    def rows_in(self, partitions: Iterable[str]) -> int:
        """Return the number of rows that the table has in some partitions."""
        return len(self.table & self._decoded(partitions))

    def finished(self, partitions: list[str]) -> list[str]:
        """Return those of some partitions with rows whose keys are all made."""
        if not self.coarse or self.grain is None or not partitions:
            return partitions
        left = self.pending(self._decoded(partitions), retry_errors=True)
        unfinished = set(self.grain.encode_all(left))
        return [partition for partition in partitions if partition not in unfinished]

    def partitions(self) -> list[str]:
        """Return the partitions that have rows in the table, in the order of their keys."""
        return self._encoded(self.table)

    def _decoded(self, partitions: Iterable[str]) -> list[Key]:
        grain = self.grain
        return [] if grain is None else [grain.decode(partition) for partition in partitions]

    def _encoded(self, query: QueryExpression) -> list[str]:
        if self.grain is None:
            return []
        names = self.grain.names
        found = self.grain.encode_rows(fetch.keys(query.connection, query.node, names, names))
        return self.spelled(found, ())


logger = logging.getLogger(__name__)

_ODD = (Family.DATE, Family.DATETIME, Family.FLOAT)


class Populator(Protocol):
    """The populator of one table, which finds its keys and makes them."""

    @property
    def source(self) -> type:
        """The class that the user wrote `make` in."""
        ...

    @property
    def key_names(self) -> list[str]:
        """The attributes that a call of `make` is given."""
        ...

    @property
    def reservable(self) -> bool:
        """Whether the table has a job queue that holds its keys and keeps their failures."""
        ...

    def keys(self) -> list[Key]:
        """Return all keys that `make` could be given, in their order."""
        ...

    def pending(
        self, *restrictions: object, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """Return the keys that `make` has still to be given."""
        ...

    def progress(self) -> tuple[int, int]:
        """Return the number of keys that remain to be made, and the number of all keys."""
        ...

    def failed(self) -> int:
        """Return the number of failed keys in the job queue."""
        ...

    def make(
        self, keys: Iterable[Mapping[str, Value]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """Make keys one by one, all pending ones for None; a failing key does not stop them."""
        ...

    def release_dead(self) -> int:
        """Make keys pending again whose worker is gone, and return their number."""
        ...


class OwnPopulator:
    """The populator of a table of ours."""

    def __init__(self, table: PopulatedTable) -> None:
        self._table = table

    @property
    def source(self) -> type:
        """The table's class."""
        return type(self._table)

    @property
    def table(self) -> PopulatedTable:
        """The table."""
        return self._table

    @property
    def key_names(self) -> list[str]:
        """The attributes of the table's key that the key source has."""
        given = self.key_source.primary_key
        return [name for name in self._table.primary_key if name in given]

    @property
    def key_source(self) -> QueryExpression:
        """The query for all keys that `make` could be given."""
        own = has_own_key_source(self._table)
        return own_key_source(self._table) if own else self._table.key_source

    @property
    def reservable(self) -> bool:
        """Whether the job queue can hold the keys, which are those of other tables."""
        # Jobs do not have hidden attributes, such as that of a table with one row.
        names = set(self._table.primary_key)
        if not any(k.primary and names & set(k.attributes) for k in self._table.foreign_keys):
            return False
        # The error of a key source comes when keys are asked for.
        with suppress(Exception):
            return queue_of(KeySource(self._table)) is not None
        return True

    def keys(self) -> list[Key]:
        """Return the keys of the key source."""
        with self._blaming():
            return self.key_source.proj().to_dicts(order_by=self.key_names or None)

    def pending(
        self, *restrictions: object, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """See `pending_keys`."""
        with self._blaming():
            found = pending_keys(
                self._table,
                *restrictions,
                limit=limit,
                retry_errors=retry_errors,
                ignore_jobs=not self.reservable,
            )
        return self._usable(found)

    def progress(self) -> tuple[int, int]:
        """See `dj_dagster.workflow.pending.progress`."""
        with self._blaming():
            return progress(KeySource(self._table))

    def _usable(self, keys: list[Key]) -> list[Key]:
        """Leave out the keys that tables cannot hold, such as zero dates, with a warning."""
        heading = self._table.heading
        kinds = [(name, heading[name].type) for name in self.key_names if keys]
        looked = [(name, kind.family) for name, kind in kinds if kind and kind.family in _ODD]
        if not looked:
            return keys
        odd = [key for key in keys if any(is_only_found(key[n], family) for n, family in looked)]
        for key in odd[:1]:
            logger.warning(
                "%s: %d keys hold what no table takes and are left out, such as %s; correct them.",
                self._table.name,
                len(odd),
                key,
            )
        return [key for key in keys if key not in odd] if odd else keys

    def _blaming(self) -> AbstractContextManager[None]:
        """Name the key source in the errors of one that a user has written."""
        return blaming(self._table) if has_own_key_source(self._table) else nullcontext()

    def failed(self) -> int:
        """Count the jobs that are in error."""
        return len(JobQueue(self._table).errors) if self.reservable else 0

    def make(
        self, keys: Iterable[Mapping[str, Value]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """See `populate_keys`."""
        return populate_keys(self._table, keys, retry_errors=retry_errors, reserve=self.reservable)

    def release_dead(self) -> int:
        """See `JobQueue.release_dead`."""
        return JobQueue(self._table).release_dead() if self.reservable else 0


def populator_of(table: object) -> Populator | None:
    """Return the populator of a table of ours, None without a `make` and a key source."""
    if isinstance(table, PopulatedTable) and can_make(type(table)):
        return OwnPopulator(table)
    return None


@dataclass(frozen=True)
class TableSource:
    """One table, with the facts that its asset needs.

    Attributes
    ----------
    table
        A query over all rows.
    master
        A part's master.
    populator
        The populator that fills the table; None without its class or without a `make`.
    definition
        The definition of its class, or the one rebuilt from the database.
    """

    table: Table
    master: TableName | None
    populator: Populator | None
    definition: str

    @property
    def name(self) -> TableName:
        """The schema's and the table's name in SQL."""
        return self.table.name

    @property
    def candidate(self) -> Candidate:
        """The table for selections by name."""
        parents = (key.parent for key in self.table.foreign_keys if key.parent != self.name)
        own = (self.master,) if self.master else ()
        return Candidate(self.name, self.table.tier, (*own, *parents))

    @property
    def given_names(self) -> list[str]:
        """The attributes of a key of `make`; the primary key for tables without a `make`.

        For a computed table whose class is not at hand, or whose key source fails, they are taken
        to be the inherited attributes.
        """
        table = self.table
        try:
            if self.populator is not None:
                return self.populator.key_names
        except ConnectionFailedError:
            raise
        except DataJointError as error:
            # The sensor reports this too, and leaves the table alone.
            logger.warning("%s", error)
        if table.tier not in (Tier.IMPORTED, Tier.COMPUTED):
            return table.primary_key
        inherited = {name for key in table.foreign_keys if key.primary for name in key.attributes}
        return [name for name in table.primary_key if name in inherited] or table.primary_key


def of_schema(schema: Schema) -> list[TableSource]:
    """Return the tables of a schema that have declared or reflected classes."""
    return of_classes((*schema.tables.values(), *schema.reflected.values()))


def of_classes(classes: Iterable[type[Table]]) -> list[TableSource]:
    """Return the tables of classes, with their parts."""
    return list(chain.from_iterable(map(_of_class, dict.fromkeys(classes))))


def of_name(connection: Connection, name: TableName, definition: str) -> TableSource:
    """Return a table without a class."""
    from_name = parse_table_name(name.table)
    master = from_name.master if from_name else None
    return TableSource(
        FreeTable(connection, name),
        TableName(name.schema, master) if master else None,
        None,
        definition,
    )


def described(connection: Connection, names: Iterable[TableName]) -> dict[TableName, str]:
    """Return the definitions of tables, rebuilt from the database."""
    names = list(names)
    with connection.cursor() as session:
        indexes = {
            schema: connection.backend.indexes(session, schema)
            for schema in dict.fromkeys(name.schema for name in names)
        }
    return {
        name: definition_of(
            connection, name, indexes[name.schema].get(name.table, {}), Spelling(name, {})
        )
        for name in names
    }


def distinct(sources: Iterable[TableSource]) -> list[TableSource]:
    """Return tables, each once.

    Raises
    ------
    ConfigurationError
        When a table comes twice, or Dagster cannot tell two schemas apart.
    """
    found: dict[TableName, TableSource] = {}
    schemas: dict[str, str] = {}
    for source in sources:
        name = dagster_name(asset_key(source.name).path[0])
        if (other := schemas.setdefault(name, source.name.schema)) != source.name.schema:
            raise ConfigurationError(
                f"The schemas {other!r} and {source.name.schema!r} have the same name in Dagster's "
                f"jobs and runs, {name}: give each to a code location of its own."
            )
        if source.name in found:
            raise ConfigurationError(f"Schema {source.name.schema} is given more than once.")
        found[source.name] = source
    return list(found.values())


def with_masters(sources: Iterable[TableSource]) -> list[TableSource]:
    """Return tables in which a part without its master among them is an ordinary table."""
    sources = list(sources)
    names = {source.name for source in sources}
    return [
        source if source.master in names else replace(source, master=None) for source in sources
    ]


def _of_class(cls: type[Table]) -> Iterator[TableSource]:
    table = cls()
    yield TableSource(table, None, populator_of(table), _definition(table))
    for part in cls.part_classes():
        yield TableSource(part(), table.name, None, _definition(part()))


def _definition(table: Table) -> str:
    text = cleandoc(table.definition)
    return text or described(table.connection, [table.name])[table.name]

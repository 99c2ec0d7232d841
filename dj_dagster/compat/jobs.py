"""The jobs of a whole schema as one table, as DataJoint 0.14 had them in ``schema.jobs``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from dj_dagster.class_access import on_class
from dj_dagster.compat.spellings import key_hash
from dj_dagster.errors import PopulateError
from dj_dagster.model.heading import Attribute, Heading, Key, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.objects.codecs.chain import Codec
from dj_dagster.relational.algebra.condition import refuse_oversights
from dj_dagster.relational.algebra.nodes import Listed, Node
from dj_dagster.relational.algebra.operators import project
from dj_dagster.relational.caller import refuse_arguments
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.schemas.free_table import HiddenTable
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import comparable
from dj_dagster.workflow.job_rows import shortened
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.shared_jobs import TABLE as JOBS
from dj_dagster.workflow.shared_jobs import SharedJobs, ensure_jobs

_STATUSES = "status in ('reserved', 'error', 'ignore')"
_TYPES = {
    "table_name": "varchar(255)",
    "key_hash": "char(32)",
    "status": "enum('reserved','error','ignore')",
    "key": "<job_key>",
    "error_message": "varchar(2047)",
    "error_stack": "<blob>",
    "user": "varchar(255)",
    "host": "varchar(255)",
    "pid": "int32",
    "connection_id": "int64",
    "timestamp": "datetime(3)",
}
_SPELLED_ALIKE = (Family.INTEGER, Family.BOOL, Family.DECIMAL, Family.STRING, Family.DATE)
"""Types whose values SQL converts to the same text as Python's `str`."""


class JobTable(HiddenTable):
    """The table ``~jobs`` of a schema of DataJoint 0.14, which its workers share with ours.

    Keys whose jobs are deleted are pending again.

    Parameters
    ----------
    connection
        The connection of the schema.
    database
        The schema's name; its table of jobs is created if it is missing.
    """

    def __init__(self, connection: Connection, database: str) -> None:
        super().__init__(connection, ensure_jobs(connection, database))

    def reserve(self, table_name: str, key: Mapping[str, Value]) -> bool:
        """Claim a key of a table; False if the key has a job already, of any status."""
        return self._jobs(table_name, key).reserve(tuple(key.values()))

    def ignore(self, table_name: str, key: Mapping[str, Value]) -> None:
        """Leave a key of a table out from now on."""
        self._jobs(table_name, key).ignore([tuple(key.values())])

    def complete(self, table_name: str, key: Mapping[str, Value]) -> None:
        """Forget a job that was done."""
        self._jobs(table_name, key).forget([tuple(key.values())])

    def error(
        self,
        table_name: str,
        key: Mapping[str, Value],
        error_message: str,
        error_stack: str | None = None,
    ) -> None:
        """Record the error of a job that failed."""
        message = shortened(error_message)
        self._jobs(table_name, key).fail(tuple(key.values()), message, error_stack)

    def _jobs(self, table_name: str, key: Mapping[str, Value]) -> SharedJobs:
        table = TableName(self.name.schema, table_name)
        return SharedJobs(self.connection, table, tuple(key), self.connection.get_user())


class SchemaJobs(QueryExpression):
    """The jobs of a schema that are reserved, failed or ignored, as a query over all its queues.

    Their attributes are those of DataJoint 0.14's table: `table_name` and `key_hash` as the primary
    key, `status`, `key`, `error_message`, `error_stack`, `user`, `host`, `pid`, `connection_id` and
    `timestamp`. Iterating over the unrestricted query, or indexing it, gives the queues themselves,
    as in DataJoint 2.3, except in the era of 0.14.

    Parameters
    ----------
    schema
        The name of the schema.
    queues
        The queues of the computed tables that have one.
    tables
        All computed tables, whose queues are created when they get a job here.

    Examples
    --------
    ::

        (schema.jobs & 'status = "error"').delete()
        dj.U("table_name").aggr(schema.jobs, n="count(*)")
        for queue in schema.jobs:
            print(queue.target, queue.progress())
    """

    def __init__(
        self,
        connection: Connection,
        schema: str,
        queues: Sequence[JobQueue],
        tables: Sequence[Table] = (),
    ) -> None:
        connection.codecs.register(JobKeyCodec)
        parts = tuple(map(_named, queues))
        read = frozenset[TableName]().union(*(part.tables for part in parts))
        self._all = Listed(_heading(schema), read, parts)
        super().__init__(connection, self._all)
        self._queues = list(queues)
        self._tables = list(tables)

    def __iter__(self) -> Iterator[Value]:
        old = self.connection.era == "0.14"
        return iter(self._queues) if self.node is self._all and not old else super().__iter__()

    def __getitem__(self, position: int) -> JobQueue:
        return self._queues[position]

    def delete(self, *args: object, **options: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Forget these jobs, without asking, so that their keys are pending again."""
        del options
        refuse_arguments("delete", *args)
        refuse_oversights(self.node, "delete jobs")
        keys: dict[str, list[Key]] = {}
        for row in self.proj("key").to_dicts():
            keys.setdefault(row["table_name"], []).append(row["key"])
        return sum((self._queue(table) & found).delete_quick() for table, found in keys.items())

    @on_class
    def delete_quick(self, get_count: bool = False) -> int:
        """Do the same as `delete`."""
        return self.delete(get_count)

    def drop(self, *args: object, **options: object) -> None:
        """Drop the queues of all tables, which forgets all jobs."""
        for queue in self._queues:
            queue.drop(*args, **options)

    def reserve(self, table_name: str, key: Mapping[str, Value]) -> bool:
        """Claim a key of a table; False if the key has a job already that is not pending."""
        queue = self._queue(table_name)
        row, priority = queue.row(key), self.connection.job_settings.default_priority
        queue.rows.add([row], priority=priority)
        return bool(queue.claim([row], ("pending",)))

    def ignore(self, table_name: str, key: Mapping[str, Value]) -> None:
        """Leave a key of a table out from now on."""
        self._queue(table_name).ignore(key)

    def complete(self, table_name: str, key: Mapping[str, Value]) -> None:
        """Forget a job that was done."""
        self._queue(table_name).complete(key)

    def error(
        self,
        table_name: str,
        key: Mapping[str, Value],
        error_message: str,
        error_stack: str | None = None,
    ) -> None:
        """Keep why a job failed."""
        self._queue(table_name).error(key, error_message, error_stack)

    def _queue(self, table_name: str) -> JobQueue:
        for queue in self._queues:
            if queue.target.table_name == table_name:
                return queue
        for table in self._tables:
            if table.table_name == table_name:
                return JobQueue(table)
        queued = [queue.target for queue in self._queues]
        known = ", ".join(table.table_name for table in self._tables or queued) or "none"
        raise PopulateError(f"No table {table_name!r} has jobs here; those that have: {known}.")


class JobKeyCodec(Codec, register=False):
    """The key of a job as a dict, read from a text that the query joins from its attributes."""

    name = "job_key"

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of the text that the query gives."""
        del is_store
        return "varchar(65535)"

    def encode(
        self, value: Value, *, key: Mapping[str, Value] | None = None, store_name: str | None = None
    ) -> Value:
        """Raise an error: keys are in the columns of the queues."""
        raise TypeError(f"{value!r:.80} cannot be written: insert into the table's own jobs.")

    def decode(self, stored: str, *, key: Mapping[str, Value] | None = None) -> Key:
        """Return the key's values by name."""
        del key
        found: Key = {}
        for part in stored.split(","):
            name, kind, text = part.split("=")
            found[name] = _value(name, parse_type(_unhexed(kind)), _unhexed(text))
        return found


def _heading(schema: str) -> Heading:
    """Return the attributes; those of the key have a lineage, so that counts can be joined."""
    key = ("table_name", "key_hash")
    return Heading(
        Attribute(
            name,
            parse_type(kind),
            in_key=name in key,
            lineage=f"{schema}.{JOBS}.{name}" if name in key else None,
        )
        for name, kind in _TYPES.items()
    )


def _named(queue: JobQueue) -> Node:
    """Return a queue's jobs with the attributes of the old table."""
    name = queue.target.table_name.replace("'", "''")
    jobs = _spellable(queue & _STATUSES)
    texts = {key: _text(queue, key) for key in queue.key}
    parts = [f"CONCAT('{key}={_hexed(queue, key)}=', HEX({texts[key]}))" for key in texts]
    whole = f"CONCAT_WS(',', {', '.join(parts)})"
    columns = {
        "table_name": f"'{name}'",
        "key_hash": _hash(queue, jobs, texts, whole),
        "key": whole,
        "timestamp": "COALESCE(completed_time, reserved_time, created_time)",
    }
    kept = [name for name in _TYPES if name not in columns]
    return project(jobs, *kept, **columns)


def _spellable(jobs: JobQueue) -> Node:
    """Return jobs with each attribute of the key of a type that SQL can convert to text."""
    node = project(jobs.node, ...)
    if not jobs.connection.backend.uuid_is_text:
        return node
    text = parse_type("char(36)")
    attributes = [
        replace(one, type=text) if one.type and one.type.family is Family.UUID else one
        for one in node.heading.all_attributes.values()
    ]
    return replace(node, heading=Heading(attributes))


def _hash(queue: JobQueue, jobs: Node, texts: Mapping[str, str], whole: str) -> str:
    """Return SQL for the hash of a key, with hashes computed here if the server's would differ."""
    kinds = [queue.heading[name].type for name in texts]
    alike = all(kind is not None and kind.family in _SPELLED_ALIKE for kind in kinds)
    if alike and _has_md5(queue.connection):
        return f"MD5(CONCAT({', '.join(texts[name] for name in sorted(texts))}))"
    rows = fetch.rows(queue.connection, project(jobs, spelled=whole), [*texts, "spelled"])
    if not rows:
        return "''"
    attributes = [queue.heading[name] for name in texts]
    hashes = [
        key_hash({a.name: comparable(v, a) for a, v in zip(attributes, row, strict=False)})
        for row in rows
    ]
    return f"ELT(FIELD({whole}, {_quoted(row[-1] for row in rows)}), {_quoted(hashes)})"


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _text(queue: JobQueue, name: str) -> str:
    kind = queue.heading[name].type
    is_bytes = not queue.connection.backend.uuid_is_text
    if kind is not None and kind.family is Family.UUID and is_bytes:
        return f"HEX(`{name}`)"
    return f"CAST(`{name}` AS CHAR)"


def _has_md5(connection: Connection) -> bool:
    with connection.cursor() as session:
        return connection.backend.knows_md5(session)


def _value(name: str, kind: AttributeType, text: str) -> Value:
    match kind.family:
        case Family.INTEGER:
            return int(text)
        case Family.BOOL:
            return bool(int(text))
        case Family.FLOAT:
            return float(text)
        case Family.DECIMAL:
            return Decimal(text)
        case _:
            return comparable(text, Attribute(name, kind))


def _hexed(queue: JobQueue, name: str) -> str:
    kind = queue.heading[name].type
    return (kind.text if kind else "varchar(255)").encode().hex()


def _unhexed(text: str) -> str:
    return bytes.fromhex(text).decode()

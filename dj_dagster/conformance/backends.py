"""A conformance suite for authors of SQL backends; see `dj_dagster.testing`."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event

from dj_dagster.errors import (
    DefinitionError,
    DuplicateError,
    IntegrityError,
    MissingAttributeError,
    MissingTableError,
    QueryError,
    QuerySyntaxError,
)
from dj_dagster.model.heading import Attribute, Heading, Key
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.references import snapshot
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.stored import RawTable
from dj_dagster.relational.table import Manual, Table
from dj_dagster.workflow.computed import Computed

_PATIENCE = 60.0
"""Seconds, at most, until a database has told of a change, or a worker has done its work."""

_TYPES = {
    "int8": (-128, 127),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "float32": (0.1, -1.5e30),
    "float64": (0.1, -1.7976931348623157e308),
    "bool": (True, False),
    "decimal(12,3)": (Decimal("-123456789.125"), Decimal("0.100")),
    "decimal(40,10)": (Decimal("123456789012345678901234567890.0123456789"), Decimal("0E-10")),
    "varchar(40)": ("", "ü \U0001f9e0 '\"\\`%s;--"),
    "char(4)": ("abcd", "a"),
    "enum('left', 'right')": ("left", "right"),
    "date": (date(1, 1, 1), date(9999, 12, 31)),
    "datetime": (datetime(2026, 1, 2, 3, 4, 5), datetime(1000, 1, 1)),
    "datetime(6)": (datetime(2026, 1, 2, 3, 4, 5, 60), datetime(2026, 1, 2)),
    "time": (timedelta(hours=23), -timedelta(hours=838, minutes=59, seconds=59)),
    "time(3)": (timedelta(microseconds=1000), timedelta(0)),
    "uuid": (UUID(int=0), UUID("00112233-4455-6677-8899-aabbccddeeff")),
    "bytes": (b"", bytes(range(256))),
    "json": ({"a": [1, 2.5, None, "ü"], "": {}}, [True]),
}
"""Two values of each core type, at its limits where there are such."""

_DEFAULTS = {
    "int32 = 7": 7,
    "decimal(8,3) = 1.5": Decimal("1.500"),
    'varchar(20) = "it\'s \\\\ "': "it's \\ ",
    "enum('a', 'b') = 'b'": "b",
    "date = '2026-01-02'": date(2026, 1, 2),
    "bool = true": True,
}


class BackendConformance:
    """The requirements of a backend; subclass it and connect to a database for trials.

    Each check makes schemas of its own and drops them.

    ::

        class TestMyBackend(BackendConformance):
            def connect(self) -> Connection:
                return Connection("mine://me@localhost/", safemode=False)

    Attributes
    ----------
    prefix
        The beginning of the names of schemas.
    """

    prefix: str = "conformance_"

    @abstractmethod
    def connect(self) -> Connection:
        """Return a new connection, always to the same database, that asks nothing of people."""

    def test_schemas_come_and_go(self) -> None:
        """Making one that is there and dropping one that is not are fine."""
        with self._connected() as connection:
            backend, name = connection.backend, self._name()
            with connection.cursor() as session:
                for _ in range(2):
                    backend.create_schema(session, name)
                    assert backend.schema_names(session).count(name) == 1
                for _ in range(2):
                    backend.drop_schema(session, name)
                    assert name not in backend.schema_names(session)

    def test_tables_are_read_as_they_were_declared(self) -> None:
        """Another connection finds the types, defaults, comments, foreign keys and indexes."""
        lines = [f"a{n} = null : {kind}  # of {n}" for n, kind in enumerate(_TYPES)]
        with self._schema() as schema, self._connected() as other:
            subject = _declare(schema, "Subject", "subject : int32\n---\nname = '' : varchar(9)")
            child = _declare(
                schema,
                "Session",
                "# Of a subject\n-> Subject\nsession : int16\n---\nunique index (a0, a1)\n"
                + "\n".join(lines),
            )
            for table in (subject, child):
                seen = FreeTable(other, table().name)
                assert _described(seen.heading) == _described(table().heading)
                assert seen.describe(printout=False) == table().describe(printout=False)
            assert [str(name) for name in FreeTable(other, child().name).parents()]
            (found,) = (t for t in self._reflected(other, schema) if t.name == child().name)
            assert found.comment.startswith("Of a subject")
            (foreign,) = found.foreign_keys
            assert (foreign.parent, foreign.attributes) == (subject().name, {"subject": "subject"})

    def test_reading_a_schema_takes_a_fixed_number_of_statements(self) -> None:
        """A schema of a hundred tables is opened as fast as one of two."""
        with self._schema() as schema, self._connected() as other:
            counts: list[int] = []
            for number in range(6):
                _declare(schema, f"Table{number}", "number : int32\n---\nindex (number)")
                if number in (1, 5):
                    ran = list[str]()

                    def note(*args: object, ran: list[str] = ran) -> None:
                        ran.append(str(args[2]))

                    event.listen(other.engine, "before_cursor_execute", note)
                    self._reflected(other, schema)
                    event.remove(other.engine, "before_cursor_execute", note)
                    counts.append(len(ran))
            assert counts[0] == counts[1], f"{counts[0]} statements for 2 tables, {counts[1]} for 6"

    def test_values_come_back(self) -> None:
        """In each core type: as attribute, as null, and as what it is compared with."""
        lines = [f"a{n} = null : {kind}" for n, kind in enumerate(_TYPES)]
        with self._schema() as schema:
            table = _declare(schema, "Value", "\n".join(["number : int8", "---", *lines]))
            rows = [
                {"number": n, **{f"a{i}": values[n] for i, values in enumerate(_TYPES.values())}}
                for n in range(2)
            ]
            table.insert(rows)
            table.insert1({"number": 2})
            found = table().to_dicts(order_by="number")
            for row, back in zip(rows, found, strict=False):
                for name, kind in zip([f"a{i}" for i in range(len(_TYPES))], _TYPES, strict=True):
                    assert back[name] == row[name], f"{kind}: {row[name]!r} became {back[name]!r}"
                    assert type(back[name]) is type(row[name]), f"{kind}: {type(back[name])}"
            assert {value for name, value in found[2].items() if name != "number"} == {None}
            for n, kind in enumerate(_TYPES):
                if kind in ("json", "float32"):
                    continue
                for row in rows:
                    same = (table & {f"a{n}": row[f"a{n}"]}).to_arrays("number")
                    assert list(same) == [row["number"]], f"{kind} = {row[f'a{n}']!r}: {same}"

    def test_defaults_are_the_database_s(self) -> None:
        """Attributes that a row leaves out get their default, the current time as well."""
        lines = [f"a{n} = {text.partition(' = ')[2]} : {text.partition(' = ')[0]}"
                 for n, text in enumerate(_DEFAULTS)]  # fmt: skip
        with self._schema() as schema:
            definition = ["number : int8", "---", *lines, "at = CURRENT_TIMESTAMP(3) : datetime(3)"]
            table = _declare(schema, "Default", "\n".join(definition))
            table.insert1({"number": 1})
            row = table().fetch1()
            for n, (text, value) in enumerate(_DEFAULTS.items()):
                assert row[f"a{n}"] == value, f"{text} gave {row[f'a{n}']!r}"
            assert isinstance(row["at"], datetime)

    def test_inserts_skip_replace_or_refuse(self) -> None:
        """The database refuses by errors that `translate` tells apart."""
        with self._schema() as schema:
            parent = _declare(schema, "Parent", "number : int32\n---\nname : varchar(9)")
            child = _declare(schema, "Child", "-> Parent\npart : int8")
            parent.insert([(n, "first") for n in range(3000)])
            parent.insert([(2999, "second"), (3000, "second")], skip_duplicates=True)
            assert (parent & {"number": 2999}).fetch1("name") == "first"
            parent.insert([(2999, "third"), (3001, "third")], replace=True)
            assert (parent & {"number": 2999}).fetch1("name") == "third"
            assert len(parent()) == 3002
            child.insert1((1, 1))
            copied = _declare(schema, "Copied", "number : int32\n---\nname : varchar(9)")
            copied.insert(parent())
            copied.insert(parent(), skip_duplicates=True)
            assert len(copied()) == 3002
            name = schema.connection.backend.full_name
            query = schema.connection.query
            for kind, attempt in (
                (DuplicateError, lambda: parent.insert1((1, "again"))),
                (IntegrityError, lambda: child.insert1((-1, 1))),
                (IntegrityError, lambda: query(f"DELETE FROM {name(parent().name)}")),
                (MissingAttributeError, lambda: query(
                    f"INSERT INTO {name(parent().name)} (number, name) VALUES (-5, NULL)")),
                (MissingTableError, lambda: query("SELECT 1 FROM nowhere_at_all")
                 if schema.connection.backend.ddl_name(parent().name)[1] is None
                 else query(f"SELECT 1 FROM {schema.name}.nowhere_at_all")),
                (QuerySyntaxError, lambda: query("SELECT FROM WHERE")),
            ):  # fmt: skip
                _error(kind, attempt)
            assert len(parent()) == 3002

    def test_transactions_are_whole(self) -> None:
        """A cancelled write has not happened, and others do not see one that is not committed."""
        with self._schema() as schema, self._connected() as other:
            table = _declare(schema, "Whole", "number : int32")
            seen, shared = FreeTable(other, table().name), not schema.connection.is_in_memory
            table.insert1((0,))
            with suppress(DuplicateError), schema.connection.transaction:
                table.insert1((1,))
                assert len(table()) == 2
                assert not (shared and len(seen) == 2), "others see what is not committed"
                table.insert1((0,))
            assert len(table()) == 1, "a transaction that is left by an error must be undone"
            with schema.connection.transaction:
                table.insert1((2,))
            assert not shared or len(seen) == 2

    def test_a_snapshot_is_of_one_moment(self) -> None:
        """`begin_snapshot` hides what others commit meanwhile."""
        with self._schema() as schema, self._connected() as other:
            table = _declare(schema, "Moment", "number : int32")
            table.insert1((1,))
            query = sa.select(sa.func.count()).select_from(
                schema.connection.backend.sql_table(table().name)
            )
            with snapshot(schema.connection) as session:
                if not other.is_in_memory:
                    FreeTable(other, table().name).insert1((2,))
                assert session.execute(query).scalar_one() == 1

    def test_writes_leave_marks(self) -> None:
        """Inserts, updates and deletes of any client are told, the table with them."""
        with self._schema() as schema, self._connected() as other:
            table = _declare(schema, "Marked", "number : int32\n---\nvalue : int32")
            connection, writer = schema.connection, FreeTable(other, table().name)
            if connection.is_in_memory:
                return
            marks = connection.backend.write_marks(connection.engine, [table().name])

            def written() -> frozenset[TableName]:
                return marks.written(connection.read)

            assert set(written()) == {table().name}, "at first all tables count as written"
            for write in (
                lambda: writer.insert1((1, 1)),
                lambda: writer.update1({"number": 1, "value": 2}),
                lambda: (writer & {"number": 1}).delete_quick(),
            ):
                _until(lambda: not written(), "marks must be silent while nobody writes")
                write()
                _until(lambda: table().name in written(), "a write was not told")

    def test_digests_tell_rows_apart(self) -> None:
        """Equal values have equal digests in all sessions, and `digest_xor` combines them."""
        with self._schema() as schema, self._connected() as other:
            table = _declare(schema, "Digest", "number : int32\n---\nname = null : varchar(9)")
            table.insert([(1, "a"), (2, "b"), (3, None), (4, "")])
            before = self._digests(schema.connection, table)
            assert len(set(before)) == 4
            assert all(0 <= number < 2**60 for number in before)
            if not other.is_in_memory:
                assert self._digests(other, table) == before
            assert self._digests(schema.connection, table, together=True) == [
                before[0] ^ before[1] ^ before[2] ^ before[3]
            ]
            table.update1({"number": 2, "name": "c"})
            after = self._digests(schema.connection, table)
            assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True]

    def test_rows_are_read_on_behind_any(self) -> None:
        """`is_beyond` goes by the order of the key, and `is_among` finds each of many."""
        keys = [(a, b, c) for a, b, c in product(range(3), "xyz", range(-1, 2))]
        with self._schema() as schema:
            table = _declare(schema, "Place", "a : int32\nb : varchar(9)\nc : int8")
            table.insert(keys)
            backend, name = schema.connection.backend, table().name
            source = backend.sql_table(name, *map(sa.column, "abc"))
            columns = [source.c[name] for name in "abc"]
            for place, key in enumerate(keys):
                for size in (1, 2, 3):
                    condition = backend.is_beyond(columns[:size], key[:size])
                    found = schema.connection.rows(sa.select(*columns).where(condition))
                    wanted = [one for one in keys[place:] if one[:size] > key[:size]]
                    assert sorted(map(tuple, found)) == wanted
            many = [*keys[::2], *((n, "none", 0) for n in range(5000))]
            for rows in (keys[::2], many):
                condition = backend.is_among(columns, rows)
                found = schema.connection.rows(sa.select(*columns).where(condition))
                assert sorted(map(tuple, found)) == keys[::2]
            one = backend.is_among(columns[1:2], [("x",), *((f"n{n}",) for n in range(5000))])
            assert len(schema.connection.rows(sa.select(*columns).where(one))) == 9

    def test_rows_are_ordered_as_documented(self) -> None:
        """Enums by their place in the definition, times by their length, decimals as numbers."""
        kinds = {
            "enum('small', 'large', 'huge')": ["small", "large", "huge"],
            "time": [timedelta(hours=-100), timedelta(hours=-2), timedelta(hours=20)],
            "decimal(40,2)": [Decimal("-10.00"), Decimal("9.00"), Decimal("10.00")],
        }
        with self._schema() as schema:
            for n, (kind, values) in enumerate(kinds.items()):
                table = _declare(schema, f"Order{n}", f"number : int8\n---\nvalue : {kind}")
                table.insert([(2, values[2]), (0, values[0]), (1, values[1])])
                assert list(table().to_arrays("value", order_by="value")) == values
                assert list(table().to_arrays("value", order_by="value DESC")) == values[::-1]

    def test_sql_of_users_means_the_same(self) -> None:
        """SQL in restrictions and projections is MySQL's."""
        cases = {
            "name LIKE 'A%'": [1],
            'name = "bob"': [2],
            "number DIV 2 = 1": [2, 3],
            "IF(number > 2, 'big', 'small') = 'big'": [3, 4],
            "CONCAT(name, number) IN ('ann1', 'dan4')": [1, 4],
            "IFNULL(value, 0) = 0": [3],
            "born BETWEEN '2026-01-02' AND '2026-01-03'": [2, 3],
            "YEAR(born) = 2026 AND NOT number = 4": [1, 2, 3],
        }
        with self._schema() as schema:
            table = _declare(
                schema,
                "Person",
                "number : int32\n---\nname : varchar(9)\nvalue = null : float64\nborn : date",
            )
            rows = [("ann", 1.5), ("bob", 2.5), ("cat", None), ("dan", 4.5)]
            for n, (name, value) in enumerate(rows, 1):
                table.insert1((n, name, value, date(2026, 1, n)))
            for text, numbers in cases.items():
                found = list((table & text).to_arrays("number", order_by="number"))
                assert found == numbers, f"{text} gave {found}"
            computed = table().proj(next_="number + 1", half="number / 2").to_dicts()
            assert [(row["next_"], row["half"]) for row in computed] == [
                (n + 1, n / 2) for n in (1, 2, 3, 4)
            ]

    def test_values_inside_json_are_found(self) -> None:
        """`json_value` by type, and `json_is` by what is equal as JSON."""
        with self._schema() as schema:
            table = _declare(schema, "Config", "number : int8\n---\nvalue = null : json")
            table.insert([
                (1, {"n": 1, "list": [1, {"a": 2.5}], "text": "x"}),
                (2, {"n": 10, "list": [], "text": "10"}),
                (3, None),
            ])  # fmt: skip
            for restriction, numbers in (
                ({"value.n": 1}, [1]),
                ({"value.list[1].a": 2.5}, [1]),
                ({"value.text": "10"}, [2]),
                ({"value.list": []}, [2]),
            ):
                found = list((table & restriction).to_arrays("number"))
                assert found == numbers, f"{restriction} gave {found}"
            table = table & "value IS NOT NULL"
            by_number = table.proj(n="value.n:int32").to_arrays("n", order_by="n DESC")
            assert list(by_number) == [10, 1]

    def test_tables_are_altered_with_their_rows(self) -> None:
        """In place or made anew: rows, children and indexes stay, and a refusal changes nothing."""
        with self._schema() as schema, self._connected() as other:
            table = _declare(
                schema,
                "Altered",
                "number : int32\n---\nvalue : int16\ngone = '' : varchar(9)\nindex (value)",
            )
            child = _declare(schema, "Below", "-> Altered")
            table.insert([(1, 1, "x"), (2, 2, "y")])
            child.insert1((1,))
            table.definition = (
                "# Another comment\nnumber : int32\n---\nadded = 3 : int8\n"
                "value = null : decimal(6,2)\nunique index (value)"
            )
            assert table().alter(prompt=False)
            rows = [{"number": n, "added": 3, "value": Decimal(f"{n}.00")} for n in (1, 2)]
            for seen in (table(), FreeTable(other, table().name)):
                assert seen.to_dicts(order_by="number") == rows
                assert seen.heading.names == ["number", "added", "value"]
            _error(DuplicateError, lambda: table.insert1((3, 0, Decimal(1))))
            _error(IntegrityError, lambda: child.insert1((9,)))
            before = table().describe(printout=False)
            table.definition = "number : int32\n---\nvalue : decimal(6,2)\nmore : int8"
            _error(DefinitionError, lambda: table().alter(prompt=False))
            assert FreeTable(other, table().name).describe(printout=False) == before

    def test_workers_share_keys(self) -> None:
        """Of workers that reserve at once one gets a key, and none waits for another."""
        made, threads = list[int](), list[threading.Thread]()

        def make(table: Computed, key: Key) -> None:
            made.append(key["number"])
            table.insert1(key)

        with self._schema() as schema:
            source = _declare(schema, "Source", "number : int32")
            source.insert((n,) for n in range(60))
            target = _declare(schema, "Target", "-> Source", kind=Computed, make=make)
            if schema.connection.is_in_memory:
                target.populate(reserve_jobs=True)
            else:
                workers = [lambda: target.populate(reserve_jobs=True, suppress_errors=True)] * 3
                threads += [threading.Thread(target=work) for work in workers]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(_PATIENCE)
            assert sorted(made) == list(range(60)), "each key must be made by one worker"
            assert len(target()) == 60
            assert len(target.jobs.errors) == 0

    def test_a_database_has_an_identity(self) -> None:
        """It stays the same for all who ask, and is not made by asking."""
        with self._schema() as schema, self._connected() as other:
            _declare(schema, "Any", "number : int32")
            ask = schema.connection.backend.identity
            with schema.connection.cursor() as session:
                first = ask(session, schema.name, create=True)
                assert first, "with create=True there must be an identity"
                assert ask(session, schema.name, create=False) == first
            if not other.is_in_memory:
                with other.cursor() as session:
                    assert ask(session, schema.name, create=True) == first

    def test_dumps_are_loaded(self) -> None:
        """`load` brings back a `dump`, wherever `occupied` finds nothing."""
        with self._schema() as schema, tempfile.TemporaryDirectory() as name:
            connection, folder = schema.connection, Path(name)
            backend, schemas = connection.backend, [schema.name]
            parent = _declare(schema, "Dumped", "number : int32\n---\nvalue = null : <blob>")
            child = _declare(schema, "Under", "-> Dumped\n---\nat : datetime(3)")
            parent.insert([(1, [1, b"\0'\\"]), (2, None)])
            child.insert1((1, datetime(2026, 1, 2, 3, 4, 5, 6000)))
            rows = parent().to_dicts(), child().to_dicts()
            with snapshot(connection) as session:
                dumped = backend.dump(session, folder, schemas)
            assert backend.loads(backend.name)
            with connection.session_apart() as session:
                assert backend.occupied(session, schemas)
                if backend.dumps_everything and set(backend.schema_names(session)) != set(schemas):
                    return
                backend.drop_schema(session, schema.name)
                assert not backend.occupied(session, schemas)
                backend.load(session, folder, schemas, dumped)
            connection.catalog.forget_all()
            assert (parent().to_dicts(), child().to_dicts()) == rows
            _error(IntegrityError, lambda: child.insert1((3, datetime(2026, 1, 1))))

    def test_a_query_can_be_left(self) -> None:
        """A connection is of use again when a loop over rows was left early."""
        with self._schema() as schema:
            table = _declare(schema, "Long", "number : int32")
            table.insert((n,) for n in range(20_000))
            for _ in range(3):
                for _row in table():
                    break
            assert len(table()) == 20_000

    def test_servers_number_their_sessions(self) -> None:
        """`processes` lists the session that asks, by the number that it says it has."""
        with self._connected() as connection:
            backend = connection.backend
            with connection.cursor() as session:
                assert (backend.uptime(session) is not None) == backend.has_server
                assert (backend.processes(session) is not None) == backend.has_server
                if backend.session_id is not None:
                    own = session.exec_driver_sql(f"SELECT {backend.session_id}").scalar_one()
                    table = backend.processes(session)
                    numbers = session.exec_driver_sql(f"SELECT id FROM {table}").scalars()
                    assert own in set(numbers)
                assert "@" in backend.user(session)

    def test_sizes_are_known(self) -> None:
        """In bytes, as far as the database knows."""
        with self._schema() as schema:
            table = _declare(schema, "Sized", "number : int32")
            with schema.connection.cursor() as session:
                assert schema.connection.backend.size_on_disk(session, [table().name]) > 0

    def _name(self) -> str:
        return f"{self.prefix}{secrets.token_hex(4)}"

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _schema(self) -> Generator[Schema]:
        with self._connected() as connection:
            schema = Schema(self._name(), connection=connection)
            try:
                yield schema
            finally:
                schema.drop(prompt=False)

    def _reflected(self, connection: Connection, schema: Schema) -> list[RawTable]:
        with connection.cursor() as session:
            return connection.backend.reflect(session, schema.name)

    def _digests(self, connection: Connection, table: Any, *, together: bool = False) -> list[int]:
        backend, heading = connection.backend, table().heading
        source = backend.sql_table(table().name, *map(sa.column, heading.names))
        columns = [(source.c[name], heading[name]) for name in heading.names]
        digest = backend.digest_xor(columns) if together else backend.row_digest(columns)
        query = sa.select(digest).select_from(source)
        query = query if together else query.order_by(source.c.number)
        return [int(value) for (value,) in connection.rows(query)]


def _declare(
    schema: Schema, name: str, definition: str, kind: type[Table] = Manual, **members: object
) -> Any:
    made: Any = type(name, (kind,), {"definition": definition, **members})
    return schema(made)


def _described(heading: Heading) -> list[tuple[object, ...]]:
    def seen(one: Attribute) -> tuple[object, ...]:
        return one.name, one.type, one.in_key, one.nullable, one.default, one.comment

    return [seen(one) for one in heading.all_attributes.values()]


def _error(kind: type[Exception], work: Callable[[], object]) -> None:
    try:
        work()
    except kind:
        return
    except QueryError as error:
        raise AssertionError(f"{kind.__name__} was wanted, not {error!r}") from error
    raise AssertionError(f"{kind.__name__} was wanted, and nothing was raised")


def _until(holds: Callable[[], bool], message: str) -> None:
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > _PATIENCE:
            raise AssertionError(message)
        time.sleep(0.1)

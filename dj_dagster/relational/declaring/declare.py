"""Creation of missing schemas and tables, dropping of tables, and the records of lineage.

Only DataJoint itself needs that table: here origins are derived from foreign keys.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import (
    ConfigurationError,
    DataJointError,
    DefinitionError,
    IntegrityError,
    QueryError,
)
from dj_dagster.model.heading import Attribute, ForeignKeyDeclaration, Heading, TableDefinition
from dj_dagster.model.names import NOTES_TABLE, TableName
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.operators import all_rows
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.backends.common import raw_table
from dj_dagster.relational.caller import Confirm, listed, warn_caller
from dj_dagster.relational.database.catalog import EXTERNAL_PREFIX, dependency_graph, split_comment
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.plan import (
    FindParent,
    Place,
    PlannedTable,
    create_statements,
    in_server_words,
    nowhere,
    plan_table,
)
from dj_dagster.relational.deleting.delete import PartIntegrity, master_of
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.old_layout import ensure_external_tables, in_old_layout
from dj_dagster.relational.old_log import log_change
from dj_dagster.relational.relatives import part_names
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn, StoredTable

_COLUMNS = {
    "table_name": (64, "table name within the schema"),
    "attribute_name": (64, "attribute name"),
    "lineage": (255, "origin: schema.table.attribute"),
}
_KEY = ("table_name", "attribute_name")


def ensure(connection: Connection, schema: str) -> None:
    """Create the table ``~lineage`` of a schema unless it exists."""
    record = TableName(schema, "~lineage")
    if connection.catalog.raw(record) is None:
        _create(connection, record)


def write(connection: Connection, table: TableName, origins: Mapping[str, str]) -> None:
    """Record the origin of a table's attributes, ``{attribute: schema.table.attribute}``.

    Earlier records of the table are removed.
    """
    record = TableName(table.schema, "~lineage")
    if connection.catalog.raw(record) is None:
        _create(connection, record)
    else:
        forget(connection, table.schema, [table.table])
    rows = [(table.table, attribute, origin) for attribute, origin in origins.items()]
    if rows:
        sql = connection.backend.insert_sql(record, tuple(_COLUMNS), _KEY, "replace")
        with connection.cursor() as session:
            session.exec_driver_sql(sql, rows)


def forget(connection: Connection, schema: str, tables: Iterable[str]) -> None:
    """Remove the records of tables, if the schema has any."""
    record = TableName(schema, "~lineage")
    if connection.catalog.raw(record) is not None:
        noted = connection.backend.sql_table(record, sa.column("table_name"))
        with connection.cursor() as session:
            for table in tables:
                session.execute(sa.delete(noted).where(noted.c.table_name == table))


def _create(connection: Connection, record: TableName) -> None:
    name, schema = connection.backend.ddl_name(record)
    columns = [
        sa.Column(name, sa.String(length), nullable=False, comment=comment)
        for name, (length, comment) in _COLUMNS.items()
    ]
    table = sa.Table(
        name,
        sa.MetaData(),
        *columns,
        sa.PrimaryKeyConstraint(*_KEY),
        schema=schema,
        **connection.backend.table_options(""),
    )
    with connection.cursor() as session:
        session.execute(sa.schema.CreateTable(table, if_not_exists=True))
    connection.catalog.forget(record.schema)


def schema_lineage(connection: Connection, schema: str) -> dict[str, str]:
    """Return the origin of each key attribute and each attribute of a foreign key.

    Both are written ``schema.table.attribute``; other attributes are left out.
    """
    return {
        f"{name}.{attribute}": origin
        for name, origins in _origins(connection, schema).items()
        for attribute, origin in origins.items()
    }


def rebuild(connection: Connection, schema: str) -> None:
    """Rewrite the table ``~lineage`` of a schema, where the database has one."""
    if not connection.backend.keeps_lineage:
        return
    connection.catalog.forget(schema)
    name = TableName(schema, "~lineage")
    if connection.catalog.raw(name) is not None:
        table = connection.backend.sql_table(name, sa.column("table_name"))
        # DataJoint has rows for its job queues as well.
        connection.execute(sa.delete(table).where(~table.c.table_name.startswith("~")))
    for table_name, found in _origins(connection, schema).items():
        write(connection, table_name, found)


def _origins(connection: Connection, schema: str) -> dict[TableName, dict[str, str]]:
    return {
        name: {
            attribute.name: attribute.lineage
            for attribute in stored.heading.all_attributes.values()
            if attribute.lineage is not None
        }
        for name, stored in connection.catalog.tables(schema).items()
        if not name.table.startswith("~")
    }


def ensure_schema(connection: Connection, schema: str, *, create: bool = True) -> bool:
    """Create a schema unless it exists; return whether it was created.

    Raises
    ------
    DataJointError
        If it does not exist and must not be created.
    """
    # The catalogue may be outdated: other processes declare and drop tables too.
    connection.catalog.forget(schema)
    with connection.cursor() as session:
        if schema in connection.backend.schema_names(session):
            return False
        if not create:
            raise DataJointError(
                f"There is no schema {schema!r} in {connection.url}. "
                "Check its name, or pass create_schema=True."
            )
        connection.backend.create_schema(session, schema)
    return True


def drop_schema(connection: Connection, schema: str) -> None:
    """Drop a schema with all its tables.

    Raises
    ------
    QueryError
        If tables of other schemas refer to them, or inside a transaction, which MySQL would commit.
    """
    if connection.holds_transaction:
        raise QueryError(f"The schema {schema} cannot be dropped inside a transaction.")
    with connection.cursor() as session:
        edges = connection.backend.schema_edges(session)
        others = sorted({child for child, parent in edges if parent == schema} - {schema})
        if others:
            raise QueryError(
                f"The schema {schema} cannot be dropped, for tables of {', '.join(others)} refer "
                "to it. Drop those first."
            )
        connection.backend.drop_schema(session, schema)
    connection.catalog.forget(schema)
    # MariaDB's hidden table is dropped too, so a new schema of this name registers with stores
    # again.
    connection.registered -= {
        (store, name) for store, name in connection.registered if name == schema
    }


def ensure_table(
    connection: Connection,
    name: TableName,
    definition: TableDefinition,
    find: FindParent,
    *,
    create: bool = True,
    place: Place = nowhere,
) -> None:
    """Create a table unless it exists or must not be created; one that exists is not changed.

    A `UserWarning` reports differences of an existing table from the definition and, unlike in
    DataJoint, attributes of a new table whose store is not configured.

    Parameters
    ----------
    find
        Returns the table that a foreign key refers to.
    place
        Adds the place of a line of the definition to its errors.

    Raises
    ------
    DefinitionError
        If the definition refers to a missing table or attribute.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    stored = connection.catalog.find(name)
    if stored is not None:
        if not name.table.startswith("~"):
            with suppress(DefinitionError):
                _warn_of_differences(stored, planned(connection, name, definition, find, place))
        return
    if not create:
        return
    if connection.holds_transaction:
        raise QueryError(f"The table {name} cannot be declared inside a transaction.")
    plan = planned(connection, name, definition, find, place)
    create_table(connection, plan)
    _warn_of_stores(connection, plan)


def planned(
    connection: Connection,
    name: TableName,
    definition: TableDefinition,
    find: FindParent,
    place: Place = nowhere,
) -> PlannedTable:
    """Return the table that a definition asks for, in the layout of its schema.

    Raises
    ------
    DefinitionError
        If the definition refers to a missing table or attribute, or to a type that the layout
        lacks.
    """
    plan = plan_table(name, definition, find, connection.codecs, place)
    hidden = name.table.startswith("~")
    if hidden or not connection.catalog.is_old(name.schema):
        return plan
    return in_old_layout(connection, plan)


def create_table(connection: Connection, plan: PlannedTable) -> None:
    """Create a planned table with its comments and lineage, unless it was created meanwhile."""
    backend = connection.backend
    notes_lineage = backend.keeps_lineage and not plan.old and not plan.name.table.startswith("~")
    if notes_lineage:
        # Written first, so that the schema is not taken for one of 0.14 meanwhile.
        ensure(connection, plan.name.schema)
    if plan.old:
        ensure_external_tables(connection, plan)
    with refused(plan.name, "declared"), ddl_block(connection) as session:
        statements = create_statements(in_server_words(plan, backend), backend)
        created = backend.create_table(session, plan.name, list(statements))
        if created:
            comments = {column.name: column.full_comment for column in plan.columns}
            backend.after_create(session, plan.name, plan.comment, comments)
    if created and not _is_reported_otherwise(plan, backend):
        connection.catalog.put(reported(plan, backend))
    else:
        # If another process was faster, its definition may differ.
        connection.catalog.forget(plan.name.schema)
    if notes_lineage:
        write(connection, plan.name, plan.lineage)
    if created:
        log_change(connection, "Declared", plan.name)


def _warn_of_differences(stored: StoredTable, plan: PlannedTable) -> None:
    found = differences(stored, plan)
    if found:
        warn_caller(
            f"The table {plan.name} in the database is not as its definition says: "
            f"{'; '.join(found)}. It is used as it is; alter() can change what is outside its "
            "primary key.",
            UserWarning,
        )


def _warn_of_stores(connection: Connection, plan: PlannedTable) -> None:
    """Warn of attributes whose store is not configured here; it may be on other machines."""
    for column in plan.columns:
        kind = column.declared
        if kind is None or kind.family is not Family.CODEC:
            continue
        chain = connection.codecs.resolve(kind)
        if chain.store is None:
            continue
        try:
            connection.stores.resolve(chain.store, chain.codecs[-1].default_store)
        except ConfigurationError as error:
            warn_caller(
                f"{plan.name}.{column.name} cannot be inserted here yet. {error}", UserWarning
            )


@contextmanager
def ddl_block(connection: Connection) -> Generator[SAConnection]:
    """Give a connection for statements that change tables, in one transaction where possible."""
    with ExitStack() as stack:
        if connection.backend.rolls_back_ddl:
            stack.enter_context(connection.transaction())
        yield stack.enter_context(connection.cursor())


@contextmanager
def refused(name: TableName, what: str) -> Generator[None]:
    """Name the table in errors of the database, which name an attribute at most."""
    try:
        yield
    except QueryError as error:
        text = str(error)
        if str(name) in text:
            raise
        raise type(error)(f"{name} cannot be {what}: {text}") from error.__cause__


def reported(plan: PlannedTable, backend: Backend) -> RawTable:
    """Return a planned table as the database will report it, which saves a query."""
    columns = [
        StoredColumn(
            column.name,
            backend.column_type(column.stored_as, column.default),
            column.nullable,
            column.default,
            column.comment if backend.keeps_comments else column.full_comment,
        )
        for column in plan.columns
    ]
    references = [(key.parent, key.attributes) for key in plan.foreign_keys]
    unique = [index.parts for index in plan.indexes if index.unique]
    found = raw_table(plan.name, plan.comment, columns, plan.key, references, unique)
    stores = [(key, key.parent.table.removeprefix(EXTERNAL_PREFIX)) for key in plan.external]
    return replace(
        found, external={name: store for key, store in stores for name in key.attributes}
    )


def _is_reported_otherwise(plan: PlannedTable, backend: Backend) -> bool:
    """Whether the server has other names for types of the table: native types without a marker."""
    if plan.old:
        return True
    kinds = [column.declared for column in plan.columns if column.declared is not None]
    return any(kind.auto_increment or (backend.keeps_comments and not kind.core) for kind in kinds)


def own_key(
    name: TableName,
    definition: TableDefinition,
    find: FindParent,
    connection: Connection,
) -> StoredTable:
    """Return the primary key of a table that does not exist yet, for ``-> self``."""
    for item in definition.key:
        if isinstance(item, ForeignKeyDeclaration) and item.target == "self":
            raise DefinitionError(f"In {name} -> self cannot be part of the primary key.")
    plan = plan_table(name, TableDefinition(key=definition.key), find, connection.codecs)
    attributes = [
        Attribute(
            column.name,
            column.stored_as,
            in_key=True,
            comment=split_comment(column.comment)[1],
            lineage=plan.lineage[column.name],
        )
        for column in plan.columns
    ]
    return StoredTable(name, Heading(attributes), plan.foreign_keys)


def differences(stored: StoredTable, plan: PlannedTable) -> list[str]:
    """Return a table's differences from its definition as text, as far as no query is needed."""
    return [*_names(stored, plan), *_types(stored, plan), *_foreign_keys(stored, plan)]


def _names(stored: StoredTable, plan: PlannedTable) -> Iterator[str]:
    here = set(stored.heading.names)
    wanted = {column.name for column in plan.columns if not column.name.startswith("_")}
    key = [name for name, attr in stored.heading.all_attributes.items() if attr.in_key]
    if key != list(plan.key):
        yield f"its primary key is ({', '.join(key)}), not ({', '.join(plan.key)})"
    if wanted - here:
        yield f"it has no {', '.join(sorted(wanted - here))}"
    if here - wanted:
        yield f"it has {', '.join(sorted(here - wanted))} besides"


def _types(stored: StoredTable, plan: PlannedTable) -> Iterator[str]:
    for column in plan.columns:
        found = stored.heading.all_attributes.get(column.name)
        kind = found.type if found else None
        # Types without a marker in the database are not certain.
        if kind is None or column.declared is None or not (kind.core and column.declared.core):
            continue
        if kind != column.declared:
            yield f"{column.name} is {kind.text}, not {column.declared.text}"


def _foreign_keys(stored: StoredTable, plan: PlannedTable) -> Iterator[str]:
    here, wanted = _references(stored.foreign_keys), _references(plan.foreign_keys)
    for parent, columns in sorted(wanted - here):
        yield f"it does not refer to {parent} by {', '.join(columns)}"
    for parent, columns in sorted(here - wanted):
        yield f"it refers to {parent} by {', '.join(columns)}"


def _references(foreign_keys: Iterable[ForeignKey]) -> set[tuple[str, tuple[str, ...]]]:
    return {(str(key.parent), tuple(sorted(key.attributes))) for key in foreign_keys}


def drop_table(
    connection: Connection,
    name: TableName,
    confirm: Confirm | None,
    part_integrity: PartIntegrity = "enforce",
) -> bool:
    """Drop a table with all tables that refer to it, and return whether they were dropped.

    Parameters
    ----------
    confirm
        Called first with the names and numbers of rows of all tables; None to proceed.
    part_integrity
        Whether a part may be dropped without its master: ``"enforce"`` refuses it, ``"ignore"``
        allows it.

    Raises
    ------
    DataJointError
        If a part would be dropped without its master; nothing is dropped then.
    QueryError
        Inside a transaction, which MySQL would commit, or if tables that refer to it were declared
        or dropped while the user was asked; nothing is dropped then.
    """
    if part_integrity not in ("enforce", "ignore"):
        raise ValueError(
            f"part_integrity is {part_integrity!r}: drop takes 'enforce' or 'ignore'. To drop a "
            "part with its master, drop the master."
        )
    _refuse_in_transaction(connection, name)
    doomed = with_descendants(connection, name)
    if part_integrity == "enforce":
        _check_parts(connection, doomed)
    if confirm is not None:
        if not confirm(_summary(connection, doomed)):
            return False
        # MariaDB would drop some, and then refuse the one that a new table refers to.
        now = with_descendants(connection, name)
        if set(now) != set(doomed):
            changed = ", ".join(map(str, sorted(set(now) ^ set(doomed))))
            raise QueryError(
                f"{name} was not dropped, because others declared or dropped {changed} while it "
                "was asked about: call drop() again."
            )
    _drop(connection, doomed)
    return True


def drop_alone(connection: Connection, name: TableName) -> None:
    """Drop one table that is not referred to by others, without asking.

    Raises
    ------
    IntegrityError
        If other tables refer to it.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    _refuse_in_transaction(connection, name)
    others = with_descendants(connection, name)[1:]
    if others:
        raise IntegrityError(
            f"{name} cannot be dropped alone: {', '.join(map(str, others))} refer to it. "
            "Use drop(), which drops them as well, or drop them first."
        )
    _drop(connection, [name])


def with_descendants(connection: Connection, name: TableName) -> list[TableName]:
    """Return a table and all tables that refer to it, directly or not, parents first.

    Parts are included with their masters, even without a foreign key to them.
    """
    graph = dependency_graph(connection.catalog.related(name.schema, fresh=True))
    doomed = [name]
    # The list grows during the iteration.
    for table in doomed if name in graph else ():
        below = [*graph.children(table), *part_names(connection, table)]
        doomed += [other for other in below if other in graph and other not in doomed]
    graph.check_acyclic(doomed)
    return [name, *(table for table in graph.topological_order() if table in doomed[1:])]


def _drop(connection: Connection, tables: Sequence[TableName]) -> None:
    """Drop tables, given parents first, with their job queues and records."""
    doomed = [*_job_queues(connection, tables), *reversed(tables)]
    schemas = dict.fromkeys(name.schema for name in tables)
    try:
        with refused(tables[0], "dropped"), ddl_block(connection) as session:
            connection.backend.drop_tables(session, doomed)
        for schema in schemas:
            gone = [t.table for t in doomed if t.schema == schema]
            forget(connection, schema, gone)
            _forget_notes(connection, schema, gone)
            for table in gone:
                log_change(connection, "DROP TABLE", TableName(schema, table))
    finally:
        for schema in schemas:
            connection.catalog.forget(schema)


def _forget_notes(connection: Connection, schema: str, tables: Sequence[str]) -> None:
    """Remove the notes on the origin of tables' rows; see `dj_dagster.workflow.notes`."""
    name = TableName(schema, NOTES_TABLE)
    if connection.catalog.find(name) is None:
        return
    target = connection.backend.sql_table(name, sa.column("table_name"))
    connection.execute(sa.delete(target).where(target.c.table_name.in_(tables)))


def _job_queues(connection: Connection, tables: Sequence[TableName]) -> list[TableName]:
    """Return the job queues that do not serve other tables; ``_x`` and ``__x`` share a queue."""
    queues: dict[TableName, None] = {}
    for name in tables:
        bare = name.table.lstrip("_")
        known = connection.catalog.tables(name.schema)
        sharing = {TableName(name.schema, f"{prefix}{bare}") for prefix in ("_", "__")}
        queue = TableName(name.schema, f"~~{bare}")
        if name in sharing and queue in known and not sharing & known.keys() - set(tables):
            queues[queue] = None
    return list(queues)


def _check_parts(connection: Connection, doomed: Sequence[TableName]) -> None:
    for name in doomed:
        master = master_of(name)
        if master is None or master in doomed or connection.catalog.find(master) is None:
            continue
        if name == doomed[0]:
            raise DataJointError(
                f"{name} is a part of {master.table}: drop its master, which takes the parts "
                "along, or pass part_integrity='ignore'."
            )
        raise DataJointError(
            f"Dropping {doomed[0]} would drop the part {name} but not its master {master.table}. "
            f"Drop {master} first, or pass part_integrity='ignore'."
        )


def _summary(connection: Connection, tables: Iterable[TableName]) -> str:
    counts: dict[TableName, int] = {}
    for name in tables:
        stored = connection.catalog.find(name)
        if stored is not None:
            counts[name] = fetch.count(connection, all_rows(name, stored.heading))
    return listed("Dropping these tables with their rows", counts)


def _refuse_in_transaction(connection: Connection, name: TableName) -> None:
    if connection.holds_transaction or connection.write_buffer is not None:
        raise QueryError(f"{name} cannot be dropped inside a transaction or a make.")

"""Rows of tables as inputs and outputs of ordinary Dagster assets, in many forms."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from dagster import (
    AllPartitionMapping,
    AssetKey,
    DagsterInvariantViolationError,
    DynamicPartitionsDefinition,
    InputContext,
    IOManager,
    MultiPartitionsDefinition,
    OutputContext,
    PartitionMapping,
    PartitionsDefinition,
    SpecificPartitionsPartitionMapping,
    partition_loading_context,
)

from dj_dagster.default_connection import conn
from dj_dagster.errors import ConfigurationError, InvalidValueError
from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import Attribute, Key, Row, Value
from dj_dagster.model.names import Tier
from dj_dagster.model.selection import schemas_of
from dj_dagster.model.types import Family
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.shown_marks import ROWS
from dj_dagster.orchestration.tables.collection import of_database
from dj_dagster.orchestration.tables.grains import Grain, decode_shared, encode_key
from dj_dagster.orchestration.tables.partitions import (
    keys_there,
    partitions_of_keys,
    register,
    stored_keys,
)
from dj_dagster.orchestration.tables.table_graph import TableGraph, table_graph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.orchestration.translator import IO_MANAGER_KEY
from dj_dagster.relational.algebra.operators import BY_LINEAGE
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.inserting.encode import RowEncoder
from dj_dagster.relational.inserting.row_sources import batches, columns_of
from dj_dagster.relational.values import as_fetched, is_missing

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LateModule("pandas")


PARTITION_ROWS = "dagster/partition_row_count"

WRITABLE = (Tier.MANUAL, Tier.LOOKUP, Tier.IMPORTED)


class TableIOManager(IOManager):
    """An IO manager that reads a table's rows as an asset's input, and writes an asset's output.

    An input has the form that its parameter is annotated with: ``list[dict]``, ``dict`` for exactly
    one row, a frame of pandas or polars with all attributes as columns, a ``pyarrow.Table``, a
    ``numpy.ndarray`` for the one blob of exactly one row, or ``dj.Table`` for the query itself,
    without fetching. Without annotation it is a list of dicts. Rows come in the order of their key.

    An input holds the rows of the partitions that its partition mapping names, as Dagster has it:
    those of the run where asset and table have the same partitions, all rows with an
    ``AllPartitionMapping``. With the empty ``SpecificPartitionsPartitionMapping([])``, which edges
    between tables of two grains have, an asset gets the rows that agree with its own partitions in
    the attributes that both have.

    An output takes the same forms, and is inserted as a whole or not at all, blobs through their
    codecs. In an asset with a partition, rows get the attributes of the partition that they leave
    out. Rows whose key is in the table already are left as they are, so that an asset can run
    again; their number is in the metadata. To change rows, use `update1`. Rows that leave their key
    to the database, by `auto_increment` or a default, are inserted by each run, and the sensor adds
    their partitions.

    Parameters
    ----------
    graph
        The tables. None for those in the database that asset keys name, which is for tests of
        single assets.
    connection
        The connection to use without a graph; the default connection if None.

    Notes
    -----
    Dagster takes the last part of an input's asset key for the name of an output, and an asset's
    own output is called ``result``. An asset with other partitions that reads a table ``Result`` by
    one of these two mappings therefore fails: "Partition range … is not a valid range". Give its
    output another name, as in ``@dg.multi_asset(outs={"report": dg.AssetOut()}, ...)``.

    Examples
    --------
    >>> import dagster as dg
    >>> import pandas as pd
    >>> @dg.asset(key=["lab", "subject"], io_manager_key="table_io_manager")
    ... def subjects() -> pd.DataFrame:
    ...     return pd.DataFrame({"subject_id": [1, 2], "sex": ["F", "M"]})
    >>> @dg.asset(ins={"processed": dg.AssetIn(["lab", "processed"])})
    ... def report(processed: pd.DataFrame) -> None:
    ...     print(processed.describe())

    In a test of one asset:

    >>> def test_subjects():
    ...     manager = TableIOManager()
    ...     assert dg.materialize([subjects], resources={"table_io_manager": manager}).success
    """

    def __init__(
        self, graph: TableGraph | None = None, *, connection: Connection | None = None
    ) -> None:
        self._graph = graph
        self._connection = connection

    @classmethod
    def joined(cls, managers: Iterable[TableIOManager]) -> TableIOManager:
        """Return one manager of the tables of several managers."""
        graphs = [manager._graph for manager in managers if manager._graph is not None]
        return cls(TableGraph(tuple(node for graph in graphs for node in graph.nodes)))

    def load_input(self, context: InputContext) -> Any:
        """Return the rows of an input.

        Raises
        ------
        ConfigurationError
            When a table with the input's asset key is missing, its annotation is not a form of
            rows, or the asset's partitions do not share an attribute with the table.
        InvalidValueError
            When a dict is asked for and not exactly one row agrees with the partition.
        """
        graph, node = self._table(context.asset_key)
        query = node.table & _restriction(graph, node, context)
        annotated = _given(context, "dagster_type")
        return as_type(node, query, annotated.typing_type if annotated else None)

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Insert the value that an asset returned.

        Raises
        ------
        ConfigurationError
            When a table with the output's asset key is missing, the table's rows come from `make`,
            or an array is returned for a table that does not have exactly one blob.
        InvalidValueError
            When the value is not a form of rows, or a row belongs to another partition than the
            asset's.
        DataJointError
            One of its kinds, naming table and column, when the rows do not fit.
        """
        graph, node = self._table(context.asset_key)
        if node.tier not in WRITABLE or node.populated:
            raise ConfigurationError(
                f"{node.title} is {node.tier.value}: its rows come from make. Return rows of a "
                "Manual table, or give the asset another io_manager_key."
            )
        if type(obj).__name__ == "LazyFrame":
            obj = obj.collect()
        partitions = _partitions(_given(context, "step_context"), context)
        own = _own_keys(graph, node, context, partitions or ())
        rows = as_rows(obj, node)
        if own:
            rows = _in_partition(node, own, rows)
        keys = stored_keys(node.table, rows)
        there = keys_there(node.table, keys)
        new = [row for row, key in zip(rows, keys, strict=True) if key not in there]
        left = [row for row, key in zip(rows, keys, strict=True) if key in there]
        _check(node, left)
        if not rows:
            _check(node, _frame(obj) if isinstance(obj, QueryExpression) else obj, partial=True)
        # The database is asked before the insert, since a run that fails after it would be repeated
        # and would insert rows again whose key is a number of the database.
        known = [there.get(key, key) for key in keys if key is not None]
        written = partitions_of_keys(node, known)
        counted: dict[str, int] = {}
        if partitions is None:
            counted[ROWS] = len(node.table) + len(new)
        elif len(own) == 1:
            counted[PARTITION_ROWS] = len(node.table & own[0]) + len(new)
        if new:
            node.table.insert(new, allow_direct_insert=True)
        step = _given(context, "step_context")
        if node.grain is not None and step is not None:
            register(step.instance, node.grain, written)
        if left:
            context.log.warning(
                f"{len(left)} of {len(rows)} rows have keys that are in {node.title} already; they "
                "were left as they are."
            )
        context.add_output_metadata({"rows_inserted": len(new), "rows_left": len(left), **counted})

    def _table(self, key: AssetKey) -> tuple[TableGraph, TableNode]:
        graph = self._graph
        if graph is None:
            connection = self._connection or conn()
            named = schemas_of(key, connection.schema_names())
            graph = table_graph([one for name in named for one in of_database(connection, name)])
        # Other spellings of a table are for tests of single assets, which lack Dagster's lineage.
        return graph, graph.by_key.get(key) or graph.single(key, "An input or output")


def table_resources(pipeline: Pipeline) -> dict[str, TableIOManager]:
    """Return the IO manager of a pipeline's tables, under the key that their assets name."""
    return {IO_MANAGER_KEY: TableIOManager(pipeline.graph)}


def _given(context: InputContext | OutputContext, name: str) -> Any:
    """Return an attribute of a context, None where a test has built the context without it."""
    try:
        return getattr(context, name)
    except DagsterInvariantViolationError:
        return None


def _restriction(
    graph: TableGraph, node: TableNode, context: InputContext
) -> list[Row] | Literal[True]:
    """Return the restriction of the table to the rows of an input."""
    step = _given(context, "step_context")
    mapping = _mapping(step, context.asset_key)
    if context.has_asset_partitions and not _agrees(step, mapping, context):
        whole = mapping is None and step is not None and step.entity_partitions_def is None
        if whole or isinstance(mapping, AllPartitionMapping):
            return True
        return _decoded(graph, node, context)
    partitions = _partitions(step, context)
    own = None if step is None else step.entity_partitions_def
    return True if partitions is None else _agreeing(node, _same(graph, node, own), partitions)


def _mapping(step: Any, table: AssetKey) -> PartitionMapping | None:
    """Return the partition mapping that the asset has for a table, None if not given."""
    if step is None:
        return None
    asset = step.job_def.asset_layer.get_assets_def_for_node(step.node_handle)
    return None if asset is None else asset.get_partition_mapping_for_dep(table)


def _agrees(step: Any, mapping: PartitionMapping | None, context: InputContext) -> bool:
    """Whether an input holds the rows that agree with the asset's own partitions."""
    empty = isinstance(mapping, SpecificPartitionsPartitionMapping) and not mapping.partition_keys
    own = step.entity_partitions_def if empty else None
    return own is not None and own != _given(context, "asset_partitions_def")


def _decoded(
    graph: TableGraph, node: TableNode, context: InputContext
) -> list[Row] | Literal[True]:
    """Return the keys of the partitions that the mapping names."""
    partitions = context.asset_partition_keys
    own = _given(context, "asset_partitions_def")
    if node.grain is not None and own in (None, node.grain.partitions_def):
        return list(map(node.grain.decode, partitions))
    # A translator has given the table other partitions.
    return _agreeing(node, _same(graph, node, own), partitions)


def _same(
    graph: TableGraph, node: TableNode, partitions_def: PartitionsDefinition | None
) -> dict[str, Attribute]:
    """Return the attributes of a table that partitions of some definition may name.

    Attributes of one name and of another lineage are those of other entities.
    """
    kinds = [partitions_def]
    if isinstance(partitions_def, MultiPartitionsDefinition):
        kinds = [each.partitions_def for each in partitions_def.partitions_defs]
    named = {kind.name for kind in kinds if isinstance(kind, DynamicPartitionsDefinition)}
    if node.table.connection.matching != BY_LINEAGE:
        named = set[str | None]()
    grains = [grain for grain in graph.grains if grain.name in named]
    lineages = {each.name: each.lineage for grain in grains for each in grain.attributes}
    return {
        name: attribute
        for name, attribute in node.table.heading.attributes.items()
        if lineages.get(name) in (None, attribute.lineage)
        and attribute.family not in (Family.CODEC, Family.JSON)
    }


def _agreeing(
    node: TableNode, attributes: Mapping[str, Attribute], partitions: Sequence[str]
) -> list[Row] | Literal[True]:
    """Return a restriction of the table by the attributes that partitions of any kind name."""
    shared = [decode_shared(attributes, partition) for partition in partitions]
    if all(shared):
        return shared
    if node.grain is None:
        # The rows of such a table are settings, which belong to all partitions.
        return True
    raise ConfigurationError(
        f"The partition {partitions[0]!r} shares no attribute with {node.title}: use the "
        "partitions of a table that it refers to, or AllPartitionMapping for all of its rows."
    )


def _partitions(step: Any, context: InputContext | OutputContext) -> Sequence[str] | None:
    """Return the partitions of the asset that runs, None for an asset without partitions."""
    if step is None:
        return [context.partition_key] if context.has_partition_key else None
    partitions_def = step.entity_partitions_def
    if partitions_def is None or not step.has_partitions:
        return None
    chosen = step.partition_key_range
    if chosen.start == chosen.end:
        return [chosen.start]
    with partition_loading_context(dynamic_partitions_store=step.instance):
        return partitions_def.get_partition_keys_in_range(chosen)


def _own_keys(
    graph: TableGraph, node: TableNode, context: OutputContext, partitions: Sequence[str]
) -> list[Key]:
    """Return the attributes of a table that the asset's partitions name, empty if none."""
    step = _given(context, "step_context")
    attributes = _same(graph, node, None if step is None else step.entity_partitions_def)
    keys = [decode_shared(attributes, partition) for partition in partitions]
    return keys if all(keys) else []


def _in_partition(node: TableNode, keys: Sequence[Key], rows: list[GivenRow]) -> list[GivenRow]:
    """Fill in the attributes of the asset's partition, and check that all rows belong to it."""
    attributes = tuple(node.table.heading[name] for name in keys[0])
    own = replace(node, grain=Grain(node.title, attributes))
    wanted = [encode_key(attributes, key) for key in keys]
    known = {*wanted, *own.partitions_of(keys)}
    filled = keys[0] if len(keys) == 1 else {}
    completed = [{**filled, **row} for row in rows]
    ran = (
        f"the asset ran for {', '.join(sorted(wanted)[:5])}. Return the rows of its own partitions."
    )
    for row in completed:
        for attribute in attributes:
            if is_missing(row.get(attribute.name), attribute):
                raise InvalidValueError(f"A row of {node.title} has no {attribute.name}; {ran}")
    told = [
        {each.name: as_fetched(row[each.name], each) for each in attributes} for row in completed
    ]
    for key, partition in zip(told, own.partitions_of(told), strict=True):
        if partition not in known:
            text = encode_key(attributes, key)
            raise InvalidValueError(f"A row of {node.title} is of {text}; {ran}")
    return list(completed)


def _check(node: TableNode, rows: Any, *, partial: bool = False) -> None:
    """Refuse rows that would not fit, and names of a frame without rows that the table lacks."""
    encoder = RowEncoder(node.table.connection, node.table.stored, partial=partial)
    for batch in batches(() if rows is None else rows, node.table.heading):
        encoder.check(batch)


GivenRow = Mapping[str, Value]

FORMS = (
    "list[dict], dict for a single row, pandas.DataFrame, polars.DataFrame, polars.LazyFrame, "
    "pyarrow.Table, numpy.ndarray for the blob of a single row, or dj.Table for the query itself"
)


def as_type(node: TableNode, query: QueryExpression, wanted: object) -> Value:
    """Return the rows of a query in the form that an input is annotated with.

    Raises
    ------
    ConfigurationError
        When `wanted` is not a form of rows.
    InvalidValueError
        When a single row is asked for and there is not exactly one.
    """
    kind = typing.get_origin(wanted) or wanted
    library = getattr(kind, "__module__", "").split(".")[0]
    if isinstance(kind, type) and issubclass(kind, QueryExpression):
        return query
    match library, getattr(kind, "__name__", ""):
        case "pandas", "DataFrame":
            return _frame(query)
        case "polars", "DataFrame":
            return query.to_polars(order_by="KEY")
        case "polars", "LazyFrame":
            return query.to_polars(order_by="KEY").lazy()
        case "pyarrow", "Table":
            return query.to_arrow(order_by="KEY")
        case "numpy", "ndarray":
            return _single(node, query.to_dicts(order_by="KEY"), "array")[_blob(node)]
        case _:
            pass
    if kind is dict:
        return _single(node, query.to_dicts(order_by="KEY"), "dict")
    if kind in (list, Any, None, type(None)):
        return query.to_dicts(order_by="KEY")
    raise ConfigurationError(
        f"Rows of {node.title} cannot be given as {wanted}: annotate the input as {FORMS}."
    )


def _frame(query: QueryExpression) -> pd.DataFrame:
    rows = query.to_dicts(order_by="KEY")
    frame = pd.DataFrame(rows, columns=pd.Index(query.heading.names))
    for name, attribute in query.heading.attributes.items():
        if attribute.type is not None and attribute.type.family is Family.INTEGER:
            values = [row[name] for row in rows]
            # With a null among them, pandas turns integers into floats, which hold 53 bits.
            if None in values and any(abs(value or 0) > 2**53 for value in values):
                frame[name] = pd.Series(values, dtype=object)
    return frame


def as_rows(value: Value, node: TableNode) -> list[GivenRow]:
    """Return the value that an asset returned as dicts.

    Raises
    ------
    InvalidValueError
        When the value is not a form of rows.
    ConfigurationError
        When the value is an array, and the table does not have exactly one blob.
    """
    if value is None:
        return []
    columns = columns_of(value, node.table.heading)
    if columns is not None:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(value, QueryExpression):
        return list(value.to_dicts())
    if isinstance(value, np.ndarray) and value.dtype.names is None:
        return [{_blob(node): value}]
    is_single = isinstance(value, Mapping | str) or not isinstance(value, Sequence)
    rows: list[Any] = [value] if is_single else list(value)
    for row in rows:
        if not isinstance(row, Mapping):
            raise InvalidValueError(
                f"{node.title} takes a DataFrame, a dict or a list of dicts; "
                f"this holds a {type(row).__name__}"
            )
    return rows


def _single(node: TableNode, rows: list[Row], form: str) -> Row:
    if len(rows) != 1:
        raise InvalidValueError(
            f"{node.title} has {len(rows)} rows for this input, which is annotated as one {form}; "
            "annotate it as list[dict]"
        )
    return rows[0]


def _blob(node: TableNode) -> str:
    """Return the one attribute of a table that can hold an array."""
    blobs = [
        name
        for name, attribute in node.table.heading.attributes.items()
        if attribute.type is not None and attribute.type.family is Family.CODEC
    ]
    if len(blobs) != 1:
        raise ConfigurationError(
            f"{node.title} has {len(blobs)} attributes that hold arrays: an array can only stand "
            "for one; use a dict"
        )
    return blobs[0]

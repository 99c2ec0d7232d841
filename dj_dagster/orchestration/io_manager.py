"""Rows of tables as inputs and outputs of ordinary Dagster assets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dagster import InputContext, IOManager, OutputContext
from dagster._core.definitions.partitions.context import partition_loading_context

from dj_dagster.errors import ConfigurationError, InvalidValueError
from dj_dagster.model.names import Tier
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.partition_keys import decode_shared, encode_key
from dj_dagster.orchestration.registered import register
from dj_dagster.orchestration.row_forms import Row, as_rows, as_type
from dj_dagster.orchestration.row_marks import ROWS
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode

WRITABLE = (Tier.MANUAL, Tier.LOOKUP, Tier.IMPORTED)


class TableIOManager(IOManager):
    """Reads the rows of a table for an asset that takes it as input, and writes those it returns.

    An input has the form that its parameter is annotated with: ``list[dict]``, ``dict`` for exactly
    one row, a frame of pandas or polars with all attributes as columns, a ``pyarrow.Table``, a
    ``numpy.ndarray`` for the one blob of exactly one row, or ``dj.Table``, which is the query
    itself: nothing is fetched. Without annotation it is a list of dicts. Rows come in the order of
    their key. An asset with partitions gets the rows that agree with its partition, or with those
    of its range, in the attributes they share, whatever else the table's key has.

    An output takes the same forms, and is inserted at once or not at all, blobs through their
    codecs. In an asset with a partition, attributes of its key that rows leave out are filled in
    from it. Rows whose key is in the table already are left as they are, so that an asset can run
    again; their number is in the metadata. To change rows, use `update1`.

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
    """

    def __init__(self, graph: TableGraph) -> None:
        self._graph = graph

    def load_input(self, context: InputContext) -> Any:
        """Return the rows that an input asks for.

        Raises
        ------
        ConfigurationError
            When no table has the input's asset key, or its annotation is none of the above.
        InvalidValueError
            When a dict is asked for and not exactly one row agrees with the partition.
        """
        node = _node(self._graph, context)
        query = node.table & _restriction(node, context)
        return as_type(node, query, context.dagster_type.typing_type)

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Insert what an asset returned.

        Raises
        ------
        ConfigurationError
            When the table's rows come from `make`.
        InvalidValueError
            When a row belongs to another partition than the asset's.
        DataJointError
            One of its kinds, naming table and column, when the rows do not fit.
        """
        node = _node(self._graph, context)
        if node.tier not in WRITABLE or node.populated:
            raise ConfigurationError(
                f"{node.title} is {node.tier.value}: its rows come from make. Return rows of a "
                "Manual table, or give the asset another io_manager_key."
            )
        rows = _in_partition(node, context, as_rows(obj, node))
        new = _new_rows(node, rows)
        if new:
            node.table.insert(new, allow_direct_insert=True)
        if node.grain is not None:
            instance = context.step_context.instance
            register(instance, node.grain, node.grain.encode_all(rows))
        left = len(rows) - len(new)
        if left:
            context.log.warning(
                f"{left} of {len(rows)} rows have keys that are in {node.title} already; they were "
                "left as they are."
            )
        context.add_output_metadata(
            {"rows_inserted": len(new), "rows_left": left, ROWS: len(node.table)}
        )


def _node(graph: TableGraph, context: InputContext | OutputContext) -> TableNode:
    if context.asset_key in graph.by_key:
        return graph.by_key[context.asset_key]
    tables = ", ".join(key.to_user_string() for key in graph.by_key)
    raise ConfigurationError(
        f"no table has the asset key {context.asset_key.to_user_string()}; the tables are {tables}"
    )


def _restriction(node: TableNode, context: InputContext) -> Any:
    """Return what the partitions of the asset that runs say of the table's rows.

    Those, not the partitions that Dagster maps them to in the table: between grains it maps none.
    """
    partitions = _partitions(context.step_context)
    if partitions is None:
        return True
    attributes = node.table.heading.attributes
    shared = [decode_shared(attributes, partition) for partition in partitions]
    if all(shared):
        return shared
    raise ConfigurationError(
        f"the partition {partitions[0]!r} shares no attribute with {node.title}; use the "
        "partitions of a table that it refers to, or none"
    )


def _partitions(step: Any) -> Sequence[str] | None:
    """Return the partitions of the asset that runs, None for one without."""
    partitions_def = step.entity_partitions_def
    if partitions_def is None or not step.has_partitions:
        return None
    with partition_loading_context(dynamic_partitions_store=step.instance):
        return partitions_def.get_partition_keys_in_range(step.partition_key_range)


def _in_partition(node: TableNode, context: OutputContext, rows: list[Row]) -> list[Row]:
    """Complete rows by what the asset's partition says of them, and see that they belong there."""
    partitions = _partitions(context.step_context)
    if not partitions:
        return rows
    attributes = {name: node.table.heading[name] for name in node.table.primary_key}
    keys = [decode_shared(attributes, partition) for partition in partitions]
    if not all(keys):
        return rows
    known = keys[0] if len(keys) == 1 else {}
    completed = [{**known, **row} for row in rows]
    names = tuple(attributes[name] for name in keys[0])
    grain, wanted = Grain(node.title, names), {encode_key(names, key) for key in keys}
    for row in completed:
        if all(name in row for name in keys[0]) and grain.encode(row) not in wanted:
            raise InvalidValueError(
                f"A row of {node.title} is of {grain.encode(row)}; the asset ran for "
                f"{', '.join(sorted(wanted)[:5])}. Return the rows of its own partitions."
            )
    return list(completed)


def _new_rows(node: TableNode, rows: list[Row]) -> list[Row]:
    """Return the rows whose key is not in the table; all of them where a key is incomplete."""
    names = node.table.primary_key
    if not rows or any(name not in row for row in rows for name in names):
        # The insert is going to say what is missing.
        return rows
    grain = Grain(node.title, tuple(node.table.heading[name] for name in names))
    keys = [{name: row[name] for name in names} for row in rows]
    known = set(grain.encode_all((node.table & keys).proj().to_dicts()))
    return [row for row in rows if grain.encode(row) not in known]

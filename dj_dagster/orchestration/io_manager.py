"""Rows of tables as inputs and outputs of ordinary Dagster assets."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from dagster import InputContext, IOManager, OutputContext
from dagster._core.definitions.partitions.context import partition_loading_context

from dj_dagster.errors import ConfigurationError, InvalidValueError
from dj_dagster.model.names import Tier
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.partition_keys import decode_shared
from dj_dagster.orchestration.reconcile import ROWS, add_partitions
from dj_dagster.orchestration.table_graph import TableGraph, TableNode
from dj_dagster.relational.expression import QueryExpression

Row = Mapping[str, Any]

WRITABLE = (Tier.MANUAL, Tier.LOOKUP)


class TableIOManager(IOManager):
    """Reads the rows of a table for an asset that takes it as input, and writes those it returns.

    An input is a `pandas.DataFrame` with all attributes as columns, a list of dicts, or a dict for
    exactly one row: as the parameter is annotated, a list of dicts without annotation. Rows come in
    the order of their key. An asset with partitions gets the rows that agree with its partition in
    the attributes they share, whatever else the table's key has.

    An output is a DataFrame, a list of dicts or a dict, and is inserted at once or not at all. Rows
    whose key is in the table already are left as they are, so that an asset can run again; their
    number is in the metadata. To change rows, use `update1`.

    Examples
    --------
    >>> import dagster as dg
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
        return _as_type(node, query, context.dagster_type.typing_type)

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Insert what an asset returned.

        Raises
        ------
        ConfigurationError
            When people do not enter the table's rows.
        DataJointError
            One of its kinds, naming table and column, when the rows do not fit.
        """
        node = _node(self._graph, context)
        if node.tier not in WRITABLE:
            raise ConfigurationError(
                f"{node.title} is {node.tier.value}: its rows come from make. Return rows of a "
                "Manual table, or give the asset another io_manager_key."
            )
        rows = as_rows(obj, node.title)
        new = _new_rows(node, rows)
        if new:
            node.table.insert(new)
        if node.grain is not None:
            instance = context.step_context.instance
            add_partitions(instance, node.grain, node.grain.encode_all(rows))
        left = len(rows) - len(new)
        if left:
            context.log.warning(
                f"{left} of {len(rows)} rows have keys that are in {node.title} already; they were "
                "left as they are."
            )
        context.add_output_metadata(
            {"rows_inserted": len(new), "rows_left": left, ROWS: len(node.table)}
        )


def as_rows(value: Any, title: str) -> list[Row]:
    """Return rows as dicts.

    Raises
    ------
    InvalidValueError
        When `value` is no DataFrame, dict or list of dicts.
    """
    if value is None:
        return []
    if isinstance(value, pd.DataFrame):
        named = value.reset_index() if any(value.index.names) else value
        records: list[Any] = named.to_dict("records")
        return records
    rows: list[Any] = [value] if isinstance(value, Mapping) else _listed(value)
    for row in rows:
        if not isinstance(row, Mapping):
            raise InvalidValueError(
                f"{title} takes a DataFrame, a dict or a list of dicts; "
                f"this holds a {type(row).__name__}"
            )
    return rows


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


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
    step = context.step_context
    partitions_def = step.entity_partitions_def
    if partitions_def is None or not step.has_partitions:
        return True
    with partition_loading_context(dynamic_partitions_store=step.instance):
        partitions = partitions_def.get_partition_keys_in_range(step.partition_key_range)
    attributes = node.table.heading.attributes
    shared = [decode_shared(attributes, partition) for partition in partitions]
    if all(shared):
        return shared
    raise ConfigurationError(
        f"the partition {partitions[0]!r} shares no attribute with {node.title}; use the "
        "partitions of a table that it refers to, or none"
    )


def _as_type(node: TableNode, query: QueryExpression, wanted: Any) -> Any:
    if wanted is pd.DataFrame:
        return pd.DataFrame(query.to_dicts(order_by="KEY"), columns=query.heading.names)
    rows = query.to_dicts(order_by="KEY")
    kind = typing.get_origin(wanted) or wanted
    if kind is dict:
        return _single(node, rows)
    if kind in (list, Any, None, type(None)):
        return rows
    raise ConfigurationError(
        f"rows of {node.title} cannot be given as {wanted}; annotate the input as "
        "pandas.DataFrame, list[dict], or dict for a single row"
    )


def _single(node: TableNode, rows: list[dict[str, Any]]) -> dict[str, Any]:
    if len(rows) != 1:
        raise InvalidValueError(
            f"{node.title} has {len(rows)} rows for this input, which is annotated as one dict; "
            "annotate it as list[dict]"
        )
    return rows[0]


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

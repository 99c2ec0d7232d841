"""From a table to its asset: the one place where a user changes how tables look in Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from dagster import AssetDep, AssetKey, AssetSpec, PartitionsDefinition, TableSchema

from dj_dagster.model.names import Tier
from dj_dagster.relational.table import Table


@dataclass(frozen=True)
class TableProps:
    """What a `TableTranslator` may need to know of a table.

    Attributes
    ----------
    table
        The table, a query over all its rows: heading, definition and foreign keys are there.
    title
        How the table is named in Python: ``"lab.Session.Trial"``.
    backend
        The database: ``"sqlite"``, ``"mysql"`` or ``"mariadb"``.
    deps
        The tables that it refers to, each with the mapping between its partitions and ours.
    partitions_def
        The partitions of the table's grain, None for a table without.
    """

    table: Table
    key: AssetKey
    title: str
    tier: Tier
    group: str
    backend: str
    columns: TableSchema
    deps: tuple[AssetDep, ...] = ()
    partitions_def: PartitionsDefinition[Any] | None = None

    @property
    def description(self) -> str:
        """The table's comment as plain text, then its definition."""
        comment = self.table.heading.comment.strip()
        definition = cleandoc(self.table.definition)
        return f"{comment or self.title}\n\n```\n{definition}\n```"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Definition metadata in Dagster's own namespace, and ours (``dj/``)."""
        return {
            "dagster/column_schema": self.columns,
            "dagster/table_name": str(self.table.name),
            "dagster/storage_kind": self.backend,
            "dj/tier": self.tier.value,
            "dj/class": self.title,
        }


class TableTranslator:
    """Turns tables into asset specs; override `get_asset_spec` to change them.

    Keep the key, the deps and the partitions: runs and the sensor go by them.

    Examples
    --------
    >>> class LabTranslator(TableTranslator):
    ...     def get_asset_spec(self, props):
    ...         return super().get_asset_spec(props).replace_attributes(owners=["team:lab"])
    """

    def get_asset_spec(self, props: TableProps) -> AssetSpec:
        """Return the asset of a table: key, description, columns, group, kinds, tags, deps."""
        return AssetSpec(
            key=props.key,
            deps=props.deps,
            description=props.description,
            metadata=props.metadata,
            group_name=props.group,
            kinds={props.tier.value, props.backend},
            tags={"dj_dagster/tier": props.tier.value},
            partitions_def=props.partitions_def,
        )

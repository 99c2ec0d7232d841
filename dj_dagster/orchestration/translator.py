"""The translator of tables into assets, by which users change how tables look in Dagster."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dagster import (
    AssetDep,
    AssetKey,
    AssetSpec,
    BetaWarning,
    CodeReferencesMetadataValue,
    LocalFileCodeReference,
    MarkdownMetadataValue,
    MetadataValue,
    PartitionMapping,
    PartitionsDefinition,
    SpecificPartitionsPartitionMapping,
    TableColumn,
    TableColumnConstraints,
    TableConstraints,
    TableSchema,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import TableName, Tier, title
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.orchestration.runs.work import Work
from dj_dagster.orchestration.tables.table_graph import KeyMetadata, Place, TableGraph
from dj_dagster.orchestration.tables.table_node import (
    TableNode,
    dagster_name,
    entry_job_name,
    op_name,
)
from dj_dagster.relational.stored import ForeignKey
from dj_dagster.relational.table import Table
from dj_dagster.workflow.code_version import code_place, code_version

IO_MANAGER_KEY = "table_io_manager"
"""Name of the resource that hands rows to and from ordinary assets."""

Partitions = Mapping[AssetKey, PartitionsDefinition[str] | None]


@dataclass(frozen=True)
class TableProps:
    """The properties of a table that a `TableTranslator` may need.

    Attributes
    ----------
    table
        The table, a query over all its rows: heading, definition and foreign keys are there.
    title
        The name of the table in Python: ``"lab.Session.Trial"``.
    backend
        The database: ``"sqlite"``, ``"mysql"`` or ``"mariadb"``.
    deps
        The tables that it refers to, each with the mapping between its partitions and ours.
    partitions_def
        The partitions of the table's grain, None for a table without partitions.
    definition
        The text that declares the table.
    populated
        Whether `make` fills the table here.
    code_version
        The version of `make` and of the code that it uses in its module; None for tables without a
        `make`, or whose source is not at hand.
    code_place
        File and line of the table's class.
    """

    table: Table
    key: AssetKey
    title: str
    tier: Tier
    group: str
    backend: str
    columns: TableSchema
    deps: tuple[AssetDep, ...] = ()
    partitions_def: PartitionsDefinition[str] | None = None
    definition: str = ""
    populated: bool = False
    code_version: str | None = None
    code_place: tuple[str, int] | None = None

    @property
    def description(self) -> str:
        """The table's comment as plain text, then its definition."""
        comment, definition = self.table.heading.comment.strip(), self.definition.strip()
        first, _, rest = definition.partition("\n")
        if comment and first.lstrip("# ") == comment:
            # The catalog shows both in one line: the comment must not come twice.
            definition = rest.strip()
        return f"{comment or self.title}\n\n```\n{definition}\n```"

    @property
    def metadata(self) -> Mapping[str, object]:
        """Definition metadata in Dagster's own namespace, and ours (``dj/``)."""
        return {
            "dagster/column_schema": self.columns,
            "dagster/table_name": str(self.table.name),
            "dagster/storage_kind": self.backend,
            "dj/tier": self.tier.value,
            "dj/class": self.title,
            **({"dj/trace": self._trace} if self.populated and self.partitions_def else {}),
            **({"dj/links": MetadataValue.md(self._links)} if self._links else {}),
            **self._code,
        }

    @property
    def _links(self) -> str:
        """Links of the UI, as Markdown, to where people look next; empty if there are none."""
        if self.populated and self.partitions_def is not None:
            page = f"/assets/{'/'.join(quote(part, safe='') for part in self.key.path)}"
            keys = f"{page}?view=partitions&status="
            return (
                f"[failed keys]({keys}FAILED), [missing keys]({keys}MISSING), "
                f"[running keys]({keys}MATERIALIZING), [stale keys]({page}?view=checks)"
            )
        if self.tier is Tier.MANUAL:
            return f"[enter rows](/guess/{entry_job_name(self.key)}/playground)"
        return ""

    @property
    def _trace(self) -> str:
        return f"job trace, with table: {self.title}, partition: one of this asset's"

    @property
    def _code(self) -> Mapping[str, object]:
        if self.code_place is None:
            return {}
        file, line = self.code_place
        with warnings.catch_warnings():
            # Dagster calls these beta; users cannot do anything about it.
            warnings.simplefilter("ignore", BetaWarning)
            place = LocalFileCodeReference(file_path=file, line_number=line, label=self.title)
            return {"dagster/code_references": CodeReferencesMetadataValue(code_references=[place])}


class TableTranslator:
    """The translator of tables into asset specs; override `get_asset_spec` to change them.

    Keep the key, the deps, the partitions and the code version: runs and the sensor rely on them.
    You may add an `automation_condition`, a `freshness_policy` or owners.

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
            code_version=props.code_version,
        )

    def get_op_tags(self, props: TableProps) -> Mapping[str, object]:
        """Return the tags of the step that fills a table, which executors and launchers read.

        Tables whose tags name different places (`PLACE_TAGS`) are filled by runs of their own.

        Examples
        --------
        >>> class GpuTranslator(TableTranslator):
        ...     def get_op_tags(self, props):
        ...         return {"dagster-celery/queue": "gpu"} if "Spike" in props.title else {}
        """
        del props
        return {}

    def get_pool(self, props: TableProps) -> str | None:
        """Return the concurrency pool of the step that fills a table, None to do without a pool.

        A pool is unlimited until it is given a limit in the UI. By default each table has a pool
        of its own, named like its op: ``"lab__processed"``.
        """
        return op_name(props.key)

    def get_work(self, props: TableProps) -> Work:
        """Return how a run makes a table's keys: worker processes, time limit.

        Examples
        --------
        >>> class BusyTranslator(TableTranslator):
        ...     def get_work(self, props):
        ...         return Work(processes=8, timeout=3600)
        """
        del props
        return Work()

    def get_key_metadata(self, props: TableProps) -> KeyMetadata | None:
        """Return a function that gives more metadata of a made key for its page, or None.

        The function is called with each key that is made, once the key's rows are there, so it
        should be quick beside `make`. Dagster plots numbers by partition; `figure_metadata` makes
        pictures of figures. Its errors become warnings in the run's log.

        Examples
        --------
        >>> class PlottedTranslator(TableTranslator):
        ...     def get_key_metadata(self, props):
        ...         if props.title != "lab.HeartRate":
        ...             return None
        ...         return lambda key: {"bpm": float((props.table & key).fetch1("bpm"))}
        """
        del props
        return None

    def get_partition_by(self, table: Table) -> Sequence[str] | None:
        """Return the first attributes of the key that tell a table's partitions apart.

        None stands for the whole key. With a prefix one partition stands for many keys; the
        table's jobs have the outcome of each key.
        """
        del table
        return None


PLACE_TAGS = (
    "dagster-celery/queue",
    *(f"dj-slurm/{name}" for name in ("partition", "account", "qos", "gres")),
)
"""The tags that say where a step is executed, on which the steps of one run must agree."""


def place_of(op_tags: Mapping[str, Any]) -> Place:
    """Return where a step is executed.

    Examples
    --------
    >>> place_of({"dagster-celery/queue": "gpu", "dagster-celery/priority": "8"})
    (('dagster-celery/queue', 'gpu'),)
    """
    return tuple((tag, str(op_tags[tag])) for tag in PLACE_TAGS if tag in op_tags)


def table_props(node: TableNode, graph: TableGraph, partitions: Partitions) -> TableProps:
    """Return the properties of a table that a translator may need.

    Parameters
    ----------
    partitions
        The partitions of all assets that tables may refer to; assets without partitions are left
        out.
    """
    own = node.grain.partitions_def if node.grain else None
    populator = graph.by_key[node.master or node.key].filled_by
    return TableProps(
        table=node.table,
        key=node.key,
        title=node.title,
        tier=node.tier,
        group=group_name(node.name.schema),
        backend=node.table.connection.backend.name,
        columns=column_schema(node.table),
        deps=tuple(
            AssetDep(parent, partition_mapping=_mapping(own, partitions.get(parent)))
            for parent in node.parents
        ),
        partitions_def=own,
        definition=node.definition,
        populated=node.populated,
        code_version=code_version(populator.source) if populator else None,
        code_place=code_place(populator.source if populator else type(node.table)),
    )


def table_spec(props: TableProps, translator: TableTranslator) -> AssetSpec:
    """Return the asset spec of a table, as the translator wants it.

    Raises
    ------
    ConfigurationError
        When the translator returns something else, or another key or other partitions.
    """
    spec: Any = translator.get_asset_spec(props)
    if not isinstance(spec, AssetSpec):
        raise ConfigurationError(
            f"{type(translator).__name__}.get_asset_spec gave {spec!r} for {props.title}: "
            "return an AssetSpec, such as super().get_asset_spec(props)"
        )
    for name, own in (("key", props.key), ("partitions_def", props.partitions_def)):
        given = getattr(spec, name)
        if given != own:
            raise ConfigurationError(
                f"{type(translator).__name__}.get_asset_spec gave {props.title} the {name} "
                f"{given!r}: keep {own!r}, by which runs and the sensor know its rows"
            )
    return spec.with_io_manager_key(IO_MANAGER_KEY)


def _mapping(
    own: PartitionsDefinition[str] | None, parents: PartitionsDefinition[str] | None
) -> PartitionMapping | None:
    """Return the identity (None) within a grain, a mapping to an empty list between grains.

    The database decides which rows belong together. Dagster would drop a mapping class of ours, and
    then refuse backfills for partitions that do not exist; an empty list lets it launch them all.
    """
    if own is None or parents is None or own == parents:
        return None
    return SpecificPartitionsPartitionMapping([])


MOST_BYTES = 50_000
"""Bytes of a picture, at most, which is kept in the event log that each page of the UI reads."""

_DPI = (100, 80, 64, 50, 40)


def figure_metadata(
    figure: Any, title: str = "", *, most_bytes: int = MOST_BYTES
) -> MarkdownMetadataValue:
    """Return a figure as metadata that the UI shows as a picture.

    Parameters
    ----------
    figure
        A figure of matplotlib, or anything else that has its `savefig`.
    title
        The text that stands for the picture where images are not shown.
    most_bytes
        The size to aim at: a larger picture is drawn again with fewer dots, down to 40 an inch.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(1, 1))
    >>> figure_metadata(figure, "nothing").value[:33]
    '![nothing](data:image/png;base64,'
    """
    data = b""
    for dpi in _DPI:
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=dpi)
        data = stream.getvalue()
        if len(data) <= most_bytes:
            break
    text = base64.b64encode(data).decode()
    return MetadataValue.md(f"![{title}](data:image/png;base64,{text})")


def group_name(schema: str) -> str:
    """Return the asset group of a schema's tables."""
    return dagster_name(schema)


# The UI chooses an icon by a word in the type: `str`, `arr`, `int`, `float`, `bool`, `time`, ...
# (an enum would get the icon of numbers, for the `num` in it).
_ICON_WORDS = {Family.ENUM: "str ", Family.BYTES: "arr ", Family.CODEC: "arr ", Family.JSON: "str "}


def column_schema(table: Table) -> TableSchema:
    """Return the columns of a table with their types, keys, constraints and parents."""
    return TableSchema(
        columns=[_column(table, attribute) for attribute in table.heading.attributes.values()],
        constraints=TableConstraints(other=_table_constraints(table)),
    )


def type_name(kind: AttributeType | None) -> str:
    """Return a type as in its definition, after a word that gives it an icon in the UI.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> type_name(parse_type("int32")), type_name(parse_type("longblob"))
    ('int32', 'arr <blob>')
    """
    if kind is None:
        return "?"
    return _ICON_WORDS.get(kind.family, "") + kind.text


def _column(table: Table, attribute: Attribute) -> TableColumn:
    parents = [key for key in table.foreign_keys if attribute.name in key.attributes]
    return TableColumn(
        name=attribute.name,
        type=type_name(attribute.type),
        description=_description(table, attribute),
        constraints=TableColumnConstraints(
            nullable=attribute.nullable,
            unique=_alone_unique(table, attribute.name),
            other=_constraints(attribute, parents),
        ),
        tags=_tags(attribute, parents),
    )


def _tags(attribute: Attribute, parents: list[ForeignKey]) -> dict[str, str]:
    return ({"key": ""} if attribute.in_key else {}) | ({"foreign_key": ""} if parents else {})


def _constraints(attribute: Attribute, parents: list[ForeignKey]) -> list[str]:
    key = ["primary key"] if attribute.in_key else []
    default = [f"default {attribute.default.value}"] if attribute.default is not None else []
    # The UI cuts constraints at 30 characters: the schema is in the description.
    return key + [f"-> {_short(parent)}" for parent in parents] + default


def _description(table: Table, attribute: Attribute) -> str | None:
    here = f"{table.name}.{attribute.name}"
    sentences = [attribute.comment] if attribute.comment else []
    if attribute.lineage and attribute.lineage != here:
        sentences.append(f"(from {_origin(attribute.lineage)})")
    return " ".join(sentences) or None


def _origin(lineage: str) -> str:
    schema, table, name = lineage.split(".", 2)
    return f"{title(TableName(schema, table))}.{name}"


def _short(foreign_key: ForeignKey) -> str:
    return title(foreign_key.parent).split(".", 1)[1]


def _alone_unique(table: Table, name: str) -> bool:
    alone = [name]
    return table.primary_key == alone or any(
        foreign_key.unique and list(foreign_key.attributes) == alone
        for foreign_key in table.foreign_keys
    )


def _table_constraints(table: Table) -> list[str]:
    key = [f"primary key ({', '.join(table.primary_key)})"] if table.primary_key else []
    return key + [_foreign_key_text(foreign_key) for foreign_key in table.foreign_keys]


def _foreign_key_text(foreign_key: ForeignKey) -> str:
    options = [word for word in ("unique", "nullable") if getattr(foreign_key, word)]
    listed = f" [{', '.join(options)}]" if options else ""
    return f"({', '.join(foreign_key.attributes)}) -> {title(foreign_key.parent)}{listed}"

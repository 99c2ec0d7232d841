"""Jobs that enter rows from the launchpad, with a typed field for each attribute."""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import Any as AnyConfig
from dagster import (
    Array,
    Bool,
    DagsterInstance,
    Enum,
    EnumValue,
    Failure,
    Field,
    Float,
    Int,
    JobDefinition,
    Noneable,
    OpExecutionContext,
    Shape,
    String,
    op,
)
from dagster import job as dagster_job

from dj_dagster.errors import (
    AccessError,
    ConfigurationError,
    DataJointError,
    DuplicateError,
    InvalidValueError,
    counted,
)
from dj_dagster.local_files import at_home
from dj_dagster.model.heading import Attribute, Heading, Row, Value, Values
from dj_dagster.model.names import Tier
from dj_dagster.model.types import Family
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark, Origin
from dj_dagster.orchestration.runs.populate_step import Step
from dj_dagster.orchestration.runs.shown_marks import ROWS
from dj_dagster.orchestration.sharing import refuse_unshared
from dj_dagster.orchestration.tables.partitions import (
    keys_there,
    partitions_of_keys,
    register,
    stored_keys,
)
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode, entry_job_name, op_name
from dj_dagster.relational.inserting.row_sources import csv_batches

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


ERRORS_SHOWN = 5
"""Rows of a CSV file whose faults an error names, at most."""

CHUNK = 10_000

Folders = str | Path | Iterable[str | Path]
"""A folder, or several."""


class EntryFiles:
    """The files that people may name in the launchpad.

    Everyone who can open the launchpad may see the rows of the tables, and the errors of the runs.
    A file elsewhere on the machine must therefore neither be stored nor be quoted.

    Parameters
    ----------
    folders
        The folder of allowed files, or several, subfolders included; links are resolved first.

    Raises
    ------
    ConfigurationError
        If one of them is not a path, or is empty, which Python would take for the current folder.
    """

    def __init__(self, folders: Folders) -> None:
        given: Any = folders
        # A text has letters, one of which may be the root of all folders.
        several = isinstance(given, Iterable) and not isinstance(given, str)
        self._folders = [_folder(each) for each in (given if several else [given])]

    def check(self, node: TableNode, rows: Iterable[Mapping[str, Value]]) -> None:
        """Refuse rows with a value that is the path of a file outside the folders.

        Raises
        ------
        AccessError
            If there is such a row; the error names the table and the attribute.
        """
        names = _path_attributes(node)
        for row in rows:
            for name in names:
                if isinstance(row.get(name), str):
                    self._allowed(row[name], f"{node.title}.{name}")

    def insert(self, node: TableNode, file: str, **options: Any) -> None:
        """Insert the rows of a CSV file, all or none.

        Raises
        ------
        AccessError
            If the file, or a file that it names, is outside the folders.
        InvalidValueError
            If it is not there, not a file, or empty, or if its rows do not fit the table; the error
            has their places without their values.
        DataJointError
            If the insert fails, without the values of the original error.
        """
        found = self._allowed(file, f"{node.title}: csv")
        if reason := _unreadable(found):
            raise InvalidValueError(
                f"No row was inserted into {node.title}: the csv {file} {reason}."
            )
        place = str(found)
        try:
            self._check_csv(node, place)
            errors = node.table.validate(place).errors
        except AccessError:
            raise
        except DataJointError:
            raise InvalidValueError(
                f"{file} does not hold rows for {node.title}: the first line must name attributes, "
                "and each further line have one value for each. The content is not shown here."
            ) from None
        if errors:
            found = dict.fromkeys(
                f"row {row + 1}, {name}" if name else f"row {row + 1}" for row, name, _ in errors
            )
            places = "; ".join(list(found)[:ERRORS_SHOWN])
            more = "; ..." if len(found) > ERRORS_SHOWN else ""
            raise InvalidValueError(
                f"{file} has values that do not fit {node.title} ({places}{more}). The values are "
                "not shown here; table.validate(file) tells them in Python."
            )
        try:
            node.table.insert(place, **options)
        except DataJointError as error:
            reason = "a key is there already" if isinstance(error, DuplicateError) else "it refused"
            raise type(error)(
                f"No row of {file} was inserted into {node.title}: {reason}. The values are not "
                "shown here; table.insert(file) tells them in Python."
            ) from None

    def _check_csv(self, node: TableNode, file: str) -> None:
        names = _path_attributes(node)
        for batch in csv_batches(file, node.table.heading, CHUNK) if names else ():
            for name in names:
                for value in batch.columns.get(name, ()):
                    if value:
                        self._allowed(value, f"{node.title}.{name}")

    def _allowed(self, file: str, where: str) -> Path:
        """Return a file of the folders; the error for another one does not quote its path."""
        try:
            found = Path(file).expanduser().resolve()
        except (OSError, RuntimeError, ValueError):
            raise AccessError(
                f"{where} is not the path of a file: it has a character that paths cannot have, "
                "the home of nobody, or links in a loop."
            ) from None
        if any(found.is_relative_to(folder) for folder in self._folders):
            return found
        allowed = ", ".join(map(str, self._folders)) or "no folder"
        raise AccessError(
            f"{where} names a file that may not be read: the launchpad takes files from {allowed}. "
            "Allow a folder with build_definitions(entry_folders=[...]), or insert the row in "
            "Python."
        )


def _folder(given: object) -> Path:
    if isinstance(given, Path) or (isinstance(given, str) and given.strip()):
        return at_home(given, "A folder of entry_folders").resolve()
    raise ConfigurationError(
        f"entry_folders has {given!r}: write the path of a folder, or of several in a list."
    )


def _unreadable(file: Path) -> str:
    """Return why a CSV file cannot be read, empty if it can."""
    try:
        if not file.is_file():
            return "is a folder" if file.is_dir() else "is not there"
        with file.open("rb") as data:
            return "" if data.read(1) else "is empty: its first line must name the attributes"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _path_attributes(node: TableNode) -> Sequence[str]:
    """Return the attributes that store a file when they are given its path."""
    codecs = node.table.connection.codecs
    return [
        name
        for name, attribute in node.table.heading.attributes.items()
        if attribute.type is not None
        and any(codec.takes_path for codec in codecs.resolve(attribute.type).codecs)
    ]


PLAIN: dict[Family, Any] = {
    Family.INTEGER: Int,
    Family.BOOL: Bool,
    Family.FLOAT: Float,
    Family.STRING: String,
    Family.DATE: String,
    Family.DATETIME: String,
    Family.TIME: String,
    Family.UUID: String,
}
"""Fields by kind. Other kinds take any value: numbers or texts for decimals, lists for blobs."""

HINTS = {
    Family.DATE: "YYYY-MM-DD",
    Family.DATETIME: "YYYY-MM-DD hh:mm:ss",
    Family.TIME: "hh:mm:ss",
    Family.UUID: "32 hexadecimal digits",
    Family.BYTES: "a text, of which the bytes in UTF-8 are kept",
    Family.JSON: "any value",
}


def rows_field(heading: Heading, title: str, *, leave_out: frozenset[str] = frozenset()) -> Field:
    """Return the field for a list of rows.

    Parameters
    ----------
    title
        A name for the table that can be part of a type's name.
    leave_out
        Attributes that people need not enter.
    """
    shape = Shape(
        {
            attribute.name: attribute_field(attribute, title)
            for attribute in heading.attributes.values()
            if attribute.name not in leave_out
        }
    )
    return Field(Array(shape), default_value=[], description="Rows to insert, all or none.")


def attribute_field(attribute: Attribute, title: str) -> Field:
    """Return the field for one attribute: its type, choices, default, and whether it is needed."""
    scalar = _scalar(attribute, title)
    options: dict[str, Any] = {"is_required": _is_needed(attribute)}
    default = _default(attribute)
    if default is not None:
        options = {"default_value": default}
    return Field(
        Noneable(scalar) if attribute.nullable and scalar is not AnyConfig else scalar,
        description=_description(attribute),
        **options,
    )


def _is_needed(attribute: Attribute) -> bool:
    """Whether people have to enter a value, because the database does not have one."""
    generated = attribute.type is not None and attribute.type.auto_increment
    return not (attribute.nullable or attribute.default is not None or generated)


def _scalar(attribute: Attribute, title: str) -> Any:
    kind = attribute.type
    if kind is None:
        return AnyConfig
    if kind.family is Family.ENUM:
        return Enum(f"{title}__{attribute.name}", [EnumValue(value) for value in kind.values])
    return PLAIN.get(kind.family, AnyConfig)


def _default(attribute: Attribute) -> Any:
    """Return a default that the launchpad can show; the database fills in other defaults."""
    kind, default = attribute.type, attribute.default
    if kind is None or default is None or default.is_expression:
        return None
    try:
        match kind.family:
            case Family.INTEGER:
                return int(default.value)
            case Family.FLOAT:
                return float(default.value)
            case Family.BOOL:
                return default.value.lower() in ("1", "true")
            case Family.STRING:
                return default.value
            case Family.ENUM:
                return default.value if default.value in kind.values else None
            case _:
                return None
    except ValueError:
        return None


def _description(attribute: Attribute) -> str:
    kind = attribute.type
    hint = HINTS.get(kind.family) if kind else None
    text = kind.text if kind else ""
    said = [attribute.comment, f"{text}: {hint}" if hint else text]
    if attribute.default is not None and _default(attribute) is None:
        said.append(f"default {attribute.default.value}")
    return "; ".join(filter(None, said))


def entry_jobs(pipeline: Pipeline, folders: Folders = ()) -> list[JobDefinition]:
    """Return a job for each Manual table: ``insert__lab__session`` for ``lab.Session``.

    Its config has a field for each attribute. Rows of parts are entered with their masters', or
    later; rows can come from a CSV file instead. All rows of a launch are inserted, or none.

    Parameters
    ----------
    folders
        Folders of the machine that runs the jobs, from which CSV files and files to store may be
        taken. Without folders all files are refused, because users of the launchpad need not have
        an account on that machine.
    """
    graph, files = pipeline.graph, EntryFiles(folders)
    return [
        _entry_job(graph, node, files)
        for node in graph.nodes
        if node.tier is Tier.MANUAL and node.master is None
    ]


def _entry_job(graph: TableGraph, node: TableNode, files: EntryFiles) -> JobDefinition:
    parts = {part.key.path[-1]: part for part in graph.parts(node)}

    @op(name=f"{entry_job_name(node.key)}__rows", config_schema=_config(node, parts))
    def insert_rows(context: OpExecutionContext) -> None:
        try:
            refuse_unshared(context.instance, graph)
            _insert(context, graph, node, parts, context.op_config, files)
        except DataJointError as error:
            # Dagster shows the text of a `Failure` above the stack, that of other errors below it.
            raise Failure(description=str(error), allow_retries=False) from error

    @dagster_job(
        name=entry_job_name(node.key),
        description=f"Inserts rows into {node.title}, from the launchpad or a CSV file. One row in "
        f"the launchpad, to be filled in:\n\n```yaml\n{_template(node)}\n```",
    )
    def insert() -> None:
        insert_rows()

    return insert


def _template(node: TableNode) -> str:
    """Return the config for one row, with a note on each attribute in the place of its value."""
    lines = [
        # Lines that may be left out are comments.
        f"{'' if _is_needed(attribute) else '# '}{name}:  # {_description(attribute)}"
        for name, attribute in node.table.heading.attributes.items()
    ]
    row = "\n          ".join(lines)
    return f"ops:\n  {entry_job_name(node.key)}__rows:\n    config:\n      rows:\n        - {row}"


def _config(node: TableNode, parts: Mapping[str, TableNode]) -> dict[str, Field]:
    config = {
        "rows": rows_field(node.table.heading, op_name(node.key)),
        "csv": Field(
            Noneable(String),
            is_required=False,
            description="A CSV file in one of the entry_folders; its first line has names.",
        ),
        "skip_duplicates": Field(
            bool,
            default_value=False,
            description="Whether rows with a key that is there are left out, instead of refused.",
        ),
    }
    if parts:
        shapes = {name: _part_rows(part) for name, part in parts.items()}
        config["parts"] = Field(
            Shape(shapes), is_required=False, description="Rows of its parts, with the key."
        )
    return config


def _part_rows(part: TableNode) -> Field:
    fields = {
        attribute.name: attribute_field(attribute, op_name(part.key))
        for attribute in part.table.heading.attributes.values()
    }
    return Field(Array(Shape(fields)), default_value=[])


def _insert(
    context: OpExecutionContext,
    graph: TableGraph,
    node: TableNode,
    parts: Mapping[str, TableNode],
    config: Mapping[str, Any],
    files: EntryFiles,
) -> None:
    rows, file = _rows(node, config["rows"]), config.get("csv")
    of_parts = {name: _rows(parts[name], each) for name, each in config.get("parts", {}).items()}
    if not rows and not file and not any(of_parts.values()):
        raise InvalidValueError(f"There is no row for {node.title}: write rows, or the path csv.")
    files.check(node, rows)
    for name, each in of_parts.items():
        files.check(parts[name], each)
    options = {"skip_duplicates": config["skip_duplicates"]}
    given = {node: rows, **{parts[name]: each for name, each in of_parts.items()}}
    origin = Step.of(context, graph, []).origin
    with node.table.connection.transaction:
        before = len(node.table)
        keys = {each: stored_keys(each.table, its) for each, its in given.items()}
        # Without duplicates, which fail, no key can be there.
        skipped = options["skip_duplicates"]
        old = {each: keys_there(each.table, its) if skipped else {} for each, its in keys.items()}
        if file:
            files.insert(node, file, **options)
        for each, its in given.items():
            if its:
                each.table.insert(its, **options)
        count = len(node.table)
        entered = {each: _entered(each, its, old[each]) for each, its in keys.items()}
    context.log.info(f"{counted(count - before, 'row')} inserted into {node.title}")
    context.add_output_metadata({"rows_inserted": count - before, ROWS: count})
    for each, partitions in entered.items():
        _mark(context.instance, origin, each, partitions)


def _entered(
    node: TableNode, keys: Iterable[Values | None], old: Container[Values | None]
) -> list[str]:
    """Return the partitions of the rows that have been inserted, and were not there before.

    The sensor finds the rows whose key the server or a file gave.
    """
    there = keys_there(node.table, [key for key in keys if key not in old])
    return partitions_of_keys(node, there.values())


def _rows(node: TableNode, rows: Sequence[Mapping[str, Value]]) -> list[Row]:
    """Return rows without the values that were left empty, which get their defaults.

    Texts are encoded for attributes of bytes, which cannot be written in the launchpad.
    """
    attributes = node.table.heading.attributes.items()
    bytes_of = {name for name, a in attributes if a.type and a.type.family is Family.BYTES}
    return [
        {
            name: value.encode() if name in bytes_of and isinstance(value, str) else value
            for name, value in row.items()
            if value is not None
        }
        for row in rows
    ]


def _mark(
    instance: DagsterInstance, origin: Origin, node: TableNode, partitions: Sequence[str]
) -> None:
    """Show the partitions of new rows at once."""
    if node.grain is not None and partitions:
        register(instance, node.grain, partitions)
        write_marks(instance, (Mark(node.key, partition) for partition in partitions), origin)

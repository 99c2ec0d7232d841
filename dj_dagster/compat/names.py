"""Functions and classes of DataJoint's modules that only programs written for DataJoint use."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from io import BytesIO
from itertools import accumulate, pairwise
from pathlib import Path
from types import FunctionType
from typing import BinaryIO, Generic, TypeVar
from uuid import UUID

from dj_dagster.compat.log import LogTable as Log
from dj_dagster.compat.parsers import (
    attribute_parser,
    extract_column_names,
    foreign_key_parser,
    is_foreign_key,
    parse_sql,
)
from dj_dagster.compat.spellings import AttributeAdapter, key
from dj_dagster.dependencies import extract_master
from dj_dagster.errors import DataJointError, DefinitionError
from dj_dagster.model.heading import Attribute, Row, Value
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.model.types import parse_type
from dj_dagster.objects.blob import reader, writer
from dj_dagster.objects.codecs.chain import Codec, CodecChain, CodecRegistry
from dj_dagster.objects.layout import key_text
from dj_dagster.relational.algebra import nodes
from dj_dagster.relational.algebra.condition import make_condition as condition_of
from dj_dagster.relational.algebra.operators import Matching
from dj_dagster.relational.declaring.describe import Spelling
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.schemas.free_table import FreeTable, table_name
from dj_dagster.relational.sql.lowering import condition_text, names_in
from dj_dagster.relational.table import Lookup, Manual, Part, Table, TableMeta
from dj_dagster.relational.universal import U
from dj_dagster.settings_mapping import (
    ENVIRONMENT,
    FILE_NAMES,
    GLOBAL_FILE,
    LOCAL_FILE,
    SECRETS,
    SettingsMapping,
)
from dj_dagster.settings_model import setting_names
from dj_dagster.workflow.computed import Computed, Imported

__all__ = [
    "Log",
    "attribute_parser",
    "extract_column_names",
    "foreign_key_parser",
    "is_foreign_key",
    "parse_sql",
]
"""Names from elsewhere that belong to DataJoint's modules; those below do, too."""

T = TypeVar("T")

encode_pk_value = key_text
CONFIG_FILENAME = FILE_NAMES[0]
LOCALCONFIG = LOCAL_FILE
GLOBALCONFIG = Path(GLOBAL_FILE).name
SECRETS_DIRNAME = SECRETS[0]
ENV_VAR_MAPPING = ENVIRONMENT
DEFAULT_SUBFOLDING = (2, 2)
ERROR_MESSAGE_LENGTH = 2047
TRUNCATION_APPENDIX = "...truncated"
EXTERNAL_TABLE_ROOT = "~external"
ADAPTED_TYPE_SWITCH = "DJ_SUPPORT_ADAPTED_TYPES"
FILEPATH_FEATURE_SWITCH = "DJ_SUPPORT_FILEPATH_MANAGEMENT"
PROV_ATTRIBUTE = PROVENANCE.name
UUID_DATA_TYPE = "binary(16)"
MAX_TABLE_NAME_LENGTH = 64


Role = Enum("Role", "manual lookup imported computed job")
TIERS: dict[Tier, type[Table]] = {
    Tier.MANUAL: Manual,
    Tier.LOOKUP: Lookup,
    Tier.IMPORTED: Imported,
    Tier.COMPUTED: Computed,
    Tier.PART: Part,
}
role_to_prefix = {
    Role.manual: "",
    Role.lookup: "#",
    Role.imported: "_",
    Role.computed: "__",
    Role.job: "~",
}
prefix_to_role = {prefix: role for role, prefix in role_to_prefix.items()}

user_table_classes = (Manual, Lookup, Computed, Imported, Part)

foreign_key_error_regexp = re.compile(
    r"[\w\s:]*\((?P<child>`[^`]+`.`[^`]+`), "
    r"CONSTRAINT (?P<name>`[^`]+`) "
    r"(FOREIGN KEY \((?P<fk_attrs>[^)]+)\) "
    r"REFERENCES (?P<parent>`[^`]+`(\.`[^`]+`)?) \((?P<pk_attrs>[^)]+)\)[\s\w]+\))?"
)
"""A regular expression of MySQL's message about a foreign key that would be violated."""


supported_class_attrs = {
    name
    for name, value in (*vars(QueryExpression).items(), *vars(Table).items())
    if not name.startswith("_") and isinstance(value, FunctionType | property)
} | {"key_source", "populate", "progress"}
"""Names that can be asked of a table's class; methods of one's own need not be added."""


default_attribute_properties = {
    **Attribute("", None, nullable=True).todict(),
    **{"name": None, "type": "expression", "nullable": False, "default": None},
    "comment": "calculated attribute",
}
"""The attribute of a query that an expression computes."""


class BucketInaccessible(DataJointError):
    """A bucket that cannot be reached; never raised here, as stores raise `ObjectError`."""


class _ByNode(type):
    """The metaclass of classes whose instances are queries with a certain outermost operator."""

    nodes: tuple[type[nodes.Node], ...]

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, QueryExpression) and isinstance(instance.node, cls.nodes)


class Union(metaclass=_ByNode):
    """The class, for ``isinstance``, of queries made by ``+``."""

    nodes = (nodes.United,)


class Aggregation(metaclass=_ByNode):
    """The class, for ``isinstance``, of queries made by `aggr`."""

    nodes = (nodes.Aggregated, nodes.Grouped)


class _Classed(TableMeta):
    """The metaclass of `UserTable`, whose instances are all tables that have their own class."""

    def __instancecheck__(cls, instance: object) -> bool:
        return issubclass(type(instance), cls)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if cls.__dict__.get("_of_all"):
            return issubclass(subclass, Table) and not issubclass(subclass, FreeTable)
        return super().__subclasscheck__(subclass)


class UserTable(Table, metaclass=_Classed):
    """The base of tables that have a class: all but `FreeTable`."""

    _of_all = True


class Blob:
    """DataJoint's packer of values, built on `dj_dagster.objects.blob`.

    Parameters
    ----------
    squeeze
        Whether unpacked arrays lose their dimensions of length 1.
    """

    def __init__(self, squeeze: bool = False) -> None:
        self._squeeze = squeeze

    def pack(self, obj: object, compress: bool = True) -> bytes:
        """Write a value as a blob."""
        return writer.pack(obj, compress=compress)

    def unpack(self, blob_bytes: bytes) -> Value:
        """Read the value of a blob."""
        return unpack(blob_bytes, squeeze=self._squeeze)


def unpack(blob: bytes | None, squeeze: bool = False) -> Value:
    """Read the value of a blob; null is None.

    Parameters
    ----------
    squeeze
        Whether arrays lose their dimensions of length 1.
    """
    return None if blob is None else reader.unpack(blob, squeeze=squeeze)


class Fetch:
    """The fetch of a query, as a class: ``Fetch(query)("session", order_by="KEY")``.

    Parameters
    ----------
    expression
        The query.
    """

    def __init__(self, expression: QueryExpression) -> None:
        self._expression = expression

    def __call__(self, *attrs: str, **options: Value) -> Value:
        """Return rows as the query's `fetch` does."""
        return self._expression.fetch(*attrs, **options)


class Fetch1(Fetch):
    """The fetch of a query's only row, as a class; see `QueryExpression.fetch1`."""

    def __call__(self, *attrs: str, **options: Value) -> Value:
        """Return the row, or values of it, as the query's `fetch1` does."""
        return self._expression.fetch1(*attrs, **options)


class ClassProperty(Generic[T]):
    """A property of a class, as a decorator."""

    def __init__(self, f: Callable[..., T]) -> None:
        self.f = f

    def __get__(self, obj: object, owner: type | None = None) -> T:
        return self.f(owner)


default = {name: SettingsMapping()[name] for name in setting_names()}
"""The default of each setting by its dotted name."""


def _switch_adapted_types(on: bool) -> None:  # pyright: ignore[reportUnusedFunction]
    """Set the variable for DataJoint's adapted types, which are always understood here."""
    _switch(ADAPTED_TYPE_SWITCH, on)


def _support_adapted_types() -> bool:  # pyright: ignore[reportUnusedFunction]
    """Whether the variable for DataJoint's adapted types is set."""
    return _is_on(ADAPTED_TYPE_SWITCH)


def _switch_filepath_types(on: bool) -> None:  # pyright: ignore[reportUnusedFunction]
    """Set the variable for DataJoint's type ``filepath``, which is always understood here."""
    _switch(FILEPATH_FEATURE_SWITCH, on)


def _support_filepath_types() -> bool:  # pyright: ignore[reportUnusedFunction]
    """Whether the variable for DataJoint's type ``filepath`` is set."""
    return _is_on(FILEPATH_FEATURE_SWITCH)


def _switch(variable: str, on: bool) -> None:
    if on:
        os.environ[variable] = "TRUE"
    else:
        os.environ.pop(variable, None)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").upper() == "TRUE"


def user_choice(
    prompt: str, choices: Iterable[str] = ("yes", "no"), default: str | None = None
) -> str:
    """Ask on the terminal until the answer is one of some words, and return it.

    Parameters
    ----------
    default
        The answer when nothing is typed.
    """
    words = list(choices)
    shown = ", ".join(word.title() if word == default else word for word in words)
    while True:
        answer = input(f"{prompt} [{shown}]: ").strip().lower() or default
        if answer in words:
            return answer


def get_master(full_table_name: str) -> str:
    """Return the full name of a part's master, an empty text for other tables."""
    return extract_master(full_table_name) or ""


def is_camel_case(s: str) -> bool:
    """Whether a name is in camel case: ``"SpikeSort"``."""
    return re.fullmatch(r"[A-Z][A-Za-z0-9]*", s) is not None


def safe_write(filepath: str | Path, blob: bytes) -> None:
    """Write a new file, whose name appears when it is whole; a file that exists is left alone."""
    path = Path(filepath)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.saving")
        unfinished.write_bytes(blob)
        unfinished.replace(path)


def safe_copy(src: str | Path, dest: str | Path, overwrite: bool = False) -> None:
    """Copy a file under another name, which appears when the copy is whole.

    Parameters
    ----------
    overwrite
        Whether a file of that name is replaced; it is left alone otherwise.
    """
    path = Path(dest)
    if path.exists() and (path.samefile(src) or not overwrite):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.copying")
    shutil.copyfile(src, unfinished)
    unfinished.replace(path)


def get_adapter(context: Mapping[str, object], adapter_name: str) -> AttributeAdapter:
    """Return the adapter that a context has under a name, which may be written in ``<>``.

    Raises
    ------
    DefinitionError
        If the context lacks it, or has something else under the name.
    """
    name = adapter_name.strip("<>")
    adapter = context.get(name)
    if not isinstance(adapter, AttributeAdapter):
        raise DefinitionError(
            f"The attribute type <{name}> needs an instance of dj.AttributeAdapter in a variable "
            f"{name}; there is {adapter!r}."
        )
    return adapter


def assert_join_compatibility(
    expr1: object, expr2: object, semantic_check: bool | None = None
) -> None:
    """Raise the error of the join of two queries, if there is one.

    Raises
    ------
    QueryError
        If they cannot be joined.
    """
    if isinstance(expr1, U) or isinstance(expr2, U):
        return
    if not isinstance(expr1, QueryExpression):
        raise DataJointError(f"{expr1!r} is not a query, and cannot be joined.")
    expr1.join(expr2, semantic_check=semantic_check)


def uuid_from_stream(stream: BinaryIO, *, init_string: str = "") -> UUID:
    """Return the hash by which DataJoint 0.14 names a stream's bytes in its external stores."""
    digest = hashlib.md5(init_string.encode(), usedforsecurity=False)
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return UUID(bytes=digest.digest())


def uuid_from_buffer(buffer: bytes = b"", *, init_string: str = "") -> UUID:
    """Return the hash of bytes, as `uuid_from_stream` does."""
    return uuid_from_stream(BytesIO(buffer), init_string=init_string)


def uuid_from_file(filepath: str | Path, *, init_string: str = "") -> UUID:
    """Return the hash of a file's bytes, as `uuid_from_stream` does."""
    with Path(filepath).open("rb") as stream:
        return uuid_from_stream(stream, init_string=init_string)


def preview(
    query_expression: QueryExpression, limit: int | None = None, width: int | None = None
) -> str:
    """Return a query's first rows as text."""
    return query_expression.preview(limit, width)


def repr_html(query_expression: QueryExpression) -> str:
    """Return a query's first rows in HTML."""
    return query_expression._repr_html_()


def lookup_class_name(name: str, context: Mapping[str, object], depth: int = 3) -> str | None:
    """Return the name by which a context reaches a table's class, None if it does not.

    Parameters
    ----------
    name
        The full name of the table in SQL.
    depth
        Has no effect: classes are looked for in the context and in its modules.
    """
    del depth
    table = table_name(name)
    spelled = Spelling(TableName("", ""), context)(table)
    return None if spelled == f"{table.schema}.{class_path(table.table)}" else spelled


def make_condition(
    query_expression: QueryExpression,
    condition: object,
    columns: set[str],
    semantic_check: bool = False,
) -> str | bool:
    """Return a restriction as SQL; True or False if it chooses all rows or none.

    Equalities are written as DataJoint writes them, since programs look for them in the text.

    Parameters
    ----------
    columns
        A set to which the names of the attributes in the restriction are added.

    Examples
    --------
    ::

        make_condition(Session, {"session": 1, "rig": "a"}, set())  # (`session`=1)AND(`rig`="a")
    """
    heading, connection = query_expression.heading, query_expression.connection
    made = condition_of(condition, heading, Matching(semantic_check, connection.matching.is_old))
    columns.update(names_in(connection, made) & set(heading.names))
    return condition_text(connection, made, heading)


def _get_tier(name: str) -> type[Table] | None:  # pyright: ignore[reportUnusedFunction]
    """Return the class of a table's tier by its full name, None for hidden tables."""
    parsed = parse_table_name(name.strip("`").rpartition(".")[2].strip("`"))
    return None if parsed is None else TIERS[parsed.tier]


def is_tier(table_name: str, tier: type[Table]) -> bool:
    """Whether a table's name without its schema, ``"__processed"``, is of a tier's class."""
    return re.fullmatch(tier.tier_regexp, table_name) is not None


def subfold(name: str, folds: Sequence[int]) -> tuple[str, ...]:
    """Return the folders that DataJoint 0.14 puts an object into, cut from its name.

    Examples
    --------
    >>> subfold("ABCDEF", (2, 2))
    ('ab', 'cd')
    """
    ends = list(accumulate(folds, initial=0))
    return tuple(name[start:end].lower() for start, end in pairwise(ends))


def to_dicts(recarray: Iterable[Value]) -> Iterator[Row]:
    """Yield the records of an array as dicts."""
    for record in recarray:
        yield dict(zip(record.dtype.names, record.tolist(), strict=True))


def is_codec_registered(name: str) -> bool:
    """Whether a codec has a name, which may be written in ``<>``."""
    return name.strip("<>") in CodecRegistry().names


def resolve_dtype(dtype: str) -> tuple[str, list[Codec], str | None]:
    """Return the type that a column is declared as, the codecs, and the name of the store.

    Examples
    --------
    >>> resolve_dtype("<blob@raw>")
    ('json', [<blob>, <hash>], 'raw')
    """
    kind = parse_type(dtype)
    # The server's own blobs are types without a codec here.
    chain = CodecRegistry().resolve(kind) if kind.codec else CodecChain((), kind)
    return chain.column_type.text, list(chain.codecs), chain.store


def is_key(attr: object) -> bool:
    """Whether a requested attribute stands for the primary key."""
    return attr in (key, "KEY")

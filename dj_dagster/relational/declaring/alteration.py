"""Differences between a table and its definition, and the changes that remove them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from dj_dagster.errors import DefinitionError, QueryError
from dj_dagster.model.heading import Attribute, Default, IndexDeclaration
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.database.catalog import split_comment
from dj_dagster.relational.declaring.describe import (
    attribute_line,
    foreign_key_line,
    index_line,
    own_indexes,
)
from dj_dagster.relational.declaring.plan import PlannedColumn, PlannedTable
from dj_dagster.relational.old_layout import external_keys
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredTable

_RENAMES = re.compile(r"\{([a-z][a-z0-9_]*)\}\s*")


@dataclass(frozen=True, slots=True)
class Present:
    """The present state of a table.

    Attributes
    ----------
    indexes
        By name, including those that the server made for foreign keys.
    """

    raw: RawTable
    stored: StoredTable
    indexes: Mapping[str, IndexDeclaration]


@dataclass(frozen=True, slots=True)
class Alteration:
    """The changes to a table; `plan` is the desired state.

    Attributes
    ----------
    columns
        The names of all columns in their new order, with kept hidden ones at the end.
    renamed
        The old name of each renamed attribute, by new name.
    modified
        New names of columns whose type, default or comment changes.
    moved
        Whether the order of columns changes.
    dropped_indexes
        Names of the indexes in the database.
    """

    plan: PlannedTable
    attributes: Mapping[str, Attribute]
    columns: tuple[str, ...]
    renamed: Mapping[str, str]
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    modified: tuple[str, ...]
    moved: bool
    added_keys: tuple[ForeignKey, ...]
    dropped_keys: tuple[ForeignKey, ...]
    added_indexes: tuple[IndexDeclaration, ...]
    dropped_indexes: Mapping[str, IndexDeclaration]
    comment_changes: bool

    def __bool__(self) -> bool:
        return bool(self.lines())

    def lines(self) -> list[str]:
        """Return the changes as lines of text."""
        inherited = {name for key in self.added_keys for name in key.attributes}
        shown = {name: attribute_line(attribute) for name, attribute in self.attributes.items()}
        return [
            *(f"drop attribute   {name}" for name in self.dropped),
            *(f"rename attribute {old} to {new}" for new, old in self.renamed.items()),
            *(f"add attribute    {shown[name]}" for name in self.added if name not in inherited),
            *(f"change attribute {shown[name]}" for name in self.modified),
            *(["reorder to       " + ", ".join(self.columns)] if self.moved else []),
            *(f"drop foreign key {foreign_key_line(key, str)}" for key in self.dropped_keys),
            *(f"add foreign key  {foreign_key_line(key, str)}" for key in self.added_keys),
            *(f"drop             {index_line(i)}" for i in self.dropped_indexes.values()),
            *(f"add              {index_line(index)}" for index in self.added_indexes),
            *([f"comment          {self.plan.comment!r}"] if self.comment_changes else []),
        ]


def altered_meanwhile(name: TableName) -> QueryError:
    """Return the error for a table that has changed since its changes were found."""
    return QueryError(
        f"{name} was altered by someone else meanwhile, and nothing was changed here: compare the "
        "definition with describe(), and call alter() again."
    )


def alteration(
    present: Present,
    plan: PlannedTable,
    wanted: Callable[[PlannedTable], StoredTable],
    index_part: Callable[[str], str],
    *,
    server_indexes_keys: bool,
) -> Alteration:
    """Return the changes that a table needs.

    Parameters
    ----------
    wanted
        Returns the heading that a planned table will have.
    index_part
        Returns a part of an index as the database keeps it.
    server_indexes_keys
        Whether the server makes indexes for foreign keys automatically.

    Raises
    ------
    DefinitionError
        If the primary key, or a foreign key in it, would change.
    """
    renamed, plan = _renames(present, plan)
    names = {old: new for new, old in renamed.items()}
    goal = wanted(plan)
    _check_key(present, plan, goal)
    before = [_renamed_key(key, names) for key in present.raw.foreign_keys]
    added_keys = [k for k in plan.foreign_keys if not any(same_foreign_key(k, b) for b in before)]
    dropped_keys = [
        key
        for key, new in zip(present.raw.foreign_keys, before, strict=True)
        if not any(same_foreign_key(new, planned) for planned in plan.foreign_keys)
    ]
    _check_foreign_keys(plan, [*added_keys, *dropped_keys])
    pointed = [_renamed_key(key, names) for key in external_keys(present.raw)]
    added_keys += [
        key for key in plan.external if not any(same_foreign_key(key, old) for old in pointed)
    ]
    staying_keys = [key for key in pointed if _stays(key, plan)]
    dropped_external = [
        key
        for key, new in zip(external_keys(present.raw), pointed, strict=True)
        if new not in staying_keys
    ]
    made_by_server = [*plan.foreign_keys, *plan.external, *staying_keys]
    columns = [names.get(column.name, column.name) for column in present.raw.columns]
    order = _order(present, plan, names, dropped_keys)
    staying = [name for name in order if name in columns]
    wanted_indexes = [
        replace(index, parts=tuple(map(index_part, index.parts)), line=0)
        for index in own_indexes(plan.indexes, made_by_server, server_indexes_keys)
    ]
    found = {name: _renamed_index(index, names) for name, index in present.indexes.items()}
    kept = own_indexes(found.values(), made_by_server, server_indexes_keys)
    extra, missing = _difference(found, kept, wanted_indexes)
    return Alteration(
        plan,
        goal.heading.all_attributes,
        tuple(order),
        renamed,
        tuple(name for name in order if name not in columns),
        tuple(c.name for c in present.raw.columns if names.get(c.name, c.name) not in order),
        tuple(
            column.name
            for column in plan.columns
            if column.name in staying and _differs(present, column, goal, renamed)
        ),
        staying != [name for name in columns if name in staying],
        tuple(added_keys),
        (*dropped_keys, *dropped_external),
        tuple(missing),
        extra,
        plan.comment != present.raw.comment,
    )


def _renames(present: Present, plan: PlannedTable) -> tuple[dict[str, str], PlannedTable]:
    """Parse ``{old_name}`` at the beginning of comments, and remove it from them.

    Other words in braces are a part of the comment, as they are where a table is declared.
    """
    there = {column.name: column for column in present.raw.columns}
    planned = {column.name for column in plan.columns}
    renamed: dict[str, str] = {}
    columns: list[PlannedColumn] = []
    for column in plan.columns:
        comment = split_comment(column.comment)[1] if column.declared else ""
        match = _RENAMES.match(comment)
        if match and column.declared and column.name not in plan.key:
            without = comment[match.end() :]
            # A definition may keep the name after the renaming.
            is_renamed = column.name in there and (
                split_comment(there[column.name].comment)[1] == without
            )
            if column.name not in there and match[1] in there and match[1] not in planned:
                renamed[column.name], is_renamed = match[1], True
            if is_renamed:
                # A schema of DataJoint 0.14 lacks types before comments.
                before = column.comment.removesuffix(comment)
                column = replace(column, comment=before + without)
        columns.append(column)
    return renamed, replace(plan, columns=tuple(columns))


def _check_key(present: Present, plan: PlannedTable, goal: StoredTable) -> None:
    before, after = present.raw.primary_key, plan.key
    heading = present.stored.heading
    types = [
        name
        for name in after
        if name in heading and not same_type(heading[name].type, goal.heading[name].type)
    ]
    if before != after or types:
        raise DefinitionError(
            f"The primary key of {plan.name} cannot be altered: it is "
            f"({_typed(heading.all_attributes, before)}), and the definition says "
            f"({_typed(goal.heading.all_attributes, after)}). Declare a new table with the new "
            "key, copy the rows, and drop this one."
        )


def _typed(attributes: Mapping[str, Attribute], names: Sequence[str]) -> str:
    kinds = [(name, attributes[name].type) for name in names]
    return ", ".join(f"{name} : {kind.text if kind else '?'}" for name, kind in kinds)


def _check_foreign_keys(plan: PlannedTable, changed: Sequence[ForeignKey]) -> None:
    for foreign_key in changed:
        if foreign_key.attributes.keys() <= set(plan.key):
            raise DefinitionError(
                f"The foreign key {foreign_key_line(foreign_key, str)} of {plan.name} is in its "
                "primary key, which cannot be altered: declare a new table and copy the rows."
            )


def _order(
    present: Present,
    plan: PlannedTable,
    names: Mapping[str, str],
    dropped_keys: Sequence[ForeignKey],
) -> list[str]:
    """Return the columns of the new table; hidden ones are kept unless they are inherited."""
    inherited = {name for key in plan.foreign_keys for name in key.attributes}
    gone = {name for key in dropped_keys for name in key.attributes}
    there = [names.get(column.name, column.name) for column in present.raw.columns]
    order = [
        column.name
        for column in plan.columns
        if not column.name.startswith("_") or column.name in {*inherited, *there}
    ]
    hidden = [name for name in there if name.startswith("_") and name not in gone]
    return [*order, *(name for name in hidden if name not in order)]


def _differs(
    present: Present, column: PlannedColumn, goal: StoredTable, renamed: Mapping[str, str]
) -> bool:
    old_name = renamed.get(column.name, column.name)
    stored = next(c for c in present.raw.columns if c.name == old_name)
    old = present.stored.heading.all_attributes[old_name]
    new = goal.heading.all_attributes[column.name]
    return (
        (old.nullable, old.comment) != (new.nullable, new.comment)
        or not same_type(old.type, new.type)
        or not same_default(old.default, new.default, new.type)
        # An inherited column has the type of its parent; its comment need not contain it.
        or (column.declared is None and (stored.comment != column.comment))
    )


def _stays(pointer: ForeignKey, plan: PlannedTable) -> bool:
    """Whether a column keeps pointing into the same store."""
    (name,) = pointer.attributes
    planned = [key.parent for key in plan.external if name in key.attributes]
    there = any(column.name == name for column in plan.columns)
    return there and (not planned or planned == [pointer.parent])


def _renamed_key(foreign_key: ForeignKey, names: Mapping[str, str]) -> ForeignKey:
    attributes = {names.get(own, own): old for own, old in foreign_key.attributes.items()}
    return replace(foreign_key, attributes=attributes)


def _renamed_index(index: IndexDeclaration, names: Mapping[str, str]) -> IndexDeclaration:
    parts = [re.sub(r"^\w+", lambda word: names.get(word[0], word[0]), p) for p in index.parts]
    return replace(index, parts=tuple(parts))


def _difference(
    found: Mapping[str, IndexDeclaration],
    kept: Sequence[IndexDeclaration],
    wanted: Sequence[IndexDeclaration],
) -> tuple[dict[str, IndexDeclaration], list[IndexDeclaration]]:
    """Return the names of superfluous indexes, and the missing indexes.

    A definition may have an index twice, and so may the database.
    """
    here = {name: index for name, index in found.items() if index in kept}
    by_key = {index_key(index): index for index in wanted}
    extra = {name: index for name, index in here.items() if index_key(index) not in by_key}
    present = set(map(index_key, here.values()))
    return extra, [index for key, index in by_key.items() if key not in present]


_NUMERIC = (Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.BOOL)
# MySQL's own names for these types.
_SYNONYMS = {
    "numeric": "decimal",
    "integer": "int",
    "real": "double",
    "serial": "bigint unsigned auto_increment",
}


def same_type(old: AttributeType | None, new: AttributeType | None) -> bool:
    """Whether two types are the same, even if they are written differently."""
    return old == new or (
        old is not None
        and new is not None
        and old.auto_increment == new.auto_increment
        and _canonical(old) == _canonical(new)
    )


def _canonical(kind: AttributeType) -> str:
    word = re.match(r"\w+", kind.text)
    name = word[0] if word else ""
    return _SYNONYMS.get(name, name) + kind.text[len(name) :]


def same_default(old: Default | None, new: Default | None, kind: AttributeType | None) -> bool:
    """Whether two defaults are the same value, which servers may write differently."""
    if old is None or new is None or old == new:
        return old == new
    if old.is_expression or new.is_expression or kind is None:
        return old.value.upper() == new.value.upper()
    if kind.family in _NUMERIC:
        try:
            one, other = Decimal(old.value), Decimal(new.value)
        except InvalidOperation:
            return False
        # Servers show six digits of a float of 32 bits.
        return one == other or (kind.is_single and f"{one:.6g}" == f"{other:.6g}")
    if kind.family is Family.DATETIME:
        return _whole(old.value) == _whole(new.value)
    return False


def _whole(moment: str) -> str:
    """Return the text of a moment without insignificant zeros."""
    return re.sub(r"( 00:00:00)?(\.0+)?$", "", moment)


def same_foreign_key(one: ForeignKey, other: ForeignKey) -> bool:
    """Whether two foreign keys relate the same attributes."""
    return (one.parent, one.attributes) == (other.parent, other.attributes)


# MariaDB indexes so many characters of a text, or bytes, where it is indexed as a whole.
_LONGEST_PREFIX = re.compile(r"\((?:768|3072)\)$")


def index_key(index: IndexDeclaration) -> tuple[bool, tuple[str, ...]]:
    """Return a key that identifies an index; servers may write its expressions differently."""
    parts = [
        re.sub(r"[`()\s]|_utf8mb4", "", part).lower()
        if part.startswith("(")
        else _LONGEST_PREFIX.sub("", "".join(part.split()))
        for part in index.parts
    ]
    return index.unique, tuple(parts)


def single_floats(present: Present, changes: Alteration) -> Iterator[str]:
    """Yield the columns of 32-bit floats that become longer floats or decimals."""
    for name in changes.modified:
        old = changes.renamed.get(name, name)
        kind, new = present.stored.heading.all_attributes[old].type, changes.attributes[name].type
        grows = new is not None and new != kind and new.family in (Family.FLOAT, Family.DECIMAL)
        if grows and kind is not None and kind.is_single:
            yield old


def needed_indexes(changes: Alteration) -> Iterator[IndexDeclaration]:
    """Yield indexes for foreign keys whose index is dropped: the server requires one for each."""
    for foreign_key in changes.plan.foreign_keys:
        columns = tuple(foreign_key.attributes)
        dropped = [index.parts[: len(columns)] for index in changes.dropped_indexes.values()]
        if columns in dropped:
            yield IndexDeclaration(columns)

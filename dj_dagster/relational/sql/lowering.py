"""Translation of query trees to SQL, and their SQL as text with literal values, for users."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading, Value
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra import nodes
from dj_dagster.relational.algebra.condition import Order, order_terms
from dj_dagster.relational.algebra.nodes import (
    Aggregated,
    Base,
    Computed,
    Condition,
    Grouped,
    Joined,
    JSONPath,
    Listed,
    Matches,
    Negated,
    Node,
    Projected,
    Restricted,
    SQLText,
    Topped,
    United,
    Written,
)
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.backends.common import Element
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.select import (
    AttributeOrigin,
    Conditions,
    Lowered,
    bound,
    in_all,
    json_sql,
)
from dj_dagster.relational.user_sql.emission import lone_aggregate, outside_aggregates
from dj_dagster.relational.user_sql.parsing import parse


class Lowering:
    """Translates query trees to SQL for one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._numbers = count(1)
        self._conditions = Conditions(backend, self._side)

    def lower(self, node: Node) -> Lowered:
        """Return a query's SQL parts; each call makes aliases of its own."""
        match node:
            case Base():
                return self._base(node)
            case Restricted():
                return self._restricted(node)
            case Projected():
                return self._projected(node)
            case Joined():
                return self._joined(node.left, node.right, node.shared, node.outer)
            case Aggregated():
                return self._aggregated(node)
            case Grouped():
                return self._grouped(node)
            case United():
                return self._united(node)
            case Listed():
                return self._listed(node)
            case Written():
                return self._written(node)
            case Topped():
                return self._topped(node)
            case _:
                raise QueryError(f"There is no SQL for {type(node).__name__}.")

    def ordered(
        self, node: Node, order_by: Order, limit: int | None = None, offset: int | None = None
    ) -> Lowered:
        """Return a query's SQL parts in an order; None leaves the order of a `Top`.

        Raises
        ------
        UnknownAttributeError
            If the order names an attribute that the query lacks.
        """
        over = self.lower(node)
        if order_by is not None:
            over = over.wrapped(node.heading.all_attributes) if over.is_cut else over
            over = self._in_order(over, order_terms(order_by, node.heading), node.heading)
        return over.cut(limit, offset)

    def target(self, base: Base) -> tuple[sa.TableClause, Lowered]:
        """Return a table itself, not an alias, for statements that change it."""
        columns = [sa.column(name) for name in base.heading.all_attributes]
        table = self._backend.sql_table(base.name, *columns)
        return table, Lowered(table, dict(table.c))

    def where(self, condition: Condition, over: Lowered, heading: Heading) -> Element:
        """Return a condition as SQL over the columns of `over`."""
        return self._conditions.where(condition, over, heading)

    def _base(self, node: Base) -> Lowered:
        columns = [sa.column(name) for name in node.heading.all_attributes]
        # SQLAlchemy's own aliases would contain a dot on SQLite, which misreads such names in
        # joins.
        alias = f"t{next(self._numbers)}"
        source = self._backend.sql_table(node.name, *columns).alias(alias)
        return Lowered(source, dict(source.c))

    def _restricted(self, node: Restricted) -> Lowered:
        over, heading = self.lower(node.source), node.source.heading
        if keeps_all(node.condition):
            return over
        nested = self._conditions.has_select(node.condition)
        # Window functions also count the rows before the restriction.
        if over.is_cut or over.group == () or over.opaque or (nested and not over.plain):
            over = over.wrapped(heading.all_attributes)
        element = self.where(node.condition, over, heading)
        nested = nested or over.nested
        names = self._conditions.names(node.condition) & over.columns.keys()
        if over.group is not None and (nested or not names <= over.constant):
            return replace(over, having=(*over.having, element), nested=nested)
        return replace(over, where=(*over.where, element), nested=nested)

    def _projected(self, node: Projected) -> Lowered:
        heading = node.source.heading
        over = self._ready(self.lower(node.source), node.columns, heading)
        same = {new: old for new, old in node.columns.items() if isinstance(old, str)}
        return replace(
            over,
            columns=self._columns(node.columns, over, heading),
            origins=self._origins(node.columns, over, heading),
            opaque=self._opaque(node.columns) | {new for new in same if same[new] in over.opaque},
            constant=frozenset(new for new in same if same[new] in over.constant),
            plain=over.plain and all(new == old for new, old in node.columns.items()),
            nested=over.nested or self._has_select(node.columns),
        )

    def _joined(self, left: Node, right: Node, shared: tuple[str, ...], outer: bool) -> Lowered:
        ours, theirs = self._side(left), self._side(right)
        if outer and not all(map(_is_column, theirs.columns.values())):
            # In rows without a partner, a computed attribute is null too.
            theirs = theirs.wrapped(right.heading.all_attributes)
        on = [ours.columns[name] == theirs.columns[name] for name in shared]
        on += theirs.where if outer else ()
        return Lowered(
            sa.join(ours.source, theirs.source, sa.and_(sa.true(), *on), isouter=outer),
            {**theirs.columns, **ours.columns},
            ours.where if outer else (*ours.where, *theirs.where),
            plain=False,
            origins={
                **{n: theirs.origins[n] for n in theirs.origins if n not in ours.columns},
                **ours.origins,
            },
        )

    def _aggregated(self, node: Aggregated) -> Lowered:
        over = self._joined(node.source, node.group, node.shared, node.outer)
        ours, theirs = node.source.heading.all_attributes, node.group.heading.attributes
        both = Heading({**theirs, **ours}.values())
        # The hidden key of a singleton table identifies its only row.
        key = tuple(name for name in ours if ours[name].in_key and name in over.columns)
        return self._in_groups(over, key, node.columns, both)

    def _grouped(self, node: Grouped) -> Lowered:
        over = self._side(node.source)
        if node.whole:
            heading = node.source.heading
            over = self._ready(over, node.columns, heading)
            texts = [what.text for what in node.columns.values() if isinstance(what, SQLText)]
            # MySQL does not count ANY_VALUE() as an aggregate; one in HAVING makes one row of all.
            is_many = "ANY_VALUE" in map(lone_aggregate, texts)
            return replace(
                over,
                columns=self._columns(node.columns, over, heading),
                origins=self._origins(node.columns, over, heading),
                group=(),
                having=(sa.func.count() >= 0,) if is_many else (),
            )
        return self._in_groups(over, node.names, node.columns, node.source.heading)

    def _in_groups(
        self,
        over: Lowered,
        key: tuple[str, ...],
        columns: Mapping[str, Computed],
        heading: Heading,
    ) -> Lowered:
        over = self._ready(over, columns, heading)
        found = self._columns(columns, over, heading)
        kept = [new for new, old in columns.items() if not isinstance(old, SQLText)]
        by = [over.columns[name] for name in key]
        # Attributes that depend on the key are required too, by MariaDB.
        by += [found[new] for new in kept if columns[new] not in key]
        texts = [what.text for what in columns.values() if isinstance(what, SQLText)]
        loose = dict.fromkeys(name for text in texts for name in outside_aggregates(text))
        by += [over.columns[name] for name in loose if name in over.columns and name not in key]
        return replace(
            over,
            columns=found,
            origins=self._origins(columns, over, heading),
            group=tuple(by or [sa.null()]),
            constant=frozenset(new for new in kept if isinstance(columns[new], str)),
            plain=False,
            nested=over.nested or self._has_select(columns),
        )

    def _united(self, node: United) -> Lowered:
        left, right = node.left.heading, node.right.heading
        key, names = tuple(node.heading.primary_key), node.heading.names
        if len(key) == len(names):
            sides = [self._side(side) for side in (node.left, node.right)]
            return _from(sides, sa.union(*(side.select(*key) for side in sides)))
        first = self._joined(node.left, node.right, key, outer=True)
        rest = self._side(node.right)
        missing = self.where(Negated(Matches(key, node.left)), rest, right)
        nulls = {name: sa.null() for name in left.names if name not in key}
        rest = replace(rest, columns={**rest.columns, **nulls}, where=(*rest.where, missing))
        rows = sa.union_all(first.select(*names), rest.select(*names))
        return _from(
            [first, replace(rest, columns={n: rest.columns[n] for n in right.names})], rows
        )

    def _listed(self, node: Listed) -> Lowered:
        names = node.heading.names
        if not node.parts:
            source = sa.select(*(sa.null().label(name) for name in names)).subquery()
            return Lowered(source, dict(source.c), (sa.false(),))
        sides = list(map(self._side, node.parts))
        return _from(sides, sa.union_all(*(side.select(*names) for side in sides)))

    def _written(self, node: Written) -> Lowered:
        given = sa.func.json_each(json.dumps(node.rows)).table_valued("value")
        values = [
            sa.func.json_extract(given.c.value, f"$[{position}]").label(name)
            for position, name in enumerate(node.heading.names)
        ]
        source = sa.select(*values).subquery()
        return Lowered(source, dict(source.c))

    def _topped(self, node: Topped) -> Lowered:
        over = self.lower(node.source)
        if over.is_cut:
            over = over.wrapped(node.heading.all_attributes)
        return self._in_order(over, node.order, node.heading).cut(node.limit, node.offset)

    def _in_order(self, over: Lowered, terms: tuple[str, ...], heading: Heading) -> Lowered:
        names = [term.removesuffix(" DESC") for term in terms]
        texts = [name for name in names if name not in heading]
        words = frozenset[str]().union(*(parse(text).words for text in texts))
        nested = any(parse(text).nested for text in texts)
        is_used = over.opaque & words.union(names) or _keys(over) & words
        if is_used or (nested and not over.plain):
            over = over.wrapped(heading.all_attributes)
        columns = [self._conditions.order(name, over, heading) for name in names]
        order = [
            column.desc() if term.endswith(" DESC") else column.asc()
            for term, column in zip(terms, columns, strict=True)
        ]
        return replace(over, order=tuple(order), nested=over.nested or nested)

    def _side(self, node: Node, names: Iterable[str] | None = None) -> Lowered:
        """Return a query that others can be joined with in one SELECT, with at least `names`."""
        side = self.lower(node)
        if side.is_simple:
            return replace(side, order=())
        return side.wrapped(node.heading.all_attributes if names is None else names)

    def _ready(self, over: Lowered, columns: Mapping[str, Computed], heading: Heading) -> Lowered:
        """Return a query over which columns can be computed, in a subquery where needed."""
        if self._has_select(columns) and not over.plain:
            return over.wrapped(heading.all_attributes)
        texts = [what.text for what in columns.values() if isinstance(what, SQLText)]
        words = frozenset[str]().union(*(parse(text).words for text in texts))
        again = words & (over.opaque | _keys(over))
        return over.wrapped(heading.all_attributes) if again else over

    def _columns(
        self, columns: Mapping[str, Computed], over: Lowered, heading: Heading
    ) -> dict[str, Element]:
        return {new: self._column(what, over, heading) for new, what in columns.items()}

    def _origins(
        self, columns: Mapping[str, Computed], over: Lowered, heading: Heading
    ) -> dict[str, AttributeOrigin]:
        found = {new: self._origin(what, over, heading) for new, what in columns.items()}
        return {name: origin for name, origin in found.items() if origin is not None}

    def _origin(self, what: Computed, over: Lowered, heading: Heading) -> AttributeOrigin | None:
        match what:
            case SQLText(text):
                return self._conditions.origin(text, over, heading)
            case JSONPath():
                return self._conditions.origin(json_sql(what), over, heading)
            case _:
                return over.origins.get(what)

    def _column(self, what: Computed, over: Lowered, heading: Heading) -> Element:
        match what:
            case SQLText(text):
                return self._conditions.text(text, over, heading)
            case JSONPath():
                return self._conditions.json_value(what, over)
            case _:
                return over.columns[what]

    def _has_select(self, columns: Mapping[str, Computed]) -> bool:
        return any(
            self._conditions.has_select(what)
            for what in columns.values()
            if isinstance(what, SQLText)
        )

    def _opaque(self, columns: Mapping[str, Computed]) -> frozenset[str]:
        return frozenset(
            new
            for new, what in columns.items()
            if isinstance(what, SQLText) and not parse(what.text).repeatable
        )


def _keys(over: Lowered) -> frozenset[str]:
    """Return computed attributes that rows are grouped by: servers know them only as a whole."""
    return frozenset(name for name in over.constant if not _is_column(over.columns[name]))


def _is_column(element: Element) -> bool:
    return isinstance(element, sa.ColumnClause) and not element.is_literal


def _from(sides: Sequence[Lowered], rows: sa.CompoundSelect[Any]) -> Lowered:
    source = rows.subquery()
    return Lowered(source, dict(source.c), origins=in_all(sides))


def with_literals(sql: sa.ClauseElement, dialect: sa.Dialect) -> str:
    """Return the text of SQL in which values are literals.

    Raises
    ------
    sqlalchemy.exc.CompileError
        If a value cannot be written as a literal.
    """
    compiler = _compiler(dialect.statement_compiler)
    text = str(compiler(dialect, sql, compile_kwargs={"literal_binds": True}))
    return text.replace("%%", "%") if dialect.paramstyle in ("format", "pyformat") else text


@cache
def _compiler(usual: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return a compiler that also writes literals of bytes, which SQLAlchemy takes for text."""

    def render_literal_value(
        self: SQLCompiler, value: Value, type_: sa.types.TypeEngine[Value]
    ) -> str:
        if isinstance(value, bytes):
            return f"X'{value.hex()}'"
        return usual.render_literal_value(self, value, type_)

    return type("Literals", (usual,), {"render_literal_value": render_literal_value})


def condition_text(
    connection: Connection, condition: nodes.Condition, heading: Heading
) -> str | bool:
    """Return a condition as a text; True or False where it selects all rows or none."""
    spelling = _spelling(connection)
    over = Lowered(sa.table("t"), {name: sa.column(name) for name in heading.all_attributes})

    def spelled(part: nodes.Condition) -> str:
        match part:
            case nodes.SQLText(text):
                return f" ({text.strip()})"
            case nodes.Equals(name, value):
                known = None if value is None else bound([value], heading[name], connection.backend)
                plain = known[0] if known else None
                if isinstance(plain, str) and heading[name].family is Family.UUID:
                    # SQL is as on a server, where it is bytes.
                    plain = UUID(plain).bytes
                return _equality(name, plain)
            case nodes.In():
                return spelled(_one_by_one(part))
            case nodes.All(parts) if parts:
                return f" ({')AND('.join(map(spelled, parts))})"
            case nodes.AnyOf(parts) if parts:
                return f" ({' OR '.join(map(spelled, parts))})"
            case nodes.Negated(inner) if not isinstance(inner, nodes.Matches):
                return opposite(inner)
            case _:
                where = spelling.where(part, over, heading)
                return with_literals(where, connection.engine.dialect)

    def opposite(part: nodes.Condition) -> str:
        match part:
            case nodes.Equals(_, None):
                return f"NOT ({spelled(part)})"
            case nodes.Equals(name, _):
                return f" (NOT ({spelled(part)}) OR `{name}` IS NULL)"
            case nodes.All(parts):
                return spelled(nodes.AnyOf(tuple(map(nodes.Negated, parts))))
            case nodes.AnyOf(parts):
                return spelled(nodes.All(tuple(map(nodes.Negated, parts))))
            case nodes.Negated(inner):
                return spelled(inner)
            case nodes.In():
                return opposite(_one_by_one(part))
            case _:
                # A comparison with null is unknown, which counts as false for the user.
                return f" ({spelled(part)} IS NOT TRUE)"

    if isinstance(condition, nodes.PassedOver) or condition in (nodes.ALWAYS, nodes.NEVER):
        return condition != nodes.NEVER
    return spelled(condition)


def names_in(connection: Connection, condition: nodes.Condition) -> frozenset[str]:
    """Return the names that a condition reads, and perhaps more words of its SQL."""
    return _spelling(connection).names(condition)


def restriction_texts(connection: Connection, node: nodes.Node) -> list[str]:
    """Return the restrictions of a query, one text each."""
    texts: list[str] = []
    while isinstance(node, nodes.Restricted):
        text = condition_text(connection, node.condition, node.heading)
        if text is not True:
            texts.insert(0, text or "FALSE")
        node = node.source
    return texts


def _spelling(connection: Connection) -> Conditions:
    lowering = Lowering(connection.backend)
    return Conditions(connection.backend, lambda node, names: lowering.lower(node))


def _one_by_one(condition: nodes.In) -> nodes.AnyOf:
    """Return the equalities that a list of values stands for."""
    rows = (tuple(map(nodes.Equals, condition.names, row)) for row in condition.values)
    return nodes.AnyOf(tuple(map(nodes.All, rows)))


def _equality(name: str, value: Value) -> str:
    match value:
        case None:
            return f"`{name}` IS NULL"
        case bytes():
            return f"`{name}`=X'{value.hex()}'"
        case int() | float() | Decimal():
            return f"`{name}`={value}"
        case _:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'`{name}`="{text}"'


def keeps_all(condition: nodes.Condition) -> bool:
    """Whether a condition holds for every row, such as an empty key or names that are missing."""
    match condition:
        case nodes.PassedOver():
            return True
        case nodes.All(conditions):
            return all(map(keeps_all, conditions))
        case _:
            return False

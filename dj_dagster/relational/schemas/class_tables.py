"""Tables of decorated classes: parsing of definitions, lookup of names, creation of tables."""

from __future__ import annotations

import ast
import inspect
import sys
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from inspect import cleandoc
from typing import TypeGuard

from dj_dagster.compat.spellings import register_adapters
from dj_dagster.definition import parse_definition
from dj_dagster.errors import DataJointError, DefinitionError, MissingDefinitionError
from dj_dagster.model.heading import ForeignKeyDeclaration, TableDefinition
from dj_dagster.model.job_settings import with_job_metadata, with_provenance
from dj_dagster.model.names import TableName, Tier, sql_table_name, underscore_warning
from dj_dagster.relational.caller import Scope, warn_caller
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.declaring.plan import FindParent, PlannedTable
from dj_dagster.relational.schemas.cycles import check_acyclic, check_half_imported, check_imports
from dj_dagster.relational.schemas.free_table import StoredClasses
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Binding, Lookup, Part, Table, TableMeta


@dataclass(frozen=True, slots=True)
class Declaring:
    """Declares the tables of a schema's classes.

    Attributes
    ----------
    scope
        The names that definitions may use, besides those of the class's own module and family.
    create
        Whether a table that does not exist is created; otherwise the use of its class is an error.
    """

    connection: Connection
    schema: str
    scope: Scope
    create: bool

    def declare(self, cls: type[Table]) -> None:
        """Declare the tables of a class and its parts, none of them if a definition is wrong.

        Raises
        ------
        DefinitionError
            If a definition does not parse or refers to an unknown table.
        """
        family = family_of(cls)
        # All definitions are read before the first table is declared.
        plans = [None if self._is_as_stored(table) else self._read(table) for table in family]
        for table, definition in zip(family, plans, strict=True):
            self._declare(table, definition)
        for table in family:
            if issubclass(table, Lookup) and table().is_declared:
                _fill(table)

    def find_parent(self, cls: type[Table], item: ForeignKeyDeclaration) -> StoredTable:
        """Return the table that a line of a class's definition refers to.

        Raises
        ------
        DefinitionError
            If the table does not exist, or it has not been declared yet.
        """
        return find_declared(item.target, cls, self._scope(cls))().stored

    def _is_as_stored(self, cls: type[Table]) -> bool:
        """Whether a class lacks a definition because its table already exists."""
        return (
            not definition_text(cls) and self.connection.catalog.find(self._name(cls)) is not None
        )

    def _read(self, cls: type[Table]) -> TableDefinition:
        """Return a class's definition after a check of the tables that it refers to."""
        self._check_name(cls, self._name(cls))  # raises before anything is declared
        with self._named(cls):
            repeats = self.connection.era == "0.14"
            definition = read_definition(cls, class_name(cls), repeats=repeats)
        if definition.deprecations:
            warn_caller("\n".join(definition.deprecations), DeprecationWarning)
        scope, family = self._scope(cls), family_of(cls)
        codecs = {item.type.codec for item in definition.attributes if item.type.codec}
        register_adapters(self.connection.codecs, codecs, scope.found)
        for item in definition.foreign_keys:
            if item.target != "self":
                with located(cls, class_name(cls), item.line):
                    if _target(item.target, cls, scope) not in family:
                        self._check_parent(cls, find_declared(item.target, cls, scope))
        return definition

    @contextmanager
    def _named(self, cls: type[Table]) -> Generator[None]:
        """Bind a class that has its own ``__init__`` to its future table during the block."""
        before = cls._binding
        if before is None and has_own_init(cls):
            cls._binding = Binding(self.connection, self._name(cls), class_name(cls))
        try:
            yield
        finally:
            cls._binding = before

    def _check_parent(self, cls: type[Table], parent: type[Table]) -> None:
        """Refuse a foreign key to another schema when schemas or modules would form a circle.

        Tables that already exist stay in use, whatever they refer to.
        """
        name, other = self._name(cls), parent().name
        if parent().connection.url != self.connection.url:
            raise DefinitionError(
                f"{cls.__qualname__} refers to {other}, which is in another database: "
                f"{parent().connection.url}, not {self.connection.url}."
            )
        if other.schema != self.schema and self.connection.catalog.find(name) is None:
            check_imports(cls, parent)
            check_acyclic(self.connection, name, [other])

    def _check_name(self, cls: type[Table], name: TableName) -> None:
        """Warn of a class name with underscores, and of another class with the same table."""
        # An underscore at the end distinguishes a class name from a keyword.
        if "_" in cls.__name__.rstrip("_"):
            warn_caller(underscore_warning(cls.__name__), UserWarning)
        others = {
            found.__name__
            for found in self.scope.layers[-1].values()
            if is_table(found) and found._binding is not None and found._binding.name == name
        }
        others.discard(cls.__name__)
        if others:
            warn_caller(
                f"The classes {cls.__name__} and {', '.join(sorted(others))} have the same table, "
                f"{name}: underscores and case do not count in its name. Rename one of them.",
                UserWarning,
            )

    def _name(self, cls: type[Table]) -> TableName:
        master = self._name(cls.master).table if issubclass(cls, Part) else None
        return TableName(self.schema, sql_table_name(cls.__name__, cls.tier, master))

    def plan(self, cls: type[Table], context: Mapping[str, object] | None = None) -> PlannedTable:
        """Return the table that a class's definition asks for, whether or not it exists.

        Parameters
        ----------
        context
            Names that take precedence over the schema's.

        Raises
        ------
        DefinitionError
            If the definition does not parse or refers to an unknown table.
        """
        if context is not None:
            scope = Scope((context, *self.scope.layers))
            return replace(self, scope=scope).plan(cls)
        definition, find = self._completed(cls, self._read(cls))
        place = partial(located, cls, class_name(cls))
        return declare.planned(self.connection, self._name(cls), definition, find, place)

    def _declare(self, cls: type[Table], definition: TableDefinition | None) -> None:
        name = self._name(cls)
        if definition is not None:
            definition, find = self._completed(cls, definition)
            declare.ensure_table(
                self.connection,
                name,
                definition,
                find,
                create=self.create,
                place=partial(located, cls, class_name(cls)),
            )
        cls._binding = Binding(self.connection, name, class_name(cls), partial(self.plan, cls))
        _document(cls)

    def _completed(
        self, cls: type[Table], definition: TableDefinition
    ) -> tuple[TableDefinition, FindParent]:
        """Return a definition with its tier's hidden attributes, and the lookup of parents."""
        computed = cls.tier in (Tier.IMPORTED, Tier.COMPUTED)
        if computed and self.connection.job_settings.add_job_metadata:
            definition = with_job_metadata(definition)
        if cls.tier is Tier.MANUAL and self.connection.provenance.capture:
            definition = with_provenance(definition)

        def find(item: ForeignKeyDeclaration) -> StoredTable:
            if item.target == "self":
                return declare.own_key(self._name(cls), definition, find, self.connection)
            return self.find_parent(cls, item)

        return definition, find

    def _scope(self, cls: type[Table]) -> Scope:
        """Return a class's scope: master first, module before the schema's tables, siblings last.

        The definition of an existing table may also refer to other existing tables, as in a program
        that keeps the classes of one schema in several modules.
        """
        master, *parts = family_of(cls)
        names: dict[str, type[Table]] = {master.__name__: master, "self": cls}
        siblings: dict[str, type[Table]] = {}
        if issubclass(cls, Part):
            names["master"] = master
            # Siblings come last and exclude the part itself, which may have the name of a table
            # that it refers to.
            siblings = {part.__name__: part for part in parts if part is not cls}
        *near, tables = self.scope.layers
        module = vars(sys.modules.get(cls.__module__, object))
        known = self.connection.catalog.find(self._name(cls)) is not None
        stored = (StoredClasses(self.connection, self.schema),) if known else ()
        return Scope((names, *near, module, tables, siblings, *stored))


def _target(target: str, cls: type[Table], scope: Scope) -> type[Table]:
    """Return the class that a foreign key names."""
    try:
        return find_class(target, cls, scope)
    except DefinitionError:
        check_half_imported(cls, target, scope.found(target.partition(".")[0]))
        raise


def checked_class(cls: type[Table]) -> None:
    """Raise `DataJointError` unless a class can be declared on its own; link its parts to it."""
    if not is_table(cls) or not hasattr(cls, "tier"):
        raise DataJointError(
            f"{cls!r} is not a table: derive it from Manual, Lookup, Imported or Computed."
        )
    if issubclass(cls, Part):
        raise DataJointError(
            f"The part {cls.__name__} is declared with its master: "
            "write it inside the master's class and decorate that."
        )
    _adopt_parts(cls)
    for part in cls.part_classes():
        part.master = cls


def _adopt_parts(cls: type[Table]) -> None:
    """Derive parts for a class from those of base classes that are not declared themselves."""
    for base in cls.__mro__[1:]:
        if issubclass(base, Table) and base._binding is None:
            for part in base.part_classes():
                if part.__name__ not in vars(cls):
                    names = {"__module__": cls.__module__, "__doc__": part.__doc__}
                    names["__qualname__"] = f"{cls.__qualname__}.{part.__name__}"
                    setattr(cls, part.__name__, TableMeta(part.__name__, (part,), names))


def family_of(cls: type[Table]) -> tuple[type[Table], ...]:
    """Return a class's master and the master's parts, which are declared together."""
    master = cls.master if issubclass(cls, Part) else cls
    return (master, *master.part_classes())


def class_name(cls: type[Table]) -> str:
    """Return the name as users write it, a part's after its master's."""
    return f"{cls.master.__name__}.{cls.__name__}" if issubclass(cls, Part) else cls.__name__


def _document(cls: type[Table]) -> None:
    """Add the definition, as it is written, to the text that `help` shows."""
    text, written = definition_text(cls), cls.__doc__ or ""
    if text not in written:
        cls.__doc__ = f"{cleandoc(written)}\n\nDefinition:\n\n{text}\n".lstrip()


def _fill(cls: type[Lookup]) -> None:
    """Insert those contents of a lookup table that are missing."""
    rows = list(cls.contents)
    if len(cls()) >= len(rows):
        return
    kinds = [attribute.type for attribute in cls().heading.all_attributes.values()]
    if any(kind is not None and kind.auto_increment for kind in kinds) and len(cls()):
        warnings.warn(
            f"The contents of {cls.__name__} have grown, but its key counts by itself, so which "
            "rows are new cannot be told: insert them yourself.",
            stacklevel=4,
        )
        return
    names = cls().heading.names
    cls().insert([_named(row, names) for row in rows], skip_duplicates=True)


def _named(row: object, names: list[str]) -> object:
    """Return a row as a dict; a sequence has the order of the definition."""
    if (type(row) is tuple or type(row) is list) and len(row) == len(names):
        return dict(zip(names, row, strict=True))
    return row


def read_definition(cls: type[Table], class_name: str, *, repeats: bool = False) -> TableDefinition:
    """Parse the ``definition`` of a class; see `parse_definition` for `repeats`.

    Raises
    ------
    MissingDefinitionError
        If the class lacks one.
    DefinitionError
        If it does not parse; the message gives the line in the class's file.
    """
    text = definition_text(cls)
    if not text:
        raise MissingDefinitionError(
            f"The table {class_name} has no definition: write definition = '''...''' in its class."
        )
    try:
        return parse_definition(text, table=class_name, repeats=repeats)
    except DefinitionError:
        # Source files are read only for error messages, because that takes a while.
        file, first_line = _place(cls)
        return parse_definition(
            text, table=class_name, file=file, first_line=first_line, repeats=repeats
        )


def definition_text(cls: type[Table]) -> str:
    """Return the ``definition`` of a class or of those that it derives from, ``""`` without one.

    A property is evaluated on an instance that does not belong to a schema yet. A class with an
    ``__init__`` of its own, which may write the definition, is evaluated on an ordinary instance
    once it is bound.
    """
    found = inspect.getattr_static(cls, "definition", "")
    if has_own_init(cls) and cls._binding is not None:
        found = cls().definition
    elif isinstance(found, property):
        found = found.__get__(object.__new__(cls))
    return found if isinstance(found, str) else ""


def has_own_init(cls: type[Table]) -> bool:
    """Whether a class has an ``__init__`` other than that of `Table`."""
    return cls.__init__ is not Table.__init__


@contextmanager
def located(cls: type[Table], class_name: str, line: int) -> Generator[None]:
    """Prefix errors raised inside with the place of a line of the definition, counted from 1."""
    try:
        yield
    except DefinitionError as error:
        file, first_line = _place(cls)
        place = f"{file}:{first_line + line - 1}" if file else f"line {line}"
        raise DefinitionError(f"{place}, table {class_name}: {error}") from None


def _place(cls: type[Table]) -> tuple[str | None, int]:
    """Return the file of a class's definition and the line that its text begins on."""
    try:
        lines, start = inspect.getsourcelines(cls)
        indented = lines[0][:1].isspace()
        tree = ast.parse("".join(["if True:\n", *lines] if indented else lines))
        file = inspect.getsourcefile(cls)
    except (OSError, TypeError, SyntaxError):
        return None, 1
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for statement in found.body:
        match statement:
            case ast.Assign([ast.Name("definition")], value) | ast.AnnAssign(
                ast.Name("definition"), _, ast.expr() as value
            ):
                return file, start + value.lineno - 1 - indented
            case _:
                pass
    return file, start


def find_class(target: str, cls: type[Table], scope: Scope) -> type[Table]:
    """Return the table class that a foreign key names, declared or not.

    The name is `Session`, `lab.Subject` or `Session.Trial`; `master` is the class around a part.

    Raises
    ------
    DefinitionError
        If the table does not exist.
    """
    others: list[object] = []
    for found in scope.found(target):
        if is_table(found):
            return found
        others.append(found)
    if others:
        raise DefinitionError(
            f"{cls.__qualname__} refers to {target}, which is not a table but "
            f"a {type(others[0]).__name__}."
        )
    raise DefinitionError(_unknown(target, cls, scope))


def find_declared(target: str, cls: type[Table], scope: Scope) -> type[Table]:
    """Return the table class that a foreign key names; see `find_class`.

    Raises
    ------
    DefinitionError
        If the table does not exist, or it has not been declared yet.
    """
    found = find_class(target, cls, scope)
    if found is cls:
        raise DefinitionError(_to_itself(cls))
    if found._binding is None:
        raise DefinitionError(
            f"{cls.__qualname__} refers to {target}, which is not declared yet: "
            f"put {target} before it, decorate it with its schema, and activate that."
        )
    return found


def is_table(value: object) -> TypeGuard[type[Table]]:
    """Whether something is a table class."""
    return isinstance(value, TableMeta) and issubclass(value, Table)


def _to_itself(cls: type[Table]) -> str:
    return (
        f"{cls.__qualname__} refers to itself by its name, which is not known yet. Write self for "
        "it, with another name for its key: -> [nullable] self.proj(parent='...')."
    )


def _unknown(target: str, cls: type[Table], scope: Scope) -> str:
    known = sorted(
        name
        for name in scope.names() - {"self"}
        if any(is_table(found) and found._binding is not None for found in scope.found(name))
    )
    if target == "master":
        return f"{cls.__qualname__} refers to master, which only a part has: write a table's name."
    if target in (cls.__name__, cls.__qualname__):
        return _to_itself(cls)
    close = get_close_matches(target, known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return (
        f"{cls.__qualname__} refers to {target}, which is not a table known here. {hint}"
        "Declare it before this class, import it into the module, or pass it in the schema's "
        f"context. Known tables: {', '.join(known) or 'none'}."
    )

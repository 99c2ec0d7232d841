"""Short displays of queries: text, HTML for notebooks, Markdown for metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, InvalidValueError, ObjectError, counted
from dj_dagster.model.heading import Attribute, Heading, Row, Value, Values
from dj_dagster.model.types import Family
from dj_dagster.objects.blob.reader import unpacked_size
from dj_dagster.objects.codecs.arrays import NpyRef
from dj_dagster.objects.codecs.chain import CodecChain, ObjectContext
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.external_pointer import ExternalPointerType
from dj_dagster.objects.previews import ValuePreview, byte_text, preview, printable
from dj_dagster.relational.algebra.condition import Order
from dj_dagster.relational.algebra.nodes import Base, In, Node, Projected, Restricted
from dj_dagster.relational.algebra.operators import restrict
from dj_dagster.relational.backends.common import Element, Select
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import RowDecoder, decoder_of, undecoded
from dj_dagster.relational.fetching.fetch import Reading, read
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.sql.select import Window, make_window

_MOST_UNPACKED = 2**24
"""The most bytes that the unpacked value of a short blob may take."""


def stored_preview(
    chain: CodecChain, stored: Value, size: int | None, context: ObjectContext, most: int = 0
) -> ValuePreview | None:
    """Describe a column's content, None where only its type is known.

    Parameters
    ----------
    stored
        The content; for long bytes only the beginning.
    size
        The number of bytes, None for content that is not bytes.
    most
        The most bytes to read from a store; by default stores are not read.

    Raises
    ------
    ObjectError
        If the content is damaged, or its object missing.
    """
    if stored is None:
        return ValuePreview("None")
    if _is_at_hand(chain, stored, size, most):
        value = chain.decode(stored, context)
        small = isinstance(value, NpyRef) and value.nbytes <= most
        return preview(value.load() if small else value)
    try:
        text = chain.codecs[-1].describe(stored, size)
    except ObjectError:
        raise
    except Exception as error:
        # The content may be anything, and a third party's codec may raise any error.
        raise ObjectError(f"{context.place}: the reference is damaged: {error!r}.") from error
    return ValuePreview(text) if text else None


def _is_at_hand(chain: CodecChain, stored: Value, size: int | None, most: int) -> bool:
    if not all(codec.previews for codec in chain.codecs):
        return False
    if isinstance(stored, bytes):
        whole = size is None or size <= len(stored)
        return whole and unpacked_size(stored, len(stored)) <= _MOST_UNPACKED
    if chain.codecs[-1].lazy:
        return most > 0
    length = read_reference(stored).get("size")
    return length is not None and int(length) <= most


UNREADABLE = "(cannot be read)"
"""The text in place of a value that is damaged or without its object; the reason follows it."""


@dataclass(frozen=True, slots=True)
class Appetite:
    """The number of bytes to read of a large value to describe it.

    Attributes
    ----------
    inline
        For a value in its row; a longer one is described from its beginning.
    stored
        For a value in a store; a longer one is described from its reference.
    """

    inline: int = 4096
    stored: int = 0


def peek(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    order_by: Order,
    limit: int,
    appetite: Appetite,
) -> list[Values]:
    """Return rows of the named attributes, with `ValuePreview` for values of codecs and for bytes.

    A value that cannot be read is a `ValuePreview` too, whose text begins with `UNREADABLE`.
    """
    window = make_window(order_by, limit, None, node.heading)
    peeker = _Peeker(connection, node.heading, names, appetite)
    what = ("peek", *names, window, appetite)
    try:
        fetched, _ = read(connection, node, what, lambda: Reading(peeker.select(node, window)))
    except InvalidValueError:
        # A text is not valid, for which the driver fails on all rows.
        peeker = _Peeker(connection, node.heading, names, appetite, careful=True)
        careful = peeker.select(node, window)
        fetched, _ = read(connection, node, (*what, "careful"), lambda: Reading(careful))
    return peeker.rows(fetched)


def is_heavy(attribute: Attribute) -> bool:
    """Whether an attribute's values are described in displays, instead of being read."""
    return attribute.type is not None and attribute.type.family in (Family.CODEC, Family.BYTES)


class _Peeker:
    """Selects and describes rows of a heading.

    Parameters
    ----------
    careful
        Whether text is fetched as bytes, since it may be invalid.
    """

    def __init__(
        self,
        connection: Connection,
        heading: Heading,
        names: Sequence[str],
        appetite: Appetite,
        *,
        careful: bool = False,
    ) -> None:
        self._careful = careful
        self._connection, self._appetite, self._names = connection, appetite, names
        light = [name for name in names if not is_heavy(heading[name])]
        heavy = [name for name in names if name not in light]
        if heavy:
            # Errors name the row by its key.
            light += [name for name in heading.primary_key if name not in light]
        self._light = [_Light(connection, heading[name]) for name in light]
        self._heavy = [_Heavy(connection, heading[name]) for name in heavy]
        self._heading = heading

    def select(self, node: Node, window: Window) -> Select:
        """Return the SELECT: light attributes, then the beginning and size of each heavy one."""
        backend = self._connection.backend
        lowered = Lowering(backend).ordered(node, window.order, window.limit, window.offset)
        columns = dict(lowered.columns)
        names = [light.name for light in self._light]
        for name in names:
            if (kind := self._heading[name].type) is not None:
                columns[name] = backend.fetched(columns[name], kind)
        for heavy in self._heavy:
            pieces = heavy.pieces(columns[heavy.name], self._appetite.inline)
            columns |= pieces
            names += pieces
        if self._careful:
            columns |= {name: backend.undecoded(columns[name]) for name in names}
        return replace(lowered, columns=columns).select(*names)

    def rows(self, fetched: Sequence[Values]) -> list[Values]:
        """Return the displayed values of rows."""
        return [self._row(iter(row)) for row in fetched]

    def _row(self, pieces: Iterator[Value]) -> Values:
        cells: Row = {
            light.name: light.shown(next(pieces), careful=self._careful) for light in self._light
        }
        key = {name: cells[name] for name in self._heading.primary_key if name in cells}
        for heavy in self._heavy:
            stored, size = next(pieces), next(pieces)
            context = heavy.context(self._connection, key)
            cells[heavy.name] = heavy.described(context, stored, size, self._appetite.stored)
        return tuple(cells[name] for name in self._names)


class _Light:
    """An attribute whose values are shown as they are."""

    def __init__(self, connection: Connection, attribute: Attribute) -> None:
        self.name = attribute.name
        kind = undecoded(attribute, connection)
        self._decode = decoder_of(attribute, connection) if kind is None else kind.checked

    def shown(self, stored: Value, *, careful: bool = False) -> Value:
        """Return a value, or an error's preview for one that is not of its type."""
        try:
            value = stored.decode() if careful and isinstance(stored, bytes) else stored
            return value if value is None or self._decode is None else self._decode(value)
        except Exception as error:
            return unreadable(error)


def unreadable(error: Exception, place: str = "") -> ValuePreview:
    """Return the preview of a value that cannot be read.

    Parameters
    ----------
    place
        The place at the start of the error's message, which is left out because the cell shows it.
    """
    reason = str(error) if isinstance(error, DataJointError) else f"{type(error).__name__}: {error}"
    return ValuePreview(f"{UNREADABLE} {reason.removeprefix(f'{place}: ')}")


class _Heavy:
    """An attribute whose values are described."""

    def __init__(self, connection: Connection, attribute: Attribute) -> None:
        self.name, self._attribute = attribute.name, attribute
        self._chain = _chain(connection, attribute)
        kind = self._chain.column_type if self._chain else attribute.type
        self._is_bytes = kind is not None and kind.family is Family.BYTES
        self._decode = connection.backend.decoder(kind) if kind is not None else None

    def pieces(self, column: Element, most: int) -> dict[str, Element]:
        """Return the columns to select: the beginning and the number of bytes."""
        if not self._is_bytes:
            return {self.name: column, f"bytes of {self.name}": sa.null()}
        # Literal numbers instead of parameters: the SQL is reused for other rows.
        beginning = sa.func.substr(column, sa.literal_column("1"), sa.literal_column(str(most)))
        return {self.name: beginning, f"bytes of {self.name}": sa.func.length(column)}

    def context(self, connection: Connection, key: Mapping[str, Value]) -> ObjectContext:
        """Return the context of a value: its attribute, key and stores."""
        schema, _, table = self._attribute.table.partition(".")
        limits = connection.read_limits
        return ObjectContext(connection.stores, schema, table, self.name, key, limits=limits)

    def described(
        self, context: ObjectContext, stored: Value, size: Value, most: int
    ) -> ValuePreview:
        """Return the preview of a value, with only its type where nothing else is known."""
        kind = ValuePreview(self._attribute.type.text if self._attribute.type else "")
        if stored is None:
            return ValuePreview("None")
        if self._chain is None:
            return ValuePreview(f"bytes, {byte_text(int(size))}") if self._is_bytes else kind
        try:
            if isinstance(stored, bytes) and not self._is_bytes:
                stored = stored.decode()
            content = stored if self._decode is None else self._decode(stored)
            length = None if size is None else int(size)
            return stored_preview(self._chain, content, length, context, most) or kind
        except Exception as error:
            return unreadable(error, context.place)


def _chain(connection: Connection, attribute: Attribute) -> CodecChain | None:
    kind = attribute.type
    # The object that a pointer of DataJoint 0.14 refers to is described in another table.
    if kind is None or kind.family is not Family.CODEC or isinstance(kind, ExternalPointerType):
        return None
    try:
        return connection.codecs.resolve(kind)
    except DataJointError:
        return None


_CELL = 200
"""The most characters of a value in HTML."""

_CELL_OF_MARKDOWN = 60

_PICTURED = 2**16
"""The most bytes of a packed value that is read for its picture in HTML."""

_GLANCE = 64
"""Bytes of a packed value that are read to describe it, where many rows are shown."""

_PLACE = "place of the row"

_LOADED = 2**20
"""The most bytes of a value in a row or a store that is read for its picture in Markdown."""

_STYLE = (
    "<style>"
    ".dj-table {border-collapse: collapse; font-size: 85%}"
    ".dj-table caption {text-align: left; font-style: italic}"
    ".dj-table th, .dj-table td {padding: 2px 6px; border: 1px solid #8884; text-align: left}"
    ".dj-table th {background: #8882; font-weight: normal}"
    ".dj-table th.dj-key {font-weight: bold; text-decoration: underline}"
    "</style>"
)


@dataclass(frozen=True, slots=True)
class _Preview:
    """The displayed part of a query: its first rows, and the number of all rows."""

    heading: Heading
    rows: Sequence[Sequence[Value]]
    more: bool
    total: int | None


def text_preview(
    connection: Connection, node: Node, limit: int | None = None, width: int | None = None
) -> str:
    """Return a table in plain text, key attributes marked with a star."""
    shown = _shown(connection, node, limit, Appetite())
    heading = shown.heading
    width = max(1, connection.display.width if width is None else width)
    titles = [f"*{name}" if heading[name].in_key else name for name in heading.names]
    lines = [[_cut(_one_line(_text(value)), width) for value in row] for row in shown.rows]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    text = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [titles, ["-" * width for width in widths], *lines]
    ]
    head = [f"# {_one_line(heading.comment)}"] if heading.comment else []
    more = ["..."] if shown.more else []
    count = [] if shown.total is None else [f"({counted(shown.total, 'row')})"]
    return "\n".join([*head, *text, *more, *count])


def html_preview(connection: Connection, node: Node) -> str:
    """Return a table in HTML, key attributes bold and underlined, comments as tooltips.

    Small arrays are shown as pictures.
    """
    shown = _shown(connection, node, None, Appetite(inline=_PICTURED))
    heading = shown.heading
    caption = f"<caption>{escape(heading.comment)}</caption>" if heading.comment else ""
    titles = "".join(_title(heading[name]) for name in heading.names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_html(value)}</td>" for value in row) + "</tr>"
        for row in shown.rows
    )
    more = "<p>...</p>" if shown.more else ""
    count = "" if shown.total is None else f"<p>{counted(shown.total, 'row')}</p>"
    return (
        f'{_STYLE}<div style="max-width: 100%; overflow: auto"><table class="dj-table">{caption}'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{more}{count}</div>"
    )


def first_rows(
    connection: Connection, node: Node, by: Sequence[str], limit: int, most: int, *, large: bool
) -> dict[Values, list[Values]]:
    """Return the first rows for each value of some key attributes, as they are displayed.

    At most two queries are run, regardless of the number of values.

    Parameters
    ----------
    limit
        Number of rows for each value.
    most
        Number of rows in total.
    large
        Whether larger values, also those in stores, are read for pictures.
    """
    names, key = node.heading.names, node.heading.primary_key
    if not set(key) <= set(by):
        first = _first_keys(connection, node, by, limit)
        node = restrict(node, In(tuple(key), tuple(first)))
    appetite = Appetite(_LOADED, _LOADED) if large else Appetite(_GLANCE)
    places = [names.index(name) for name in by]
    found: dict[Values, list[Values]] = {}
    for row in peek(connection, node, names, _order(node), most, appetite):
        found.setdefault(tuple(row[place] for place in places), []).append(tuple(row))
    return found


def markdown_table(names: Sequence[str], rows: Sequence[Values]) -> str:
    r"""Return rows as a table in Markdown.

    Examples
    --------
    >>> print(markdown_table(["item", "name"], [(1, "a|b"), (2, "two\nlines")]))
    | item | name |
    | --- | --- |
    | 1 | a\|b |
    | 2 | two lines |
    """
    cells = [[_markdown(value) for value in row] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain_values(heading: Heading, row: Values, width: int) -> tuple[str, bool]:
    """Return a row's values outside the key in one line, without `ValuePreview` values.

    The second value tells whether the line has all of them.
    """
    outside = [
        (name, value)
        for name, value in zip(heading.names, row, strict=True)
        if not heading[name].in_key
    ]
    plain = [each for each in outside if not isinstance(each[1], ValuePreview)]
    texts = [
        f"{name} = {_cut(_one_line(_text(value)), _CELL_OF_MARKDOWN)}" for name, value in plain
    ]
    line = ", ".join(texts)
    return _cut(line, width), len(plain) == len(outside) and len(line) <= width


def _first_keys(
    connection: Connection, node: Node, by: Sequence[str], limit: int
) -> Sequence[Values]:
    """Return the keys of the first rows for each value of some of its attributes."""
    key, heading, backend = node.heading.primary_key, node.heading, connection.backend
    decoder = RowDecoder(connection, heading, key)
    lowered = Lowering(backend).lower(node)
    columns = dict(lowered.columns)
    for name in decoder.names:
        if (kind := heading[name].type) is not None:
            columns[name] = backend.fetched(columns[name], kind)
    order = [lowered.columns[name] for name in key]
    place = sa.func.row_number().over(
        partition_by=[lowered.columns[name] for name in by], order_by=order
    )
    numbered = replace(lowered, columns={**columns, _PLACE: place})
    rows = numbered.select(*decoder.names, _PLACE).subquery()
    wanted = sa.select(*(rows.c[name] for name in decoder.names)).where(rows.c[_PLACE] <= limit)
    return decoder.rows([tuple(row) for row in connection.rows(wanted)])


def _shown(connection: Connection, node: Node, limit: int | None, appetite: Appetite) -> _Preview:
    display = connection.display
    limit = display.limit if limit is None else limit
    heading = node.heading
    order = _order(node)
    # Refuses a wrong limit as the caller gave it, before one is added to it.
    make_window(order, limit, None, heading)
    rows = peek(connection, node, heading.names, order, limit + 1, appetite)
    total = fetch.count(connection, node) if display.show_tuple_count else None
    return _Preview(heading, rows[:limit], len(rows) > limit, total)


def _order(node: Node) -> Order:
    """Return the order by key for a query of one table, whose first rows the server finds fast."""
    source = node
    while isinstance(source, Restricted | Projected):
        source = source.source
    return "KEY" if node.heading.primary_key and isinstance(source, Base) else None


def _text(value: Value) -> str:
    try:
        text = value.text if isinstance(value, ValuePreview) else str(value)
    except Exception as error:
        text = unreadable(error).text
    # Half a surrogate pair, which JSON allows, cannot be printed.
    return text.encode(errors="backslashreplace").decode()


def _html(value: Value) -> str:
    text = escape(_cut(_text(value), _CELL))
    picture = value.data_uri if isinstance(value, ValuePreview) else None
    return text if picture is None else f'<img src="{picture}" alt=""><br>{text}'


def _markdown(value: Value) -> str:
    if isinstance(value, ValuePreview):
        return _text(replace(value, text=value.markdown)).replace("|", "\\|")
    return _cut(_one_line(_text(value)), _CELL_OF_MARKDOWN).replace("|", "\\|")


def _title(attribute: Attribute) -> str:
    key = ' class="dj-key"' if attribute.in_key else ""
    kind = attribute.type.text if attribute.type else "computed"
    hint = f"{kind}: {attribute.comment}" if attribute.comment else kind
    return f'<th{key} title="{escape(hint)}">{escape(attribute.name)}</th>'


def _one_line(text: str) -> str:
    return printable(" ".join(text.split("\n")))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"

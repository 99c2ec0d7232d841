"""SQL written by users, with its attributes spelled out.

Attributes are spelled as the columns that they are, so that a text keeps its meaning after joins,
renames and beside other tables, and a name that the heading lacks is found before the server is
asked. A text with a SELECT of its own, or that the parser does not know, is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dj_dagster.errors import UnknownAttributeError
from dj_dagster.model.types import AttributeType
from dj_dagster.relational.sql_elements import Element, Pieces
from dj_dagster.relational.user_sql.emission import in_order
from dj_dagster.relational.user_sql.parsing import Name, Parsed, parse
from dj_dagster.relational.user_sql.translation import translate, types_text


def written(
    text: str,
    columns: Mapping[str, Element],
    types: Mapping[str, AttributeType | None],
    missing: Callable[[str], UnknownAttributeError],
    *,
    translated: bool,
    ordering: bool = False,
) -> Element:
    """Return a text as SQL with its attributes spelled out.

    Parameters
    ----------
    missing
        Gives the error for a name that is none of the columns.
    translated
        Whether the database needs MySQL's SQL in words of its own.
    ordering
        Whether rows are to be ordered by it.
    """
    parsed = parse(text)
    found = {} if parsed.nested else _found(parsed, columns, missing)
    if not translated:
        return Pieces(_spelled(parsed, columns, found))
    translation = translate(text, types_text({name: types[name] for name in found.values()}))
    pieces = in_order(translation.pieces, translation.order if ordering else "")
    return Pieces([piece if isinstance(piece, str) else columns[piece.name] for piece in pieces])


def _found(
    parsed: Parsed,
    columns: Mapping[str, Element],
    missing: Callable[[str], UnknownAttributeError],
) -> dict[Name, str]:
    """Return which column each name is, as MySQL finds it, whatever the case."""
    found: dict[Name, str] = {}
    folded: dict[str, str] | None = None
    for name in parsed.names:
        if name.text in columns:
            found[name] = name.text
            continue
        folded = folded or {column.lower(): column for column in columns}
        if name.text.lower() in folded:
            found[name] = folded[name.text.lower()]
        elif name.text.islower() or name.is_quoted:
            # Words in upper case may be SQL's.
            raise missing(name.text)
    return found


def _spelled(
    parsed: Parsed, columns: Mapping[str, Element], found: Mapping[Name, str]
) -> list[str | Element]:
    pieces: list[str | Element] = []
    position = 0
    for name, column in found.items():
        pieces += [parsed.source[position : name.start], columns[column]]
        position = name.end
    return [*pieces, parsed.source[position:]]

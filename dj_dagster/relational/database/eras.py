"""Which of DataJoint's eras the tables of a schema are of: 0.14, or 2.x, whose layout is ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

from dj_dagster.errors import ConfigurationError
from dj_dagster.relational.stored import RawTable

Era = Literal["0.14", "2.3"]

ERAS: tuple[Era, ...] = get_args(Era)

MIGRATION = "~migration"
"""What only schemas have that are being migrated, or were."""

_OLD_TABLES = ("~log", "~jobs", "~external_")
# Both eras mark these types alike, or a user has chosen the name of the codec.
_NEW_MARKER = re.compile(
    r":(?:<(?:blob|attach|hash|object|npy|filepath)(?:@\w*)?>"
    r"|u?int(?:8|16|32|64)|float(?:32|64)|bool|bytes|json|date|(?:datetime|timestamp|time)(?:\(\d\))?"
    r"|(?:var)?char\(\d+\)|decimal\([\d, ]+\)|enum\(.*?\)):"
)


def checked_era(era: str) -> Era:
    """Return a name of an era.

    Raises
    ------
    ConfigurationError
        If there is none of that name.
    """
    for known in ERAS:
        if era == known:
            return known
    raise ConfigurationError(f"There is no era {era!r}: write one of {', '.join(ERAS)}.")


def is_of_old_era(tables: Iterable[RawTable]) -> bool | None:
    """Whether a schema's tables were declared by DataJoint 0.14, or in its layout.

    They carry no types in their comments, but for a few special ones, and there is either no
    ``~lineage`` or a hidden table that only 0.14 makes. None where there is nothing to go by.
    """
    found = list(tables)
    shown = [raw for raw in found if not raw.name.table.startswith("~")]
    if any(_NEW_MARKER.match(column.comment) for raw in shown for column in raw.columns):
        return False
    hidden = [raw.name.table for raw in found if raw.name.table.startswith("~")]
    if MIGRATION in hidden:
        return False
    if any(name.startswith(_OLD_TABLES) for name in hidden):
        return True
    return "~lineage" not in hidden if found else None

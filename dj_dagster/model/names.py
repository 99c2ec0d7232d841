"""Names of classes and of their tables, each derived from the other, and full table names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from dj_dagster.errors import DefinitionError

MAX_NAME = 64
"""The longest table or column name, in characters, that MySQL and MariaDB take."""

NOTES_TABLE = "~provenance"
"""The hidden table of a schema that records how the rows of its computed tables were made."""


class Tier(Enum):
    """The tier of a table, which says how its rows are entered or computed."""

    MANUAL = "manual"
    LOOKUP = "lookup"
    IMPORTED = "imported"
    COMPUTED = "computed"
    PART = "part"

    @property
    def prefix(self) -> str:
        """The prefix of the table's name; a part has its master's name before its own."""
        return _PREFIXES.get(self, "")

    @property
    def pattern(self) -> str:
        """A regular expression that the whole name of a table of the tier matches."""
        if self is Tier.PART:
            return rf"(?P<master>(?:#|__|_|){_WORDS})__(?P<part>{_WORDS})"
        return f"(?P<{self.value}>{self.prefix}{_WORDS})"


_PREFIXES = {Tier.LOOKUP: "#", Tier.IMPORTED: "_", Tier.COMPUTED: "__"}
_TIERS = {"": Tier.MANUAL, **{prefix: tier for tier, prefix in _PREFIXES.items()}}

_WORDS = r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*"
_TABLE = re.compile(rf"(?P<master>(?P<prefix>#|__|_|)(?P<name>{_WORDS}))(?:__(?P<part>{_WORDS}))?")


@dataclass(frozen=True, slots=True)
class ParsedName:
    """The tier, class and master that a table's name stands for.

    Attributes
    ----------
    class_name
        The class of the table itself; for a part without its master's: ``"Trial"``.
    master
        Table name of a part's master (``"__spike_sort"``), None for other tables.
    """

    tier: Tier
    class_name: str
    master: str | None = None


def snake_case(class_name: str) -> str:
    """Return the snake case of a class name: each capital begins a word, underscores are dropped.

    Raises
    ------
    DefinitionError
        When the name does not begin with a capital, or holds other than ASCII letters and digits.

    Examples
    --------
    >>> snake_case("SpikeSort"), snake_case("LFPBand"), snake_case("Scan2D")
    ('spike_sort', 'l_f_p_band', 'scan2_d')
    """
    letters = class_name.replace("_", "")
    if not re.fullmatch("[A-Z][A-Za-z0-9]*", letters):
        raise DefinitionError(
            f"the class name {class_name!r} cannot name a table\n"
            "write it in camel case, of ASCII letters and digits only, such as SpikeSort"
        )
    return re.sub("(?<!^)([A-Z])", r"_\1", letters).lower()


def underscore_warning(class_name: str) -> str:
    """Return the warning about underscores in a class name, which its table's name leaves out."""
    return (
        f"The class name {class_name!r} contains underscores, which do not count in the name of "
        f"its table: write {class_name.replace('_', '')}."
    )


def camel_case(snake: str) -> str:
    """Return the class name of a name in snake case.

    Examples
    --------
    >>> camel_case("spike_sort"), camel_case("l_f_p_band")
    ('SpikeSort', 'LFPBand')
    """
    return "".join(word[:1].upper() + word[1:] for word in snake.split("_"))


def sql_table_name(class_name: str, tier: Tier, master: str | None = None) -> str:
    """Return the name of a class's table in the database.

    Parameters
    ----------
    class_name
        The class's own name; for a part without its master's.
    master
        Table name of the master, needed for parts and only for them.

    Raises
    ------
    DefinitionError
        When the class cannot name a table, or the name is too long.

    Examples
    --------
    >>> sql_table_name("SpikeSort", Tier.COMPUTED)
    '__spike_sort'
    >>> sql_table_name("Unit", Tier.PART, master="__spike_sort")
    '__spike_sort__unit'
    """
    if (tier is Tier.PART) != (master is not None):
        raise DefinitionError(f"{class_name}: a part, and only a part, has a master table")
    before = tier.prefix if master is None else f"{master}__"
    return check_table_name(before + snake_case(class_name))


def check_table_name(name: str) -> str:
    """Return `name`, or raise `DefinitionError` when it is longer than databases allow."""
    if len(name) > MAX_NAME:
        raise DefinitionError(
            f"the table name {name!r} has {len(name)} characters, the database allows {MAX_NAME}\n"
            f"shorten the class name by {len(name) - MAX_NAME} or more characters"
        )
    return name


def parse_table_name(name: str) -> ParsedName | None:
    """Return tier, class and master of a table's name; None for hidden and foreign tables.

    Examples
    --------
    >>> parse_table_name("#filter_params")
    ParsedName(tier=<Tier.LOOKUP: 'lookup'>, class_name='FilterParams', master=None)
    >>> parse_table_name("session__trial")
    ParsedName(tier=<Tier.PART: 'part'>, class_name='Trial', master='session')
    >>> parse_table_name("~lineage") is None
    True
    """
    match = _TABLE.fullmatch(name)
    if match is None:
        return None
    if match["part"]:
        return ParsedName(Tier.PART, camel_case(match["part"]), match["master"])
    return ParsedName(_TIERS[match["prefix"]], camel_case(match["name"]))


def class_path(table: str) -> str:
    """Return the class name of a table, a part's after its master's; other names unchanged.

    Examples
    --------
    >>> class_path("__spike_sort__unit"), class_path("~lineage")
    ('SpikeSort.Unit', '~lineage')
    """
    parsed = parse_table_name(table)
    if parsed is None:
        return table
    if parsed.master is None:
        return parsed.class_name
    return f"{class_path(parsed.master)}.{parsed.class_name}"


class TableName(NamedTuple):
    """A table's schema and its name in SQL, e.g. ``("lab", "__processed")``."""

    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def quoted(self) -> str:
        """The name as DataJoint writes it into SQL: ``"`lab`.`__processed`"``."""
        return ".".join("`" + part.replace("`", "``") + "`" for part in self)


def class_names(name: TableName) -> list[str]:
    """Return the class name of a table, for a part after that of its master.

    Tables of other programs get one, too, whatever their names are.

    Examples
    --------
    >>> class_names(TableName("lab", "session__trial")), class_names(TableName("lab", "old-things"))
    (['Session', 'Trial'], ['OldThings'])
    """
    if parse_table_name(name.table) is None:
        ascii_only = unicodedata.normalize("NFKD", name.table).encode("ascii", "ignore").decode()
        word = camel_case(re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_"))
        return [word if word[:1].isalpha() else f"T{word}"]
    return class_path(name.table).split(".")


def title(name: TableName) -> str:
    """Return a table's name for users: ``"lab.Session.Trial"``."""
    return f"{name.schema}.{'.'.join(class_names(name))}"

"""Which rows of a table are to be looked at: some keys, ranges of its key, or all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Key = dict[str, Any]

MANY = 10_000
"""Up to this many keys are looked up one by one."""


@dataclass(frozen=True, eq=False)
class Region:
    """Rows of one table.

    Attributes
    ----------
    keys
        The rows' keys.
    name, ranges
        Instead of keys, the first attribute of the key and the values that it has, ends included.
        With neither, the region is the whole table.
    """

    keys: tuple[Key, ...] | None = None
    name: str = ""
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is the whole table."""
        return self.keys is None and not self.ranges

    def restriction(self, names: Mapping[str, str]) -> Any:
        """Return what restricts a query to the region, where attributes have other names.

        Parameters
        ----------
        names
            ``{name in this table: name in the query}``.
        """
        if self.keys is not None:
            return [{names[n]: v for n, v in key.items() if n in names} for key in self.keys]
        column = names[self.name]
        return [f"`{column}` BETWEEN {low} AND {high}" for low, high in self.ranges]

    def renamed(self, names: Mapping[str, str]) -> Region:
        """Return the region of a table that has these attributes under other names."""
        if self.keys is not None:
            return Region(keys=tuple(self.restriction(names)))
        return Region(name=names[self.name], ranges=self.ranges) if self.ranges else self


EVERYTHING = Region()


class Regions:
    """Regions of one table, gathered until they have been dealt with."""

    def __init__(self, *first: Region) -> None:
        self.each: list[Region] = list(first)

    def __bool__(self) -> bool:
        return bool(self.each)

    def __len__(self) -> int:
        return len(self.each)

    @property
    def whole(self) -> bool:
        """Whether the whole table is among them."""
        return any(region.whole for region in self.each)

    def add(self, region: Region) -> None:
        """Gather one more; of too many keys the whole table is made."""
        if region.keys is not None and not region.keys:
            return
        self.each.append(region)
        if self.whole or sum(len(item.keys or ()) for item in self.each) > MANY:
            self.each = [EVERYTHING]

    def restrictions(self) -> list[Any]:
        """Return the arguments that restrict a query to any of them; none for the whole table."""
        if self.whole:
            return []
        found: list[Any] = []
        for region in self.each:
            own = [region.name] if region.ranges else list((region.keys or ({},))[0])
            found += region.restriction({name: name for name in own})
        return [found]

"""How much of a query its previews show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Display:
    """The settings of previews; DataJoint spells them ``display.limit`` and so on.

    Attributes
    ----------
    limit
        Rows that are shown.
    width
        Characters that a value may take in a text preview.
    show_tuple_count
        Whether the number of all rows is counted and shown.
    """

    limit: int = 12
    width: int = 24
    show_tuple_count: bool = True

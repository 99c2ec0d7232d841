"""validate: everything that is wrong with rows, without writing any."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import DataJointError, InvalidValueError
from dj_dagster.model.heading import Attribute
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.inserting.encode import RowEncoder
from dj_dagster.relational.inserting.row_sources import batches
from dj_dagster.relational.stored import StoredTable

SHOWN = 10
"""Errors that a summary lists."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What `validate` found; true when nothing is wrong.

    Attributes
    ----------
    is_valid
        Whether nothing is wrong.
    errors
        For each the row's number from 0, the attribute (None where it is about the whole row), and
        what is wrong.
    rows_checked
        Number of rows.
    """

    is_valid: bool
    errors: list[tuple[int, str | None, str]] = field(
        default_factory=list[tuple[int, str | None, str]]
    )
    rows_checked: int = 0

    def __bool__(self) -> bool:
        return self.is_valid

    def raise_if_invalid(self) -> None:
        """Raise what was found.

        Raises
        ------
        InvalidValueError
            With the summary as its message.
        """
        if not self.is_valid:
            raise InvalidValueError(self.summary())

    def summary(self) -> str:
        """Return the number of rows and errors, and the first errors."""
        if self.is_valid:
            return f"Validation passed: {self.rows_checked} rows checked."
        lines = [f"Validation failed: {len(self.errors)} error(s) in {self.rows_checked} rows:"]
        for row, name, message in self.errors[:SHOWN]:
            lines.append(f"  Row {row}{f', {name}' if name else ''}: {message}")
        if len(self.errors) > SHOWN:
            lines.append(f"  and {len(self.errors) - SHOWN} more errors")
        return "\n".join(lines)


def validate_rows(
    connection: Connection, table: StoredTable, rows: Any, *, ignore_extra_fields: bool
) -> ValidationResult:
    """Check names, types, lengths and missing values; keys and foreign keys are the database's."""
    errors: list[tuple[int, str | None, str]] = []

    def note(row: int, attribute: Attribute | None, error: DataJointError) -> None:
        errors.append((row, attribute.name if attribute else None, str(error)))

    encoder = RowEncoder(connection, table, ignore_extra_fields=ignore_extra_fields, refuse=note)
    checked = 0
    try:
        for batch in batches(rows, table.heading):
            encoder.check(batch)
            checked += batch.size
    except DataJointError as error:
        # The rows cannot be read any further.
        errors.append((checked, None, str(error)))
    return ValidationResult(not errors, sorted(errors, key=lambda found: found[0]), checked)

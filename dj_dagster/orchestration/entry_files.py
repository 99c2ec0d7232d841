"""Files that the launchpad names: read from folders that a setting allows, and never quoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dj_dagster.errors import AccessError, DataJointError, DuplicateError, InvalidValueError
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.inserting.row_sources import csv_batches

ERRORS_SHOWN = 5
"""Rows of a CSV file whose faults are told, at most."""

CHUNK = 10_000


class EntryFiles:
    """The files that people may name in the launchpad.

    Whoever opens the launchpad may see the rows of the tables, and the errors of the runs. So a
    file elsewhere on the machine must neither be stored nor be quoted.

    Parameters
    ----------
    folders
        Where files may be taken from, subfolders included; links are followed first.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        self._folders = [Path(folder).expanduser().resolve() for folder in folders]

    def check(self, node: TableNode, rows: Iterable[Mapping[str, Any]]) -> None:
        """Refuse rows of which a value is the path of a file that may not be taken.

        Raises
        ------
        AccessError
            Naming the table and the attribute.
        """
        names = _path_attributes(node)
        for row in rows:
            for name in names:
                if isinstance(row.get(name), str):
                    self._refuse(row[name], f"{node.title}.{name}")

    def insert(self, node: TableNode, file: str, **options: Any) -> None:
        """Insert the rows of a CSV file, all or none.

        Raises
        ------
        AccessError
            If the file may not be taken, or a file that it names.
        InvalidValueError
            If its rows do not fit the table; the error says where, and quotes nothing.
        """
        self._refuse(file, f"{node.title}: csv")
        try:
            self._check_csv(node, file)
            errors = node.table.validate(file).errors
        except AccessError:
            raise
        except DataJointError:
            raise InvalidValueError(
                f"{file} does not hold rows for {node.title}: the first line must name attributes, "
                "and each further line have one value for each. The content is not shown here."
            ) from None
        if errors:
            found = dict.fromkeys(
                f"row {row + 1}, {name}" if name else f"row {row + 1}" for row, name, _ in errors
            )
            places = "; ".join(list(found)[:ERRORS_SHOWN])
            more = "; ..." if len(found) > ERRORS_SHOWN else ""
            raise InvalidValueError(
                f"{file} has values that do not fit {node.title} ({places}{more}). The values are "
                "not shown here; table.validate(file) tells them in Python."
            )
        try:
            node.table.insert(file, **options)
        except DataJointError as error:
            reason = "a key is there already" if isinstance(error, DuplicateError) else "it refused"
            raise type(error)(
                f"No row of {file} was inserted into {node.title}: {reason}. The values are not "
                "shown here; table.insert(file) tells them in Python."
            ) from None

    def _check_csv(self, node: TableNode, file: str) -> None:
        names = _path_attributes(node)
        for batch in csv_batches(file, node.table.heading, CHUNK) if names else ():
            for name in names:
                for value in batch.columns.get(name, ()):
                    if value:
                        self._refuse(value, f"{node.title}.{name}")

    def _refuse(self, file: str, where: str) -> None:
        found = Path(file).expanduser().resolve()
        if any(found.is_relative_to(folder) for folder in self._folders):
            return
        allowed = ", ".join(map(str, self._folders)) or "no folder"
        raise AccessError(
            f"{where} names a file that may not be read: the launchpad takes files from {allowed}. "
            "Allow a folder with build_definitions(entry_folders=[...]), or insert the row in "
            "Python."
        )


def _path_attributes(node: TableNode) -> Sequence[str]:
    """Return the attributes that store the file which a text names."""
    codecs = node.table.connection.codecs
    return [
        name
        for name, attribute in node.table.heading.attributes.items()
        if attribute.type is not None
        and any(codec.takes_path for codec in codecs.resolve(attribute.type).codecs)
    ]

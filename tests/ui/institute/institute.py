"""300 tables in a real `dagster dev`, see `institute_tables`."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.services.dagster_dev import dagster_dev
from tests.services.process import PATIENCE
from tests.ui.pages import RunningLab

HERE = Path(__file__).parent

WORKSPACE = """
load_from:
  - python_file:
      relative_path: institute_tables.py
      working_directory: .
      location_name: institute
"""


class Institute(RunningLab):
    """The running code location: its UI and its folder, with the file that declares the tables."""

    def query(self, statement: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a statement on the database, as a client that knows nothing of us."""
        file = self.folder / "institute.sqlite"
        with closing(sqlite3.connect(file, timeout=PATIENCE)) as database, database:
            return database.execute(statement, values).fetchall()


@contextlib.contextmanager
def running_institute(folder: Path) -> Generator[Institute]:
    """Start it in an empty folder."""
    (folder / "workspace.yaml").write_text(WORKSPACE)
    shutil.copy(HERE / "institute_tables.py", folder)
    shutil.copy(HERE.parents[2] / "dagster.yaml", folder)
    # It is on its own settings, whatever the developer's are.
    without = [name for name in os.environ if name.startswith("DJ_")]
    with dagster_dev(folder, without=without) as dev:
        yield Institute(dev, folder)

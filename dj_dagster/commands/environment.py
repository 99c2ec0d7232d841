"""The variables of a project's file ``.env``, which commands read as Dagster's commands do."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dj_dagster.lazy import LateModule
from dj_dagster.local_files import is_trusted, reading

dotenv = LateModule("dotenv")


@contextmanager
def project_environment() -> Generator[None]:
    """Set the variables that ``.env`` in the working directory names, until the command ends.

    As with `dagster dev`, they win over variables that are set already. Otherwise a command would
    look into another database than the UI.

    Raises
    ------
    ConfigurationError
        When the file cannot be read.
    """
    file = Path.cwd() / ".env"
    if not file.is_file() or not is_trusted(file):
        yield
        return
    with reading(file):
        found = dotenv.dotenv_values(file)
    given = {name: text for name, text in found.items() if text is not None}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text

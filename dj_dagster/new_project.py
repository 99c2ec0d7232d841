"""The files of a new pipeline, as `dj-dagster init` and `dg scaffold` write them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dj_dagster.errors import ConfigurationError
from dj_dagster.local_files import and_above
from dj_dagster.model.names import MAX_NAME

TEMPLATE = Path(__file__).parent / "template"

DAGSTER_YAML = "dagster.yaml"
"""The settings of Dagster, which a new project shares with the demo."""

PROJECT: Mapping[str, str] = {
    "definitions.py": "definitions.py.txt",
    "tests/test_pipeline.py": "tests/test_pipeline.py.txt",
    "workspace.yaml": "workspace.yaml.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    DAGSTER_YAML: DAGSTER_YAML,
}
"""The files of a new project, and those that they are made from."""


def write_project(folder: Path, schema: str = "lab") -> list[str]:
    """Write the files of a new project, and return their names.

    Parameters
    ----------
    folder
        The project's folder, which need not exist.
    schema
        The name of its schema.

    Raises
    ------
    ConfigurationError
        When the folder has files of these names already, or cannot be written, or the schema's
        name is not a word in lower case. Nothing is written then.
    """
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "lab"
    write_files(folder, PROJECT, {"schema": schema, "name": name, "module": "definitions"})
    return sorted(PROJECT)


def write_settings(folder: Path) -> bool:
    """Write the settings of Dagster into a folder without them; return whether they were written.

    With them Dagster keeps its history in the folder.
    """
    if (folder / DAGSTER_YAML).exists():
        return False
    (folder / DAGSTER_YAML).write_text(_filled(DAGSTER_YAML, {}), encoding="utf-8")
    return True


def write_files(folder: Path, files: Mapping[str, str], words: Mapping[str, str]) -> None:
    """Write files that are made from templates, or none of them.

    Parameters
    ----------
    folder
        Where, which need not exist.
    files
        The names of the files in the folder, and of the templates.
    words
        The texts that replace ``{schema}`` and the other words in braces.

    Raises
    ------
    ConfigurationError
        When the folder has files of these names already, or cannot be written, or the schema's
        name is not a word in lower case.
    """
    schema = words["schema"]
    if not re.fullmatch(rf"(?!sqlite_)[a-z][a-z0-9_]{{0,{MAX_NAME - 1}}}", schema):
        raise ConfigurationError(
            f"{schema!r} cannot be the name of a schema: write up to {MAX_NAME} lower-case "
            "letters, digits and _, which do not begin with sqlite_."
        )
    texts = {file: _filled(source, words) for file, source in files.items()}
    # A link is there although what it leads to may not be.
    there = [file for file in texts if os.path.lexists(folder / file)]
    if there:
        raise ConfigurationError(
            f"{folder} has {', '.join(there)} already, and nothing was written: name a new folder, "
            "or move these away."
        )
    for place in dict.fromkeys(_nearest((folder / file).parent) for file in texts):
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"{place} is not a folder that this user may write, and nothing was written: name "
                "another folder, or move it away."
            )
    made: list[Path] = []
    try:
        for file, text in texts.items():
            _make_folders((folder / file).parent, made)
            with (folder / file).open("x", encoding="utf-8") as stream:
                made.append(folder / file)
                stream.write(text)
    except OSError as error:
        # The disk may be full, for instance.
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir() if place.is_dir() else place.unlink()
        raise ConfigurationError(
            f"{error.filename or folder} cannot be written, and nothing was: {error.strerror}. "
            "Name another folder."
        ) from error


def _nearest(folder: Path) -> Path:
    """Return the folder or, where it is not there, the nearest above it that is."""
    return next(each for each in and_above(folder.absolute()) if os.path.lexists(each))


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make a folder with those above it, and add the new ones to a list."""
    if not folder.is_dir():
        _make_folders(folder.parent, made)
        folder.mkdir()
        made.append(folder)


def _filled(template: str, words: Mapping[str, str]) -> str:
    file = TEMPLATE / template
    if template == DAGSTER_YAML and not file.is_file():
        # In the source tree it is that of the demo.
        file = Path(__file__).parents[1] / DAGSTER_YAML
    text = file.read_text(encoding="utf-8")
    # Python's own braces stay.
    return re.sub(r"\{(schema|name|module)\}", lambda found: words[found[1]], text)

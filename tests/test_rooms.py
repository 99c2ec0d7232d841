"""The map of all modules, and what documents say of files, are true of the files as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.rooms import MAP, PACKAGE, rooms

REPOSITORY = PACKAGE.parent
DOCUMENTS = [*REPOSITORY.glob("*.md"), *MAP.parent.rglob("*.md")]


def test_the_map_of_all_modules_is_true() -> None:
    assert MAP.read_text(encoding="utf-8") == rooms(), "run python -m tools.rooms"


def test_each_module_says_what_it_holds() -> None:
    lines = [line for line in rooms().splitlines() if line.startswith("| [")]
    assert len(lines) == sum(path.name != "__init__.py" for path in PACKAGE.rglob("*.py"))
    assert not [line for line in lines if line.endswith("|  |")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if ":" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    if document.name == "CHANGELOG.md":
        return  # it tells of files as they were
    named = re.findall(r"`([a-z_/]+/[a-z_]+\.py)`", text)
    places = (REPOSITORY, PACKAGE, document.parent)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []

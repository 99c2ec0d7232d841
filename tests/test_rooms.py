"""The map of all modules is that of the modules as they are."""

from __future__ import annotations

from tools.rooms import MAP, PACKAGE, rooms


def test_the_map_of_all_modules_is_true() -> None:
    assert MAP.read_text(encoding="utf-8") == rooms(), "run python -m tools.rooms"


def test_each_module_says_what_it_holds() -> None:
    lines = [line for line in rooms().splitlines() if line.startswith("| [")]
    assert len(lines) == sum(path.name != "__init__.py" for path in PACKAGE.rglob("*.py"))
    assert not [line for line in lines if line.endswith("|  |")]

"""Versions of code: what changes the version of a `make`, and what does not."""

from __future__ import annotations

import pytest

from dj_dagster.workflow.code_version import code_place, code_version
from tests.edited_module import MODULE, EditedModule


@pytest.mark.parametrize(
    "changes",
    [
        ("# a comment", "# another comment\n"),
        ('self.insert1({**key, "value"', 'self.insert1(\n            {**key, "value"'),
        ('"""Scale it."""', '"""Scale a value."""'),
        ("UNUSED = 2", "UNUSED = 3"),
        ("thing : int32", "thing : int16"),
        ("return UNUSED", "return -UNUSED"),
    ],
)
def test_what_does_not_change_the_version(written: EditedModule, changes: tuple[str, str]) -> None:
    version = code_version(written.load().Result)
    assert version is not None
    assert code_version(written.load(changes).Result) == version


@pytest.mark.parametrize(
    "changes",
    [
        ('"value": self', '"value": -self'),
        ("value + OFFSET", "value - OFFSET"),
        ("OFFSET = 1", "OFFSET = 2"),
        ("return 2 * value", "return 3 * value"),
    ],
)
def test_what_changes_the_version(written: EditedModule, changes: tuple[str, str]) -> None:
    before, after = written.load(), written.load(changes)
    assert code_version(after.Result) != code_version(before.Result)
    # Another table's code is its own affair.
    assert code_version(after.Later) == code_version(before.Later)


CONSTANT = "UNUSED = 2"
"""Where the cases below write constants, which `make` uses by the name GAIN."""


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("GAIN = 1\nGAIN = GAIN * 2", "1", "3"),
        ("GAIN = 1\nGAIN += 2", "2", "3"),
        ("GAIN = {}\nGAIN['x'] = 1\nGAIN['y'] = 2", "1", "3"),
        ("GAIN = {'x': 1}\nGAIN['y'] = 2", "1", "3"),
        ("GAIN = {}\nGAIN.update(x=1)", "1", "3"),
        ("GAIN = [1]\nGAIN.append(2)", "2", "3"),
        ("GAIN = [1, 2]\ndel GAIN[0]", "0", "1"),
        ("if True:\n    GAIN = 1\nelse:\n    GAIN = 2", "1", "3"),
        ("if True:\n    GAIN = 1\nelse:\n    GAIN = 2", "True", "False"),
        ("BIG = 0\nGAIN = 1\nif BIG:\n    GAIN = 2", "0", "5"),
        ("try:\n    GAIN = 1\nexcept OSError:\n    GAIN = 2", "1", "3"),
        ("for GAIN in range(2):\n    pass", "2", "3"),
        ("GAIN = 1\nfor _ in range(2):\n    GAIN += 1", "2", "3"),
        ("match 3:\n    case GAIN:\n        pass", "3", "4"),
        ("match 3:\n    case 3:\n        GAIN = 1", "1", "2"),
        ("print(GAIN := 1)", "1", "2"),
        ("GAIN, OTHER = 1, 2", "1", "3"),
        ("class GAIN:\n    x = 1", "1", "2"),
        ("def GAIN(x=1):\n    return x", "1", "2"),
        ("if True:\n\n    def GAIN():\n        return 1", "1", "2"),
    ],
)
def test_all_that_gives_a_constant_its_value_changes_the_version(
    written: EditedModule, text: str, old: str, new: str
) -> None:
    texts = text, text.replace(old, new)
    uses = ("self.scale(shifted", "GAIN and self.scale(shifted")
    versions = {code_version(written.load(uses, (CONSTANT, text)).Result) for text in texts}
    assert len(versions) == 2
    unused = {code_version(written.load((CONSTANT, text)).Result) for text in texts}
    assert len(unused) == 1


@pytest.mark.parametrize(
    "use",
    [
        "self.gain",
        "type(self).gain",
        "self.__class__.gain",
        "getattr(self, 'gain')",
        "Result.gain",
        "gain_of(self)",
        "[each.gain for each in [self]] and (this := self) and self.all_of_it()",
    ],
)
def test_however_a_table_asks_for_what_is_its_own(written: EditedModule, use: str) -> None:
    asked = (
        ("self.scale(shifted", f"{use} and self.scale(shifted"),
        (CONSTANT, "def gain_of(table):\n    return table.gain"),
        (
            "    def make(self, key):\n        # a comment",
            "    gain = 1\n\n"
            "    def all_of_it(this):\n        it = this\n        return it.gain\n\n"
            "    def make(self, key):\n        # a comment",
        ),
    )
    before = written.load(*asked)
    after = written.load(*asked, ("gain = 1", "gain = 2"))
    assert code_version(after.Result) != code_version(before.Result)
    assert code_version(after.Later) == code_version(before.Later)


def test_what_a_definition_replaces_does_not_change_the_version(written: EditedModule) -> None:
    earlier = "def shifted(value):\n    return {}"
    versions = {code_version(written.load((CONSTANT, earlier.format(n))).Result) for n in (1, 2)}
    assert len(versions) == 1


def test_a_class_is_found_by_its_line(written: EditedModule) -> None:
    module = written.load()
    lines = MODULE.splitlines()
    assert code_place(module.Result) == (module.__file__, lines.index("class Result(Base):") + 1)

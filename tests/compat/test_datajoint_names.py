"""The public names of DataJoint 2.3 are here too, methods with all of their parameters."""

from __future__ import annotations

import pytest

import dj_dagster as dj
from tools import datajoint_names
from tools.datajoint_names import CLASSES, WITHOUT, compared, reason

OF_0_14 = """
config conn Connection Schema schema VirtualModule create_virtual_module list_schemas Table
FreeTable Manual Lookup Imported Computed Part Not AndList Top U Diagram Di ERD set_password
kill MatCell MatStruct AttributeAdapter errors DataJointError key key_hash logger
"""


def test_names_of_0_14() -> None:
    assert [name for name in OF_0_14.split() if not hasattr(dj, name)] == []


def test_module() -> None:
    assert [name for name in datajoint_names.missing_names() if name not in WITHOUT] == []


@pytest.mark.parametrize("label", CLASSES)
def test_class(label: str) -> None:
    names = compared(label)
    assert names
    missing = [each.name for each in names if not each.here]
    missing += [f"{each.name}.{name}" for each in names for name in each.lacking]
    assert [name for name in missing if not reason(label, name)] == []


def test_what_we_do_without_is_current() -> None:
    present = [name for name in WITHOUT if "." not in name and name in dj.__all__]
    for key in (key for key in WITHOUT if key.count(".") == 1):
        owner, name = key.split(".")
        present += [key] if hasattr(CLASSES[owner][1], name) else []
    assert present == []

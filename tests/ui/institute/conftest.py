"""300 tables in a real `dagster dev`, started once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ui.institute.institute import Institute, running_institute

# A code location, which makes its database where it is loaded.
collect_ignore = ["institute_tables.py"]


@pytest.fixture(scope="package")
def institute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Institute]:
    """The running tables and their UI; they stay busy until the last test of the folder."""
    with running_institute(tmp_path_factory.mktemp("institute")) as running:
        yield running

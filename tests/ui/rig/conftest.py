"""A lab of two grains in a real `dagster dev`, started once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ui.rig.rig import Rig, running_rig

# A code location, which makes its database where it is loaded.
collect_ignore = ["rig_pipeline.py"]


@pytest.fixture(scope="package")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The running lab, whose failures and partitions are looked at."""
    with running_rig(tmp_path_factory.mktemp("rig")) as running:
        yield running

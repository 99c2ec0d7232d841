"""Settings that make no sense are refused where they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, Work


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"max_batches": -1}, {"interval": -1}, {"sweep": -0.5}]
)
def test_the_sensors_numbers_are_checked(wrong: Mapping[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(dj.DataJointError, match=rf"{name}=-?\d.*write"):
        SensorSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"processes": 0}, {"timeout": 0}])
def test_the_numbers_of_work_are_checked(wrong: Mapping[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(dj.DataJointError, match=f"{name}=0"):
        Work(**wrong)

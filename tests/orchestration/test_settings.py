"""Settings that make no sense are refused where they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import (
    RetryPolicy,
    SensorSettings,
    TableChecks,
    TableSettings,
    TableTranslator,
    Work,
    asset_key,
    build_definitions,
)
from tests.orchestration.lab import Lab


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


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (SensorSettings, {"batch_size": "20"}),
        (SensorSettings, {"batch_size": True}),
        (SensorSettings, {"sweep": float("nan")}),
        (SensorSettings, {"retries": 3}),
        (SensorSettings, {"tables": {"Result": {"batch_size": 3}}}),
        (TableSettings, {"batch_size": -1}),
        (TableSettings, {"retries": 3}),
        (RetryPolicy, {"attempts": 0}),
        (RetryPolicy, {"errors": "TimeoutError"}),
        (RetryPolicy, {"errors": [TimeoutError]}),
        (Work, {"timeout": "60"}),
        (TableChecks, {"complete": "no"}),
        (TableChecks, {"intact": "Data"}),
        (TableChecks, {"freshness": {"lab": 3}}),
    ],
)
def test_settings_of_another_kind_are_refused(made: Any, wrong: Mapping[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"{made.__name__}\({name}.*: (write|give) "):
        made(**wrong)


class Forgetful(TableTranslator):
    """A translator whose method, named when it is made, returns nothing."""

    def __init__(self, method: str, returned: object = None) -> None:
        setattr(self, method, lambda _: returned)


SPEC = dg.AssetSpec("report")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"checks": False}, "The argument checks is False: give a TableChecks"),
        ({"sensor_settings": {}}, "The argument sensor_settings is .*: give a SensorSettings"),
        ({"translator": TableTranslator}, r"translator is .*: give .* such as LabTranslator\(\)"),
        ({"assets": SPEC}, "The argument assets is .*: give assets in a list"),
        ({"assets": ["report"]}, "One of the argument assets is 'report'"),
        ({"sensors": dg.define_asset_job("all")}, "The argument sensors is .* in a list"),
        ({"resources": [1]}, "The argument resources is .*: give a mapping"),
        ({"state_path": "tables.json"}, "The argument state_path is .*: give the Path"),
        ({"select": dg.AssetSelection.all()}, "select has .*, which is not a table"),
        ({"partition_by": ["Session"]}, "The argument partition_by is .*: give a mapping"),
        ({"partition_by": {"Session": []}}, r"partition_by has \[\] for lab.Session: write"),
        ({"partition_by": {"Session.Trial": "subject_id"}}, "names parts alone.*lab.Session"),
        ({"translator": Forgetful("get_work")}, "get_work of lab.RawData is None: give a Work"),
        ({"translator": Forgetful("get_op_tags")}, "Forgetful.get_op_tags of lab.RawData is None"),
        ({"translator": Forgetful("get_pool", 3)}, "get_pool of lab.RawData is 3"),
        ({"translator": Forgetful("get_key_metadata", {})}, "get_key_metadata of lab.RawData"),
        ({"translator": Forgetful("get_partition_by", "sex")}, "cannot be partitioned by sex"),
    ],
)
def test_arguments_of_another_kind_are_named(
    lab: Lab, wrong: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_definitions(lab.schema, **wrong)


def test_an_asset_key_is_that_of_a_table() -> None:
    name: Any = "lab.Result"
    with pytest.raises(dj.DataJointError, match="asset_key has 'lab"):
        asset_key(name)

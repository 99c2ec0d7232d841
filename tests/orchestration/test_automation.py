"""Declarative automation beside the sensor: a condition that the translator gives a table."""

from __future__ import annotations

from typing import Any

import dagster as dg

from dj_dagster.orchestration import SensorSettings, TableTranslator
from dj_dagster.orchestration.sensor.sensor_settings import TableSettings
from tests.orchestration.lab import Lab, partitions
from tests.orchestration.running import key_of, materialize, run_until_quiet, tick


class Eager(TableTranslator):
    def get_asset_spec(self, props: Any) -> dg.AssetSpec:
        spec = super().get_asset_spec(props)
        if not props.title.endswith(".RawData"):
            return spec
        return spec.replace_attributes(automation_condition=dg.AutomationCondition.eager())


def test_a_condition_asks_for_the_partitions_of_new_rows(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    by_condition = {"RawData": TableSettings(automatic=False)}
    defs = lab.definitions(translator=Eager(), sensor_settings=SensorSettings(tables=by_condition))
    dg.evaluate_automation_conditions(defs, instance)
    cursor = dg.evaluate_automation_conditions(defs, instance).cursor
    lab.add_sessions(range(3))
    tick(defs, instance)
    asked = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
    assert asked.get_requested_partitions(key_of("lab/raw_data")) == partitions(range(3))
    for name in sorted(partitions(range(3))):
        assert materialize(defs, instance, "lab/raw_data", partition=name)
    run_until_quiet(defs, instance)
    assert len(lab.Processed()) == 3

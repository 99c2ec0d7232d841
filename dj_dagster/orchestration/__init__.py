"""The orchestration floor: tables as Dagster assets that keep themselves up to date."""

from importlib.metadata import version

from dagster_shared.libraries import DagsterLibraryRegistry

from dj_dagster.orchestration.build import build_definitions, chain_executor
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.io_manager import TableIOManager
from dj_dagster.orchestration.partition_keys import decode_key, encode_key
from dj_dagster.orchestration.sensor import SensorSettings
from dj_dagster.orchestration.translator import TableProps, TableTranslator

__all__ = [
    "Grain",
    "SensorSettings",
    "TableIOManager",
    "TableProps",
    "TableTranslator",
    "build_definitions",
    "chain_executor",
    "decode_key",
    "encode_key",
]

DagsterLibraryRegistry.register("dj-dagster", version("dj-dagster"), is_dagster_package=False)

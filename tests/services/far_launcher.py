"""A run launcher of other machines, as Dagster's for Celery and Kubernetes are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import dagster as dg
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._serdes import ConfigurableClass

SETTING = {"module": __name__, "class": "FarLauncher"}
"""The launcher in the settings of an instance."""


class FarLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """A launcher of runs on other machines.

    Attributes
    ----------
    launch
        Called with each run that is launched.
    """

    launch: ClassVar[Callable[[LaunchRunContext], object]] = staticmethod(lambda _: None)

    @property
    def inst_data(self) -> Any:
        return None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        return cls()

    def launch_run(self, context: LaunchRunContext) -> None:
        type(self).launch(context)

    def terminate(self, run_id: str) -> bool:
        return False

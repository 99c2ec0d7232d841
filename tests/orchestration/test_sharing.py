"""Runs on other machines are refused where these would not see the tables or their objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dj_dagster as dj
from dj_dagster.launcher_tags import HERE_ONLY_TAG
from dj_dagster.orchestration import build_definitions
from dj_dagster.settings import Config
from dj_dagster.slurm import resources
from tests.orchestration.conftest import SETTINGS
from tests.orchestration.running import create_run, execute, key_of, requested, submit, tick
from tests.services import far_launcher


@pytest.fixture
def far(dagster_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose runs are on other machines."""
    folder = tmp_path / "far_home"
    shutil.copytree(dagster_home, folder)
    overrides = {**SETTINGS, "run_launcher": far_launcher.SETTING}
    with dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as made:
        yield made


def tables(folder: Path, *, database: bool, store: bool) -> tuple[Any, dg.Definitions]:
    """A table whose rows have objects, and the settings that declare what is shared."""
    raw = {"protocol": "file", "location": str(folder / "store"), "shared": store}
    settings = Config(
        {
            "database.url": f"sqlite:///{folder}/lab.sqlite",
            "database.shared": database,
            # Not used by a table.
            "stores": {"default": "raw", "raw": raw, "own": {**raw, "shared": False}},
        }
    )
    schema = dj.Schema("lab", connection=settings.connect())

    @schema
    class Item(dj.Manual):
        definition = "item : int32"

    @schema
    class Measured(dj.Computed):
        definition = """
        -> Item
        ---
        trace : <blob@>
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "trace": [1, 2]})

    Item.insert1((1,))
    return Measured, build_definitions(schema)


DATABASE, STORE = "DJ_DATABASE_SHARED=true", "set stores.raw.shared to true"


@pytest.mark.parametrize(
    ("declared", "said", "unsaid"),
    [
        ({"database": False, "store": False}, [DATABASE, STORE], []),
        ({"database": True, "store": False}, [STORE], [DATABASE]),
        ({"database": False, "store": True}, [DATABASE], [STORE]),
    ],
    ids=["neither", "database", "store"],
)
def test_what_is_not_declared_shared_is_told_before_a_run_is_submitted(
    far: dg.DagsterInstance,
    tmp_path: Path,
    declared: dict[str, bool],
    said: list[str],
    unsaid: list[str],
) -> None:
    measured, defs = tables(tmp_path, **declared)
    with pytest.raises(dj.ConfigurationError, match="FarLauncher starts runs on other") as refused:
        tick(defs, far)
    # A run that was launched by hand is refused by its own process, and by the launcher for Slurm.
    run = create_run(defs, far, [key_of("lab/measured")], run_config=ALL)
    assert not execute(defs, far, run)
    assert len(measured()) == 0
    (failure,) = far.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    steps = {"lab__measured": {HERE_ONLY_TAG: op_tags(defs)[HERE_ONLY_TAG]}}
    with pytest.raises(resources.SlurmRequestError) as unsent:
        resources.requested({}, steps, {})
    for text in (str(refused.value), json.dumps(failure.to_json()), str(unsent.value)):
        assert all(each in text for each in said), text
        assert not any(each in text for each in unsaid), text
        assert "stores.own" not in text


ALL = {"ops": {"lab__measured": {"config": {"keys": "all"}}}}


def op_tags(defs: dg.Definitions) -> dict[str, str]:
    job = defs.resolve_implicit_global_asset_job_def()
    return dict(job.get_node_named("lab__measured").definition.tags)


def test_what_is_declared_shared_is_used_on_other_machines(
    far: dg.DagsterInstance, tmp_path: Path
) -> None:
    measured, defs = tables(tmp_path, database=True, store=True)
    (request,) = requested(tick(defs, far))
    assert execute(defs, far, submit(defs, far, request))
    assert measured().fetch1("trace") == [1, 2]
    assert HERE_ONLY_TAG not in op_tags(defs)


def test_runs_of_this_machine_use_its_files(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    _, defs = tables(tmp_path, database=False, store=False)
    assert len(requested(tick(defs, instance))) == 1

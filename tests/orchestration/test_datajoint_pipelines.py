"""A pipeline written for DataJoint itself, run as it is."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import build_definitions
from dj_dagster.orchestration.headless import run_assets
from tests.orchestration.running import key_of, materialize, requested, run_until_quiet, tick
from tests.services.database_server import drop_databases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses a datajoint.json
    import datajoint


@dataclass
class Pipeline:
    """The tables, and which of their keys cannot be made."""

    schema: Any
    tables: dict[str, Any]
    broken: set[int] = field(default_factory=set)
    calls: list[int] = field(default_factory=list)

    def asset(self, *path: str) -> str:
        return "/".join([self.schema.database, *path])

    def add(self, *numbers: int) -> None:
        self.tables["Session"].insert([{"session": n, "day": "2026-11-20"} for n in numbers])


@pytest.fixture
def pipeline(server_url: str) -> Iterator[Pipeline]:
    url = sa.make_url(server_url)
    datajoint.logger.setLevel("ERROR")
    connection = datajoint.Connection(
        url.host or "", url.username or "", str(url.password or ""), url.port
    )
    name = f"t{uuid.uuid4().hex[:8]}_dj"
    schema = datajoint.Schema(name, connection=connection)
    made = Pipeline(schema, {})

    @schema
    class Session(datajoint.Manual):
        definition = """
        # One sitting
        session : int32
        ---
        day : date
        """

    @schema
    class Length(datajoint.Computed):
        definition = """
        -> Session
        ---
        value : float64
        """

        class Bin(datajoint.Part):
            definition = """
            -> master
            bin : int32
            """

        def make(self, key):
            made.calls.append(key["session"])
            if key["session"] in made.broken:
                raise ValueError(f"no file for {key['session']}")
            self.insert1({**key, "value": key["session"] / 2})
            self.Bin.insert([{**key, "bin": 0}, {**key, "bin": 1}])

    made.tables |= {"Session": Session, "Length": Length}
    yield made
    connection.close()
    drop_databases(server_url, name)


def test_its_tables_are_assets_like_ours(pipeline: Pipeline) -> None:
    defs = build_definitions(pipeline.schema)
    defs.get_repository_def().load_all_definitions()
    specs = {s.key.path[-1]: s for s in defs.resolve_all_asset_specs() if "dj/class" in s.metadata}
    assert set(specs) == {"session", "length", "bin"}
    assert specs["length"].kinds == {"computed", "mysql"}
    assert specs["length"].code_version
    assert specs["bin"].partitions_def == specs["session"].partitions_def
    names = {key.path[-1] for key in defs.resolve_asset_graph().materializable_asset_keys}
    assert names == {"length", "bin"}


def test_a_table_in_place_of_its_schema_is_refused(pipeline: Pipeline) -> None:
    for given in (pipeline.tables["Session"], pipeline.tables["Session"]()):
        with pytest.raises(ConfigurationError, match="is not a schema: give"):
            build_definitions(given)


def test_its_own_make_fills_them_and_its_jobs_say_what_failed(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    defs = build_definitions(pipeline.schema)
    pipeline.add(1, 2, 3)
    pipeline.broken = {2}
    assert run_until_quiet(defs, instance) == [False]
    length = pipeline.tables["Length"]
    assert sorted(length.to_arrays("session")) == [1, 3]
    assert len(length.Bin()) == 4
    assert instance.get_materialized_partitions(key_of(pipeline.asset("length"))) == {
        "session=1",
        "session=3",
    }
    (job,) = length.jobs.errors.to_dicts()
    assert job["session"] == 2
    assert "no file for 2" in job["error_message"]

    pipeline.broken, pipeline.calls[:] = set(), []
    both = [pipeline.asset("length"), pipeline.asset("length", "bin")]
    assert materialize(defs, instance, *both, partition="session=1", through="session=3")
    assert pipeline.calls == [2]
    assert len(length()) == 3
    assert length.jobs.progress()["total"] == 0


def test_rows_that_its_own_populate_made_are_marked(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    defs = build_definitions(pipeline.schema)
    pipeline.add(1, 2)
    pipeline.tables["Length"].populate()
    assert requested(tick(defs, instance)) == []
    marked = instance.get_materialized_partitions(key_of(pipeline.asset("length", "bin")))
    assert marked == {"session=1", "session=2"}


def test_a_key_that_its_worker_holds_is_left_to_it(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    defs = build_definitions(pipeline.schema)
    pipeline.add(1, 2)
    jobs = pipeline.tables["Length"].jobs
    jobs.refresh(delay=-1)
    assert jobs.reserve({"session": 1})
    assert all(run_until_quiet(defs, instance))
    assert pipeline.calls == [2]


def test_checks_traces_and_rows_work_as_well(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    taken: list[Any] = []

    @dg.asset(ins={"rows": dg.AssetIn([pipeline.schema.database, "length"])})
    def reads(rows: list[dict[str, Any]]) -> None:
        taken.extend(rows)

    defs = build_definitions(pipeline.schema, assets=[reads])
    pipeline.add(4)
    check = dg.AssetCheckKey(key_of(pipeline.asset("length")), "complete")
    assert run_assets(defs, [], instance=instance, checks=[check]).is_success
    assert run_until_quiet(defs, instance) == [True]
    assert materialize(defs, instance, "reads")
    assert taken == [{"session": 4, "value": 2.0}]
    specs = {spec.key.path[-1]: spec for spec in defs.resolve_all_asset_specs()}
    assert "dj/trace" in specs["length"].metadata
    job = defs.resolve_job_def("trace")
    config = {"table": "Length", "partition": "session=4"}
    result = job.execute_in_process({"ops": {"trace_rows": {"config": config}}}, instance=instance)
    assert result.success

"""Entering rows from the launchpad: typed fields, parts, CSV files."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import numpy as np
import pytest
import yaml

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores.stores import Stores
from dj_dagster.orchestration import build_definitions
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from tests.orchestration.lab import Lab, partition
from tests.orchestration.running import key_of, requested, tick


def launch(
    defs: dg.Definitions, instance: dg.DagsterInstance, job: str, **config: Any
) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(
        {"ops": {f"{job}__rows": {"config": config}}}, instance=instance, raise_on_error=False
    )


def fields(defs: dg.Definitions, job: str) -> dict[str, Any]:
    op = defs.resolve_job_def(job).nodes[0].definition
    return op.config_schema.config_type.fields["rows"].config_type.inner_type.fields  # type: ignore[attr-defined]


SESSION = {"subject_id": 1, "session_id": 3, "session_date": "2026-11-20"}


def test_each_manual_table_has_a_job_and_no_other(lab: Lab) -> None:
    jobs = {job.name for job in lab.definitions().resolve_all_job_defs()}
    assert {name for name in jobs if name.startswith("insert__")} == {
        "insert__lab__subject",
        "insert__lab__session",
    }


def test_a_row_is_inserted_shown_and_processed(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = any_lab.definitions()
    name = any_lab.schema.name
    assert launch(
        defs, instance, f"insert__{name}__subject", rows=[{"subject_id": 1, "sex": "F"}]
    ).success
    assert launch(defs, instance, f"insert__{name}__session", rows=[SESSION]).success
    assert any_lab.Session.to_dicts() == [
        {"subject_id": 1, "session_id": 3, "session_date": dt.date(2026, 11, 20), "note": None}
    ]
    assert instance.get_materialized_partitions(key_of(any_lab.asset("session"))) == {partition(3)}
    (request,) = requested(tick(defs, instance))
    assert key_of(any_lab.asset("raw_data")) in (request.asset_selection or ())


def test_the_partitions_of_new_rows_alone_are_marked_and_spelled_as_stored(
    database_url: str, schema_prefix: str, instance: dg.DagsterInstance
) -> None:
    schema = Schema(f"{schema_prefix}days", connection=Connection(database_url))

    @schema
    class Day(Manual):
        definition = """
        day : date
        at : datetime
        who : char(9)
        """

    name = schema.database
    defs, job = build_definitions(schema), f"insert__{name}__day"
    rows = [{"day": "2026-1-5", "at": "2026-1-5 10:00:00.7", "who": "a "}]
    assert launch(defs, instance, job, rows=rows).success
    (first,) = instance.get_dynamic_partitions(f"{name}.Day")
    rows += [{**rows[0], "who": "b"}]
    assert launch(defs, instance, job, rows=rows, skip_duplicates=True).success
    marked = instance.fetch_materializations(dg.AssetKey([name, "day"]), limit=9).records
    assert [mark.partition_key for mark in marked] == [first.replace("who=a", "who=b"), first]
    shown = instance.get_dynamic_partitions(f"{name}.Day")
    tick(defs, instance)
    assert instance.get_dynamic_partitions(f"{name}.Day") == shown


def test_rows_of_parts_come_with_their_master(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions([])
    lab.Subject.insert1({"subject_id": 1, "sex": "F"}, skip_duplicates=True)
    trials = [{"subject_id": 1, "session_id": 3, "trial_id": n, "start_s": n / 2} for n in (0, 1)]
    defs = lab.definitions()
    result = launch(defs, instance, "insert__lab__session", rows=[SESSION], parts={"trial": trials})
    assert result.success
    assert lab.Session.Trial.to_dicts() == trials
    # Part by part or all: a trial without its session takes the session's row with it.
    other = {**SESSION, "session_id": 4}
    lost = [{**trials[0], "session_id": 5}]
    assert not launch(
        defs, instance, "insert__lab__session", rows=[other], parts={"trial": lost}
    ).success
    assert len(lab.Session()) == 1


def test_rows_come_from_a_csv_file(lab: Lab, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    file = tmp_path / "subjects.csv"
    file.write_text("subject_id,sex\n1,F\n2,M\n")
    defs = build_definitions([lab.schema], entry_folders=[tmp_path])
    assert launch(defs, instance, "insert__lab__subject", csv=str(file)).success
    assert len(lab.Subject()) == 2
    again = launch(defs, instance, "insert__lab__subject", csv=str(file))
    assert not again.success
    assert launch(
        defs, instance, "insert__lab__subject", csv=str(file), skip_duplicates=True
    ).success
    assert len(lab.Subject()) == 2


def test_nothing_to_insert_says_what_to_write(lab: Lab, instance: dg.DagsterInstance) -> None:
    result = launch(lab.definitions(), instance, "insert__lab__subject")
    assert not result.success
    assert "write rows, or the path csv" in str(
        result.failure_data_for_node("insert__lab__subject__rows")
    )


def test_a_value_that_only_the_table_refuses_is_named_first(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.Subject.insert1({"subject_id": 1, "sex": "F"})
    rows = [SESSION, {**SESSION, "session_id": 4, "session_date": "yesterday"}]
    result = launch(lab.definitions(), instance, "insert__lab__session", rows=rows)
    failure = result.failure_data_for_node("insert__lab__session__rows")
    assert failure is not None
    assert failure.user_failure_data is not None
    said = failure.user_failure_data.description or ""
    assert said.startswith("lab.session.session_date : date cannot hold 'yesterday'")
    assert "'session_id': 4" in said
    assert not lab.Session()


@pytest.mark.parametrize(
    "row",
    [
        {"subject_id": 1, "sex": "X"},
        {"subject_id": "one", "sex": "F"},
        {"subject_id": 1},
        {"subject_id": 1, "sex": "F", "age": 3},
        {"subject_id": 1, "sex": None},
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_it_starts(
    lab: Lab, instance: dg.DagsterInstance, row: dict[str, Any]
) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError):
        launch(lab.definitions(), instance, "insert__lab__subject", rows=[row])


def test_the_job_has_a_row_to_be_filled_in(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.Subject.insert1({"subject_id": 1, "sex": "F"})
    job = lab.definitions().resolve_job_def("insert__lab__session")
    text = (job.description or "").split("```yaml\n")[1].split("\n```")[0]
    for name, value in SESSION.items():
        text = re.sub(rf"\b{name}:", f"{name}: {value!r}", text)
    assert "# note:  # varchar" in text
    done = job.execute_in_process(yaml.safe_load(text), instance=instance)
    assert done.success
    assert lab.Session.fetch1("note") is None


def test_each_type_of_value_has_its_field(lab: Lab, instance: dg.DagsterInstance) -> None:
    schema = Schema("types", connection=lab.schema.connection)

    @schema
    class Everything(Manual):
        definition = """
        name : varchar(20)
        ---
        count = 3 : int32  # how many
        ratio = null : float64
        flag = 1 : bool
        side = 'left' : enum('left', 'right')
        day : date
        moment : datetime
        made = CURRENT_TIMESTAMP : timestamp
        code : uuid
        price : decimal(9, 2)
        info = null : json
        data : <blob>
        """

    defs = build_definitions(schema)
    found = fields(defs, "insert__types__everything")
    assert found["count"].default_value == 3
    assert found["count"].description == "how many; int32"
    assert found["side"].default_value == "left"
    assert [v.config_value for v in found["side"].config_type.enum_values] == ["left", "right"]
    assert found["ratio"].config_type.kind.value == "NONEABLE"
    assert not found["ratio"].is_required
    assert found["day"].is_required
    assert not found["made"].is_required
    row = {
        "name": "a/b",
        "ratio": 2,
        "flag": False,
        "day": "2026-01-31",
        "moment": "2026-01-31 08:00:00",
        "code": "00000000-0000-0000-0000-000000000001",
        "price": 1.5,
        "info": {"a": [1]},
        "data": [1, 2, 3],
    }
    assert launch(defs, instance, "insert__types__everything", rows=[row]).success
    found = Everything.fetch1()
    made = found.pop("made")
    assert isinstance(made, dt.datetime)
    assert np.array_equal(found.pop("data"), [1, 2, 3])
    assert found == {
        "name": "a/b",
        "count": 3,
        "ratio": 2.0,
        "flag": 0,
        "side": "left",
        "day": dt.date(2026, 1, 31),
        "moment": dt.datetime(2026, 1, 31, 8),
        "code": UUID(int=1),
        "price": Decimal("1.50"),
        "info": {"a": [1]},
    }


SECRET = "b7-secret-of-the-server"


@pytest.fixture
def filed(database_url: str, schema_prefix: str, tmp_path: Path) -> Schema:
    """A schema with a table ``Paper``, whose rows may hold files of the machine."""
    stores = Stores({"main": {"protocol": "file", "location": str(tmp_path / "store")}})
    schema = Schema(f"{schema_prefix}files", connection=Connection(database_url, stores=stores))

    @schema
    class Paper(Manual):
        definition = """
        name : varchar(40)
        ---
        pages = null : int32
        file = null : <attach>
        folder = null : <object@main>
        """

    return schema


def entered(schema: Schema, instance: dg.DagsterInstance, folders: Any, **config: Any) -> Any:
    """Launch the entry job of ``Paper``; return whether it went well, and all that it said."""
    job = f"insert__{schema.database}__paper"
    result = launch(build_definitions([schema], entry_folders=folders), instance, job, **config)
    return result.success, "\n".join(map(str, instance.all_logs(result.run_id)))


@pytest.mark.parametrize("attribute", ["csv", "file", "folder"])
def test_files_are_taken_from_allowed_folders_alone(
    filed: Schema, instance: dg.DagsterInstance, tmp_path: Path, attribute: str
) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    text = f"name,pages\n{SECRET},1\n" if attribute == "csv" else SECRET
    for folder in (allowed, other):
        (folder / "taken.csv").write_text(text)
    (allowed / "link.csv").symlink_to(other / "taken.csv")
    table = filed["Paper"]

    def config(file: Path) -> dict[str, Any]:
        if attribute == "csv":
            return {"csv": str(file)}
        return {"rows": [{"name": "x", attribute: str(file)}]}

    for folders, file in [
        ((), allowed / "taken.csv"),
        # One folder, not each letter of it, such as the root.
        (str(allowed), other / "taken.csv"),
        ([allowed], other / "taken.csv"),
        ([allowed], allowed / ".." / "other" / "taken.csv"),
        ([allowed], allowed / "link.csv"),
        ([allowed], other / "none.csv"),
    ]:
        success, said = entered(filed, instance, folders, **config(file))
        assert not success, file
        assert "entry_folders" in said
        assert SECRET not in said
        assert len(table) == 0
    assert entered(filed, instance, str(allowed), **config(allowed / "taken.csv"))[0]
    assert len(table) == 1


@pytest.mark.parametrize("folders", ["", [" "], [None], 3])
def test_an_empty_folder_is_not_the_current_one(lab: Lab, folders: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"entry_folders has .*: write the path"):
        build_definitions(lab.schema, entry_folders=folders)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "none.csv is not there"),
        ("", "is a folder"),
        ("empty.csv", "empty.csv is empty: its first line must name the attributes"),
        ("a\0b.csv", "lab.Subject: csv is not the path of a file"),
        ("~nobody-of-that-name/x.csv", "lab.Subject: csv is not the path of a file"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_named(
    lab: Lab, instance: dg.DagsterInstance, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "empty.csv").touch()
    file = name if name.startswith("~") else f"{tmp_path}/{name}"
    defs = build_definitions(lab.schema, entry_folders=tmp_path)
    result = launch(defs, instance, "insert__lab__subject", csv=file)
    said = "\n".join(map(str, instance.all_logs(result.run_id)))
    assert not result.success
    assert message in said
    assert "do not fit" not in said


def test_a_csv_file_cannot_bring_files_of_other_folders(
    filed: Schema, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "key").write_text(SECRET)
    (allowed / "rows.csv").write_text(f"name,file\nx,{tmp_path / 'key'}\n")
    success, said = entered(filed, instance, [allowed], csv=str(allowed / "rows.csv"))
    assert not success
    assert "Paper.file" in said
    assert len(filed["Paper"]) == 0


@pytest.mark.parametrize(
    "content",
    [
        f"{SECRET}:x:0,a\n1,2\n",
        f"name,pages\nx,{SECRET}\n",
        f"name,pages\nx,1,{SECRET}\n",
        f'name,pages\n"{SECRET},1\n',
        f"name,{SECRET}\nx,1\n",
        f"name,pages\n{SECRET},1\n{SECRET},2\n",
    ],
)
def test_errors_of_a_csv_file_do_not_quote_it(
    filed: Schema, instance: dg.DagsterInstance, tmp_path: Path, content: str
) -> None:
    (tmp_path / "rows.csv").write_text(content)
    success, said = entered(filed, instance, [tmp_path], csv=str(tmp_path / "rows.csv"))
    assert not success
    assert "rows.csv" in said
    assert "Paper" in said
    assert SECRET not in said
    assert len(filed["Paper"]) == 0


def test_a_folder_of_nobody_is_named(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"'~nobody_here/in', in the home of a user"):
        build_definitions([lab.schema], entry_folders=["~nobody_here/in"])

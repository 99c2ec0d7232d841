"""Dropping tables with all that refer to them, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.model.names import TableName


@pytest.fixture
def lab(schema: Any, connection: dj.Connection, schema_prefix: str) -> dict[str, Any]:
    @schema
    class Subject(dj.Manual):
        definition = """
        subject : int32   # a comment
        """

    @schema
    class Session(dj.Manual):
        definition = """
        -> Subject
        session : int32
        """

        class Trial(dj.Part):
            definition = """
            -> master
            trial : int32
            """

    @schema
    class Group(dj.Manual):
        definition = """
        group_id : int32
        """

        class Member(dj.Part):
            definition = """
            -> master
            -> Subject
            """

    context = {"Trial": Session.Trial}
    other: Any = dj.Schema(f"{schema_prefix}other", connection=connection, context=context)

    @other
    class Spikes(dj.Computed):
        definition = """
        -> Trial
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Subject.insert([(1,), (2,)])
    Session.insert1((1, 1))
    Session.Trial.insert1((1, 1, 1))
    Spikes.populate(reserve_jobs=True)
    return {
        "Subject": Subject,
        "Session": Session,
        "Group": Group,
        "Spikes": Spikes,
        "schema": schema,
        "other": other,
    }


def every_table(lab: dict[str, Any]) -> set[str]:
    """Return the tables that the database has, hidden ones too."""
    names: list[TableName] = []
    for schema in (lab["schema"], lab["other"]):
        schema.connection.catalog.forget(schema.name)
        names += schema.connection.catalog.names(schema.name)
    return {name.table for name in names if name.table not in ("~lineage", "~provenance")}


ALL = {
    "subject", "session", "session__trial", "group", "group__member", "__spikes", "~~spikes",
}  # fmt: skip


def notes(lab: dict[str, Any]) -> set[str]:
    """Return the tables of which something is noted outside of them."""
    found: set[str] = set()
    for schema in (lab["schema"], lab["other"]):
        backend = schema.connection.backend.name
        sql = (
            f"SELECT table_name FROM \"~catalog\" WHERE schema_name = '{schema.name}'"
            if backend == "sqlite"
            else f"SELECT table_name FROM `{schema.name}`.`~lineage`"
        )
        with schema.connection.cursor() as session:
            found |= {row[0] for row in session.exec_driver_sql(sql) if row[0]}
    return found - {"~~spikes", "~provenance"}


def test_descendants_go_along(lab: dict[str, Any]) -> None:
    assert every_table(lab) == ALL
    asked: list[str] = []

    def no(text: str) -> bool:
        asked.append(text)
        return False

    lab["Session"].drop(prompt=True, confirm=no)
    assert every_table(lab) == ALL
    lines = [line.split() for line in asked[0].splitlines()[1:]]
    session = lab["Session"]
    assert sorted(lines) == sorted(
        ["1", str(table().name)] for table in (session, session.Trial, lab["Spikes"])
    )
    with pytest.raises(dj.DataJointError, match="prompt=False"):
        lab["Session"].drop(prompt=True)
    lab["Session"].drop(prompt=True, confirm=lambda _: True)
    assert every_table(lab) == {"subject", "group", "group__member"}
    assert notes(lab) == every_table(lab)
    assert len(lab["Subject"]) == 2
    with pytest.raises(dj.QueryError, match="session"):
        len(lab["Session"])


def test_parts_go_with_their_master_only(lab: dict[str, Any]) -> None:
    with pytest.raises(dj.DataJointError, match="part of session"):
        lab["Session"].Trial.drop()
    with pytest.raises(dj.DataJointError, match=r"group__member but not its master group"):
        lab["Subject"].drop()
    with pytest.raises(ValueError, match="part_integrity"):
        lab["Subject"].drop(part_integrity="cascade")
    assert every_table(lab) == ALL
    lab["Subject"].drop(part_integrity="ignore")
    assert every_table(lab) == {"group"}


def test_one_table_alone(lab: dict[str, Any], connection: dj.Connection) -> None:
    with pytest.raises(dj.IntegrityError, match="session__trial"):
        lab["Session"].drop_quick()
    with pytest.raises(dj.QueryError, match="restricted"):
        (lab["Spikes"] & {"subject": 1}).drop()
    with connection.transaction(), pytest.raises(dj.QueryError, match="transaction"):
        lab["Spikes"].drop()
    assert every_table(lab) == ALL
    lab["Spikes"].drop_quick()
    assert every_table(lab) == ALL - {"__spikes", "~~spikes"}


def test_declared_once_more(lab: dict[str, Any]) -> None:
    lab["Group"].drop()

    class Group(dj.Manual):
        definition = """
        another : int8   # other than before
        """

    made = lab["schema"](Group)
    assert made.heading.names == ["another"]
    assert made.heading["another"].comment == "other than before"
    assert len(made) == 0


def test_whole_schema(lab: dict[str, Any], connection: dj.Connection) -> None:
    with pytest.raises(dj.QueryError, match=lab["other"].name):
        lab["schema"].drop(prompt=False)
    with pytest.raises(dj.DataJointError, match=r"__spikes.*\n.*prompt=False"):
        lab["other"].drop(prompt=True)
    with connection.transaction(), pytest.raises(dj.QueryError, match="transaction"):
        lab["other"].drop(prompt=False)
    assert every_table(lab) == ALL
    lab["other"].drop(prompt=False)
    lab["schema"].drop(prompt=False)
    names = connection.schema_names()
    assert not {lab["other"].name, lab["schema"].name} & set(names)


def test_odd_schema_name(connection: dj.Connection, schema_prefix: str) -> None:
    schema: Any = dj.Schema(f"{schema_prefix}50 % off", connection=connection, context={})

    class Price(dj.Manual):
        definition = "price : int32"

    class Rebate(dj.Computed):
        definition = "-> Price\n---\nrebate = 1 : int32"

    schema.context["Price"] = schema(Price)
    schema(Rebate)
    Rebate.definition += "\nnote = '5 %' : varchar(9)   # 100 %"
    assert Rebate.alter(prompt=False)
    assert Rebate.heading["note"].comment == "100 %"
    assert Rebate.describe().count(" %") == 2
    Rebate.drop()
    Price.drop_quick()
    assert schema.list_tables() == []
    schema.drop(prompt=False)


def test_a_master_takes_parts_along_that_do_not_refer_to_it(
    schema: Any, connection: dj.Connection
) -> None:
    @schema
    class Box(dj.Manual):
        definition = """
        box : int32
        """

        class Loose(dj.Part):
            definition = """
            loose : int32
            """

    @schema
    class Label(dj.Manual):
        definition = """
        -> Box.Loose
        """

    @schema
    class Other(dj.Manual):
        definition = """
        other : int32
        """

    told: list[str] = []
    Box.drop(prompt=True, confirm=lambda text: bool(told.append(text)))
    assert all(name in told[0] for name in ("box", "box__loose", "label"))
    with pytest.raises(dj.IntegrityError, match="box__loose"):
        Box.drop_quick()
    Box.drop()
    assert [name for name in schema.list_tables() if not name.startswith("~")] == ["other"]
    assert not Label.is_declared
    assert Other.is_declared


def test_a_table_declared_while_drop_asks_is_not_dropped(lab: dict[str, Any]) -> None:
    before = every_table(lab)

    def declares(text: str) -> bool:
        late: Any = type("Late", (dj.Manual,), {"definition": "-> Session"})
        lab["schema"](late, context={"Session": lab["Session"]}).insert1((1, 1))
        return True

    with pytest.raises(dj.QueryError, match=r"session was not dropped.*late.*again"):
        lab["Session"].drop(prompt=True, confirm=declares)
    assert every_table(lab) == before | {"late"}
    lab["Session"].drop(prompt=True, confirm=lambda _: True)

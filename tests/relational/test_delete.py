"""Deleting with cascade: what goes along, what is refused, and that nothing is left half-done."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

import dj_dagster as dj


class Names:
    """Stands for a module that holds table classes."""

    def __init__(self, **tables: Any) -> None:
        self.__dict__.update(tables)


@pytest.fixture
def lab(schema: Any, connection: dj.Connection, schema_prefix: str) -> dict[str, Any]:
    """Three subjects with two sessions each, and tables that refer to these in all ways."""

    @schema
    class Subject(dj.Manual):
        definition = """
        subject : int32
        """

    @schema
    class Session(dj.Manual):
        definition = """
        -> Subject
        session : int32
        ---
        quality : int32
        """

        class Trial(dj.Part):
            definition = """
            -> master
            trial : int32
            """

    @schema
    class Renamed(dj.Manual):
        definition = """
        -> Session.proj(animal='subject', visit='session')
        """

    @schema
    class Note(dj.Manual):
        definition = """
        note : int32
        ---
        -> [nullable] Session
        """

    @schema
    class OfNote(dj.Manual):
        definition = """
        -> Note
        """

    other: Any = dj.Schema(
        f"{schema_prefix}other", connection=connection, context={"lab": Names(**schema.tables)}
    )

    @other
    class Report(dj.Manual):
        definition = """
        -> lab.Session
        """

    subjects, sessions = range(3), range(2)
    keys = [(a, b) for a in subjects for b in sessions]
    Subject.insert([(a,) for a in subjects])
    Session.insert([(a, b, a + b) for a, b in keys])
    Session.Trial.insert([(a, b, t) for a, b in keys for t in range(2)])
    Renamed.insert(keys)
    Note.insert([(n, *key) for n, key in enumerate(keys)])
    Note.insert1((99, None, None))
    OfNote.insert([(n,) for n in range(len(keys))] + [(99,)])
    Report.insert(keys)
    return {**schema.tables, "Report": Report, "Trial": Session.Trial}


def counts(lab: dict[str, Any]) -> dict[str, int]:
    return {name: len(table) for name, table in lab.items()}


FULL = {
    "Subject": 3, "Session": 6, "Renamed": 6, "Note": 7, "OfNote": 7, "Report": 6, "Trial": 12,
}  # fmt: skip
ONE_LESS = {
    "Subject": 2, "Session": 4, "Renamed": 4, "Note": 5, "OfNote": 5, "Report": 4, "Trial": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    "restriction", [{"subject": 1}, "subject = 1", [{"subject": 1}, {"subject": 8}], {"key": 5}]
)
def test_cascade(lab: dict[str, Any], restriction: Any) -> None:
    if restriction == {"key": 5}:
        assert lab["Subject"].delete() == 3
        assert set(counts(lab).values()) == {0, 1}  # the note of no session, and what is of it
        assert (lab["Note"].fetch1("note"), lab["OfNote"].fetch1("note")) == (99, 99)
        return
    assert (lab["Subject"] & restriction).delete() == 1
    assert counts(lab) == ONE_LESS


def test_a_restriction_is_not_an_option(lab: dict[str, Any]) -> None:
    subject: Any = lab["Subject"]
    for given in ({"subject": 1}, "subject = 1", [], subject):
        for call in ("delete", "delete_quick"):
            for table in (subject, subject(), subject & "subject > 0"):
                with pytest.raises(dj.QueryError, match=rf"restrict the table first.*\.{call}\(\)"):
                    getattr(table, call)(given)
    assert len(subject()) == 3


def test_null_reference_is_no_dependence(lab: dict[str, Any]) -> None:
    lab["Session"].delete()
    assert (len(lab["Note"]), len(lab["OfNote"]), len(lab["Subject"])) == (1, 1, 3)


def test_root_chosen_by_its_own_descendants(lab: dict[str, Any]) -> None:
    chosen = lab["Subject"] & (lab["Session"] & "quality = 0")
    assert chosen.delete() == 1
    assert counts(lab) == ONE_LESS
    assert (lab["Subject"] & lab["Note"]).delete() == 2


def test_root_chosen_by_itself(lab: dict[str, Any]) -> None:
    subject = lab["Subject"]
    assert (subject & (subject & "subject > 1").proj()).delete() == 1
    assert (subject - (subject & "subject = 0")).delete() == 1
    lab["Report"].delete()
    report = lab["Report"]
    report.insert([(0, 0), (0, 1)])
    assert (report & (report & "session = 1")).delete_quick() == 1


def test_chosen_by_text_with_names_that_children_share(lab: dict[str, Any]) -> None:
    assert (lab["Session"] & "subject = 1 AND session = 0").delete() == 1
    assert (len(lab["Session"]), len(lab["Trial"]), len(lab["Renamed"])) == (5, 10, 5)


def test_declining_changes_nothing(lab: dict[str, Any]) -> None:
    asked: list[str] = []

    def no(summary: str) -> bool:
        asked.append(summary)
        return False

    assert (lab["Subject"] & {"subject": 1}).delete(prompt=True, confirm=no) == 0
    assert counts(lab) == FULL
    assert "session__trial" in asked[0]
    assert lab["Subject"].delete(prompt=True, confirm=lambda _: True) == 3


def test_asking_without_a_terminal_is_an_error(lab: dict[str, Any]) -> None:
    with pytest.raises(dj.DataJointError, match="prompt=False"):
        lab["Subject"].delete(prompt=True)
    assert counts(lab) == FULL


def test_part_goes_with_its_master_only(lab: dict[str, Any], schema: Any) -> None:
    with pytest.raises(dj.DataJointError, match="part of session"):
        (lab["Trial"] & {"trial": 0}).delete()
    assert counts(lab) == FULL
    assert (lab["Trial"] & {"trial": 0}).delete_quick() == 6

    @schema
    class Group(dj.Manual):
        definition = """
        group_id : int32
        """

        class Member(dj.Part):
            definition = """
            -> master
            -> Renamed
            """

    Group.insert1((1,))
    Group.Member.insert1((1, 1, 1))
    with pytest.raises(dj.DataJointError, match="group__member"):
        lab["Renamed"].delete()
    assert (len(lab["Renamed"]), len(Group.Member)) == (6, 1)
    assert Group.delete() == 1
    assert lab["Renamed"].delete() == 6


def test_quick_delete_is_refused_where_rows_depend(lab: dict[str, Any]) -> None:
    with pytest.raises(dj.IntegrityError):
        (lab["Subject"] & {"subject": 1}).delete_quick()
    assert counts(lab) == FULL
    assert (lab["Report"] & {"subject": 1}).delete_quick() == 2


def test_delete_inside_a_transaction(lab: dict[str, Any], connection: dj.Connection) -> None:
    def fail() -> None:
        with connection.transaction():
            assert (lab["Subject"] & {"subject": 1}).delete() == 1
            with pytest.raises(dj.QueryError, match="prompt=False"):
                lab["Subject"].delete(prompt=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert counts(lab) == FULL


def test_hierarchy_within_a_table(schema: Any) -> None:
    @schema
    class Person(dj.Manual):
        definition = """
        person : int32
        ---
        -> [nullable] self.proj(boss='person')
        """

    @schema
    class Desk(dj.Manual):
        definition = """
        -> Person
        """

    Person.insert([(1, None), (2, 1), (3, 2), (4, 3), (5, None), (6, 5)])
    Desk.insert([(n,) for n in range(1, 7)])
    assert (Person & {"person": 2}).delete() == 3
    assert Person.to_arrays("person", order_by="KEY").tolist() == [1, 5, 6]
    assert len(Desk) == 3
    assert Person.delete() == 3


def test_tables_declared_by_others_are_seen(
    lab: dict[str, Any], schema: Any, database_url: str
) -> None:
    elsewhere = dj.Connection(database_url)
    theirs: Any = dj.Schema(schema.name, connection=elsewhere, context=dict(schema.tables))

    class Subject(dj.Manual):
        definition = """
        subject : int32
        """

    theirs(Subject)

    @theirs
    class Late(dj.Manual):
        definition = """
        -> Subject
        """

    Late.insert1((1,))
    assert (lab["Subject"] & {"subject": 1}).delete() == 1
    assert len(Late) == 0
    elsewhere.close()


def test_circle_within_a_table_is_refused(schema: Any) -> None:
    @schema
    class Person(dj.Manual):
        definition = """
        person : int32
        ---
        -> [nullable] self.proj(boss='person')
        """

    Person.insert([(1, None), (2, 1)])
    with Person.connection.cursor() as session:
        table = '"{}.person"' if Person.connection.backend.name == "sqlite" else "`{}`.person"
        session.exec_driver_sql(f"UPDATE {table.format(schema.name)} SET boss = 2 WHERE person = 1")
    Person.insert([(number, 2) for number in range(3, 200)])
    asked: list[str] = []
    event.listen(Person.connection.engine, "before_cursor_execute", lambda *a: asked.append(a[2]))
    with pytest.raises(dj.QueryError, match=r"circle: \(1,\), \(2,\)\. "):
        Person.delete()
    assert len(asked) < 30
    assert len(Person) == 199


def test_rows_of_a_projection_are_rows_of_its_table(lab: dict[str, Any]) -> None:
    subject, session = lab["Subject"], lab["Session"]
    assert (subject.proj() & {"subject": 1}).delete(dry_run=True)[subject.full_table_name] == 1
    assert (subject.proj() & {"subject": 1}).delete() == 1
    assert counts(lab) == ONE_LESS
    assert (session.proj(doubled="quality * 2") & "doubled = 2" & "session = 1").delete() == 1
    assert (session.proj("quality") & dj.Top(1)).delete() == 1
    assert len(session) == 2
    lab["Report"].delete()
    lab["Report"].insert(session.keys())
    assert (lab["Report"].proj() & "session = 1").delete_quick() == 1


def test_rows_of_several_tables_cannot_be_deleted(lab: dict[str, Any]) -> None:
    subject, session = lab["Subject"], lab["Session"]
    renamed = {"subject": "session", "session": "subject"}
    for query, words in (
        (subject * session, r"a join of .*session.*subject"),
        (subject.aggr(session, n="count(*)") & "n > 0", "an aggregation of"),
        ((subject & "subject = 0").proj() + (subject & "subject = 1").proj(), "a union of"),
        (dj.U("quality") & session, "groups of rows of"),
        (session.proj(visit="session") & "visit = 0", "key of .*session under other names"),
        (session.proj(**renamed), "key of .*session under other names"),
    ):
        for method in (query.delete, query.delete_quick):
            with pytest.raises(dj.QueryError, match=rf"{words}.*\(Table & query\)\.delete\(\)"):
                method()
    assert counts(lab) == FULL
    assert (subject & (subject * session & "quality = 0")).delete() > 0

"""Deleting parts and masters, counting first, and tables that the user cannot see."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

import dj_dagster as dj
from dj_dagster.model.names import TableName
from dj_dagster.relational.deleting.delete import cascade_counts


@pytest.fixture
def lab(schema: Any) -> dict[str, Any]:
    """Recordings of two animals; groups pick recordings as their members, lists pick those."""

    @schema
    class Recording(dj.Manual):
        definition = """
        recording : int32
        """

    @schema
    class Group(dj.Manual):
        definition = """
        group_id : int32
        """

        class Member(dj.Part):
            definition = """
            -> master
            -> Recording.proj(member='recording')
            """

        class Note(dj.Part):
            definition = """
            -> Group.Member
            note : int8
            """

    @schema
    class Summary(dj.Computed):
        definition = """
        -> Group
        """

    Recording.insert([(n,) for n in range(6)])
    Group.insert([(1,), (2,), (3,)])
    Group.Member.insert([(1, 0), (1, 1), (2, 2), (2, 3), (3, 4)])
    Group.Note.insert([(1, 0, 1), (1, 1, 1), (2, 2, 1), (3, 4, 1)])
    Summary.insert([(1,), (2,), (3,)], allow_direct_insert=True)
    return {
        "recording": Recording,
        "group": Group,
        "member": Group.Member,
        "note": Group.Note,
        "summary": Summary,
    }


FULL = {"recording": 6, "group": 3, "member": 5, "note": 4, "summary": 3}


def counts(lab: dict[str, Any]) -> dict[str, int]:
    return {name: len(table) for name, table in lab.items()}


def test_parts_are_refused_by_default(lab: dict[str, Any]) -> None:
    for table in ("member", "note"):
        with pytest.raises(dj.DataJointError, match="part of group"):
            lab[table].delete()
    with pytest.raises(dj.DataJointError, match=r"rows of the part \S*group__(member|note)"):
        (lab["recording"] & "recording < 2").delete()
    with pytest.raises(ValueError, match="part_integrity"):
        lab["group"].delete(part_integrity="casade")
    assert counts(lab) == FULL


def test_parts_are_deleted_alone_when_integrity_is_ignored(lab: dict[str, Any]) -> None:
    assert (lab["recording"] & "recording = 0").delete(part_integrity="ignore") == 1
    assert counts(lab) == {"recording": 5, "group": 3, "member": 4, "note": 3, "summary": 3}
    assert (lab["member"] & {"group_id": 1}).delete(part_integrity="ignore") == 1
    assert counts(lab) == {"recording": 5, "group": 3, "member": 3, "note": 2, "summary": 3}


@pytest.mark.parametrize("restriction", ["recording = 0", [{"recording": 0}], {"recording": 0}])
def test_masters_are_deleted_with_their_parts(lab: dict[str, Any], restriction: Any) -> None:
    assert (lab["recording"] & restriction).delete(part_integrity="cascade") == 1
    assert counts(lab) == {"recording": 5, "group": 2, "member": 3, "note": 2, "summary": 2}
    assert lab["group"].to_arrays("group_id", order_by="KEY").tolist() == [2, 3]


def test_masters_are_found_through_other_parts(lab: dict[str, Any]) -> None:
    assert (lab["note"] & {"member": 2}).delete(part_integrity="cascade") == 1
    assert counts(lab) == {"recording": 6, "group": 2, "member": 3, "note": 3, "summary": 2}
    chosen = lab["note"] & (lab["group"] & "group_id = 3")
    assert chosen.delete(part_integrity="cascade") == 1
    assert lab["group"].fetch1("group_id") == 1


def test_dry_run_counts_and_deletes_nothing(lab: dict[str, Any], connection: dj.Connection) -> None:
    chosen, schema = lab["recording"] & "recording = 0", lab["recording"].database
    full_name = connection.backend.full_name
    assert chosen.delete(dry_run=True, part_integrity="cascade") == {
        full_name(TableName(schema, name)): count
        for name, count in {
            "recording": 1,
            "group": 1,
            "group__member": 2,
            "group__note": 2,
            "__summary": 1,
        }.items()
    }
    with pytest.raises(dj.DataJointError, match="cascade"):
        chosen.delete(dry_run=True)
    assert lab["group"].delete(dry_run=True) == {
        full_name(TableName(schema, name)): count
        for name, count in {
            "group": 3,
            "__summary": 3,
            "group__member": 5,
            "group__note": 4,
        }.items()
    }
    found = cascade_counts(connection, chosen.node, chosen.name)
    assert {name.table: count for name, count in found.items()} == {
        "recording": 1,
        "group__member": 1,
        "group__note": 1,
    }
    assert counts(lab) == FULL


def test_dry_run_takes_no_lock(
    lab: dict[str, Any], connection: dj.Connection, database_url: str
) -> None:
    other = dj.Connection(database_url)
    with other.transaction():
        dj.FreeTable(other, lab["recording"].full_table_name).insert1({"recording": 99})
        assert (lab["recording"] & "recording > 4").delete(dry_run=True) == {
            lab["recording"].full_table_name: 1
        }
    other.close()


def test_first_rows(lab: dict[str, Any]) -> None:
    lab["group"].delete()
    assert (lab["recording"] & dj.Top(2, "recording DESC")).delete() == 2
    assert lab["recording"].to_arrays("recording", order_by="KEY").tolist() == [0, 1, 2, 3]
    assert (lab["recording"] & dj.Top(1, "recording")).delete_quick(get_count=True) == 1
    assert len(lab["recording"]) == 3


def test_several_paths_meet(schema: Any) -> None:
    @schema
    class A(dj.Manual):
        definition = """
        a : int32
        """

    @schema
    class Left(dj.Manual):
        definition = """
        -> A
        """

    @schema
    class Right(dj.Manual):
        definition = """
        -> A.proj(b='a')
        """

    @schema
    class Pair(dj.Manual):
        definition = """
        -> Left
        -> Right
        ---
        -> [nullable] A.proj(c='a')
        """

    for table in (A, Left, Right):
        table.insert([(n,) for n in range(4)])
    Pair.insert([(0, 1, None), (1, 2, 3), (2, 3, None), (3, 0, 1), (0, 0, None)])
    assert (A & "a = 1").delete(dry_run=True)[Pair.full_table_name] == 3
    assert (A & "a = 1").delete() == 1
    assert Pair.to_arrays("a", "b", order_by="KEY")[1].tolist() == [0, 3]
    assert (A & "a = 3").delete(transaction=False, prompt=False) == 1
    assert len(Pair) == 1


def test_tables_that_the_user_cannot_see(server_url: str) -> None:
    admin = dj.Connection(server_url, safemode=False)
    schema: Any = dj.Schema("seen_lab", connection=admin)

    @schema
    class Animal(dj.Manual):
        definition = """
        animal : int32
        """

        class Ear(dj.Part):
            definition = """
            -> master
            ear : int8
            """

    secret: Any = dj.Schema("unseen_lab", connection=admin, context={"Animal": Animal})

    @secret
    class Diary(dj.Manual):
        definition = """
        -> Animal
        """

    Animal.insert([(1,), (2,)])
    Animal.Ear.insert([(1, 0), (2, 0)])
    Diary.insert1((1,))
    with admin.cursor() as session:
        session.exec_driver_sql("CREATE USER limited@'%%' IDENTIFIED BY 'x'")
        session.exec_driver_sql("GRANT ALL ON seen_lab.* TO limited@'%%'")
    limited = dj.Connection(
        sa.make_url(server_url).set(username="limited", password="x"), safemode=False
    )
    try:
        animals = dj.FreeTable(limited, "seen_lab.animal")
        with pytest.raises(dj.IntegrityError, match=r"seen_lab\.animal cannot be deleted"):
            (animals & {"animal": 1}).delete()
        assert (len(Animal), len(Animal.Ear)) == (2, 2)
        assert (animals & {"animal": 2}).delete() == 1
        with pytest.raises(dj.DataJointError):
            animals.drop()
        assert len(Animal) == 1
    finally:
        limited.close()
        secret.drop(prompt=False)
        schema.drop(prompt=False)
        with admin.cursor() as session:
            session.exec_driver_sql("DROP USER limited@'%%'")
        admin.close()


def test_masters_in_hierarchies_of_which_no_row_is_deleted(schema: Any) -> None:
    @schema
    class Tag(dj.Manual):
        definition = """
        tag : int32
        """

    @schema
    class Group(dj.Manual):
        definition = """
        group_id : int32
        ---
        -> Tag
        -> [nullable] self.proj(parent='group_id')
        """

        class Item(dj.Part):
            definition = """
            -> master
            item : int32
            ---
            -> Tag.proj(item_tag='tag')
            -> [nullable] self.proj(group_id='group_id', other='item')
            """

    Tag.insert([(1,), (2,), (3,)])
    Group.insert([(1, 1, None), (2, 1, 1)])
    Group.Item.insert([(1, 1, 2, None), (2, 1, 1, None)])
    assert (Tag & "tag = 3").delete(part_integrity="cascade") == 1
    assert (Tag & "tag = 2").delete(part_integrity="cascade") == 1
    assert len(Group) == 0
    assert len(Group.Item) == 0


def test_half_a_reference_is_none(schema: Any) -> None:
    @schema
    class Place(dj.Manual):
        definition = """
        x : int32
        y : int32
        ---
        height : int32
        """

    @schema
    class Find(dj.Manual):
        definition = """
        find : int32
        ---
        -> [nullable] Place
        """

    @schema
    class Shelf(dj.Manual):
        definition = """
        -> Find
        """

    Place.insert([(1, 1, 5), (1, 2, 5), (2, 1, 6)])
    Find.insert([(1, 1, 1), (2, 1, None), (3, None, 2), (4, 2, 1), (5, None, None)])
    Shelf.insert([(n,) for n in range(1, 6)])
    for chosen in (
        Place & {"x": 1},
        Place & "x = 1",
        Place & [{"x": 1, "y": 1}, {"x": 1, "y": 2}],
        Place & "height = 5",
        Place - {"x": 2},
        Place & dj.AndList([{"x": 1}, "height = 5"]),
    ):
        assert chosen.delete(dry_run=True) == {
            Place.full_table_name: 2,
            Find.full_table_name: 1,
            Shelf.full_table_name: 1,
        }
    assert (Place - {"x": 2}).delete() == 2
    assert Find.to_arrays("find", order_by="KEY").tolist() == [2, 3, 4, 5]
    assert len(Shelf) == 4


def test_rows_of_large_tables_are_found_by_their_key(
    lab: dict[str, Any], connection: dj.Connection
) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(connection.engine, "before_cursor_execute", note)
    assert (lab["group"] & {"group_id": 1}).delete() == 1
    deletes = [statement for statement in statements if statement.startswith("DELETE")]
    assert len(deletes) == 4
    assert not [statement for statement in deletes if "SELECT" in statement]

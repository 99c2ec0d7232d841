"""Populating: which keys are made, and that each is made wholly or not at all."""

from __future__ import annotations

import contextlib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.errors import QueryError
from dj_dagster.workflow.populate import pending_keys, populate_keys


@pytest.fixture
def recording(schema: Any) -> Any:
    @schema
    class Recording(dj.Manual):
        definition = """
        subject : varchar(8)
        day : date
        ---
        level : int32
        """

    Recording.insert([("a", date(2026, 1, n), n) for n in range(1, 6)])
    return Recording


def computed(schema: Any, make: Any, tier: Any = dj.Computed, **members: Any) -> Any:
    """Declare a table of one row a recording, with a part."""

    class Peak(dj.Part):
        definition = """
        -> master
        peak : int32
        ---
        height = null : float64
        """

    body = {
        "definition": "-> Recording\n---\nmean : float64\ndata = null : <blob@local>",
        "make": make,
        "Peak": Peak,
        **members,
    }
    return schema(type("Result", (tier,), body))


def make(self: Any, key: dict[str, Any]) -> None:
    level = (self.Recording & key).fetch1("level")
    self.insert1({**key, "mean": level / 2, "data": np.arange(level)})
    self.Peak.insert({**key, "peak": n} for n in range(level))


def levels(table: Any) -> list[float]:
    return table.to_arrays("mean", order_by="KEY").tolist()


def test_populate_makes_what_is_missing(schema: Any, recording: Any) -> None:
    table = computed(schema, make, Recording=recording)
    assert table.progress() == (5, 5)
    assert table.populate(max_calls=2) == {"success_count": 2, "error_list": []}
    assert table.progress() == (3, 5)
    assert table.populate("level < 5", {"subject": "a"}) == {"success_count": 2, "error_list": []}
    assert table.progress("level = 5") == (1, 1)
    assert table.populate(display_progress=True)["success_count"] == 1
    assert table.populate() == {"success_count": 0, "error_list": []}
    assert levels(table) == [0.5, 1, 1.5, 2, 2.5]
    assert len(table.Peak) == 15
    assert (table & "mean = 2.5").fetch1("data").tolist() == [0, 1, 2, 3, 4]


def test_the_target_of_populate_is_the_table(schema: Any, recording: Any) -> None:
    table = computed(schema, make)
    assert table().target.full_table_name == table.full_table_name


def test_failing_make_leaves_nothing(schema: Any, recording: Any, tmp_path: Path) -> None:
    def fail_late(self: Any, key: dict[str, Any]) -> None:
        make(self, key)
        if key["day"].day in (2, 4):
            assert len(self.Peak & key) == key["day"].day  # written by now, not committed
            raise OSError("no file for this day")

    table = computed(schema, fail_late, Recording=recording)
    with pytest.raises(OSError, match="no file"):
        table.populate()
    assert levels(table) == [0.5]
    result = table.populate(suppress_errors=True)
    assert result["success_count"] == 2
    failed = [(key["day"].day, error) for key, error in result["error_list"]]
    assert failed == [(2, "OSError: no file for this day"), (4, "OSError: no file for this day")]
    objects = table.populate(suppress_errors=True, return_exception_objects=True)["error_list"]
    assert [type(error) for _, error in objects] == [OSError, OSError]
    assert levels(table) == [0.5, 1.5, 2.5]
    assert len(table.Peak) == 9


def test_no_transaction_is_open_while_make_computes(
    schema: Any, recording: Any, tmp_path: Path
) -> None:
    seen: list[tuple[bool, int]] = []

    def spying(self: Any, key: dict[str, Any]) -> None:
        level = (recording & key).fetch1("level")
        self.insert1({**key, "mean": level, "data": [1] * level})
        stored = [path for path in (tmp_path / "store" / "_hash").rglob("*") if path.is_file()]
        assert self.connection.in_transaction
        seen.append((self.connection.holds_transaction, len(stored)))

    table = computed(schema, spying)
    table.populate()
    # Objects are in the store already, rows are not in the database yet.
    assert seen == [(False, n) for n in range(1, 6)]


def test_statements_of_ones_own_are_a_part_of_make(schema: Any, recording: Any) -> None:
    fails = True

    def asking(self: Any, key: dict[str, Any]) -> None:
        query = self.connection.query
        name = recording.full_table_name
        query(f"UPDATE {name} SET level = 100")
        self.insert1({**key, "mean": 1})
        rows = query(f"SELECT mean FROM {self.full_table_name} WHERE mean = %s", (1,)).fetchall()
        assert rows == [(1.0,)]
        if fails:
            raise OSError("no file")

    table = computed(schema, asking)
    with pytest.raises(OSError, match="no file"):
        table.populate(max_calls=1)
    assert (len(table), 100 in recording.to_arrays("level")) == (0, False)
    fails = False
    table.populate(max_calls=1)
    assert (len(table), set(recording.to_arrays("level"))) == (1, {100})


def test_wrong_value_is_refused_at_the_line_that_inserts_it(schema: Any, recording: Any) -> None:
    lines: list[str] = []

    def wrong(self: Any, key: dict[str, Any]) -> None:
        try:
            self.insert1({**key, "mean": "no number"})
        except dj.InvalidValueError as error:
            lines.append(str(error))
            raise
        lines.append("not reached")

    table = computed(schema, wrong)
    with pytest.raises(dj.InvalidValueError):
        table.populate(max_calls=1)
    assert len(lines) == 1
    assert "mean" in lines[0]


def test_query_in_make_sees_the_rows_before_it(schema: Any, recording: Any) -> None:
    def look(self: Any, key: dict[str, Any]) -> None:
        self.insert1({**key, "mean": 1})
        assert len(self & key) == 1
        self.Peak.insert1({**key, "peak": 1})
        self.Peak.insert1({**key, "peak": 2})
        assert (self.Peak & key).to_arrays("peak", order_by="KEY").tolist() == [1, 2]
        assert (self * self.Peak & key).to_arrays("mean").tolist() == [1, 1]
        (self.Peak & key & "peak = 1").delete_quick()

    table = computed(schema, look)
    assert table.populate()["success_count"] == 5
    assert len(table.Peak) == 5


def test_rows_that_could_not_be_written_fail_the_key(schema: Any, recording: Any) -> None:
    def swallow(self: Any, key: dict[str, Any]) -> None:
        self.insert1({**key, "mean": 1})
        self.Peak.insert([{**key, "peak": 1}, {**key, "peak": 1}])
        with contextlib.suppress(dj.DuplicateError):
            len(self.Peak)

    table = computed(schema, swallow)
    with pytest.raises(dj.DuplicateError):
        table.populate()
    assert (len(table), len(table.Peak)) == (0, 0)


def test_delete_in_a_failing_make_is_undone(schema: Any, recording: Any) -> None:
    def tidy(self: Any, key: dict[str, Any]) -> None:
        self.insert1({**key, "mean": 1})
        (recording & "level = 5").delete(prompt=False)
        raise ZeroDivisionError

    table = computed(schema, tidy)
    with pytest.raises(ZeroDivisionError):
        table.populate()
    assert (len(recording), len(table)) == (5, 0)


def test_make_takes_no_transaction_and_no_other_populate(schema: Any, recording: Any) -> None:
    def nest(self: Any, key: dict[str, Any]) -> None:
        with (
            pytest.raises(dj.QueryError, match="leave this one out"),
            self.connection.transaction(),
        ):
            pass
        with pytest.raises(dj.PopulateError, match="inside a transaction or a make"):
            self.populate()
        self.insert1({**key, "mean": 0})

    table = computed(schema, nest)
    assert table.populate()["success_count"] == 5
    with table.connection.transaction(), pytest.raises(dj.PopulateError, match="transaction"):
        table.populate()
    for processes in (0, -1):
        with pytest.raises(dj.PopulateError, match=rf"processes={processes}\): write 1 or more"):
            table.populate(processes=processes)
    with pytest.raises(dj.PopulateError, match="is restricted"):
        (table & "mean > 1").populate()


def test_make_may_fill_its_own_tables_only(schema: Any, recording: Any) -> None:
    other = computed(schema, make, Recording=recording)

    @schema
    class Second(dj.Imported):
        definition = """
        -> Recording
        """

        def make(self, key: dict[str, Any]) -> None:
            other.insert1({**key, "mean": 1})

    with pytest.raises(dj.DataJointError, match="allow_direct_insert"):
        Second.populate()


def test_make_that_inserts_nothing(schema: Any, recording: Any) -> None:
    def nothing(self: Any, key: dict[str, Any]) -> None:
        self.Peak.insert([])

    table = computed(schema, nothing)
    for processes in (1, 2):
        with pytest.warns(UserWarning, match=r"inserted no row for 5 keys, such as \{") as noted:
            assert table.populate(processes=processes)["success_count"] == 5
        assert [Path(each.filename).name for each in noted] == [Path(__file__).name]
    assert table.progress() == (5, 5)
    outcomes = list(populate_keys(table()))
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert "inserted no row" in str(outcomes[0].error)


def test_missing_make_says_so(schema: Any, recording: Any) -> None:
    @schema
    class Unmade(dj.Computed):
        definition = """
        -> Recording
        """

    with pytest.raises(NotImplementedError, match="Unmade has no make"):
        Unmade.populate()


def test_make_kwargs(schema: Any, recording: Any) -> None:
    def scaled(self: Any, key: dict[str, Any], factor: int = 1) -> None:
        self.insert1({**key, "mean": factor})

    table = computed(schema, scaled)
    table.populate(make_kwargs={"factor": 3})
    assert set(levels(table)) == {3.0}


def test_key_source_joins_renamed_parents(schema: Any, recording: Any) -> None:
    @schema
    class Method(dj.Lookup):
        definition = """
        method : int8
        """
        contents = ((1,), (2,))

    @schema
    class Pair(dj.Computed):
        definition = """
        -> Recording.proj(first='day')
        -> Recording.proj(second='day')
        -> Method
        """

        @property
        def key_source(self) -> Any:
            return super().key_source & "first < second"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    assert Pair.progress() == (20, 20)
    assert Pair.populate({"method": 1}) == {"success_count": 10, "error_list": []}
    assert Pair.progress() == (10, 20)
    assert len(Pair & "first >= second") == 0


def test_no_foreign_key_in_the_key_needs_a_key_source(schema: Any, recording: Any) -> None:
    class Latest(dj.Computed):
        definition = """
        subject : varchar(8)
        ---
        -> Recording.proj(of='subject', latest='day')
        """

        def make(self, key: dict[str, Any]) -> None:
            found = (recording & key).to_dicts(order_by="day DESC", limit=1)[0]
            self.insert1({**key, "of": found["subject"], "latest": found["day"]})

    with pytest.raises(dj.PopulateError, match="no foreign key in its primary key"):
        schema(Latest).populate()

    @schema
    class Animal(dj.Manual):
        definition = """
        subject : varchar(8)
        """

    class Sourced(Latest):
        definition = Latest.definition

        @property
        def key_source(self) -> Any:
            return Animal

    Animal.insert1(("a",))
    schema(Sourced)
    assert [outcome.status for outcome in populate_keys(Sourced())] == ["made"]


def test_key_source_must_lie_in_the_key(schema: Any, recording: Any) -> None:
    @schema
    class Coarse(dj.Computed):
        definition = """
        -> Recording
        """

        @property
        def key_source(self) -> Any:
            return recording.proj() * recording.proj(other="day")

    with pytest.raises(dj.PopulateError, match="other"):
        Coarse.populate()


def test_coarser_key_source(schema: Any, recording: Any) -> None:
    @schema
    class Chunk(dj.Computed):
        definition = """
        -> Recording
        chunk : int16
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert({**key, "chunk": n} for n in range(2))

    assert [outcome.rows for outcome in populate_keys(Chunk())] == [2] * 5
    assert Chunk.progress() == (0, 5)
    assert len(Chunk) == 10


def test_outcomes_of_given_keys(schema: Any, recording: Any) -> None:
    table = computed(schema, make, Recording=recording)
    keys = pending_keys(table())
    assert keys == recording.keys(order_by="KEY")
    assert pending_keys(table(), "level > 2", limit=2) == keys[2:4]
    table.populate(max_calls=1)
    text = {"subject": "a", "day": "2026-01-02"}
    gone = {"subject": "a", "day": date(2030, 1, 1)}
    stamp = {"subject": "a", "day": datetime(2026, 1, 3), "level": "ignored"}
    outcomes = list(populate_keys(table(), [keys[0], text, gone, stamp, keys[2]]))
    assert [outcome.status for outcome in outcomes] == [
        "present", "made", "missing", "made", "present",
    ]  # fmt: skip
    assert outcomes[1].key == keys[1]
    assert outcomes[1].rows == 3
    assert outcomes[1].bytes > 16
    assert outcomes[1].seconds > 0
    with pytest.raises(dj.PopulateError, match="lacks day"):
        list(populate_keys(table(), [{"subject": "a"}]))


def test_singleton_table_is_made_once(schema: Any, recording: Any) -> None:
    @schema
    class Start(dj.Lookup):
        definition = """
        ---
        note : varchar(4)
        """
        contents = (("go",),)

    @schema
    class Summary(dj.Computed):
        definition = """
        -> Start
        ---
        total : int32
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({"total": len(recording)})

    assert pending_keys(Summary()) == [{}]
    assert [outcome.status for outcome in populate_keys(Summary(), [{}, {}])] == ["made", "present"]
    assert Summary.populate()["success_count"] == 0
    assert Summary.fetch1("total") == 5


ACCIDENTS: list[Any] = [
    {"subjct": "a"},
    [{"subjct": "a"}, {"subjct": "b"}],
    [{"subject": "a"}, {"subjct": "b"}],
    dj.AndList([{"subject": "a"}, {"subjct": "b"}]),
    dj.Not({"subjct": "a"}),
    np.array([("a",)], dtype=[("subjct", "U8")]),
    {},
    [{}],
]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reserve_jobs": True},
        {"processes": 2},
        {"keys": [{"subject": "a", "day": "2026-01-01"}]},
    ],
)
def test_populate_by_no_attribute_is_refused(
    schema: Any, recording: Any, options: dict[str, Any], own: bool
) -> None:
    members = {"key_source": recording.proj("level") & "level < 4"} if own else {}
    table = computed(schema, make, Recording=recording, **members)
    for accident in ACCIDENTS:
        with pytest.raises(QueryError, match=r"populate .*result: a restriction (names|is empty)"):
            table.populate(accident, **options)
        with pytest.raises(QueryError, match="populate"):
            table.populate({"subject": "a"}, accident, **options)
    with pytest.raises(QueryError, match=r"'subjct'.*Did you mean subject"):
        table.jobs.refresh({"subjct": "a"})
    assert len(table()) == len(table.jobs) == 0
    # Reading goes by DataJoint's rule.
    assert table.progress({"subjct": "a"}) == table.progress()
    found = table.populate({"level": 2, "elsewhere": 5}, {"subject": "a"}, processes=1)
    assert found["success_count"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"keys": []},
        {"keys": iter(())},
        {"keys": [], "reserve_jobs": True},
        {"keys": [], "processes": 2},
        {"max_calls": 0},
        {"max_calls": 0, "reserve_jobs": True},
        {"max_calls": 0, "processes": 2},
        {"limit": 0},
        {"limit": 0, "reserve_jobs": True},
    ],
)
def test_populate_of_no_keys_makes_nothing(
    schema: Any, recording: Any, options: dict[str, Any]
) -> None:
    table = computed(schema, make, Recording=recording)
    assert table.populate(**options) == {"success_count": 0, "error_list": []}
    assert len(table()) == 0


@pytest.mark.parametrize("options", [{}, {"reserve_jobs": True}, {"processes": 2}])
@pytest.mark.parametrize("own", [False, True])
def test_restrictions_hold_for_given_keys_too(
    schema: Any, recording: Any, options: dict[str, Any], own: bool
) -> None:
    members = {"key_source": recording.proj("level")} if own else {}
    table = computed(schema, make, Recording=recording, **members)
    keys = recording.keys(order_by="KEY")
    found = table.populate("level > 1", keys=keys[:3], **options)
    wanted = (recording & "level > 1" & keys[:3]).keys(order_by="KEY")
    assert found == {"success_count": len(wanted), "error_list": []}
    assert table.keys(order_by="KEY") == wanted
    assert 0 < len(wanted) < 3


@pytest.mark.parametrize("options", [{}, {"reserve_jobs": True}])
def test_populate_reads_iterators_of_restrictions_as_lists(
    schema: Any, recording: Any, options: dict[str, Any]
) -> None:
    table = computed(schema, make, Recording=recording)
    days = [{"day": date(2026, 1, n)} for n in (1, 2)]
    assert table.jobs.refresh(iter(days))["added"] == 2
    assert len(pending_keys(table(), iter(days), ignore_jobs=True)) == 2
    assert table.populate((day for day in days), **options)["success_count"] == 2
    assert table.populate(iter([]), **options)["success_count"] == 0
    assert len(table()) == 2


@pytest.mark.parametrize("reserve", [False, True])
def test_a_query_of_keys_restricts(schema: Any, recording: Any, reserve: bool) -> None:
    table = computed(schema, make, Recording=recording)
    for accident in ({"levl": 1}, {}):
        with pytest.raises(QueryError, match=r"populate .*result"):
            table.populate(keys=recording & accident, reserve_jobs=reserve)
    assert len(table()) == 0
    found = table.populate(keys=recording & "level < 3", reserve_jobs=reserve)
    assert found["success_count"] == 2


@pytest.mark.parametrize("nothing", [[], (), False, dj.Not(True), [[]]])
@pytest.mark.parametrize("reserve", [False, True])
def test_populate_by_an_empty_list_makes_nothing(
    schema: Any, recording: Any, nothing: Any, reserve: bool
) -> None:
    table = computed(schema, make, Recording=recording)
    assert table.populate(nothing, reserve_jobs=reserve)["success_count"] == 0
    assert table.jobs.refresh(nothing)["added"] == 0
    assert list(populate_keys(table(), [])) == []
    assert len(table()) == 0


def test_jobs_are_deleted_by_an_attribute_alone(schema: Any, recording: Any) -> None:
    table = computed(schema, make, Recording=recording)
    table.jobs.refresh()
    for call in ("delete", "delete_quick"):
        with pytest.raises(QueryError, match="'subjct'"):
            getattr(table.jobs.pending & {"subjct": "a"}, call)()
    with pytest.raises(QueryError, match="'tablename'"):
        (schema.jobs & {"tablename": "__result"}).delete()
    assert (table.jobs & []).delete() == 0
    for call in ("delete", "delete_quick", "drop"):
        with pytest.raises(QueryError, match=r"restrict the table first, as in \(table & "):
            getattr(table.jobs, call)({"subject": "a"})
    assert len(table.jobs) == 5
    assert (table.jobs & {"day": date(2026, 1, 2), "elsewhere": 1}).delete() == 1
    table.jobs.delete()
    assert len(table.jobs) == 0


@pytest.mark.parametrize("keys", ["all", {"subject": "a", "day": "2026-01-02"}, ["a"], [("a", 1)]])
@pytest.mark.parametrize("reserve", [False, True])
def test_keys_that_are_no_list_of_mappings_are_refused(
    schema: Any, recording: Any, keys: Any, reserve: bool
) -> None:
    table = computed(schema, make, Recording=recording)
    with pytest.raises(dj.PopulateError, match=r"write a list of keys, such as \[{'subject': 1"):
        table.populate(keys=keys, reserve_jobs=reserve)
    assert len(table()) == 0

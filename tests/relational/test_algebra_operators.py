"""Aggregation, U, union, left joins, Top and paths into JSON, on both databases."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from tests.lab import connect
from tests.services.database_server import drop_databases

NAME = "operators_lab"


def declare(schema: Any) -> None:
    """Declare a subject with sessions, a table of the same key, and put rows in."""

    @schema
    class Subject(dj.Manual):
        definition = """
        subject : int32
        ---
        name : varchar(20)
        weight : decimal(6,2)
        info = null : json
        trace = null : <blob>
        """

    @schema
    class Session(dj.Manual):
        definition = """
        -> Subject
        session : int32
        ---
        day : date
        score = null : float64
        n : int32
        """

    @schema
    class Best(dj.Manual):
        definition = """
        -> Subject
        ---
        -> [nullable] Session
        note = '' : varchar(20)
        """

    @schema
    class Setting(dj.Manual):
        definition = """
        ---
        factor : int32
        """

    first = {"device": {"gain": [1, 2.5]}, "on": True, "label": "x"}
    second = {"device": {"gain": [7]}, "on": False, "label": "it's"}
    Subject().insert(
        [
            (1, "ann", 1.5, first, np.arange(3)),
            (2, "bob", "2.25", None, None),
            (3, "cy", 3, second, None),
        ]
    )
    Session().insert(
        [
            (1, 1, "2026-01-01", 1.5, 3),
            (1, 2, "2026-01-02", None, 4),
            (2, 1, "2026-01-03", 2.5, 5),
        ]
    )
    Best().insert([(1, 2, "long"), (3, None, "")])


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "mysql"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("operators")
    sqlite = request.param == "sqlite"
    url = (
        f"sqlite:///{folder / 'a.sqlite'}"
        if sqlite
        else request.getfixturevalue(f"{request.param}_url")
    )
    connection = connect(url, folder)
    schema: Any = dj.Schema(NAME, connection=connection)
    declare(schema)
    yield dict(schema.tables)
    connection.close()
    if not sqlite:
        drop_databases(url, NAME)


def rows(query: Any) -> list[tuple[Any, ...]]:
    """Return the rows as tuples, by primary key; the query's own statements must agree."""
    found = [tuple(row.values()) for row in query.to_dicts(order_by="KEY")]
    assert len(query) == len(found)
    assert bool(query) == bool(found)
    return found


def selects(query: Any) -> int:
    return query.make_sql().count("SELECT")


def test_aggr_keeps_all_rows(lab: dict[str, Any]) -> None:
    query = lab["Subject"].aggr(lab["Session"], rows="count(*)", n="count(session)")
    assert rows(query) == [(1, 2, 2), (2, 1, 1), (3, 1, 0)]
    assert query.primary_key == ["subject"]


@pytest.mark.parametrize(
    "restriction",
    [dj.U("subject"), {}, {"nosuch": 1}, True, dj.AndList([]), dj.AndList([{}, True])],
)
def test_restrictions_that_keep_all_rows_are_not_written_into_sql(
    lab: dict[str, Any], restriction: Any
) -> None:
    queries = [lab["Subject"](), lab["Subject"] & dj.Top(2), lab["Subject"].proj(one="1")]
    for query in queries:
        assert (query & restriction).make_sql() == query.make_sql()
        assert rows((query & restriction).proj()) == rows(query.proj())
        assert rows((query - restriction).proj()) == []


def test_aggr_leaves_out_rows_without_partners(lab: dict[str, Any]) -> None:
    count = {"n": "count(*)"}
    query = lab["Subject"].aggr(lab["Session"] & "n > 3", exclude_nonmatching=True, **count)
    assert rows(query) == [(1, 1), (2, 1)]


def test_aggr_keeps_other_attributes(lab: dict[str, Any]) -> None:
    query = lab["Subject"].aggr(lab["Session"], ..., n="count(session)")
    assert query.heading.names == ["subject", "name", "weight", "info", "trace", "n"]
    first = (query & {"subject": 1}).fetch1()
    assert first["trace"].tolist() == [0, 1, 2]
    assert (first["name"], first["weight"], first["n"]) == ("ann", Decimal("1.50"), 2)
    renamed = lab["Subject"].aggr(lab["Session"], label="name", n="count(session)")
    assert rows(renamed) == [(1, "ann", 2), (2, "bob", 1), (3, "cy", 0)]


def test_restriction_after_aggr(lab: dict[str, Any]) -> None:
    query = lab["Subject"].aggr(lab["Session"], "name", n="count(session)", top="max(n)")
    for restricted, subjects in [
        (query & "n > 0", [1, 2]),
        (query & {"n": 0}, [3]),
        (query - {"n": 0}, [1, 2]),
        (query & "n = 1 or name = 'cy'", [2, 3]),
        (query & [{"n": 2, "top": 4}, {"n": 0}], [1, 3]),
        (query & "top is null", [3]),
        (query & lab["Session"].proj() & "n < 2", [2]),
        (query & {"name": "ann"}, [1]),
        (query & dj.Top(1, "n DESC"), [1]),
    ]:
        assert [row[0] for row in rows(restricted)] == subjects
        assert selects(restricted) <= 2
    assert selects(query & "n > 0" & {"name": "ann"}) == 1


def test_aggregates_have_one_type_on_every_database(lab: dict[str, Any]) -> None:
    session, subject = lab["Session"], lab["Subject"]
    found = dj.U().aggr(
        session,
        count="count(*)",
        total="sum(n)",
        mean="avg(n)",
        score="avg(score)",
        last="max(day)",
        next="max(day + interval 1 day)",
        good="min(case when score > 1 then day end)",
        half="sum(n) / 2.0",
    )
    (row,) = found.to_dicts()
    assert row["last"] == datetime.date(2026, 1, 3)
    assert row["next"] == datetime.date(2026, 1, 4)
    assert isinstance(row["good"], datetime.date)
    numbers = (row["count"], row["total"], row["mean"], row["score"], row["half"])
    assert numbers == (3, 12, 4.0, 2.0, 6.0)
    assert [type(number) for number in numbers] == [int, int, float, float, float]
    weights = dj.U().aggr(subject, total="sum(weight)", most="max(weight)").fetch1()
    assert weights == {"total": Decimal("6.75"), "most": Decimal("3.00")}
    assert {type(value) for value in weights.values()} == {Decimal}


def test_aggr_of_a_restricted_joined_or_aggregated_query(lab: dict[str, Any]) -> None:
    subject, session = lab["Subject"], lab["Session"]
    assert rows((subject & "subject < 3").aggr(session, n="count(session)")) == [(1, 2), (2, 1)]
    assert rows(subject.proj().aggr(subject * session, names="count(name)")) == [
        (1, 2),
        (2, 1),
        (3, 0),
    ]
    counts = subject.aggr(session, n="count(session)")
    assert rows(dj.U("n").aggr(counts, subjects="count(*)")) == [(0, 1), (1, 1), (2, 1)]
    assert rows((subject * counts).proj("n")) == [(1, 2), (2, 1), (3, 0)]
    assert rows(counts.proj(twice="2 * n") & "twice > 1") == [(1, 4), (2, 2)]


def test_aggr_over_a_singleton(lab: dict[str, Any]) -> None:
    setting = lab["Setting"]
    query = setting.aggr(lab["Subject"], ..., n="count(*)")
    assert rows(query) == []
    setting.insert1({"factor": 2})
    try:
        assert rows(query) == [(2, 3)]
    finally:
        setting.delete_quick()


def test_distinct_combinations(lab: dict[str, Any]) -> None:
    session = lab["Session"]
    found = dj.U("session") & session
    assert rows(found) == [(1,), (2,)]
    assert found.primary_key == ["session"]
    assert rows(dj.U("session", "subject") & (session & "n > 3")) == [(1, 2), (2, 1)]
    assert rows((dj.U("session") & session) & "session > 1") == [(2,)]
    assert rows(dj.U("session").aggr(session, total="sum(n)") & "total > 4") == [(1, 8)]
    pairs = dj.U("session", "subject") & session
    assert sorted(pairs.to_arrays("session").tolist()) == [1, 1, 2]


def test_one_group_of_everything(lab: dict[str, Any]) -> None:
    session = lab["Session"]
    assert rows(dj.U().aggr(session & "n > 9", k="count(*)")) == [(0,)]
    assert rows(dj.U().aggr(session, k="count(*)") & "k > 5") == []
    assert rows(dj.U() & session) == [()]
    assert rows(dj.U() & (session & "n > 9")) == []
    if not getattr(session.connection.engine.dialect, "is_mariadb", False):
        assert rows(dj.U().aggr(session, day="any_value(n > 0)")) == [(1,)]
        assert rows(dj.U().aggr(session & "n > 9", day="any_value(n)")) == [(None,)]


def test_u_restricts_nothing(lab: dict[str, Any]) -> None:
    session = lab["Session"]
    assert len(session & dj.U("session")) == 3
    assert len(session & dj.U()) == 3
    assert len(session - dj.U("session")) == 0


def test_union(lab: dict[str, Any]) -> None:
    subject, best = lab["Subject"], lab["Best"]
    keys = (subject & "subject = 2").proj() + best.proj()
    assert rows(keys) == [(1,), (2,), (3,)]
    both = (subject & "subject < 3").proj("name") + best.proj("note")
    assert rows(both) == [(1, "ann", "long"), (2, "bob", None), (3, None, "")]
    assert rows(both & "note = ''") == [(3, None, "")]
    assert rows(both & {"name": None}) == [(3, None, "")]
    assert rows((both * subject.proj("weight")) & {"subject": 2}) == [
        (2, "bob", None, Decimal("2.25"))
    ]
    assert [row[0] for row in rows(lab["Session"].proj() & (keys & "subject > 1"))] == [2]
    assert len(lab["Session"] - keys) == 0
    names = subject.proj("name")
    assert rows(names + subject.proj()) == rows(names)


def test_left_joins(lab: dict[str, Any]) -> None:
    session, subject, best = lab["Session"], lab["Subject"], lab["Best"]
    found = session.proj().extend((subject & "subject = 2").proj("name"))
    assert rows(found) == [(1, 1, None), (1, 2, None), (2, 1, "bob")]
    assert found.primary_key == ["subject", "session"]
    assert rows(found & "name is null") == [(1, 1, None), (1, 2, None)]
    assert rows(subject.proj().join(best.proj("note"), left=True)) == [
        (1, "long"),
        (2, None),
        (3, ""),
    ]
    computed = subject.proj().extend(best.proj(shout="concat(note, '!')"))
    if subject().connection.backend.name != "sqlite":
        assert rows(computed) == [(1, "long!"), (2, None), (3, "!")]
    constant = subject.proj().extend(best.proj(there="1"))
    assert rows(constant) == [(1, 1), (2, None), (3, 1)]


def test_top(lab: dict[str, Any]) -> None:
    session = lab["Session"]
    first = session & dj.Top()
    assert rows(first.proj()) == [(1, 1)]
    best = session & dj.Top(2, "n DESC")
    assert [row["n"] for row in best.to_dicts()] == [5, 4]
    assert best.to_arrays("n").tolist() == [5, 4]
    assert [row["n"] for row in best] == [5, 4]
    assert best.to_arrays("n", order_by="n").tolist() == [4, 5]
    assert best.to_arrays("n", limit=1, offset=1).tolist() == [4]
    assert best.to_arrays("n", limit=5, offset=2).tolist() == []
    assert [row["n"] for row in (best & "n < 5").to_dicts()] == [4]
    assert [row["n"] for row in ((session & "n < 5") & dj.Top(1, ["n DESC", "KEY"]))] == [4]
    assert {"subject": 1, "session": 1} not in best
    assert {"subject": 1, "session": 2} in best
    assert not session & dj.Top(0)
    assert len(session & dj.Top(np.int64(1))) == 1
    assert not session & dj.Top(5, offset=3)
    assert len(session & dj.Top(None, offset=1)) == 2
    assert len(session & dj.AndList(["n > 3", dj.Top(1)])) == 1


def test_tops_of_one_order_become_one(lab: dict[str, Any]) -> None:
    session = lab["Session"]
    two = session & dj.Top(2, "n DESC")
    assert [row["n"] for row in two & dj.Top(5, None, offset=1)] == [4, 3]
    assert [row["n"] for row in two & dj.Top(1, "n DESC", offset=1)] == [4]
    assert [row["n"] for row in two & dj.Top(1, "n")] == [4]
    assert selects(two & dj.Top(1, "n DESC")) == 1


def test_restriction_by_top(lab: dict[str, Any]) -> None:
    best = lab["Session"] & dj.Top(1, "n DESC")
    assert [row[0] for row in rows(lab["Subject"].proj() & best)] == [2]
    assert [row[0] for row in rows(lab["Subject"].proj() - best)] == [1, 3]
    assert rows((lab["Subject"].proj("name") * best).proj("name", "n")) == [(2, 1, 5, "bob")]
    assert rows(lab["Subject"].aggr(best, n="count(session)")) == [(1, 0), (2, 1), (3, 0)]


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("info.device.gain[0]", 1, [1]),
        ("info.device.gain[1]", 2.5, [1]),
        ("info.device.gain[1]", Decimal("2.5"), [1]),
        ("info.device.gain[0]", np.int64(7), [3]),
        ("info.on", np.bool_(True), [1]),
        ("info.device.gain[0]:signed", 7, [3]),
        ("info.device.gain[1]:decimal(4,2)", Decimal("2.50"), [1]),
        ("info.label", "it's", [3]),
        ("info.label:char", "x", [1]),
        ("info.on", True, [1]),
        ("info.on", False, [3]),
        ("info.label", None, [2]),
        ("info.nosuch", "x", []),
        ("nosuch.label", "x", [1, 2, 3]),
    ],
)
def test_restriction_by_paths_into_json(
    lab: dict[str, Any], path: str, value: Any, found: list[int]
) -> None:
    subject = lab["Subject"].proj("info")
    assert (subject & {path: value}).to_arrays("subject", order_by="KEY").tolist() == found
    assert len(subject & [{path: value}]) == len(found)
    assert len(subject - {path: value}) == 3 - len(found)


def test_projection_of_paths_into_json(lab: dict[str, Any]) -> None:
    found = lab["Subject"].proj(
        gain="info.device.gain[0]:int32",
        second="info.device.gain[1]:float",
        label="info.label",
    )
    assert rows(found) == [(1, 1, 2.5, "x"), (2, None, None, None), (3, 7, None, "it's")]
    assert rows((found & "gain > 1").proj("gain")) == [(3, 7)]
    counts = dj.U("label").aggr(found, n="count(*)")
    assert rows(counts) == [(None, 1), ("it's", 1), ("x", 1)]


def test_what_is_no_single_value_inside_json(lab: dict[str, Any]) -> None:
    found = lab["Subject"].proj(device="info.device").to_arrays("device", order_by="KEY")
    # MySQL gives it as JSON, the others as null.
    values = [text and json.loads(text) for text in found]
    assert values in ([None] * 3, [{"gain": [1, 2.5]}, None, {"gain": [7]}])


def test_computed_attributes(lab: dict[str, Any]) -> None:
    found = lab["Session"].proj(
        twice="n * 2", word="'n, subject'", number="3", nothing="NULL", copy="(day)"
    )
    late = found & "twice > 6" & {"number": 3} & "copy < '2026-01-03'"
    assert rows(late) == [(1, 2, datetime.date(2026, 1, 2), 8, "n, subject", 3, None)]
    assert selects(late) == 1
    now = lab["Subject"].proj(now="CURRENT_TIMESTAMP").to_arrays("now")
    assert len(set(now)) == 1
    assert now[0] is not None


def test_order_of_attributes(lab: dict[str, Any]) -> None:
    subject, session, best = lab["Subject"].proj("name"), lab["Session"], lab["Best"]
    for query, names in [
        (session.proj("n", m="n * 2", copy="(day)"), "subject session copy n m"),
        (session.proj(..., who="subject", k="n"), "who session day score k"),
        (session.proj("n", k="n"), "subject session n k"),
        (subject * session, "subject session day score n name"),
        (session * subject, "subject session day score n name"),
        (subject * best.proj("note"), "subject name note"),
        (subject.aggr(session, ..., k="count(*)"), "subject name k"),
        (dj.U("n", "day").aggr(session, k="count(*)"), "n day k"),
    ]:
        assert query.heading.names == names.split()


def test_window_functions_see_the_rows_before_a_restriction(lab: dict[str, Any]) -> None:
    ranked = lab["Session"].proj("n", place="row_number() over (order by n desc)")
    assert rows(ranked & "place = 1") == [(2, 1, 5, 1)]
    assert rows(ranked & "n < 4") == [(1, 1, 3, 3)]
    assert [row[-1] for row in rows(lab["Subject"].proj() * ranked)] == [3, 2, 1]


def test_one_select_says_the_usual(lab: dict[str, Any]) -> None:
    subject, session, best = lab["Subject"], lab["Session"], lab["Best"]
    for query in [
        subject & "subject > 1" & {"name": "ann"} & [{"subject": 1}],
        subject * session & "n > 3 and name = 'ann'",
        (subject & "weight > 1") * session.proj("n") * best.proj("note"),
        subject.proj(label="name") & "label = 'ann'",
        (subject.proj("name", heavy="weight > 2") * session) & {"heavy": 1},
        session.proj(m="n + 1").proj(k="m * 2") & "k > 4",
        subject.aggr(session, "name", k="count(session)") & "k > 1",
        dj.U("n").aggr(session & "n > 3", k="count(*)") & {"k": 1},
        dj.U("n") & session,
        session.extend(subject),
        session & dj.Top(2, "n DESC"),
    ]:
        assert selects(query) == 1
        len(query)
    assert selects(subject & session) == 2
    assert selects(subject - session) == 2
    assert selects(subject & (session & "n > 3") & (best & "note = ''")) == 3


def test_sql_words_are_no_attributes(lab: dict[str, Any]) -> None:
    session = lab["Session"]
    texts = [
        "day BETWEEN '2026-01-01' AND '2026-01-02' and not (n = 5 or n is null)",
        "case when n > 4 then 0 else 1 end = 1 and n in (3, 4)",
        "cast(n as char) like '3' or coalesce(score, -1.5e0) < 0 and `n` = 4",
    ]
    for text in texts:
        assert len(session & text) == 2
    assert len(session.proj(day2="day") & "day2 > date('2026-01-01')") == 2
    nested = f"subject in (select s.subject from {_spelled(session)} as s where s.n > 4)"
    assert rows((lab["Subject"] & nested).proj()) == [(2,)]
    assert rows(((lab["Subject"] & nested) * session).proj()) == [(2, 1)]
    # SQLite has words of its own.
    odd = session.proj(nothing="n") & "nothing in (select 3 as isnull)"
    assert len(odd) == len(session & "n = 3")


def _spelled(table: Any) -> str:
    sql = table().make_sql()
    return sql.split("FROM")[1].split("AS")[0].strip()


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda t: t["Session"].aggr(t["Subject"], n="count(*)"), "lacks session"),
        (lambda t: t["Subject"].aggr(t["Session"], n="session"), "max.session"),
        (lambda t: t["Subject"].aggr(5, n="count(*)"), "not with 5"),
        (lambda t: t["Subject"].extend(t["Session"]), "session .* many partners"),
        (lambda t: t["Subject"] + t["Session"], "one primary key"),
        (lambda t: t["Subject"] + t["Subject"], "Both sides .* name, weight"),
        (lambda t: t["Subject"] + dj.U("subject"), "U.'subject'. & query"),
        (lambda t: t["Subject"] * dj.U("subject"), "U.'subject'. & query"),
        (lambda t: dj.U("subject") * t["Subject"], "has no rows to join"),
        (lambda t: dj.U("subject") - t["Subject"], "infinite"),
        (lambda t: dj.U("nosuch") & t["Subject"], "no attribute 'nosuch'"),
        (lambda t: dj.U("subject") & [1], "needs a query"),
        (lambda t: dj.U(*t["numbers"]), "names of attributes"),
        (lambda t: t["Session"] - dj.Top(1), "stand alone"),
        (lambda t: t["Session"] & [dj.Top(1)], "stand alone"),
        (lambda t: t["Session"] & dj.Top(1, "nosuch"), "order_by names 'nosuch'"),
        (lambda t: t["Session"] & dj.Top(1, "n; drop"), "order_by"),
        (lambda t: t["Subject"] & {"name.x": 1}, r"name is varchar\(20\)"),
        (lambda t: len(t["Subject"] & {"info.x:nosuch": 1}), "Write one of signed"),
        (lambda t: t["Subject"].proj(x=5), "as text"),
        (lambda t: t["Subject"].make_sql(["nosuch"]), "no attribute 'nosuch'"),
        (lambda t: len((t["Subject"] & "subject =") * t["Session"]), "Look at 'subject ='"),
        (lambda t: t["Subject"].proj(x="(1").to_dicts(), r"Look at '\(1'"),
    ],
)
def test_senseless_operations(lab: dict[str, Any], use: Any, words: str) -> None:
    with pytest.raises(dj.QueryError, match=words):
        use({**lab, "numbers": [5]})


@pytest.mark.parametrize("given", [{"limit": -1}, {"limit": "3"}, {"offset": -1}, {"order_by": 5}])
def test_senseless_tops(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"Top\("):
        dj.Top(**given)

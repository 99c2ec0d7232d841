"""The same queries of both libraries over the same rows give the same."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

import dj_dagster
from tests.interop.conftest import Library, datajoint
from tests.services.database_server import drop_databases

TABLES = """
@schema
class Species(dj.Lookup):
    definition = '''
    species : varchar(12)
    ---
    legs : int8
    '''
    contents = [{"species": "mouse", "legs": 4}, {"species": "fly", "legs": 6}]

@schema
class Subject(dj.Manual):
    definition = '''
    subject : int32
    ---
    -> [nullable] Species
    weight = null : float64
    name = '' : varchar(20)
    '''

@schema
class Session(dj.Manual):
    definition = '''
    -> Subject
    session : int16
    ---
    day : date
    user = 'x' : varchar(8)
    '''

    class Trial(dj.Part):
        definition = '''
        -> master
        trial : int16
        ---
        outcome : enum('hit', 'miss')
        delay = null : float64
        '''

@schema
class Pair(dj.Manual):
    definition = '''
    -> Subject
    -> Subject.proj(other='subject')
    ---
    score : decimal(6,2)
    '''
"""

QUERIES = """
Subject()
Subject & "weight > 1"
Subject & {"species": "mouse"}
Subject & {"species": None}
Subject & {"name": "A", "no_such": 1}
Subject & [{"subject": 1}, {"subject": 3}]
Subject & []
Subject - []
Subject & dj.AndList(["weight > 1", {"species": "mouse"}])
Subject & False
Subject & Session
Subject - Session
Subject - (Session & "session = 2")
Session - Session.Trial
Session & {"day": "2024-01-01"}
Session & {"day": date(2024, 1, 1)}
Session.Trial & "delay is null"
Subject & Pair
Subject.proj(other="subject") & Pair
Subject & dj.U("species")
Session * Subject
Subject * Session.Trial
Session.Trial * Session * Subject
Subject * Species
Species * Subject
Subject.proj() * Species.proj()
Subject * Pair
Pair * Subject.proj(other="subject", other_name="name")
Subject.join(Species, left=True)
Subject.extend(Species)
Subject.proj()
Subject.proj(...)
Subject.proj(..., "-name")
Subject.proj("weight", label="name")
Subject.proj(copy="(name)")
Subject.proj(s="subject")
Subject.proj(w="weight * 2") & "w > 30"
Subject.proj(one="1", text='concat(name, "x")')
Session.Trial.proj("delay", good='outcome = "hit"')
Subject.aggr(Session, n="count(*)")
Subject.aggr(Session, n="count(session)")
Subject.aggr(Session, n="count(*)", exclude_nonmatching=True)
Subject.aggr(Session.Trial, mean="avg(delay)", n="count(trial)")
Subject.aggr(Session, n="count(session)") & "n > 0"
Session.aggr(Session.Trial, k="count(trial)") * Subject
Subject.aggr(Session.aggr(Session.Trial, k="count(trial)"), total="sum(k)")
Subject & Subject.aggr(Session, n="count(session)")
dj.U("day").aggr(Session, n="count(*)")
dj.U("species").aggr(Subject, n="count(*)", w="max(weight)")
dj.U().aggr(Session, n="count(*)", last="max(session)")
dj.U("day", "user") & Session
dj.U("outcome") & (Session.Trial * Session)
Subject & dj.Top(2, "weight DESC")
Subject & dj.Top(1, "name DESC", 1)
(Subject & dj.Top(2, "weight DESC")) & "name = 'a'"
(Subject & "subject = 1").proj() + (Subject & "subject > 2").proj()
Subject.proj("name") + (Subject & "subject = 2").proj(w="weight")
"""


def declare(library: Library, name: str) -> dict[str, Any]:
    schema = library.schema(name)
    names: dict[str, Any] = {"schema": schema, "dj": library.dj, "date": date}
    schema.context = names
    exec(TABLES, names)
    return names


@pytest.fixture(scope="module")
def labs(server: tuple[Any, Any], server_url: str) -> Iterator[tuple[dict[str, Any], ...]]:
    """The names to write queries with, ours and theirs."""
    schema = f"t{uuid.uuid4().hex[:8]}_same"
    ours = declare(Library(dj_dagster, server[0]), schema)
    ours["Subject"].insert(
        [
            (1, "mouse", 20.5, "a"),
            (2, "fly", 0.125, "b"),
            (3, None, None, ""),
            (4, "mouse", 22, "d"),
        ]
    )
    days = [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 1), date(2024, 3, 1)]
    keys = [(1, 1), (1, 2), (2, 1), (4, 1)]
    ours["Session"].insert([(*key, day, "u") for key, day in zip(keys, days, strict=True)])
    ours["Session"].Trial.insert(
        [
            (1, 1, 1, "hit", 0.5),
            (1, 1, 2, "miss", None),
            (1, 2, 1, "hit", 0.25),
            (2, 1, 1, "hit", 1),
        ]
    )
    ours["Pair"].insert([(1, 2, Decimal("1.50")), (1, 1, Decimal("2.25")), (4, 1, Decimal(0))])
    yield ours, declare(Library(datajoint, server[1]), schema)
    drop_databases(server_url, schema)


def facts(query: str, names: dict[str, Any]) -> tuple[Any, ...]:
    """Return all that a query is asked for: its heading and its rows, whatever their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = eval(query, names)
        rows = sorted((sorted(row.items()) for row in found.to_dicts()), key=repr)
        heading = found.heading
    return list(heading.names), list(heading.primary_key), len(found), bool(found), rows


@pytest.mark.parametrize("query", QUERIES.strip().splitlines())
def test_a_query_gives_the_same(labs: tuple[dict[str, Any], ...], query: str) -> None:
    ours, theirs = (facts(query, names) for names in labs)
    assert ours == theirs

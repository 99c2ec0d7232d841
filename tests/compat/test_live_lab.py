"""A lab in which a client of DataJoint 0.14 and ours work at once on a latin1 database.

It takes a few seconds; with ``DJ_TEST_LIVE_SECONDS=60`` in the environment a minute.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from tests.compat.conftest import Eras
from tests.services.database_server import drop_databases
from tests.services.old_datajoint import old_client

SECONDS = float(os.environ.get("DJ_TEST_LIVE_SECONDS", "3"))

LAB = """
import time
schema = dj.schema({name!r})

@schema
class Subject(dj.Manual):
    definition = '''
    subject : varchar(30)  # Müller's number
    ---
    note = "" : varchar(100)
    '''

@schema
class Session(dj.Manual):
    definition = '''
    -> Subject
    session : int
    ---
    trace : longblob
    movie : blob@main
    file : attach
    '''

@schema
class Analysis(dj.Computed):
    definition = '''
    -> Session
    ---
    who : varchar(8)
    mean : double
    frames : blob@main
    '''

    class Frame(dj.Part):
        definition = '''
        -> master
        frame : int
        ---
        value : float
        '''

    def make(self, key):
        if key["session"] % 7 == 0:
            raise ValueError("Nothing in séance %d" % key["session"])
        trace, movie = (Session & key).fetch1("trace", "movie")
        self.insert1(dict(key, who="old", mean=trace.mean(), frames=movie + 1))
        self.Frame.insert(dict(key, frame=n, value=movie[n]) for n in range(3))

def record(number):
    subject = "old é %d" % number
    Subject.insert1((subject, "µ"))
    Session.insert(dict(subject=subject, session=n, trace=np.arange(n + 1.), movie=np.arange(3) + n,
                        file=path) for n in range(1, 9))
"""
WORK = """
path = {path!r}
until, rounds, refused = time.time() + {seconds}, 0, []
while time.time() < until:
    rounds += 1
    try:
        record(rounds)
        if rounds % 3 == 0:
            (Subject & dict(subject="old é %d" % (rounds - 1))).delete()
        if rounds % 5 == 0:
            (schema.jobs & 'status = "error"').delete()
        Analysis.populate(reserve_jobs=True, suppress_errors=True, order="random", max_calls=10)
    except Exception as error:
        refused.append(str(error))
result = [rounds, refused]
"""
ROWS = """
result = {
    "subjects": Subject.fetch(as_dict=True, order_by="KEY"),
    "sessions": [
        dict(row, trace=row["trace"].tolist(), movie=row["movie"].tolist(),
             file=open(row["file"]).read())
        for row in Session.fetch(as_dict=True, order_by="KEY", download_path=folder)
    ],
    "analyses": [
        dict(row, frames=row["frames"].tolist())
        for row in Analysis.fetch(as_dict=True, order_by="KEY")
    ],
    "frames": Analysis.Frame.fetch(as_dict=True, order_by="KEY"),
    "jobs": [
        [job["table_name"], job["key_hash"], job["status"], job["key"], job["error_message"]]
        for job in schema.jobs.fetch(as_dict=True, order_by="KEY")
    ],
}
"""


@pytest.fixture
def lab(
    mariadb_url: str, old_datajoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Eras]:
    """A client of 0.14 and ours at a latin1 database, whose tables the former has declared."""
    folder, name = tmp_path_factory.mktemp("lab"), f"t{uuid.uuid4().hex[:8]}_live"
    (folder / "main").mkdir()
    (folder / "file.txt").write_text("attached")
    stores = {"main": {"protocol": "file", "location": str(folder / "main")}}
    ours = dj.Connection(mariadb_url, stores=dj.Stores(stores), safemode=False, era="0.14")
    with ours.cursor() as session:
        session.exec_driver_sql(f"CREATE DATABASE `{name}` CHARACTER SET latin1")
    with old_client(old_datajoint, mariadb_url, stores, folder) as old:
        old.run(LAB.format(name=name))
        yield Eras(ours, old, name, folder)
    drop_databases(mariadb_url, name)
    ours.close()


def classes(lab: Eras) -> tuple[Any, Any, Any, Any]:
    schema = lab.schema()
    module = dj.VirtualModule("module", lab.name, connection=lab.connection)

    @schema
    class Analysis(dj.Computed):
        definition = module.Analysis.describe(printout=False)

        class Frame(dj.Part):
            definition = """
            -> master
            frame : int
            ---
            value : float
            """

        def make(self, key: dict[str, Any]) -> None:
            if key["session"] % 7 == 0:
                raise ValueError(f"Nothing in séance {key['session']} → ☃")
            trace, movie = (module.Session & key).fetch1("trace", "movie")
            self.insert1({**key, "who": "new", "mean": trace.mean(), "frames": movie + 1})
            self.Frame.insert({**key, "frame": n, "value": movie[n]} for n in range(3))

    return schema, module.Subject, module.Session, Analysis


def work(lab: Eras, schema: Any, subject: Any, session: Any, analysis: Any) -> int:
    """Do what the other client does, as long as it does."""
    until, rounds = time.time() + SECONDS, 0
    while time.time() < until:
        rounds += 1
        name = f"new é {rounds}"
        subject.insert1((name, "µ"))
        rows = ((n, np.arange(n + 1.0), np.arange(3) + n) for n in range(1, 9))
        file = str(lab.stores / "file.txt")
        session.insert((name, n, trace, movie, file) for n, trace, movie in rows)
        if rounds % 3 == 0:
            (subject & {"subject": f"new é {rounds - 1}"}).delete()
        if rounds % 5 == 0:
            (schema.jobs & 'status = "error"').delete()
        analysis.populate(reserve_jobs=True, suppress_errors=True, order="random", max_calls=10)
    return rounds


def test_both_eras_work_at_once(lab: Eras, tmp_path: Path) -> None:
    schema, subject, session, analysis = classes(lab)
    lab.old.send(WORK.format(path=str(lab.stores / "file.txt"), seconds=SECONDS))
    ours = work(lab, schema, subject, session, analysis)
    theirs, refused = lab.old.receive()
    assert ours > 1
    assert theirs > len(refused)
    # Neither has made what the other was making.
    errors = schema.jobs.fetch("error_message").tolist()
    assert not [error for error in [*errors, *refused] if "Duplicate" in error]

    # Latin1 has no snowman.
    subject.insert1(("last é", ""))
    session.insert1(("last é", 7, np.ones(2), np.arange(3), str(lab.stores / "file.txt")))
    analysis.populate({"subject": "last é"}, reserve_jobs=True, suppress_errors=True)
    message = lab.old.run("""
        errors = schema.jobs.fetch("error_message", "key", as_dict=True)
        result = next(e["error_message"] for e in errors if "last" in e["key"]["subject"])
    """)
    assert message == r"ValueError: Nothing in s\xe9ance 7 \u2192 \u2603"

    # Of the rows before, those of one of them may all have been deleted.
    subject.insert1(("ours é", ""))
    session.insert1(("ours é", 1, np.ones(2), np.arange(3), str(lab.stores / "file.txt")))
    analysis.populate({"subject": "ours é"}, reserve_jobs=True)

    # What became an error because a row was deleted meanwhile, or locked, is tried again.
    schema.jobs.delete()
    analysis.populate(reserve_jobs=True, suppress_errors=True, max_calls=20)
    lab.old.run("Analysis.populate(reserve_jobs=True, suppress_errors=True)")
    whole = session & "session % 7 <> 0"
    assert len(whole - analysis.proj()) == 0
    assert len(analysis) == len(whole)
    assert {"new"} <= set(analysis.fetch("who")) <= {"old", "new"}
    assert len(analysis.Frame) == 3 * len(whole)
    failed = schema.jobs.fetch("key")
    assert sorted(key["subject"] for key in failed) == sorted(
        (session & "session % 7 = 0").fetch("subject")
    )

    read = lab.old.run(f"folder = {str(tmp_path)!r}\n{ROWS}")
    names: dict[str, Any] = {
        "Subject": subject, "Session": session, "Analysis": analysis, "schema": schema,
        "folder": str(tmp_path / "ours"),
    }  # fmt: skip
    exec(ROWS, names)
    assert json.loads(json.dumps(names["result"], default=str)) == read
    assert {row["subject"].split()[1] for row in read["subjects"]} == {"é"}

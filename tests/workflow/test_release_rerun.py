"""Results of a release made again: equal where the code is, and told where not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dj_dagster as dj
from tests.lab import connect
from tests.services.process import PATIENCE

pytestmark = pytest.mark.release

PIPELINE = '''
import os
from pathlib import Path

import numpy as np

import dj_dagster as dj

schema = dj.Schema("lab")
FACTOR = float(os.environ.get("FACTOR", "1"))


@schema
class Method(dj.Lookup):
    definition = "method : varchar(16)\\n---\\ngain : float64"
    contents = (("plain", 1.0), ("loud", 2.0))


@schema
class Subject(dj.Manual):
    definition = """
    subject_id : int32
    ---
    born : date
    token : uuid
    price : decimal(6,2)
    info : json
    raw : <filepath@>
    shape : <npy@>
    """

    class Channel(dj.Part):
        definition = "-> master\\nchannel : int32\\n---\\nbad : bool"


@schema
class Signal(dj.Imported):
    definition = """
    -> Subject
    ---
    samples : <blob@>
    unknown = null : float64
    log : <filepath@>
    """

    def make(self, key):
        raw = (Subject & key).fetch1("raw")
        data = np.frombuffer(raw.read(), np.uint8)
        # Like the raw file, others have put it there.
        log = f"raw/{key['subject_id']}.txt"
        self.insert1(
            {**key, "samples": data.astype(float), "unknown": float("nan"), "log": log}
        )


@schema
class Score(dj.Computed):
    definition = """
    -> Signal
    -> Method
    ---
    score : float64
    small : float32
    wave : <blob>
    far : <npy@>
    pieces : <object@>
    """

    class Peak(dj.Part):
        definition = "-> master\\npeak : int32\\n---\\nheight : float64"

    def make(self, key):
        samples, gain = (Signal & key).fetch1("samples"), (Method & key).fetch1("gain")
        values = samples * gain * FACTOR
        pieces = Path("pieces")
        (pieces / "in").mkdir(parents=True, exist_ok=True)
        (pieces / "in" / "a.txt").write_text(str(key))
        self.insert1(
            {**key, "score": values.sum(), "small": 0.1 * FACTOR, "wave": {"v": values},
             "far": values, "pieces": pieces}
        )
        self.Peak.insert([{**key, "peak": n, "height": values[n]} for n in (0, 1)])
'''

ENTER = """
import datetime, uuid
from pathlib import Path
import numpy as np
from pipeline import *

for n in (1, 2):
    place = Path("store/raw") / f"{n}.bin"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(bytes([n, 5, 7]))
    place.with_suffix(".txt").write_text("ok")
    row = {"subject_id": n, "born": "2026-01-05", "token": uuid.UUID(int=n), "price": "1.50"}
    Subject.insert1({**row, "info": {"a": [n]}, "raw": f"raw/{n}.bin", "shape": np.ones(n)})
    Subject.Channel.insert([(n, 0, True), (n, 1, False)])
Signal.populate()
Score.populate()
"""

COMMAND = "from dj_dagster.cli import main; main()"


def run(folder: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder that has a database and a store of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "datajoint.json").write_text(
        '{"stores": {"default": "local", "local": {"protocol": "file", "location": "%s"}}}'
        % (folder / "store")
    )
    (folder / "store").mkdir(exist_ok=True)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", *command],
        cwd=folder,
        env={**ours, **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A release of one subject's scores, with the files of inputs."""
    entered = run(tmp_path / "lab", ENTER)
    assert entered.returncode == 0, entered.stderr
    folder = tmp_path / "release"
    arguments = ["lab.Score", str(folder), "--where", "subject_id = 1", "--inputs"]
    made = run(tmp_path / "lab", COMMAND, "release", *arguments)
    assert made.returncode == 0, made.stderr
    return folder


def rerun(released: Path, name: str, *more: str, **settings: str) -> Any:
    place = released.parent / name
    arguments = ["release", "--rerun", str(released), "-m", "pipeline", *more]
    return run(place, COMMAND, *arguments, **settings)


def test_a_rerun_in_an_empty_database_is_equal(released: Path) -> None:
    done = rerun(released, "clone")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal, 7 rows made again" in done.stdout
    connection = connect(f"sqlite:///{released.parent / 'clone' / '.dj' / 'lab.sqlite'}", released)
    (subject,) = dj.FreeTable(connection, "lab.subject").proj("price", "info", "token").to_dicts()
    assert (subject["subject_id"], str(subject["price"]), subject["info"]) == (
        1,
        "1.50",
        {"a": [1]},
    )
    assert len(dj.FreeTable(connection, "lab.subject__channel")) == 2
    connection.close()
    again = rerun(released, "clone")
    assert again.returncode == 1
    assert "has rows: make them in an empty database" in again.stderr


def test_classes_are_found_without_a_schema_in_the_module(released: Path) -> None:
    # The classes are in two modules. Neither has a name `schema`, and one alone is given.
    text = PIPELINE.replace("@schema", "@rows").replace("schema = ", "rows = ")
    below = text.index("@rows\nclass Score")
    place = released.parent / "parted"
    place.mkdir()
    (place / "signals.py").write_text(text[:below])
    imports = "import numpy as np, dj_dagster as dj, signals\nfrom pathlib import Path\n"
    names = "from signals import FACTOR, Method, Signal, rows\n"
    (place / "scores.py").write_text(imports + names + text[below:])
    command = [COMMAND, "release", "--rerun", str(released), "-m"]
    done = run(place, *command, "scores")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal, 7 rows made again" in done.stdout
    (place / "bare.py").write_text("A = 1")
    done = run(place, *command, "bare")
    assert done.returncode == 2
    assert "nor table classes" in done.stderr


def test_other_results_are_told(released: Path) -> None:
    done = rerun(released, "other", FACTOR="1.0001")
    assert done.returncode == 1
    for name in ("score", "small", "wave", "far"):
        assert f"{name} differs" in done.stdout
    assert "pieces differs" not in done.stdout
    assert "lab.Score.Peak" in done.stdout
    assert "lab.Signal" not in done.stdout


def test_results_within_a_tolerance_are_equal(released: Path) -> None:
    done = rerun(released, "near", "--tolerance", "0.001", FACTOR="1.0001")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rerun_needs_the_files_of_inputs_and_a_whole_release(released: Path) -> None:
    bare = released.parent / "bare"
    arguments = ["lab.Score", str(bare), "--where", "subject_id = 1"]
    assert run(released.parent / "lab", COMMAND, "release", *arguments).returncode == 0
    done = rerun(bare, "clone")
    assert done.returncode == 1
    assert "--inputs" in done.stderr
    next(released.rglob("*.npy")).write_bytes(b"")
    done = rerun(released, "clone")
    assert done.returncode == 1
    assert "not whole" in done.stderr


def test_a_store_of_another_database_is_left_alone(released: Path) -> None:
    place = released.parent / "lab"
    (place / ".dj" / "lab.sqlite").rename(place / "elsewhere.sqlite")
    done = rerun(released, "lab")
    assert done.returncode == 1
    assert "set up an empty store" in done.stderr


class Labs:
    """Databases of one process, each with a store: rows of one are made again in the last."""

    def __init__(self, folder: Path) -> None:
        self.release = folder / "release"
        self.connections: list[Any] = []
        self._folder = folder

    def schema(self, name: str) -> Any:
        place = self._folder / name
        place.mkdir()
        self.connections.append(connect(f"sqlite:///{place / 'lab.sqlite'}", place))
        return dj.Schema("lab", connection=self.connections[-1])

    def rerun(self, rows: Any, *classes: Any, **settings: Any) -> Any:
        if not self.release.exists():
            dj.make_release(rows, self.release, inputs=True, everything=True)
        return dj.rerun_release(self.release, classes, self.connections[-1], **settings)


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Labs]:
    labs = Labs(tmp_path)
    yield labs
    for connection in labs.connections:
        connection.close()


def people(schema: Any) -> Any:
    @schema
    class Person(dj.Manual):
        definition = "person : int32\n---\n-> [nullable] self.proj(boss='person')"

    @schema
    class Greeting(dj.Computed):
        definition = "-> Person"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    return Person, Greeting


@pytest.mark.parametrize("everything", [True, False])
def test_rows_that_refer_to_rows_of_their_own_table(labs: Labs, everything: bool) -> None:
    person, greeting = people(labs.schema("a"))
    person.insert([(5, None), (3, 5), (1, 3), (7, 7), (8, None)])
    greeting.populate()
    there, made = people(labs.schema("b"))
    report = labs.rerun(greeting if everything else greeting & "person = 1", made)
    assert not report.differences
    assert {1: 3, 3: 5, 5: None}.items() <= dict(
        zip(*there.to_arrays("person", "boss"), strict=True)
    ).items()
    assert len(there) == (5 if everything else 3)


def test_a_circle_of_rows_cannot_be_entered(labs: Labs) -> None:
    person, greeting = people(labs.schema("a"))
    person.insert([(5, None), (3, 5)])
    person.update1({"person": 5, "boss": 3})
    greeting.populate()
    _, made = people(labs.schema("b"))
    with pytest.raises(dj.ConfigurationError, match=r"lab\.Person refer to each other in a circle"):
        labs.rerun(greeting, made)


def several(schema: Any, count: int = 3) -> Any:
    @schema
    class Start(dj.Manual):
        definition = "start : int32"

    @schema
    class Many(dj.Computed):
        definition = "-> Start\nn : int32"

        class Item(dj.Part):
            definition = "-> master\nitem : int32"

        def make(self, key: dict[str, Any]) -> None:
            self.insert({**key, "n": n} for n in range(count))
            self.Item.insert({**key, "n": n, "item": i} for n in range(count) for i in (0, 1))

    @schema
    class Below(dj.Computed):
        definition = "-> Many"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    return Start, Many, Below


CHOSEN = {
    "a row of several": lambda many, below: many & "n = 1",
    "a part": lambda many, below: many.Item & "n = 1 AND item = 1",
    "below a row": lambda many, below: below & "n = 2",
    "all": lambda many, below: many,
}


@pytest.mark.parametrize("chosen", CHOSEN)
def test_rows_that_were_not_released_are_made_all_the_same(labs: Labs, chosen: str) -> None:
    start, many, below = several(labs.schema("a"))
    start.insert([(1,), (2,)])
    many.populate()
    below.populate()
    rows = CHOSEN[chosen](many, below)
    _, *classes = several(labs.schema("b"))
    report = labs.rerun(rows, *classes)
    assert not report.differences
    # Another number of them is a difference.
    _, *classes = several(labs.schema("c"), 4)
    report = labs.rerun(rows, *classes)
    assert any("lab.Many" in each for each in report.differences)


def scaled(schema: Any, factor: float, sign: float = 1.0, fails: int = -1) -> Any:
    @schema
    class Factor(dj.Lookup):
        definition = "p : int32\n---\nfactor : float64\nshape : <npy@>"
        contents = ((1, factor, np.ones(2)), (2, 1.0, np.ones(3)))

    @schema
    class Scaled(dj.Computed):
        definition = "-> Factor\n---\nvalue : float64\nzero : json\nfar : <blob@>"

        def make(self, key: dict[str, Any]) -> None:
            if key["p"] == fails:
                raise ValueError("not today")
            value = (Factor & key).fetch1("factor") * 0.1
            zero = {"zero": [sign * 0.0]}
            self.insert1({**key, "value": value, "zero": zero, "far": [sign * 1e-13, value]})

    return Factor, Scaled


def test_rows_of_a_lookup_are_those_of_the_release(labs: Labs) -> None:
    _, made = scaled(labs.schema("a"), 2.0)
    made.populate()
    factor, again = scaled(labs.schema("b"), 3.0)
    said: list[str] = []
    report = labs.rerun(made, again, say=said.append)
    assert not report.differences
    assert dict(zip(*factor.to_arrays("p", "factor"), strict=True)) == {1: 2.0, 2: 1.0}
    assert [text for text in said if "Factor" in text] == [
        "lab.Factor {'p': 1} is another one in today's code: that of the release is used"
    ]


def test_the_sign_of_zero_counts_without_a_tolerance(labs: Labs) -> None:
    _, made = scaled(labs.schema("a"), 1.0)
    made.populate()
    _, again = scaled(labs.schema("b"), 1.0, -1.0)
    report = labs.rerun(made & "p = 1", again)
    where = "lab.Scaled {'p': 1}"
    assert report.differences == (f"{where}: zero differs", f"{where}: far differs")
    _, again = scaled(labs.schema("c"), 1.0, -1.0)
    report = labs.rerun(made & "p = 1", again, tolerance=1e-9)
    assert not report.differences


def test_a_make_that_fails_is_named_and_the_others_are_compared(labs: Labs) -> None:
    _, made = scaled(labs.schema("a"), 1.0)
    made.populate()
    _, again = scaled(labs.schema("b"), 1.0, fails=1)
    report = labs.rerun(made, again)
    (difference,) = report.differences
    assert difference == "lab.Scaled {'p': 1} was not made: ValueError: not today"
    assert report.rows == 1


def replace_file(release: Path, name: str, data: bytes) -> None:
    """Change a file together with its checksums, as somebody does who means to."""
    before = (release / name).read_bytes()
    (release / name).write_bytes(data)
    old, new = (hashlib.sha256(each).hexdigest().encode() for each in (before, data))
    if name != "manifest-sha256.txt":
        for listing in ("ro-crate-metadata.json", "manifest-sha256.txt"):
            there = (release / listing).read_bytes()
            if listing != name and old in there:
                replace_file(release, listing, there.replace(old, new))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("release.json", lambda _: b"[" * 100_000, "release.json is not as a release has it"),
        ("release.json", lambda _: b'{"format": 1}', "release.json is not as a release has it"),
        ("release.json", lambda _: b'{"format": 99}', "is of format 99"),
        ("release.json", lambda d: d.replace(b"rows/lab.S", b"rows/lab.T"), "is not as a release"),
        ("rows/lab.Scaled.parquet", lambda _: b"PAR1", "parquet is not as a release has it"),
        ("rows/lab.Scaled.parquet", lambda _: renamed(), "has the attributes p, value, zero, far"),
    ],
)
def test_files_that_were_changed_with_their_checksums(
    labs: Labs, name: str, change: Any, said: str
) -> None:
    _, made = scaled(labs.schema("a"), 1.0)
    made.populate()
    _, again = scaled(labs.schema("b"), 1.0)
    dj.make_release(made, labs.release, inputs=True, everything=True)
    replace_file(labs.release, name, change((labs.release / name).read_bytes()))
    assert not dj.verify_release(labs.release).problems
    with pytest.raises(dj.ConfigurationError, match=said):
        labs.rerun(made, again)


def renamed() -> bytes:
    found = BytesIO()
    pq.write_table(pa.table({"p": [1], "valeu": [1.0]}), found)
    return found.getvalue()

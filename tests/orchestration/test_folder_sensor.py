"""The sensor that enters what appears in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError, ConnectionFailedError
from dj_dagster.orchestration import build_definitions, folder_sensor
from tests.lab import connect


class Watched:
    """A folder, the tables for what appears there, and a sensor that is evaluated by hand."""

    def __init__(
        self,
        connection: dj.Connection,
        instance: dg.DagsterInstance,
        folder: Path,
        prefix: str = "",
    ):
        schema = dj.Schema(f"{prefix}rig", connection=connection)

        @schema
        class Subject(dj.Manual):
            definition = "subject : varchar(16)"

        @schema
        class Scan(dj.Manual):
            definition = """
            -> Subject
            scan : varchar(16)
            ---
            frames : int32
            """

        @schema
        class Note(dj.Manual):
            definition = """
            note : varchar(16)
            ---
            text : varchar(16)
            unique index (text)
            """

        @schema
        class Counted(dj.Manual):
            definition = """
            id : int auto_increment
            ---
            text : varchar(16)
            """

        self.schema, self.instance, self.folder = schema, instance, folder
        self.Subject, self.Scan, self.Note, self.Counted = Subject, Scan, Note, Counted
        self.folder.mkdir()
        self.cursor: str | None = None
        self.reads: list[str] = []

    def rows(self, path: Path) -> dict[Any, list[dict[str, Any]]]:
        self.reads.append(path.name)
        text = (path / "frames.txt" if path.is_dir() else path).read_text()
        key = {"subject": path.parent.name}
        return {
            self.Subject: [key],
            self.Scan: [{**key, "scan": path.stem, "frames": int(text)}],
        }

    def put(self, name: str, text: str = "3") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def look(self, read: Callable[[Path], Any] | None = None, **options: Any) -> str:
        """Evaluate the sensor once and return what it says."""
        options = {"pattern": "*/*", "settle": 0, **options}
        sensor = folder_sensor(self.folder, read or self.rows, **options)
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result: Any = sensor(context)
        self.cursor = result.cursor
        return result.skip_reason.skip_message

    @property
    def scans(self) -> list[tuple[str, int]]:
        return [(row["scan"], row["frames"]) for row in self.Scan.to_dicts(order_by="KEY")]


@pytest.fixture
def watched(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Watched]:
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    yield Watched(connection, instance, tmp_path / "incoming")
    connection.close()


def test_each_entry_is_entered_once_when_it_is_quiet(watched: Watched) -> None:
    assert watched.look().startswith("0 entries")
    watched.put("m1/a.txt")
    assert "Changing still: m1/a.txt" in watched.look()
    assert watched.scans == []
    watched.put("m1/b.txt", "5")
    assert watched.look().startswith("Entered: m1/a.txt; Changing still: m1/b.txt")
    assert watched.look().startswith("Entered: m1/b.txt")
    assert watched.look() == f"2 entries of */* in {watched.folder}."
    assert watched.scans == [("a", 3), ("b", 5)]
    assert watched.reads == ["a.txt", "b.txt"]


def test_an_entry_that_grows_is_waited_for(watched: Watched) -> None:
    path = watched.put("m1/a/frames.txt", "1")
    watched.look()
    for size in range(2, 5):
        path.write_text("1" * size)
        assert "Changing still: m1/a" in watched.look()
    # A file more is a change as well.
    watched.put("m1/a/notes.txt")
    assert "Changing still: m1/a" in watched.look()
    assert "Entered" not in watched.look(settle=3600)
    assert watched.look().startswith("Entered: m1/a")
    assert watched.scans == [("a", 1111)]


def test_an_entry_is_waited_for_until_it_is_complete(watched: Watched) -> None:
    def complete(path: Path) -> bool:
        return (path / "done").exists()

    watched.put("m1/a/frames.txt")
    watched.look(complete=complete)
    for _ in range(2):
        assert watched.look(complete=complete).startswith("Quiet, not complete: m1/a")
    watched.put("m1/a/done")
    watched.look(complete=complete)
    assert watched.look(complete=complete).startswith("Entered: m1/a")


def test_what_cannot_be_read_is_named_and_holds_up_nothing(watched: Watched) -> None:
    watched.put("m1/a.txt", "many")
    watched.put("m1/b.txt")
    watched.look()
    said = watched.look()
    assert "Entered: m1/b.txt" in said
    assert "Not readable: m1/a.txt (ValueError: invalid literal" in said
    # It is named as long as it is there, and tried again when it changes or some time later.
    assert "Not readable: m1/a.txt" in watched.look()
    assert watched.reads.count("a.txt") == 1
    watched.look(retry=0)
    assert watched.reads.count("a.txt") == 2
    watched.put("m1/a.txt", "7")
    watched.look()
    assert watched.look().startswith("Entered: m1/a.txt")
    assert watched.scans == [("a", 7), ("b", 3)]


def _notes(*texts: str) -> list[dict[str, Any]]:
    return [{"note": "m1", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda one: {}, "It gave no rows"),
        (lambda one: {one.Subject: []}, "It gave no rows"),
        (lambda one: {one.Subject: [{"subject": "m1"}], one.Scan: [{"subject": "m1"}]}, "scan"),
        # One of two rows, or a row that an index forbids, would be missing without a word.
        (lambda one: {one.Note: _notes("a", "b")}, r"Two rows of rig.note have the key .*'m1'"),
        (lambda one: {one.Note: [{"note": n, "text": "a"} for n in "cd"]}, "text"),
        (lambda one: {one.Counted: [{"text": "a"}]}, "rig.counted lacks id"),
        (lambda one: {one.Counted: [{"id": 0, "text": "a"}]}, "rig.counted lacks id"),
    ],
)
def test_an_entry_is_entered_whole_or_not_at_all(
    watched: Watched, rows: Callable[[Watched], Any], message: str
) -> None:
    watched.put("m1/a.txt")
    watched.look()
    said = watched.look(lambda path: rows(watched))
    assert "Not readable: m1/a.txt" in said
    assert re.search(message, said)
    assert [len(table()) for table in (watched.Subject, watched.Note, watched.Counted)] == [0, 0, 0]


def test_rows_that_are_there_are_left_as_they_are(watched: Watched) -> None:
    watched.put("m1/a.txt", "3")
    watched.Subject.insert1({"subject": "m1"})
    watched.Scan.insert1({"subject": "m1", "scan": "a", "frames": 99})
    watched.look()
    watched.look()
    # The cursor is a help alone: without it all is read once more.
    watched.cursor = None
    watched.look()
    watched.look()
    assert watched.scans == [("a", 99)]
    assert watched.reads == ["a.txt", "a.txt"]


def test_a_row_that_a_person_deleted_stays_away_until_its_entry_changes(watched: Watched) -> None:
    watched.put("m1/a.txt")
    watched.look()
    watched.look()
    watched.Scan.delete()
    watched.look()
    assert watched.scans == []
    watched.put("m1/a.txt", "12")
    watched.look()
    watched.look()
    assert watched.scans == [("a", 12)]


def test_entries_that_are_gone_are_forgotten(watched: Watched) -> None:
    path = watched.put("m1/a.txt")
    watched.look()
    path.unlink()
    assert watched.look() == f"0 entries of */* in {watched.folder}."
    watched.put("m1/a.txt")
    assert "Changing still: m1/a.txt" in watched.look()


def test_a_folder_that_is_away_is_an_error_and_forgets_nothing(watched: Watched) -> None:
    watched.put("m1/a.txt")
    watched.look()
    watched.look()
    watched.Scan.delete()
    away = watched.folder.rename(watched.folder.with_name("away"))
    with pytest.raises(Exception, match=r"incoming cannot be read: No such file.*mount it"):
        watched.look()
    # A share that is not mounted may be an empty folder.
    watched.folder.mkdir()
    assert watched.look() == f"0 entries of */* in {watched.folder}."
    watched.folder.rmdir()
    watched.folder.write_text("")
    with pytest.raises(Exception, match="incoming cannot be read: Not a directory"):
        watched.look()
    watched.folder.unlink()
    away.rename(watched.folder)
    for _ in range(2):
        assert watched.look() == f"1 entry of */* in {watched.folder}."
    assert watched.scans == []


def test_a_folder_on_the_way_that_cannot_be_read_is_named_and_forgets_nothing(
    watched: Watched, tmp_path: Path
) -> None:
    # This user may be root, who may read all, so that the disk of the link's folder is away.
    far = tmp_path / "far"
    (far / "m1").mkdir(parents=True)
    (watched.folder / "m1").symlink_to(far / "m1")
    watched.put("m1/a.txt")
    watched.put("m2/b.txt")
    watched.put("notes.txt")
    watched.look()
    watched.look()
    watched.Scan.delete()
    far.rename(tmp_path / "away")
    said = watched.look()
    assert said.startswith("Not readable: m1 (FileNotFoundError: ")
    assert said.endswith(f"2 entries of */* in {watched.folder}.")
    (tmp_path / "away").rename(far)
    for _ in range(2):
        assert watched.look() == f"2 entries of */* in {watched.folder}."
    assert watched.scans == []


def test_a_clock_that_is_set_back_does_not_hold_up_an_entry(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.put("m1/a.txt")
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 4e9)
        watched.look()
    watched.look()
    assert watched.look().startswith("Entered: m1/a.txt")


def test_a_long_reason_is_kept_short(watched: Watched) -> None:
    watched.put("m1/a.txt", "x" * 100_000)
    watched.look()
    assert len(watched.look()) < 2000
    assert len(watched.cursor or "") < 2000


def test_links_are_followed_and_named_where_they_lead_to_nothing(
    watched: Watched, tmp_path: Path
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    entry = watched.put("m1/a/frames.txt").parent
    (entry / "far").symlink_to(far)
    (entry / "loop").symlink_to(entry)
    (watched.folder / "m1" / "b").symlink_to(tmp_path / "nothing")
    for size in range(3):
        (far / "grows").write_text("1" * size)
        said = watched.look()
        assert "Changing still: m1/a" in said
        assert "Not readable: m1/b (InvalidValueError: " in said
        assert "nothing, which is not there" in said
    assert "Entered: m1/a" in watched.look()
    # A file that cannot be looked at any more has not changed.
    far.rename(tmp_path / "gone")
    assert "Not readable: m1/a (InvalidValueError" in watched.look()
    (tmp_path / "gone").rename(far)
    assert watched.look().startswith("Not readable: m1/b")


def test_a_tick_that_has_no_time_left_leaves_the_rest_to_the_next(watched: Watched) -> None:
    for name in "abc":
        watched.put(f"m1/{name}.txt")
    said = [watched.look(seconds=0) for _ in range(8)]
    assert "were left to the next tick" in said[0]
    assert [scan for scan, _ in watched.scans] == ["a", "b", "c"]
    assert watched.reads == ["a.txt", "b.txt", "c.txt"]


def test_each_entry_has_its_turn_whatever_its_name(watched: Watched) -> None:
    looked: list[str] = []
    for name in ("a/x.txt", "a-b/y.txt"):
        watched.put(name)
    watched.look()
    for _ in range(4):
        watched.look(seconds=0, complete=lambda path: looked.append(path.stem))
    assert looked == ["y", "x", "y", "x"]


def test_rows_that_were_all_there_are_not_said_to_be_entered(watched: Watched) -> None:
    watched.put("m1/a.txt")
    watched.look()
    watched.look()
    path = watched.put("m1/a.txt", "55")
    watched.look()

    def grows(found: Path) -> Any:
        path.write_text("777")
        return watched.rows(found)

    assert watched.look(grows).startswith("Changing still: m1/a.txt")
    assert watched.look().startswith("There already, left as they are: m1/a.txt; 1 entry ")
    assert watched.look() == f"1 entry of */* in {watched.folder}."
    assert watched.scans == [("a", 3)]


def test_a_name_that_a_server_takes_for_another_is_not_said_to_be_there(
    server_url: str, server_prefix: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    connection = connect(server_url, tmp_path)
    watched = Watched(connection, instance, tmp_path / "incoming", server_prefix)
    for name in ("m1/Abc.txt", "m1/abc.txt", "M1/b.txt"):
        watched.put(name)
    watched.look()
    said = watched.look()
    connection.close()
    # The subject is that of the other folder, and its scan is a new one.
    assert said.startswith("Entered: M1/b.txt, m1/Abc.txt; Not readable: m1/abc.txt (Dupl")
    assert re.search(r"has a row \('m1', 'Abc'\).*takes for \('m1', 'abc'\)", said)


def test_a_folder_in_the_home_of_nobody_is_refused() -> None:
    sensor = folder_sensor("~nobody-of-that-name/scans", lambda path: {})
    with dg.build_sensor_context() as context, pytest.raises(Exception, match="watched folder is"):
        sensor(context)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": ""},
        {"pattern": "/abs/*"},
        {"pattern": "../*"},
        {"pattern": "./"},
        {"settle": float("nan")},
        {"settle": "30"},
        {"settle": -1},
        {"retry": None},
        {"interval": -5},
        {"interval": 2.5},
        {"read": "y"},
        {"complete": "y"},
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_defined(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"folder_sensor\({name}=.*: write "):
        folder_sensor("incoming", **{"read": lambda path: {}, **wrong})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda scan: None, "read returned None"),
        (lambda scan: [{scan: []}], r"read returned \[\{"),
        (lambda scan: {"rig.Scan": [{"scan": "a"}]}, "rows for 'rig.Scan', not a table"),
        (lambda scan: {scan: {"scan": "a"}}, r"rig\.scan, not a list of dicts"),
        (lambda scan: {scan: ["a"]}, r"rig\.scan, not a list of dicts"),
    ],
)
def test_a_read_that_gives_no_rows_by_table_is_told_what_to_return(
    watched: Watched, given: Callable[[Any], Any], words: str
) -> None:
    watched.put("m1/a.txt")
    watched.look()
    said = watched.look(lambda path: given(watched.Scan))
    assert re.search(f"m1/a.txt .*{words}.* Return rows by table", said)


def test_a_database_that_is_away_says_nothing_of_the_entries(watched: Watched) -> None:
    def away(path: Path) -> Any:
        raise ConnectionFailedError("The database is away.")

    watched.put("m1/a.txt")
    watched.look()
    before = watched.cursor
    with pytest.raises(Exception, match="The database is away"):
        watched.look(away)
    assert watched.cursor == before
    assert watched.look().startswith("Entered: m1/a.txt")


def test_it_is_a_sensor_of_a_code_location(watched: Watched) -> None:
    sensor = folder_sensor(lambda: watched.folder, watched.rows, name="incoming", pattern="*/*")
    defs = build_definitions(watched.schema, sensors=[sensor])
    found = defs.get_repository_def().get_sensor_def("incoming")
    assert found.default_status == dg.DefaultSensorStatus.RUNNING

"""The integrity of a schema and its stores: missing, damaged, orphaned and unreferenced data."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from dj_dagster.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DataJointError,
    TransientError,
)
from dj_dagster.local_files import make_folder
from dj_dagster.model.heading import Attribute, Key, Value, Values
from dj_dagster.model.types import Family
from dj_dagster.objects.checksums import Written, placed, told
from dj_dagster.objects.codecs.arrays import NpyRef
from dj_dagster.objects.codecs.bytes import AttachCodec, named_content
from dj_dagster.objects.codecs.chain import CodecChain, ObjectContext
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.codecs.object_ref import ObjectRef
from dj_dagster.objects.external_pointer import ExternalPointerType
from dj_dagster.objects.stores.store import in_flight
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import Convert, stored_check
from dj_dagster.relational.fetching.fetch import RawRow, can_go_on, raw_rows
from dj_dagster.relational.garbage.collector import garbage_collectors
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table
from dj_dagster.workflow.pending import orphans

Say = Callable[[str], object]
AT_ONCE = 4
"""Objects of a server that are read at once, few because each may be large."""

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault in a schema or a store.

    Attributes
    ----------
    place
        Schema, table and attribute, or the store.
    text
        The fault, with the key of the row.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def check_schema(
    schema: Schema,
    *,
    read_data: bool = False,
    say: Say = lambda _: None,
    progress: Progress | None = None,
    bookmark: Path | None = None,
) -> Iterator[Finding]:
    """Yield the faults of the rows of a schema and of the objects that they refer to.

    Parameters
    ----------
    read_data
        Whether all values are decoded, and all objects read and compared with their checksums;
        otherwise objects are looked for, and their sizes compared.
    say
        Called with a line for each thing that is checked, or that could not be.
    progress
        Called after each row with table and attribute, the number of rows that are done, and that
        of all.
    bookmark
        A file that is there while the check runs. After an interruption, the next check with this
        file yields the findings again and goes on from there; later changes of rows that were
        checked are not seen. Where the file cannot be written, the check says so, and does
        without.

    Examples
    --------
    ::

        for finding in dj.check_schema(schema, read_data=True):
            print(finding)
    """
    given: Any = schema
    if not isinstance(given, Schema):
        raise ConfigurationError(
            f"check_schema({schema!r}): give a schema, as dj.Schema returns it."
        )
    of = {"url": schema.connection.url, "schema": schema.name, "read_data": read_data}
    mark = Bookmark(bookmark, of)
    if mark.is_resumed:
        at = f" at {mark.step}, after {mark.rows} rows" if mark.step else ""
        say(f"going on{at}, with the check that began at {mark.begun} ({bookmark})")
        yield from (Finding(place, text) for place, text in mark.findings)
    try:
        mark.save()
    except OSError as error:
        say(f"an interruption begins the check anew: {bookmark} cannot be written ({error})")
        mark = Bookmark()
    try:
        for finding in _findings(schema, mark, say, progress, read_data=read_data):
            mark.findings.append((finding.place, finding.text))
            yield finding
    except BaseException:
        mark.save()
        raise
    mark.remove()


def _findings(
    schema: Schema, mark: Bookmark, say: Say, progress: Progress | None, *, read_data: bool
) -> Iterator[Finding]:
    for name in schema.list_tables():
        table = FreeTable(schema.connection, f"{schema.name}.{name}")
        say(f"table {table.name}")
        yield from check_table(table, read_data=read_data, progress=progress, mark=mark)
    if schema.connection.stores.names:
        yield from _unreferenced(schema, say)


def check_table(
    table: Table,
    *,
    read_data: bool = False,
    progress: Progress | None = None,
    mark: Bookmark | None = None,
) -> Iterator[Finding]:
    """Yield the faults of the rows of a table and of their objects; see `check_schema`."""
    mark = mark or Bookmark()
    if mark.begins(str(table.name)):
        if found := orphans(table):
            yield Finding(str(table.name), f"Rows without the row that they refer to: {found}.")
        for first, second in colliding_keys(table):
            text = f"({_shown(first)}) and ({_shown(second)}) are one key to a server's collation."
            yield Finding(str(table.name), text)
        mark.ended()
    total = len(table) if progress is not None else 0
    for attribute in table.heading.attributes.values():
        if not mark.begins(f"{table.name}.{attribute.name}"):
            continue
        for finding in _values(table, attribute, mark, read_data=read_data):
            if isinstance(finding, Finding):
                yield finding
            elif progress is not None:
                progress(mark.step, mark.rows, total)
        mark.ended()


def _unreferenced(schema: Schema, say: Say) -> Iterator[Finding]:
    for collector in garbage_collectors(schema):
        name = collector.store.name
        say(f"store {name}")
        try:
            report = collector.scan()
        except DataJointError as error:
            say(f"What is unreferenced in store {name} cannot be told: {error}")
            continue
        for one in report.garbage:
            yield Finding(f"store {name}", f"no row refers to {one.path} ({one.size} bytes).")


def _values(
    table: Table, attribute: Attribute, mark: Bookmark, *, read_data: bool
) -> Iterator[Finding | None]:
    """Yield the faults of the values of an attribute one by one, and None after each row."""
    kind, connection = attribute.type, table.connection
    coded = kind is not None and kind.family is Family.CODEC
    if not coded and not read_data:
        return
    place = f"{attribute.table}.{attribute.name}"
    try:
        chain = connection.codecs.resolve(kind) if coded and kind is not None else None
        followed = isinstance(kind, ExternalPointerType)
        if chain is None or followed:
            # Objects behind pointers of DataJoint 0.14 are verified when they are fetched.
            decode = None
        else:
            decode = _look(chain, read_data=read_data)
            if decode is None:
                return
        goes_on = can_go_on(table.heading)
        check = stored_check(attribute, connection) if read_data and not followed else None

        def looked(row: RawRow) -> tuple[RawRow, Finding | None]:
            try:
                if check is not None:
                    check(row.stored)
                if decode is None:
                    if read_data or not followed:
                        row.decode()
                elif row.value is not None:
                    schema, _, name = attribute.table.partition(".")
                    limits = connection.read_limits
                    place_of = (connection.stores, schema, name, attribute.name, row.key)
                    decode(row.value, ObjectContext(*place_of, limits=limits))
            except (ConnectionFailedError, TransientError):
                # The error does not concern the row: a later check goes on here.
                raise
            except DataJointError as error:
                shown = _shown(row.key)
                text = str(error).removeprefix(f"{place} ({shown}): ")
                return row, Finding(place, f"({shown}) {text}")
            return row, None

        rows = raw_rows(connection, table.node, attribute.name, mark.after)
        waits = decode is not None and chain is not None and _waits(table, chain)
        for row, finding in in_flight(looked, rows, AT_ONCE) if waits else map(looked, rows):
            if finding is not None:
                yield finding
            mark.passed(row.place if goes_on else None)
            yield None
    except (ConnectionFailedError, TransientError):
        raise
    except DataJointError as error:
        yield Finding(place, str(error).removeprefix(f"{place}: "))


def _waits(table: Table, chain: CodecChain) -> bool:
    """Whether to look at several values at once, because their store is remote."""
    if chain.store is None or not chain.encodes_concurrently:
        return False
    store = table.connection.stores.get(chain.store, chain.codecs[-1].default_store)
    return store.local_path("x") is None


def _shown(key: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in key.items())


def _look(
    chain: CodecChain, *, read_data: bool
) -> Callable[[object, ObjectContext], object] | None:
    """Return a function that checks a value, None if the value would have to be read."""
    attached = isinstance(chain.codecs[0], AttachCodec)
    if attached:
        # Fetching an attachment writes a file.
        chain = replace(chain, codecs=chain.codecs[1:])
    if chain.store is None and not read_data:
        return None

    def look(stored: object, context: ObjectContext) -> None:
        if not read_data and not chain.codecs[-1].lazy:
            _look_for(stored, context)
            return
        value = chain.decode(stored, context)
        if attached:
            named_content(value)
        elif isinstance(value, ObjectRef):
            value.verify(read=read_data)
        elif isinstance(value, NpyRef) and read_data:
            value.load()
        elif isinstance(value, NpyRef):
            _look_for(stored, context)
        elif chain.store is not None and "item_count" in read_reference(stored):
            # A folder of chunks, which are read when they are used.
            store = context.stores.get(read_reference(stored).get("store"))
            ObjectRef.of(read_reference(stored), store, context.place).verify()

    return look


def _look_for(stored: object, context: ObjectContext) -> None:
    """Compare an object's size with that in its reference."""
    fields = read_reference(stored)
    store = context.stores.get(fields.get("store"))
    if fields.get("is_dir"):
        ObjectRef.of(fields, store, context.place).verify(read=False)
        return
    with placed(context.place):
        found = Written(store.size(str(fields["path"])))
        Written.of(fields).check(found, told(store, str(fields["path"])))


SECONDS = 5.0
"""Seconds between two writes of the file."""

_SPELLED: dict[type, tuple[Convert, Convert]] = {
    int: (int, int),
    str: (str, str),
    bytes: (bytes.hex, bytes.fromhex),
    Decimal: (str, Decimal),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    timedelta: (
        lambda value: value // timedelta(microseconds=1),
        lambda value: timedelta(microseconds=value),
    ),
}


class Bookmark:
    """The progress of a check, and its findings.

    Parameters
    ----------
    file
        The file that keeps them between processes, None to do without one.
    of
        The schema and the kind of the check; a file of another check is ignored.

    Attributes
    ----------
    begun
        The time when the check began, UTC.
    step, rows
        The current step, and the number of its rows that are done.
    after
        The key of the last of these rows as the driver gives it, None before the first.
    findings
        The place and the text of each finding.
    """

    def __init__(self, file: Path | None = None, of: Mapping[str, object] | None = None) -> None:
        self._file, self._of = file, dict(of or {})
        self._saved = time.monotonic()
        kept = self._kept()
        self.is_resumed = bool(kept)
        self.begun: str = kept.get("begun", datetime.now(UTC).isoformat(timespec="seconds"))
        self.done: list[str] = kept.get("done", [])
        self.step: str = kept.get("step", "")
        self.rows: int = kept.get("rows", 0)
        self.after: Values | None = _unspelled(kept.get("after"))
        self.findings: list[tuple[str, str]] = [(p, t) for p, t in kept.get("findings", [])]

    def begins(self, step: str) -> bool:
        """Begin a step, or go on with it; return whether it is still to do."""
        if step in self.done:
            return False
        if step != self.step:
            self.step, self.rows, self.after = step, 0, None
        return True

    def passed(self, key: Values | None) -> None:
        """Note that a row is done."""
        self.rows += 1
        self.after = key
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def ended(self) -> None:
        """Note that the step is done."""
        self.done.append(self.step)
        self.step, self.rows, self.after = "", 0, None
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file, if there is to be one."""
        self._saved = time.monotonic()
        if self._file is None:
            return
        after = _spelled(self.after)
        fields = {
            **self._of,
            "begun": self.begun,
            "done": self.done,
            "step": self.step,
            "rows": self.rows if after is not None else 0,
            "after": after,
            "findings": self.findings,
        }
        make_folder(self._file.parent)
        temporary = self._file.with_suffix(".writing")
        temporary.write_text(json.dumps(fields))
        temporary.replace(self._file)

    def remove(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _kept(self) -> dict[str, Value]:
        if self._file is None:
            return {}
        with suppress(OSError, ValueError):
            found: Value = json.loads(self._file.read_text())
            if isinstance(found, dict) and self._of.items() <= found.items():
                return found
        return {}


def _spelled(key: Sequence[object] | None) -> list[object] | None:
    """Return a key as JSON values, None if the key could not be read back from them."""
    if key is None or any(type(value) not in _SPELLED for value in key):
        return None
    return [[type(value).__name__, _SPELLED[type(value)][0](value)] for value in key]


def _unspelled(key: Sequence[tuple[str, Value]] | None) -> Values | None:
    if not key:
        return None
    kinds = {kind.__name__: read for kind, (_, read) in _SPELLED.items()}
    return tuple(kinds[name](value) for name, value in key)


KeyPair = tuple[Key, Key]

_TEXTS = (Family.STRING, Family.ENUM)


def folded(text: str) -> str:
    r"""Return a text as one of the usual collations of MariaDB and MySQL may compare it.

    Case, accents, trailing blanks and characters without a shape are removed; kana are of one kind,
    and emoji all one character.

    Examples
    --------
    >>> folded("Straße ") == folded("STRASSE")
    True
    >>> folded("é") == folded("e"), folded("カ") == folded("か"), folded("a") == folded("a\0")
    (True, True, True)
    """
    if text.isascii() and text.isprintable():
        return text.rstrip(" ").casefold()
    composed = unicodedata.normalize("NFKC", text.rstrip(" "))
    parts = "".join(c if c in _LETTERS_OF_THEIR_OWN else _NFKD(c) for c in composed)
    # An iota below a letter would be a letter of its own after the next step.
    without_marks = "".join(letter for letter in parts if not unicodedata.combining(letter))
    return "".join(map(_weight, without_marks.casefold().translate(_LETTERS)))


_NFKD = partial(unicodedata.normalize, "NFKD")

_LETTERS_OF_THEIR_OWN = "\u0419\u0439\u0622\u0623\u0624\u0625\u0626"
"""Letters that are not others with a mark: й, and Arabic ones with a hamza or a madda."""


_LETTERS: Mapping[int, str] = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ı": "i", "ð": "d"}
    | {"\u0491": "\u0433", "\u0640": ""}
    | dict(zip("ךםןףץゕゖ", "כמנפצかけ", strict=True))
    | {chr(number): chr(number - 0x60) for number in range(0x30A1, 0x30F7)}
    | dict(zip("ぁぃぅぇぉっゃゅょゎ", "あいうえおつやゆよわ", strict=True))
    | dict(zip("ァィゥェォッャュョヮヵヶ", "あいうえおつやゆよわかけ", strict=True))
)


def _weight(letter: str) -> str:
    if letter > "\uffff":
        # For MariaDB's general_ci.
        return "\ufffd"
    kind = unicodedata.category(letter)
    if kind == "Cf":
        return ""
    if kind == "Cc":
        return letter if letter in "\t\n\v\f\r\x85" else ""
    return str(unicodedata.decimal(letter)) if kind == "Nd" else letter


def colliding_keys(table: Table) -> Iterator[KeyPair]:
    """Yield pairs of values of a key, primary or unique, that a server would take for equal.

    Keys without text are not read, nor any key if the database compares as servers do.
    """
    backend, name = table.connection.backend, table.name
    if not backend.tells_text_apart:
        return
    with table.connection.cursor() as session:
        indexes = backend.indexes(session, name.schema, name.table).get(name.table, {})
    keys = [index.parts for index in indexes.values() if index.unique]
    for parts in dict.fromkeys((tuple(table.primary_key), *keys)):
        # An index may be of the beginning of a text.
        names, lengths = zip(*map(_part, parts), strict=True) if parts else ((), ())
        texts = [_is_text(table, name) for name in names]
        if any(texts) and set(names) <= set(table.heading.names):
            yield from _among(table, names, texts, lengths)


def _part(part: str) -> tuple[str, int | None]:
    prefix = re.fullmatch(r"(\w+)\(([0-9]+)\)", part)
    return (prefix[1], int(prefix[2])) if prefix else (part, None)


def _among(
    table: Table, names: Sequence[str], texts: Sequence[bool], lengths: Sequence[int | None]
) -> Iterator[KeyPair]:
    seen: dict[Values, Sequence[object]] = {}
    for row in fetch.keys(table.connection, table.node, names, names):
        if None in row:
            continue
        same = tuple(
            folded(value[:length]) if is_text else value
            for value, is_text, length in zip(row, texts, lengths, strict=True)
        )
        first = seen.setdefault(same, row)
        if first is not row:
            yield dict(zip(names, first, strict=True)), dict(zip(names, row, strict=True))


def _is_text(table: Table, name: str) -> bool:
    # A part of an index may be an expression.
    attribute = table.heading.attributes.get(name)
    kind = attribute.type if attribute is not None else None
    return kind is not None and kind.family in _TEXTS

"""A conformance suite for authors of codecs; see `dj_dagster.testing`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dj_dagster.errors import DataJointError, InvalidValueError, ObjectError
from dj_dagster.model.heading import Value
from dj_dagster.model.types import Family, parse_type
from dj_dagster.objects.codecs.chain import Codec, CodecChain, CodecRegistry, ObjectContext
from dj_dagster.objects.stores.stores import Stores

_KEY = {"subject_id": 3, "label": "a/b"}

_FORGED: tuple[object, ...] = (
    {},
    [],
    "",
    "not json",
    b"",
    b"\xff\xfe",
    b"mYm\0A",
    b"dj0\0\xfe",
    {"path": 3},
    {"path": "../../etc/passwd", "store": "main"},
    {"path": "_schema/lab/not/there_abcdefgh", "store": "main"},
)


@dataclass(frozen=True)
class _Bench:
    """A codec in an attribute of a table, with a store of its own."""

    chain: CodecChain
    stores: Stores
    folder: Path

    def context(self) -> ObjectContext:
        return ObjectContext(self.stores, "lab", "recording", "value", _KEY, self.folder / "files")

    def stored(self, value: Value) -> Value:
        """Return what the column holds of a value, as it comes back from the database."""
        encoded = self.chain.encode(value, self.context())
        if self.chain.column_type.family is Family.JSON:
            return json.loads(json.dumps(encoded))
        return bytes(encoded) if isinstance(encoded, bytearray | memoryview) else encoded

    def fetched(self, stored: Value) -> Value:
        return self.chain.decode(stored, self.context())


class CodecConformance:
    """The requirements of a codec; subclass it with the codec and some of its values.

    Attributes
    ----------
    codec
        The codec's class.
    values
        Values that it takes, best of all kinds: empty, large, unusual.
    wrong
        Values that `validate` must refuse.
    types
        The spellings in definitions, by default ``<name>`` and ``<name@>``, or what of these the
        codec allows.
    deterministic
        Whether equal values are stored as equal bytes or references, which lets them share an
        object. Set it to False for codecs whose objects are named by their row.
    """

    codec: ClassVar[type[Codec]]
    values: ClassVar[Sequence[Value]]
    wrong: ClassVar[Sequence[Value]] = ()
    types: ClassVar[Sequence[str]] = ()
    deterministic: ClassVar[bool] = True

    def same(self, given: Value, fetched: Value) -> bool:
        """Whether a value came back; override it for values that do not compare with ``==``."""
        if isinstance(given, np.ndarray) or hasattr(fetched, "__array__"):
            return bool(np.array_equal(np.asarray(given), np.asarray(fetched)))
        return bool(given == fetched)

    def test_it_can_be_declared(self) -> None:
        """The name is one that definitions can spell, and some type with it is possible."""
        assert self._spelled(), f"{self.codec.__name__}: neither <name> nor <name@> can be declared"
        assert self.values, "give some values to try"

    def test_values_come_back(self) -> None:
        """The decoded value is the encoded one."""
        for bench in self._benches():
            for value in self.values:
                back = bench.fetched(bench.stored(value))
                assert self.same(value, back), f"{value!r} came back as {back!r}; see `same`"

    def test_null_is_none(self) -> None:
        """Null never reaches the codec."""
        for bench in self._benches():
            assert bench.fetched(None) is None

    def test_encoding_is_repeatable(self) -> None:
        """Equal values are stored alike."""
        for bench in self._benches():
            for value in self.values if self.deterministic else ():
                one, other = bench.stored(value), bench.stored(value)
                assert one == other, f"{value!r} is stored as {one!r:.80}, then as {other!r:.80}"

    def test_encoding_leaves_the_value_alone(self) -> None:
        """A value can be inserted twice."""
        for bench in self._benches():
            for value in self.values:
                bench.stored(value)
                assert self.same(value, bench.fetched(bench.stored(value)))

    def test_wrong_values_are_refused(self) -> None:
        """`validate` raises TypeError or ValueError before anything is stored."""
        for bench in self._benches():
            for value in self.wrong:
                try:
                    bench.stored(value)
                except InvalidValueError:
                    assert not list(bench.stores.get().list()), "refuse a value before storing it"
                    continue
                raise AssertionError(f"{value!r} was taken; validate() must raise TypeError")

    def test_references_name_the_objects(self) -> None:
        """The garbage collector finds every object through `referenced_paths`."""
        for bench in self._benches():
            if bench.chain.store is None:
                continue
            stored = [bench.stored(value) for value in self.values]
            named = {
                path
                for one in stored
                for codec in bench.chain.codecs
                for path, _ in codec.referenced_paths(one)
            }
            for file in bench.stores.get().list():
                below = any(file == path or file.startswith((f"{path}/", path)) for path in named)
                assert below, f"{file} is named by no referenced_paths(): it would be deleted"

    def test_damaged_values_raise_our_errors(self) -> None:
        """A forged or damaged value in the database does no harm."""
        for bench in self._benches():
            stored = [bench.stored(value) for value in self.values]
            for bad in (*_FORGED, *_damaged(stored)):
                told = _error_of(bench, bad)
                assert "lab.recording.value" in told, f"{told} names no attribute"

    def test_lost_objects_raise_our_errors(self) -> None:
        """A value whose object is gone raises ObjectError when it is fetched or used."""
        for bench in self._benches():
            if bench.chain.store is None or self.codec.lazy:
                continue
            stored = [bench.stored(value) for value in self.values]
            store = bench.stores.get()
            store.delete_many(list(store.list()))
            for one in stored:
                try:
                    bench.fetched(one)
                except ObjectError:
                    continue
                raise AssertionError(f"{one!r:.80} was fetched although its object is gone")

    def test_descriptions_read_nothing(self) -> None:
        """`describe` returns text or None, of a beginning and of an object that is gone as well."""
        for bench in self._benches():
            stored = [bench.stored(value) for value in self.values]
            bench.stores.get().delete_many(list(bench.stores.get().list()))
            for one in stored:
                size = len(one) if isinstance(one, bytes) else None
                for known in [one, *([one[:9]] if isinstance(one, bytes) else [])]:
                    text = bench.chain.codecs[-1].describe(known, size)
                    assert text is None or isinstance(text, str), f"describe() returned {text!r}"

    def _spelled(self) -> list[str]:
        if self.types:
            return list(self.types)
        found: list[str] = []
        for text in (f"<{self.codec.name}>", f"<{self.codec.name}@>"):
            try:
                CodecRegistry([self.codec]).resolve(parse_type(text))
            except DataJointError:
                continue
            found.append(text)
        return found

    def _benches(self) -> Iterator[_Bench]:
        for text in self._spelled():
            chain = CodecRegistry([self.codec]).resolve(parse_type(text))
            with _bench(chain) as bench:
                yield bench


def _error_of(bench: _Bench, stored: Value) -> str:
    """Return the message of the error that fetching raises, the attribute's name if it is none."""
    try:
        bench.fetched(stored)
    except ObjectError as error:
        return str(error)
    except DataJointError:
        # Of the settings, as when a forged reference names a store that is not there.
        pass
    return "lab.recording.value"


@contextmanager
def _bench(chain: CodecChain) -> Generator[_Bench]:
    with tempfile.TemporaryDirectory(prefix="djcodec") as name:
        folder = Path(name)
        main = {"protocol": "file", "location": str(folder / "store")}
        yield _Bench(chain, Stores({"default": "main", "main": main}), folder)


def _damaged(stored: Sequence[Value]) -> Iterator[Value]:
    for one in stored:
        if isinstance(one, bytes):
            yield from (
                one[: len(one) // 2],
                one[:-1],
                bytes([one[0] ^ 255]) + one[1:] if one else b"x",
            )
        elif isinstance(one, Mapping):
            yield from ({name: v for name, v in one.items() if name != gone} for gone in one)
            yield {**one, "size": 10**15, "shape": [10**9, 10**9], "dtype": "object"}

"""The suite for authors of codecs: the built-in codecs pass it, and faulty ones do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from dj_dagster.errors import DefinitionError, ObjectError
from dj_dagster.objects.codecs.arrays import NpyCodec, ZarrCodec
from dj_dagster.objects.codecs.bytes import BlobCodec, HashCodec
from dj_dagster.objects.codecs.codec import Codec, ObjectContext, SchemaCodec
from dj_dagster.objects.codecs.files import ObjectCodec
from dj_dagster.testing import CodecConformance


class TestBlob(CodecConformance):
    codec = BlobCodec
    values = (None, 3, "text", [1, {"a": (2.5, b"x")}], np.arange(6.0).reshape(2, 3))
    wrong = ()


class TestHash(CodecConformance):
    codec = HashCodec
    values = (b"", b"bytes" * 1000)
    wrong = ("text", 3)


class TestNpy(CodecConformance):
    codec = NpyCodec
    values = (np.arange(6), np.zeros((0, 3)), np.array(5))
    wrong = ([1, 2], np.array([object()]))
    deterministic = False


class TestObject(CodecConformance):
    codec = ObjectCodec
    values = (b"bytes", b"")
    wrong = (3, "/not/there")
    deterministic = False

    def same(self, given: Any, fetched: Any) -> bool:
        return given == fetched.read()


class TestZarr(CodecConformance):
    codec = ZarrCodec
    values = (np.arange(6.0), xr.DataArray([1, 2], dims="x", coords={"x": [3, 5]}))
    wrong = ([1, 2], "text")
    deterministic = False


class Faulty(Codec, register=False):
    """Keeps lists of numbers as text, which works for all but the empty one."""

    name = "faulty"

    def get_dtype(self, is_store: bool) -> str:
        return "<blob>"

    def encode(self, value: Any, *, key: Any = None, store_name: str | None = None) -> Any:
        return ",".join(map(str, value))

    def decode(self, stored: Any, *, key: Any = None) -> Any:
        return [int(part) for part in stored.split(",")]


def suite(**changes: Any) -> CodecConformance:
    methods = {"decode": changes.pop("decode")} if "decode" in changes else {}
    codec = type("Changed", (Faulty,), methods, register=False)
    given = {"codec": codec, "values": ([1, 2], [3]), **changes}
    return type("Suite", (CodecConformance,), given)()


def checks() -> list[str]:
    return [name for name in dir(CodecConformance) if name.startswith("test_")]


def failing(tried: CodecConformance) -> set[str]:
    failed = set()
    for name in checks():
        try:
            getattr(tried, name)()
        except (AssertionError, ObjectError):
            failed.add(name)
    return failed


def test_a_sound_codec_passes() -> None:
    assert len(checks()) == 10
    assert failing(suite()) == set()


class Mute(Codec, register=False):
    """Describes bytes by a number."""

    name = "mute"

    def get_dtype(self, is_store: bool) -> str:
        return "bytes"

    def encode(self, value: Any, *, key: Any = None, store_name: str | None = None) -> Any:
        return bytes(value)

    def decode(self, stored: Any, *, key: Any = None) -> Any:
        return list(stored)

    def describe(self, stored: Any, size: int | None = None) -> Any:
        return size


def test_descriptions_are_text() -> None:
    tried = type("Suite", (CodecConformance,), {"codec": Mute, "values": ([1, 2],)})()
    assert "test_descriptions_read_nothing" in failing(tried)


class Stray(SchemaCodec, register=False):
    """Calls its path by another name, so that the collector cannot find it."""

    name = "stray"

    def encode(
        self,
        value: Any,
        *,
        key: Any = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> Any:
        store, path = self.new_object(context, store_name)
        store.put(path, bytes(value))
        return {"place": path}

    def decode(self, stored: Any, *, key: Any = None, context: ObjectContext | None = None) -> Any:
        store, fields = self.stored_object(context, {"path": stored["place"]})
        return list(store.get(fields["path"]))


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ({"values": ([1, 2], [])}, "test_values_come_back"),
        ({"decode": lambda self, stored, *, key=None: stored}, "test_values_come_back"),
        ({"wrong": ([4],)}, "test_wrong_values_are_refused"),
        ({"values": ()}, "test_it_can_be_declared"),
        ({"types": ("<unknown>",)}, None),
        ({"codec": Stray, "deterministic": True}, "test_encoding_is_repeatable"),
        ({"codec": Stray, "deterministic": False}, "test_references_name_the_objects"),
    ],
)
def test_faults_are_noticed(fault: dict[str, Any], noticed: str | None) -> None:
    if noticed is None:
        with pytest.raises(DefinitionError, match="no codec <unknown>"):
            failing(suite(**fault))
    else:
        assert noticed in failing(suite(**fault))

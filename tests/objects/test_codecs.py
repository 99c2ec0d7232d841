from __future__ import annotations

import os
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.errors import (
    BlobError,
    ChecksumError,
    ConfigurationError,
    DefinitionError,
    InvalidValueError,
    MissingExternalFile,
    ObjectError,
)
from dj_dagster.model.types import Family, parse_type
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.codecs import chain as codecs_module
from dj_dagster.objects.codecs.chain import Codec, CodecChain, CodecRegistry, ObjectContext
from dj_dagster.objects.stores.stores import Stores


class Polynomial(Codec, register=False):
    """Written as DataJoint's users write codecs: without `context`."""

    name = "polynomial"

    def get_dtype(self, is_store):
        return "<blob>"

    def encode(self, value, *, key=None, store_name=None):
        return {"coefficients": list(value.coef), "key": key, "store": store_name}

    def decode(self, stored, *, key=None):
        return np.polynomial.Polynomial(stored["coefficients"])

    def validate(self, value):
        if not isinstance(value, np.polynomial.Polynomial):
            raise TypeError(f"expected a Polynomial, not {type(value).__name__}")


class Line(Polynomial, register=False):
    """A codec over a codec, and without `store_name`."""

    name = "line"

    def get_dtype(self, is_store):
        return "<polynomial>"

    def encode(self, value, *, key=None):
        return np.polynomial.Polynomial(value)

    def decode(self, stored, *, key=None):
        return tuple(stored.coef)

    def validate(self, value):
        if len(value) != 2:
            raise ValueError("a line has an intercept and a slope")


class Temperature(Codec, register=False):
    """Ends in a core type, and uses `context` as codecs for DataJoint 2.3.4 do."""

    name = "celsius"

    def get_dtype(self, is_store):
        return "float64"

    def encode(self, value, *, key=None, context=None, store_name=None):
        self.seen = (context["schema"], context["field"], context.get("config"))
        return value + 273.15

    def decode(self, stored, *, key=None, context=None):
        return stored - 273.15


@pytest.fixture
def registry() -> CodecRegistry:
    return CodecRegistry([Polynomial, Line, Temperature()])


@pytest.fixture
def file_stores(file_store_settings: dict[str, Any], tmp_path: Path) -> Stores:
    raw = {"protocol": "file", "location": str(tmp_path / "raw")}
    return Stores({"default": "main", "main": file_store_settings, "raw": raw})


@pytest.fixture
def context(file_stores: Stores, tmp_path: Path) -> ObjectContext:
    return _context(file_stores, tmp_path)


def _context(stores: Stores, folder: Path) -> ObjectContext:
    return ObjectContext(stores, "lab", "session", "data", {"id": 3}, folder / "downloads")


def resolve(registry: CodecRegistry, text: str) -> CodecChain:
    return registry.resolve(parse_type(text))


VALUE = {"rate": 30.5, "trace": [1, 2, 3]}


def test_a_blob_is_packed_into_its_row(registry: CodecRegistry, context: ObjectContext):
    chain = resolve(registry, "<blob>")
    assert chain.column_type.text == "bytes"
    stored = chain.encode(VALUE, context)
    assert stored == pack(VALUE)
    assert chain.decode(stored, context) == VALUE


@pytest.mark.parametrize(("text", "store"), [("<blob@>", "main"), ("<blob@other>", "other")])
def test_a_blob_in_a_store_leaves_a_reference(
    registry: CodecRegistry, stores: Stores, tmp_path: Path, text: str, store: str
):
    context = _context(stores, tmp_path)
    chain = resolve(registry, text)
    assert chain.column_type.family is Family.JSON
    reference = chain.encode(VALUE, context)
    assert sorted(reference) == ["hash", "path", "schema", "size", "store"]
    assert (reference["store"], reference["schema"]) == (store, "lab")
    assert stores.get(store).get(reference["path"]) == pack(VALUE)
    assert chain.decode(reference, context) == VALUE


def test_bytes_go_to_a_store_as_they_are(registry: CodecRegistry, context: ObjectContext):
    chain = resolve(registry, "<hash@raw>")
    reference = chain.encode(b"raw bytes", context)
    assert context.stores.get("raw").get(reference["path"]) == b"raw bytes"
    assert chain.decode(reference, context) == b"raw bytes"
    with pytest.raises(InvalidValueError, match=r"lab\.session\.data \(id=3\).*use <blob@>"):
        chain.encode("text", context)


@pytest.mark.parametrize("text", ["<attach>", "<attach@raw>"])
def test_an_attachment_keeps_its_name(
    registry: CodecRegistry, context: ObjectContext, tmp_path: Path, text: str
):
    file = tmp_path / "notes.txt"
    file.write_bytes(b"first")
    chain = resolve(registry, text)
    stored = chain.encode(file, context)
    downloads = tmp_path / "downloads"
    assert chain.decode(stored, context) == str(downloads / "notes.txt")
    assert chain.decode(stored, context) == str(downloads / "notes.txt")
    file.write_bytes(b"second")
    assert chain.decode(chain.encode(str(file), context), context) == str(downloads / "notes_1.txt")
    assert (downloads / "notes.txt").read_bytes() == b"first"
    assert (downloads / "notes_1.txt").read_bytes() == b"second"


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("notes.txt", "notes_1.txt"),
        ("é" * 127, "é" * 126 + "_1"),
        ("a." + "b" * 253, "_1." + "b" * 252),
    ],
)
def test_an_attachment_is_written_beside_what_has_its_name(
    registry: CodecRegistry, context: ObjectContext, tmp_path: Path, name: str, second: str
):
    (context.download_path / name).mkdir(parents=True)
    (tmp_path / "given").mkdir()
    file = tmp_path / "given" / name
    file.write_bytes(b"x")
    chain = resolve(registry, "<attach>")
    for _ in range(2):
        written = Path(chain.decode(chain.encode(file, context), context))
        assert (written, written.read_bytes()) == (context.download_path / second, b"x")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.parametrize(("name", "message"), [(b"a\\b.txt", "backslash"), (b"\xff.txt", "UTF-8")])
def test_an_attachment_whose_name_would_be_lost_is_refused(
    registry: CodecRegistry, context: ObjectContext, tmp_path: Path, name: bytes, message: str
):
    file = tmp_path / os.fsdecode(name)
    file.write_bytes(b"x")
    with pytest.raises(InvalidValueError, match=rf"lab\.session\.data.*{message}"):
        resolve(registry, "<attach>").encode(file, context)


def test_an_attachment_is_laid_out_as_datajoint_does(
    registry: CodecRegistry, context: ObjectContext, tmp_path: Path
):
    file = tmp_path / "a.bin"
    file.write_bytes(b"\0\1")
    assert resolve(registry, "<attach>").encode(file, context) == b"a.bin\0\0\1"


def test_a_missing_attachment_is_refused(registry: CodecRegistry, context: ObjectContext):
    with pytest.raises(InvalidValueError, match=r"no file 'absent\.txt'"):
        resolve(registry, "<attach>").encode("absent.txt", context)


@pytest.mark.parametrize("name", ["../evil", "..\\evil", "/tmp/evil"])
def test_a_forged_attachment_name_stays_in_the_download_folder(
    registry: CodecRegistry, context: ObjectContext, name: str
):
    written = resolve(registry, "<attach>").decode(name.encode() + b"\0x", context)
    assert Path(written) == context.download_path / "evil"


@pytest.mark.parametrize("stored", [b"no zero byte", b"\0content", b"..\0x"])
def test_what_is_no_attachment_is_refused(
    registry: CodecRegistry, context: ObjectContext, stored: bytes
):
    with pytest.raises(ObjectError, match="not an attachment"):
        resolve(registry, "<attach>").decode(stored, context)


@pytest.mark.parametrize("stored", [b"\x89PNG", b"", memoryview(b"raw")])
def test_bytes_that_were_never_packed_are_read_as_bytes(
    registry: CodecRegistry, context: ObjectContext, stored: bytes
):
    assert resolve(registry, "<blob>").decode(stored, context) == bytes(stored)


def test_null_is_none(registry: CodecRegistry, context: ObjectContext):
    assert resolve(registry, "<blob@>").decode(None, context) is None


def test_a_blob_column_without_marker_is_read_and_written_packed(
    registry: CodecRegistry, context: ObjectContext
):
    chain = resolve(registry, "longblob")
    assert chain.decode(pack(VALUE), context) == VALUE
    assert chain.encode(VALUE, context) == pack(VALUE)


def test_other_types_have_an_empty_chain(registry: CodecRegistry, context: ObjectContext):
    for text in ("bytes", "int32", "json"):
        chain = resolve(registry, text)
        assert chain.codecs == ()
        assert chain.column_type == parse_type(text)
        assert chain.encode(b"mYm\0raw", context) == b"mYm\0raw"


def test_a_custom_codec_runs_before_the_one_it_names(
    registry: CodecRegistry, context: ObjectContext
):
    chain = resolve(registry, "<polynomial>")
    line = np.polynomial.Polynomial([1.0, 2.0])
    stored = chain.encode(line, context)
    assert stored == pack({"coefficients": list(line.coef), "key": {"id": 3}, "store": None})
    assert chain.decode(stored, context) == line


@pytest.mark.parametrize(("text", "store"), [("<line@>", "main"), ("<line@raw>", "raw")])
def test_an_outer_store_reaches_the_innermost_codec(
    registry: CodecRegistry, context: ObjectContext, text: str, store: str
):
    chain = resolve(registry, text)
    assert [codec.name for codec in chain.codecs] == ["line", "polynomial", "blob", "hash"]
    assert chain.column_type.text == "json"
    reference = chain.encode([0.5, 2.0], context)
    assert reference["store"] == store
    assert chain.decode(reference, context) == (0.5, 2.0)


def test_a_codec_may_end_in_any_type_and_learn_where_it_is(
    registry: CodecRegistry, context: ObjectContext
):
    chain = resolve(registry, "<celsius>")
    assert chain.column_type.text == "float64"
    assert chain.decode(chain.encode(20.0, context), context) == pytest.approx(20.0)
    assert registry.get("celsius").seen == ("lab", "data", None)


def test_each_codec_validates_its_value(registry: CodecRegistry, context: ObjectContext):
    with pytest.raises(InvalidValueError, match=r"lab\.session\.data \(id=3\): a line has"):
        resolve(registry, "<line>").encode([1, 2, 3], context)
    with pytest.raises(InvalidValueError, match="expected a Polynomial, not int"):
        resolve(registry, "<polynomial>").encode(3, context)


def test_errors_name_schema_table_attribute_and_key(
    registry: CodecRegistry, context: ObjectContext
):
    place = r"^lab\.session\.data \(id=3\): "
    blob, remote = resolve(registry, "<blob>"), resolve(registry, "<blob@raw>")
    with pytest.raises(BlobError, match=place):
        blob.encode(object(), context)
    with pytest.raises(BlobError, match=place):
        blob.decode(b"dj0\0\x99", context)
    reference = remote.encode(VALUE, context)
    store = context.stores.get("raw")
    store.put(reference["path"], b"changed")
    with pytest.raises(ChecksumError, match=f"{place}.*{reference['path']} in store 'raw'"):
        remote.decode(reference, context)
    store.delete(reference["path"])
    with pytest.raises(MissingExternalFile, match=f"{place}Store 'raw'.*{reference['path']}"):
        remote.decode(reference, context)


def test_an_error_within_a_custom_codec_says_which(registry: CodecRegistry, context: ObjectContext):
    stored = pack({"something": "else"})
    with pytest.raises(ObjectError, match=r"lab\.session\.data \(id=3\): <polynomial>.*KeyError"):
        resolve(registry, "<polynomial>").decode(stored, context)


def test_an_unknown_store_is_named_on_use(registry: CodecRegistry, context: ObjectContext):
    chain = resolve(registry, "<blob@cold>")
    with pytest.raises(ConfigurationError, match="no store 'cold'; known are 'main', 'raw'"):
        chain.encode(VALUE, context)


def test_an_unknown_codec_names_the_known(registry: CodecRegistry):
    with pytest.raises(DefinitionError, match=r"no codec <bolb>.*<attach>, <blob>.*mean <blob>"):
        resolve(registry, "<bolb>")


def test_hash_needs_a_store(registry: CodecRegistry):
    with pytest.raises(DefinitionError, match="<hash> requires @"):
        registry.get("hash").get_dtype(is_store=False)


def test_codecs_that_run_in_a_circle_are_refused():
    class There(Polynomial, register=False):
        name = "there"

        def get_dtype(self, is_store):
            return "<back>"

    class Back(There, register=False):
        name = "back"

        def get_dtype(self, is_store):
            return "<there>"

    with pytest.raises(DefinitionError, match="<there> → <back> → <there>"):
        resolve(CodecRegistry([There, Back]), "<there>")


def test_a_subclass_is_known_by_its_name_once_it_is_defined(context: ObjectContext):
    class Shouted(Codec):
        name = "shouted"

        def get_dtype(self, is_store):
            return "varchar(30)"

        def encode(self, value, *, key=None, store_name=None):
            return value.upper()

        def decode(self, stored, *, key=None):
            return stored.lower()

    registry = CodecRegistry()
    assert "shouted" in registry.names
    chain = resolve(registry, "<shouted>")
    assert isinstance(chain.codecs[0], Shouted)
    assert chain.column_type.size == 30
    assert chain.decode(chain.encode("hi", context), context) == "hi"


def test_two_classes_of_one_name_are_refused_until_one_is_chosen():
    def define() -> type[Codec]:
        class Twice(Polynomial):
            name = "twice"

        return Twice

    class Twice(Polynomial):
        name = "twice"

    again = define()
    with pytest.raises(DefinitionError, match="Several classes are named <twice>"):
        CodecRegistry().get("twice")
    assert isinstance(CodecRegistry([again]).get("twice"), again)
    assert Twice.name == again.name


def test_a_codec_needs_a_name():
    class Nameless(Polynomial, register=False):
        name = None

    with pytest.raises(DefinitionError, match="Nameless needs a name"):
        CodecRegistry([Nameless])


def test_packages_bring_codecs_by_entry_points(monkeypatch: pytest.MonkeyPatch):
    point = EntryPoint("celsius", f"{__name__}:Temperature", "dj_dagster.codecs")

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints([point]).select(**wanted)

    monkeypatch.setattr(codecs_module, "entry_points", entry_points)
    registry = CodecRegistry()
    assert "celsius" in registry.names
    assert isinstance(registry.get("celsius"), Temperature)


def test_a_class_has_one_codec_until_it_is_forgotten():
    class Kept(Polynomial):
        name = "kept_polynomial"

    codec = dj.get_codec("kept_polynomial")
    assert codec is dj.get_codec("<kept_polynomial>")
    assert isinstance(codec, Kept)
    assert dj.get_codec("blob") is dj.get_codec("blob")
    dj.codecs.unregister_codec("kept_polynomial")
    assert not dj.codecs.is_codec_registered("kept_polynomial")
    with pytest.raises(DefinitionError, match="<kept_polynomial>"):
        dj.get_codec("kept_polynomial")
    with pytest.raises(DefinitionError, match="no class of a codec <blob>"):
        dj.codecs.unregister_codec("blob")


@pytest.mark.parametrize(
    ("dtype", "column", "names", "store"),
    [
        ("int32", "int32", [], None),
        ("<blob>", "bytes", ["blob"], None),
        ("<blob@raw>", "json", ["blob", "hash"], "raw"),
        ("<object@>", "json", ["object"], ""),
    ],
)
def test_what_a_type_is_made_of(dtype: str, column: str, names: list[str], store: str | None):
    found, chain, place = dj.codecs.resolve_dtype(dtype)
    assert (found, [codec.name for codec in chain], place) == (column, names, store)


@pytest.mark.parametrize(
    "reference", [{"path": "a/b", "store": "raw"}, '{"path": "a/b", "store": "raw"}']
)
def test_paths_of_a_reference_that_may_be_text(reference: object):
    assert dj.get_codec("hash").referenced_paths(reference) == [("a/b", "raw")]
    assert dj.get_codec("object").referenced_paths("no JSON") == []

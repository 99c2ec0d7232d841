"""The codecs of a type: found by name, and run one after the other.

A codec's type may be another codec, so a value passes a chain of them: ``<blob@raw>`` packs, then
``<hash@raw>`` stores the bytes and leaves a reference, which the ``json`` column holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from dj_dagster.errors import (
    ConfigurationError,
    DataJointError,
    DefinitionError,
    InvalidValueError,
    ObjectError,
)
from dj_dagster.model.heading import Value
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.objects.checksums import placed
from dj_dagster.objects.codecs.arrays import NpyCodec, ZarrCodec
from dj_dagster.objects.codecs.bytes import AttachCodec, BlobCodec, HashCodec
from dj_dagster.objects.codecs.codec import Codec, ObjectContext
from dj_dagster.objects.codecs.files import FilepathCodec, ObjectCodec
from dj_dagster.objects.external_pointer import KINDS, ExternalPointerCodec, ExternalPointerType

__all__ = ["Codec", "CodecChain", "CodecRegistry", "ObjectContext"]

ENTRY_POINT_GROUP = "dj_dagster.codecs"
"""Packages that bring codecs name their classes in this group of entry points."""


@dataclass(frozen=True)
class CodecChain:
    """The codecs of an attribute, outermost first.

    Attributes
    ----------
    column_type
        The type that the column is declared as, most often ``bytes`` or ``json``.
    store
        The store that the codecs write to: ``""`` for the default store, None without a store.
    """

    codecs: tuple[Codec, ...]
    column_type: AttributeType
    store: str | None = None

    @property
    def encodes_concurrently(self) -> bool:
        """Whether several values are better encoded at once, as each waits for a store."""
        return self.store is not None and all(codec.concurrent for codec in self.codecs)

    @property
    def decodes_concurrently(self) -> bool:
        """Whether several values are better decoded at once, as each waits for a store."""
        return self.encodes_concurrently and not self.codecs[-1].lazy

    @cached_property
    def _encode_options(self) -> list[frozenset[str]]:
        return [_options(codec.encode) for codec in self.codecs]

    @cached_property
    def _decode_options(self) -> list[frozenset[str]]:
        return [_options(codec.decode) for codec in self.codecs]

    def encode(self, value: Value, context: ObjectContext) -> Value:
        """Return the content of the column for a value.

        Objects are written to their store here, before the row is.

        Raises
        ------
        InvalidValueError
            If a codec does not accept the value.
        ObjectError
            If the value cannot be packed or stored. Both errors name schema, table, attribute and
            key.
        """
        store_name = None
        if self.store is not None:
            with _located(self.codecs[-1], context):
                store_name = context.stores.resolve(self.store, self.codecs[-1].default_store)
        given: dict[str, Any] = {
            "key": dict(context.key),
            "context": context,
            "store_name": store_name,
        }
        for codec, options in zip(self.codecs, self._encode_options, strict=True):
            with _located(codec, context):
                _validate(codec, value)
                value = codec.encode(value, **{name: given[name] for name in options})
        return value

    def decode(self, stored: Value, context: ObjectContext) -> Value:
        """Return the value that a column's content stands for, None for null.

        Raises
        ------
        ObjectError
            If the content, or the object that it names, is missing or damaged.
        """
        if stored is None:
            return None
        given: dict[str, Any] = {"key": dict(context.key), "context": context}
        steps = zip(self.codecs, self._decode_options, strict=True)
        for codec, options in reversed(list(steps)):
            with _located(codec, context), _decoding(codec):
                stored = codec.decode(stored, **{name: given[name] for name in options})
        return stored


class CodecRegistry:
    """Codecs by name: those given to it, the built-in ones, those of packages, and subclasses.

    The codecs of packages are the entry points of the group ``dj_dagster.codecs``; they are
    imported when their name is first looked up. Subclasses of `Codec` are found by their `name`.

    Parameters
    ----------
    codecs
        Classes or instances that come before all others.
    """

    def __init__(self, codecs: Iterable[Codec | type[Codec]] = ()) -> None:
        self._codecs: dict[str, Codec] = {}
        for codec in (*BUILTIN_CODECS, *codecs):
            self.register(codec)

    def register(self, codec: Codec | type[Codec]) -> None:
        """Add a codec; it replaces one of the same name.

        Raises
        ------
        DefinitionError
            If the codec lacks a name.
        """
        instance = shared(codec) if isinstance(codec, type) else codec
        if not instance.name:
            raise DefinitionError(f"{type(instance).__name__} needs a name: name = 'my_codec'.")
        self._codecs[instance.name] = instance

    def get(self, name: str) -> Codec:
        """Return the codec of a name.

        Raises
        ------
        DefinitionError
            If no codec has the name, or two classes claim it.
        """
        if name in self._codecs:
            return self._codecs[name]
        found = _defined(name) or _installed(name)
        if found is None:
            raise self._unknown(name)
        return shared(found)

    @property
    def names(self) -> list[str]:
        """The names of all codecs, sorted."""
        installed = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
        defined = {str(codec.name) for codec in _subclasses(Codec) if _is_named(codec)}
        return sorted({*self._codecs, *installed, *defined})

    def resolve(self, type: AttributeType) -> CodecChain:
        """Return the chain of an attribute's type, empty for a type without a codec.

        A blob column without a marker in its comment was made by DataJoint 0.14, which packed all
        blobs, and is treated as ``<blob>``.

        Raises
        ------
        DefinitionError
            For an unknown codec, a chain that runs in a circle, or a codec that needs a store.
        """
        if type.family is Family.BYTES and not type.core:
            return CodecChain((self.get("blob"),), type)
        if isinstance(type, ExternalPointerType):
            return self._pointer_chain(type)
        codecs: dict[str, Codec] = {}
        inner, store = type, type.store
        while inner.codec is not None:
            if inner.codec in codecs:
                circle = " → ".join(f"<{name}>" for name in (*codecs, inner.codec))
                raise DefinitionError(f"Circular codec reference in {type.text}: {circle}.")
            codecs[inner.codec] = codec = self.get(inner.codec)
            inner = parse_type(codec.get_dtype(store is not None))
            store = store if inner.store is None else inner.store
        return CodecChain(tuple(codecs.values()), inner, store)

    def _pointer_chain(self, type: ExternalPointerType) -> CodecChain:
        """Return the chain of a pointer of DataJoint 0.14, after its adapter if it has one."""
        name = str(type.codec)
        adapters = () if name in KINDS else (self.get(name),)
        kind = parse_type(adapters[0].get_dtype(True)).codec if adapters else name
        pointer = ExternalPointerCodec(kind if kind in KINDS else "blob")
        return CodecChain((*adapters, pointer), parse_type(pointer.get_dtype(True)), type.store)

    def _unknown(self, name: str) -> DefinitionError:
        names = self.names
        close = get_close_matches(name, names, n=1)
        hint = f" Did you mean <{close[0]}>?" if close else ""
        return DefinitionError(
            f"Unknown codec: there is no codec <{name}>; known are "
            f"{', '.join(f'<{n}>' for n in names)}.{hint} Import the module that defines it first."
        )


def shared(codec: type[Codec]) -> Codec:
    """Return the one object of a class that all connections use."""
    if "instance" not in vars(codec):
        codec.instance = codec()
    return vars(codec)["instance"]


def unregister_codec(name: str) -> None:
    """Forget the classes of a name, so that it can be given to another.

    Raises
    ------
    DefinitionError
        If no class has the name; built-in codecs cannot be removed.
    """
    found = [codec for codec in _subclasses(Codec) if _is_named(codec) and codec.name == name]
    if not found:
        raise DefinitionError(f"There is no class of a codec <{name}> to forget.")
    for codec in found:
        codec.listed = False


def _subclasses(base: type[Codec]) -> Iterator[type[Codec]]:
    for codec in base.__subclasses__():
        yield codec
        yield from _subclasses(codec)


def _is_named(codec: type[Codec]) -> bool:
    return codec.listed and bool(codec.name) and not inspect.isabstract(codec)


def _defined(name: str) -> type[Codec] | None:
    """Return the subclass with a name; if a class was defined again, the latest one."""
    found = [codec for codec in _subclasses(Codec) if _is_named(codec) and codec.name == name]
    places = {f"{codec.__module__}.{codec.__qualname__}" for codec in found}
    if len(places) > 1:
        raise DefinitionError(
            f"Several classes are named <{name}>: {', '.join(sorted(places))}. Rename one, or pass "
            "the one to use to the CodecRegistry."
        )
    return found[-1] if found else None


def _installed(name: str) -> type[Codec] | None:
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return point.load()
    return None


def _options(method: Callable[..., object]) -> frozenset[str]:
    """Return the options that a codec's method takes; older codecs know fewer."""
    return frozenset(inspect.signature(method).parameters) & {"key", "context", "store_name"}


def _validate(codec: Codec, value: Value) -> None:
    try:
        codec.validate(value)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(str(error)) from error


@contextmanager
def _decoding(codec: Codec) -> Generator[None]:
    """Raise `ObjectError` in place of any other error of a codec that decodes."""
    try:
        yield
    except DataJointError:
        raise
    except Exception as error:
        raise ObjectError(
            f"{codec} cannot decode what is stored: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def _located(codec: Codec, context: ObjectContext) -> Generator[None]:
    """Name in errors the codec that failed and the place of the value."""
    try:
        with placed(context.place, InvalidValueError, ConfigurationError):
            yield
    except (InvalidValueError, ObjectError, ConfigurationError):
        raise
    except Exception as error:
        error.add_note(f"In codec {codec} of {context.place}.")
        raise


BUILTIN_CODECS: tuple[type[Codec], ...] = (
    BlobCodec,
    HashCodec,
    AttachCodec,
    ObjectCodec,
    NpyCodec,
    FilepathCodec,
    ZarrCodec,
)
"""The codecs that every `CodecRegistry` starts with."""

"""Attribute adapters: the way to define one's own kinds of values before codecs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from dj_dagster.model.heading import Value
from dj_dagster.model.types import parse_type
from dj_dagster.objects.codecs.chain import CodecRegistry
from dj_dagster.objects.codecs.codec import Codec


class AttributeAdapter:
    """The base of one's own kinds of values, as they were defined before `Codec`.

    The name of an instance in definitions, ``<name>``, is that of the variable that holds it.

    Attributes
    ----------
    attribute_type
        The type of the stored values: ``"longblob"``, ``"attach@raw"``, ``"varchar(255)"``.
    """

    attribute_type: ClassVar[str]

    def put(self, obj: Value) -> Value:
        """Return the stored form of a value."""
        raise NotImplementedError(f"{type(self).__name__} needs a method put(self, obj).")

    def get(self, value: Value) -> Value:
        """Return the value that `put` was given."""
        raise NotImplementedError(f"{type(self).__name__} needs a method get(self, value).")


class AdapterCodec(Codec, register=False):
    """An `AttributeAdapter` as a codec."""

    def __init__(self, name: str, adapter: AttributeAdapter) -> None:
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._adapter = adapter

    def get_dtype(self, is_store: bool) -> str:
        """Return the adapter's type in today's spelling."""
        return parse_type(self._adapter.attribute_type).text

    def encode(
        self, value: Value, *, key: Mapping[str, Value] | None = None, store_name: str | None = None
    ) -> Value:
        """Return the result of the adapter's `put`."""
        return self._adapter.put(value)

    def decode(self, stored: Value, *, key: Mapping[str, Value] | None = None) -> Value:
        """Return the result of the adapter's `get`."""
        return self._adapter.get(stored)


def register_adapters(
    registry: CodecRegistry, names: Iterable[str], found: Callable[[str], Iterable[object]]
) -> None:
    """Make the adapters among the codec names of a definition available as codecs.

    Parameters
    ----------
    found
        A function from a name to the objects of that name that the definition can see.
    """
    for name in names:
        for value in found(name):
            if isinstance(value, AttributeAdapter):
                registry.register(AdapterCodec(name, value))
                break

"""Attribute adapters: how kinds of values of one's own were written before codecs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from dj_dagster.model.types import parse_type
from dj_dagster.objects.codecs.chain import CodecRegistry
from dj_dagster.objects.codecs.codec import Codec


class AttributeAdapter:
    """A kind of value of one's own, as it was written before `Codec`.

    An instance goes by the name of the variable that holds it, ``<name>`` in definitions.

    Attributes
    ----------
    attribute_type
        What is stored: ``"longblob"``, ``"attach@raw"``, ``"varchar(255)"``.
    """

    attribute_type: ClassVar[Any]

    def put(self, obj: Any) -> Any:
        """Return what is stored for a value."""
        raise NotImplementedError(f"{type(self).__name__} needs a method put(self, obj).")

    def get(self, value: Any) -> Any:
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

    def encode(self, value: Any, *, key: Any = None, store_name: str | None = None) -> Any:
        """Return what the adapter puts."""
        return self._adapter.put(value)

    def decode(self, stored: Any, *, key: Any = None) -> Any:
        """Return what the adapter gets."""
        return self._adapter.get(stored)


def register_adapters(registry: CodecRegistry, names: Iterable[str], found: Any) -> None:
    """Make adapters available as codecs, those among the codec names of a definition.

    Parameters
    ----------
    found
        Function from a name to the objects of that name in sight of the definition.
    """
    for name in names:
        for value in found(name):
            if isinstance(value, AttributeAdapter):
                registry.register(AdapterCodec(name, value))
                break

"""The protocol of codecs, the base of codecs of objects named by their row, and references."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from dj_dagster.errors import DefinitionError, ObjectError
from dj_dagster.model.heading import Value
from dj_dagster.objects.blob.format import DEFAULT_LIMITS, ReadLimits
from dj_dagster.objects.layout import object_path
from dj_dagster.objects.previews import byte_text
from dj_dagster.objects.stores.store import Store
from dj_dagster.objects.stores.stores import Stores


@runtime_checkable
class SparkAdapter(Protocol):
    """A codec that can convert its values to Spark's types; programs test with `isinstance`."""

    def to_spark(self, decoded: Value, *, key: Mapping[str, Value] | None = None) -> Value:
        """Return a decoded value as numbers, texts, lists and dicts."""
        ...


class Codec(ABC):
    """A kind of value, ``<name>`` in definitions; subclass it to store your own.

    A subclass is available by its name as soon as it is defined. ``encode`` and ``decode`` may also
    take ``context``, an `ObjectContext`.

    Parameters
    ----------
    register
        ``class Base(Codec, register=False)`` keeps a base class out of the names.

    Examples
    --------
    >>> class PolynomialCodec(Codec):
    ...     name = "polynomial"
    ...
    ...     def get_dtype(self, is_store):
    ...         return "<blob>"
    ...
    ...     def encode(self, value, *, key=None, store_name=None):
    ...         return list(value.coef)
    ...
    ...     def decode(self, stored, *, key=None):
    ...         return np.polynomial.Polynomial(stored)
    """

    name: ClassVar[str | None] = None
    default_store: ClassVar[str] = "default"
    listed: ClassVar[bool] = True
    instance: ClassVar[Codec]
    """The object that is used; see `dj_dagster.objects.codecs.chain.shared`."""

    concurrent: ClassVar[bool] = False
    """Whether values of a store may be encoded and decoded in several threads at once."""

    lazy: ClassVar[bool] = False
    """Whether decoding reads nothing from the store yet."""

    takes_path: ClassVar[bool] = False
    """Whether a text is the path of a file, or folder, of this machine that is copied."""

    previews: ClassVar[bool] = False
    """Whether displays may decode a value to show it: that is quick, and does nothing else."""

    def __init_subclass__(cls, *, register: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.listed = register

    @abstractmethod
    def get_dtype(self, is_store: bool) -> str:
        """Return the type that encoded values are declared as.

        The type is another codec, ``"<blob>"`` or ``"<hash>"``, or ``"bytes"``, ``"json"`` or any
        core type. `is_store` is true if the definition says ``<name@store>``. A codec that is
        returned without a store inherits that store.
        """

    @abstractmethod
    def encode(
        self, value: Value, *, key: Mapping[str, Value] | None = None, store_name: str | None = None
    ) -> Value:
        """Return the encoded value, of the type that `get_dtype` returns."""

    @abstractmethod
    def decode(self, stored: Value, *, key: Mapping[str, Value] | None = None) -> Value:
        """Return the value that `encode` was given."""

    def validate(self, value: Value) -> None:  # noqa: B027 - overriding it is optional
        """Raise TypeError or ValueError for a value that the codec is not made for."""

    def referenced_paths(self, stored: Value) -> list[tuple[str, str | None]]:
        """Return ``(path, store)`` of all objects that a column's content keeps alive."""
        try:
            fields = read_reference(stored)
        except ObjectError:
            return []
        return [(fields["path"], fields.get("store") or None)]

    def describe(self, stored: Value, size: int | None = None) -> str | None:
        """Return a few words on a column's content for displays of rows, or None.

        Implementations must not read from a store.

        Parameters
        ----------
        stored
            The content that `decode` would get, but only the beginning of long bytes.
        size
            The number of bytes; None if the content is not bytes.
        """
        del stored, size

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True)
class ObjectContext:
    """The place that a value belongs to, and the stores of its connection.

    Attributes
    ----------
    stores
        The stores of the connection.
    schema, table, attribute
        Names as in the database.
    key
        The primary key of the row, as far as it is known.
    download_path
        Folder where attachments are written to when they are fetched.
    limits
        Limits on the cost of reading a packed value.
    """

    stores: Stores
    schema: str
    table: str
    attribute: str
    key: Mapping[str, Value]
    download_path: Path = Path()
    limits: ReadLimits = DEFAULT_LIMITS

    @property
    def place(self) -> str:
        """Schema, table, attribute and key, for error messages."""
        key = ", ".join(f"{name}={value!r}" for name, value in self.key.items())
        return f"{self.schema}.{self.table}.{self.attribute}" + (f" ({key})" if key else "")

    def __getitem__(self, name: str) -> Any:
        """Return a field by DataJoint's name for it, so that codecs written for it work."""
        return getattr(self, "attribute" if name == "field" else name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field as ``context[name]`` does, or `default`."""
        return getattr(self, "attribute" if name == "field" else name, default)


Reference = dict[str, Any]
"""A reference to an object in a store, as its row holds it in JSON."""

GivenKey = Mapping[str, Value] | None
"""The key of the row that a value belongs to, where a codec is given it."""


class SchemaCodec(Codec, register=False):
    """A codec that stores each value as an object of its own, ``<name@store>``.

    Subclasses write to the place that `new_object` returns in `encode`, and find the object again
    with `stored_object`.
    """

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of a reference."""
        if not is_store:
            raise DefinitionError(
                f"<{self.name}> requires @, as it keeps objects in a store: write <{self.name}@> "
                f"for the default store, or <{self.name}@name>."
            )
        return "json"

    def new_object(
        self, context: ObjectContext | None, store_name: str | None, ext: str = ""
    ) -> tuple[Store, str]:
        """Return the store and an unused path for a value.

        Parameters
        ----------
        ext
            The extension of the path, with its dot.
        """
        place = known(context)
        store = place.stores.get(store_name)
        path = object_path(
            store.settings, place.schema, place.table, place.attribute, place.key, ext
        )
        return store, path

    def stored_object(
        self, context: ObjectContext | None, stored: object
    ) -> tuple[Store, Mapping[str, Any]]:
        """Return the store of a reference, and the reference's fields.

        Raises
        ------
        ObjectError
            If `stored` is not a reference.
        """
        fields = read_reference(stored)
        return known(context).stores.get(fields.get("store"), self.default_store), fields

    def describe(self, stored: Value, size: int | None = None) -> str | None:
        """Return the kind, size and place of a reference's object, as text."""
        return reference_text(stored)


def known(context: ObjectContext | None) -> ObjectContext:
    """Return the context of an attribute.

    Raises
    ------
    ObjectError
        If the context is None.
    """
    if context is None:
        raise ObjectError("Built-in codecs work in the context of an attribute; none was given.")
    return context


def now() -> str:
    """Return the time as references hold it, UTC."""
    return datetime.now(UTC).isoformat()


def read_reference(reference: object) -> Mapping[str, Any]:
    """Return the fields of a reference, among them its `path`.

    Raises
    ------
    ObjectError
        If the text or mapping is not a reference.
    """
    fields: Any = reference
    if isinstance(reference, str | bytes):
        try:
            fields = json.loads(reference)
        except (ValueError, RecursionError) as error:
            raise ObjectError(f"{reference!r:.80} is not a reference to an object.") from error
    if not isinstance(fields, Mapping) or not isinstance(fields.get("path"), str):
        raise ObjectError(f"{reference!r:.80} is not a reference to an object: it has no path.")
    return fields


def reference_text(reference: object) -> str:
    """Return kind, size and place of the object that a reference names, as text.

    Raises
    ------
    ObjectError
        If the text or mapping is not a reference.

    Examples
    --------
    >>> reference_text({"path": "a/b.h5", "store": "raw", "ext": ".h5", "size": 1200})
    '.h5 file, 1.2 kB in raw'
    """
    fields = read_reference(reference)
    ext, count, size = fields.get("ext"), fields.get("item_count"), fields.get("size")
    what = f"{ext} " if ext else ""
    if fields.get("is_dir"):
        what += "folder" if count is None else f"folder of {count} file{'s' * (count != 1)}"
    elif "hash" not in fields:
        what += "file"
    amount = [] if size is None else [byte_text(int(size))]
    place = f" in {fields['store']}" if fields.get("store") else ""
    return ", ".join([*filter(None, [what]), *amount]) + place

"""The base of codecs whose objects are named by their row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dj_dagster.errors import DefinitionError, ObjectError
from dj_dagster.objects.addressing import object_path
from dj_dagster.objects.codec import Codec, ObjectContext
from dj_dagster.objects.reference import read_reference, reference_text
from dj_dagster.objects.store import Store

Key = Mapping[str, Any] | None


class SchemaCodec(Codec, register=False):
    """A codec that keeps each value as an object of its own, ``<name@store>``.

    Subclasses write to `new_object` in `encode`, and find the object again by `stored_object`.
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
        """Return the store and a path that nothing uses yet for a value.

        Parameters
        ----------
        ext
            Extension of the path, with its dot.
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
            If it is no reference.
        """
        fields = read_reference(stored)
        return known(context).stores.get(fields.get("store"), self.default_store), fields

    def describe(self, stored: Any, size: int | None = None) -> str | None:
        """Return what a reference says of its object: what it is, how large, where."""
        return reference_text(stored)


def known(context: ObjectContext | None) -> ObjectContext:
    """Return the context of an attribute.

    Raises
    ------
    ObjectError
        If there is none.
    """
    if context is None:
        raise ObjectError("Built-in codecs work in the context of an attribute; none was given.")
    return context


def now() -> str:
    """Return the time as references hold it, UTC."""
    return datetime.now(UTC).isoformat()

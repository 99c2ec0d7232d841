"""A hash of what a value holds, however deep, that tells whether inputs have changed."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from dj_dagster.errors import PopulateError
from dj_dagster.lazy import is_data_frame, is_series
from dj_dagster.relational.expression import QueryExpression


def content_hash(value: Any) -> bytes:
    """Return a hash that is equal for values of equal types and content, in any process.

    Order matters except in sets and mappings. NaN equals itself. A query stands for its rows.

    Raises
    ------
    PopulateError
        For an object whose content cannot be told, such as an open file.

    Examples
    --------
    >>> content_hash([1, {"a": 2.0, "b": None}]) == content_hash([1, {"b": None, "a": 2.0}])
    True
    >>> content_hash([1, 2]) == content_hash([2, 1])
    False
    """
    state = hashlib.blake2b(digest_size=16)
    _Hashing(state.update).add(value)
    return state.digest()


class _Hashing:
    """Feeds values to a hash, each behind a mark of its type and size: no two read the same."""

    def __init__(self, update: Any) -> None:
        self._update = update
        self._inside: list[int] = []

    def add(self, value: Any) -> None:
        match value:
            case None | bool() | int() | float() | complex() | str():
                self._put(type(value).__name__, repr(value).encode(errors="surrogatepass"))
            case bytes() | bytearray() | memoryview():
                self._put("bytes", bytes(value))
            case np.ndarray() | np.generic():
                self._array(np.asarray(value), type(value).__name__)
            case _ if is_data_frame(value) or is_series(value):
                self._frame(value)
            case QueryExpression():
                self._each("query", value.to_dicts(order_by="KEY" if value.primary_key else None))
            case _:
                self._nested(value)

    def _put(self, kind: str, content: bytes | memoryview) -> None:
        self._update(f"{kind} {len(content)} ".encode())
        self._update(content)

    def _nested(self, value: Any) -> None:
        if id(value) in self._inside:
            # A value that holds itself: how many steps up it is found says it all.
            self._put("cycle", str(self._inside[::-1].index(id(value))).encode())
            return
        self._inside.append(id(value))
        match value:
            case list() | tuple():
                self._each(type(value).__name__, value)
            case Mapping():
                self._unordered("mapping", value.items())
            case Set():
                self._unordered("set", value)
            case _:
                self._object(value)
        self._inside.pop()

    def _each(self, kind: str, items: Any) -> None:
        self._put(kind, str(len(items)).encode())
        for item in items:
            self.add(item)

    def _unordered(self, kind: str, items: Iterable[Any]) -> None:
        self._put(kind, b"".join(sorted(map(content_hash, items))))

    def _array(self, array: np.ndarray[Any, Any], kind: str) -> None:
        self._put(kind, f"{array.dtype.descr} {array.shape}".encode())
        if array.dtype.hasobject:
            self._each("items", array.ravel().tolist())
        elif array.size and array.dtype.itemsize:
            # Datetimes have no buffer of their own.
            self._put("data", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _frame(self, frame: Any) -> None:
        content = frame.reset_index()
        self._each(type(frame).__name__, [str(name) for name in content.columns])
        for position in range(content.shape[1]):
            self._array(content.iloc[:, position].to_numpy(), "column")

    def _object(self, value: Any) -> None:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            self._unordered(kind, [(name, getattr(value, name)) for name in names])
            return
        if (held := getattr(value, "__dict__", None)) and not isinstance(value, type):
            # A pickle would tell equal texts from the same text.
            self._unordered(kind, held.items())
            return
        try:
            self._put(kind, pickle.dumps(value, protocol=4))
        except Exception as error:
            raise PopulateError(
                f"make_fetch returned {value!r} ({kind}), whose content cannot be compared: "
                f"{error}. Return arrays, numbers, texts, and lists, dicts or dataclasses of these."
            ) from error

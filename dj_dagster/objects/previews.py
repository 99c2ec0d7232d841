"""Short descriptions of decoded values: type, shape, bytes, and a thumbnail."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Mapping, Sized
from dataclasses import dataclass

import numpy as np

from dj_dagster.objects.blob.format import Array

WIDTH, HEIGHT = 96, 48
"""Pixels of a thumbnail, at most."""

_DARK = 60


@dataclass(frozen=True, slots=True)
class ValuePreview:
    """The text and the picture that displays show in place of a value.

    Attributes
    ----------
    text
        One line: ``float32 array 1000 × 3, 12 kB``.
    thumbnail
        A PNG of an image or a trace; None for other values and for values that are not loaded.
    """

    text: str
    thumbnail: bytes | None = None

    @property
    def data_uri(self) -> str | None:
        """The thumbnail as a data URI, for browsers and Markdown."""
        if self.thumbnail is None:
            return None
        return f"data:image/png;base64,{base64.b64encode(self.thumbnail).decode()}"

    @property
    def markdown(self) -> str:
        """Text and thumbnail, as Dagster shows them in an asset's metadata."""
        return f"![{self.text}]({self.data_uri}) {self.text}" if self.thumbnail else self.text


def preview(value: object) -> ValuePreview:
    """Describe a value without reading anything from a store.

    Examples
    --------
    >>> preview(np.zeros((3, 4), "f4")).text
    'float32 array 3 × 4, 48 B'
    >>> preview({"rate": 30, "unit": "Hz"}).text
    'dict of 2: rate, unit'
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        text = array_text(dtype, shape, getattr(value, "nbytes", None))
        return ValuePreview(text, thumbnail(value) if isinstance(value, np.ndarray) else None)
    if isinstance(value, Mapping):
        return ValuePreview(_cut(f"dict of {len(value)}: {', '.join(map(str, value))}"))
    if isinstance(value, bytes | bytearray):
        return ValuePreview(f"bytes, {byte_text(len(value))}")
    if isinstance(value, Sized) and not isinstance(value, str):
        return ValuePreview(f"{type(value).__name__} of {len(value)}")
    return ValuePreview(_cut(repr(value)))


def array_text(dtype: object, shape: tuple[int, ...], size: int | None = None) -> str:
    """Return the words for an array.

    Parameters
    ----------
    size
        Bytes of the array; None if unknown.

    Examples
    --------
    >>> array_text("int16", (1000, 3), 6000)
    'int16 array 1000 × 3, 6 kB'
    """
    sizes = " × ".join(map(str, shape)) or "scalar"
    return f"{dtype} array {sizes}" + ("" if size is None else f", {byte_text(int(size))}")


def byte_text(number: int) -> str:
    """Return a number of bytes as text for people.

    Examples
    --------
    >>> byte_text(2500), byte_text(3_000_000_000)
    ('2.5 kB', '3 GB')
    """
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


_CONTROLS = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return a text for terminals, on which somebody else's may move the cursor or hide words.

    All control characters but the new line are escaped, those of the direction of text as well, and
    halves of surrogate pairs, which cannot be printed.

    Examples
    --------
    >>> print(printable("\x1b[31mred"))
    \x1b[31mred
    """
    escaped = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
    return escaped.encode(errors="backslashreplace").decode()


def thumbnail(array: Array) -> bytes | None:
    """Return a small PNG of an image, or of a trace over its samples; None for other arrays."""
    if array.dtype.kind not in "buif" or array.size < 2:
        return None
    if array.ndim == 1:
        return _png(_trace(array))
    if array.ndim == 2 and min(array.shape) > 1:
        rows, columns = (
            np.linspace(0, length - 1, min(length, limit)).astype(int)
            for length, limit in zip(array.shape, (HEIGHT, WIDTH), strict=True)
        )
        return _png((_scaled(array[np.ix_(rows, columns)]) * 255).astype("u1"))
    return None


def _trace(samples: Array) -> Array:
    """Draw for each column of pixels the range of the samples that fall into it."""
    columns = np.array_split(samples, min(WIDTH, len(samples)))
    ends = np.array([(column.min(), column.max()) for column in columns])
    heights = ((1 - _scaled(ends)) * (HEIGHT - 1)).astype(int)
    pixels = np.full((HEIGHT, len(columns)), 255, "u1")
    for x, (low, high) in enumerate(heights):
        pixels[high : low + 1, x] = _DARK
    return pixels


def _scaled(values: Array) -> Array:
    """Return values scaled to 0 to 1; NaN and infinite values are clipped."""
    numbers = values.astype("f8")
    finite = numbers[np.isfinite(numbers)]
    if not finite.size or finite.max() == finite.min():
        return np.zeros(numbers.shape)
    scaled = (numbers - finite.min()) / (finite.max() - finite.min())
    return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)


def _png(pixels: Array) -> bytes:
    """Write grey pixels as a PNG, https://www.w3.org/TR/png/."""
    height, width = pixels.shape
    rows = np.hstack([np.zeros((height, 1), "u1"), pixels])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"

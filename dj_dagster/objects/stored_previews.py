"""Short descriptions of what columns hold: of what is large or in a store, without reading it."""

from __future__ import annotations

from typing import Any

from dj_dagster.errors import ObjectError
from dj_dagster.objects.blob.packing import unpacked_size
from dj_dagster.objects.codecs.arrays import NpyRef
from dj_dagster.objects.codecs.chain import CodecChain, ObjectContext
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.previews import ValuePreview, preview

_MOST_UNPACKED = 2**24
"""Bytes that the unpacked value of a short blob may take."""


def stored_preview(
    chain: CodecChain, stored: Any, size: int | None, context: ObjectContext, most: int = 0
) -> ValuePreview | None:
    """Describe a column's content, None where there is nothing to say but its type.

    Parameters
    ----------
    stored
        The content; of long bytes the beginning.
    size
        How many bytes there are, None for what is no bytes.
    most
        Bytes that may be read from a store; by default nothing is.

    Raises
    ------
    ObjectError
        If the content is damaged, or its object missing.
    """
    if stored is None:
        return ValuePreview("None")
    if _is_at_hand(chain, stored, size, most):
        value = chain.decode(stored, context)
        small = isinstance(value, NpyRef) and value.nbytes <= most
        return preview(value.load() if small else value)
    try:
        text = chain.codecs[-1].describe(stored, size)
    except ObjectError:
        raise
    except Exception as error:
        # What is stored may be anything, and a codec of somebody else's stumble in any way.
        raise ObjectError(f"{context.place}: the reference is damaged: {error!r}.") from error
    return ValuePreview(text) if text else None


def _is_at_hand(chain: CodecChain, stored: Any, size: int | None, most: int) -> bool:
    if not all(codec.previews for codec in chain.codecs):
        return False
    if isinstance(stored, bytes):
        whole = size is None or size <= len(stored)
        return whole and unpacked_size(stored, len(stored)) <= _MOST_UNPACKED
    if chain.codecs[-1].lazy:
        return most > 0
    length = read_reference(stored).get("size")
    return length is not None and int(length) <= most

"""The codecs that are always there."""

from __future__ import annotations

from dj_dagster.objects.byte_codecs import AttachCodec, BlobCodec, HashCodec
from dj_dagster.objects.codec import Codec
from dj_dagster.objects.filepath_codec import FilepathCodec
from dj_dagster.objects.npy_codec import NpyCodec
from dj_dagster.objects.object_codec import ObjectCodec
from dj_dagster.objects.zarr_codec import ZarrCodec

BUILTIN_CODECS: tuple[type[Codec], ...] = (
    BlobCodec,
    HashCodec,
    AttachCodec,
    ObjectCodec,
    NpyCodec,
    FilepathCodec,
    ZarrCodec,
)
"""What every `CodecRegistry` starts with."""

"""The codecs that make bytes of values: ``<blob>``, ``<hash>`` and ``<attach>``."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from dj_dagster.errors import DefinitionError, ObjectError
from dj_dagster.local_files import make_folder
from dj_dagster.objects.blob.packing import blob_summary, is_packed, pack, unpack
from dj_dagster.objects.codecs.codec import Codec, Key, ObjectContext, known, reference_text
from dj_dagster.objects.content import get_content, put_content
from dj_dagster.objects.previews import byte_text


class BlobCodec(Codec, register=False):
    """Python values and arrays, packed; see `dj_dagster.objects.blob.packing`."""

    name = "blob"
    concurrent = True
    previews = True

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of the packed bytes."""
        return "<hash>" if is_store else "bytes"

    def encode(self, value: Any, *, key: Key = None, store_name: str | None = None) -> bytes:
        """Pack a value."""
        return pack(value)

    def decode(
        self, stored: bytes, *, key: Key = None, context: ObjectContext | None = None
    ) -> Any:
        """Unpack a value; bytes that another program wrote unpacked are returned as they are.

        Raises
        ------
        BlobError
            For packed bytes that are damaged, or that cost more to read than the context allows.
        """
        if not is_packed(stored):
            return bytes(stored)
        return unpack(stored, limits=context.limits) if context is not None else unpack(stored)

    def describe(self, stored: Any, size: int | None = None) -> str | None:
        """Return type, shape and bytes."""
        return blob_summary(stored, len(stored) if size is None else size)


class HashCodec(Codec, register=False):
    """Bytes in a store, named by their content; always with a store, ``<hash@store>``."""

    name = "hash"
    concurrent = True
    previews = True

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of a reference."""
        if not is_store:
            raise DefinitionError(
                "<hash> requires @, as it keeps objects in a store: write <hash@> for the default "
                "store, <hash@name>, or bytes."
            )
        return "json"

    def validate(self, value: Any) -> None:
        """Accept bytes only."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(
                f"<hash@> holds bytes, not {type(value).__name__}; use <blob@> for Python values"
            )

    def encode(
        self,
        value: bytes,
        *,
        key: Key = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> dict[str, Any]:
        """Store bytes and return their reference."""
        place = known(context)
        return put_content(place.stores.get(store_name), place.schema, bytes(value))

    def decode(
        self, stored: Any, *, key: Key = None, context: ObjectContext | None = None
    ) -> bytes:
        """Return the verified bytes of a reference; raises as `get_content` does."""
        return get_content(known(context).stores, stored)

    def describe(self, stored: Any, size: int | None = None) -> str | None:
        """Return size and place of the bytes."""
        return reference_text(stored)


class AttachCodec(Codec, register=False):
    """A file with its name: give a path, get the path of a copy."""

    name = "attach"
    takes_path = True

    def get_dtype(self, is_store: bool) -> str:
        """Return the type of the file's name and bytes."""
        return "<hash>" if is_store else "bytes"

    def validate(self, value: Any) -> None:
        """Accept the path of an existing file."""
        if not isinstance(value, str | PurePath):
            raise TypeError(f"<attach> holds the path of a file, not {type(value).__name__}")
        if Path(value).is_dir():
            raise ValueError(
                f"{str(value)!r} is a folder, and <attach> holds one file: declare <object@> for "
                "folders, or attach an archive of it"
            )
        if not Path(value).is_file():
            raise ValueError(f"there is no file {str(value)!r} to attach")

    def encode(self, value: Any, *, key: Key = None, store_name: str | None = None) -> bytes:
        """Return the file's name, a zero byte, and the file's bytes."""
        file = Path(value)
        return file.name.encode() + b"\0" + file.read_bytes()

    def decode(
        self, stored: bytes, *, key: Key = None, context: ObjectContext | None = None
    ) -> str:
        """Write the file into the download folder and return its path.

        If a file of that name has other content, it stays, and the new one is ``name_1.ext``.
        """
        name, zero, content = bytes(stored).partition(b"\0")
        # The last part only: a forged name must not reach another folder.
        safe = PurePath(name.decode(errors="replace").replace("\\", "/")).name
        if not zero or safe in ("", ".", ".."):
            raise ObjectError("The bytes are not an attachment, which starts with a file name.")
        return str(_saved(known(context).download_path, safe, content))

    def describe(self, stored: Any, size: int | None = None) -> str | None:
        """Return the file's name and bytes."""
        name, zero, content = bytes(stored).partition(b"\0")
        length = len(content) if size is None else size - len(name) - 1
        return f"{name.decode(errors='replace')}, {byte_text(length)}" if zero else None


def _saved(folder: Path, name: str, content: bytes) -> Path:
    """Write a file under the first free variant of its name, unless it is already there."""
    make_folder(folder)
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    file, number = folder / name, 0
    while not _write_new(file, content) and file.read_bytes() != content:
        number += 1
        file = folder / f"{stem}_{number}{suffix}"
    return file


def _write_new(file: Path, content: bytes) -> bool:
    """Write a file unless it exists; of two processes at most one succeeds."""
    try:
        with file.open("xb") as stream:
            stream.write(content)
    except FileExistsError:
        return False
    return True

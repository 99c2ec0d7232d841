"""Sizes and checksums in the references of rows, compared with the bytes that a backup copies."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from isal import isal_zlib

from dj_dagster.errors import ObjectError
from dj_dagster.objects.checksums import (
    Manifest,
    Written,
    files_crc32,
    get_manifest,
    manifest_path,
    placed,
    told,
)
from dj_dagster.objects.stores.store import Stat, Store


@dataclass(frozen=True, slots=True)
class Expected:
    """The size and checksum that the reference of a row has for its object.

    Attributes
    ----------
    place
        Schema, table and attribute of the reference.
    written
        Size and checksum of a file; of a folder, the size of all files and the checksum of its
        manifest.
    md5
        The MD5 of a file's content, where that is its name.
    before
        Bytes that were hashed before the content, as DataJoint 0.14 hashes attachments.
    files, files_crc32
        Number and common checksum of a folder's files, None where the reference has none.
    """

    place: str
    written: Written = field(default_factory=Written)
    md5: bytes | None = None
    before: bytes = b""
    is_folder: bool = False
    files: int | None = None
    files_crc32: str | None = None

    @classmethod
    def of(cls, place: str, fields: Mapping[str, Any], *, is_hashed: bool) -> Expected:
        """Return what the fields of a reference say, without what cannot be understood.

        Parameters
        ----------
        is_hashed
            Whether the field `hash` is the MD5 of the content, in base32.
        """
        size, crc32, count = fields.get("size"), fields.get("crc32"), fields.get("item_count")
        common = fields.get("files_crc32")
        return cls(
            place,
            Written(size if type(size) is int else None, crc32 if isinstance(crc32, str) else None),
            _unspelled(fields.get("hash")) if is_hashed else None,
            is_folder=bool(fields.get("is_dir")),
            files=count if type(count) is int else None,
            files_crc32=common if isinstance(common, str) else None,
        )


def _unspelled(digest: object) -> bytes | None:
    try:
        return base64.b32decode(f"{digest}======".upper()) if digest else None
    except ValueError:
        return None


class FileDigests:
    """Checksums of a file, taken piece by piece as its row's reference needs them."""

    def __init__(self, expected: Collection[Expected] = ()) -> None:
        self._expected = expected
        self._size = self._crc = 0
        self._md5 = {
            one.before: hashlib.md5(one.before, usedforsecurity=False)
            for one in expected
            if one.md5 is not None
        }

    def take(self, piece: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        self._size += len(piece)
        self._crc = isal_zlib.crc32(piece, self._crc)
        for digest in self._md5.values():
            digest.update(piece)

    @property
    def crc32(self) -> str:
        """The checksum of all bytes."""
        return f"{self._crc:08x}"

    def problems(self, url: str) -> Iterator[str]:
        """Yield how the bytes differ from what each row says."""
        for one in self._expected:
            yield from _problems(one, Written(self._size, self.crc32), url)
            found = self._md5[one.before].digest() if one.md5 is not None else None
            if found != one.md5:
                yield (
                    f"{one.place}: {url} has changed since it was written: its MD5 is not the one "
                    "that its row holds."
                )


def _problems(expected: Expected, found: Written, url: str) -> Iterator[str]:
    try:
        with placed(expected.place):
            expected.written.check(found, url)
    except ObjectError as error:
        yield str(error)


class FoundFiles:
    """The files of an object, and what rows say of them.

    Parameters
    ----------
    files
        The path of each file, and the facts of where it is now; see `copies.files_of`.
    """

    def __init__(
        self, store: Store, path: str, files: Mapping[str, Stat], expected: Collection[Expected]
    ) -> None:
        self._store, self._path, self._files = store, path, files
        self._expected = expected
        self._list = manifest_path(path)

    def expected_of(self, path: str) -> list[Expected]:
        """Return what is known of one of the files."""
        if path in (self._path, self._list):
            whole = path == self._path
            return [
                one if whole else replace(one, written=Written(crc32=one.written.crc32))
                for one in self._expected
                if one.is_folder != whole
            ]
        written = self._manifest.files.get(path.removeprefix(f"{self._path}/"))
        if written is None:
            return []
        return [Expected(one.place, written) for one in self._expected if one.is_folder]

    def problems(self) -> Iterator[str]:
        """Yield what is missing of a folder, by the number and the size of its files."""
        inside = [file for path, file in self._files.items() if path != self._list]
        url = told(self._store, self._path)
        for one in self._expected:
            if not one.is_folder:
                continue
            if one.written.crc32 and self._list not in self._files:
                yield f"{one.place}: {self._store.missing(self._list)}"
            if one.files is not None and one.files != len(inside):
                yield f"{one.place}: {url} has {len(inside)} files, {one.files} were written."
            elif one.written.size is not None:
                found = Written(sum(file.size for file in inside))
                yield from _problems(replace(one, written=Written(one.written.size)), found, url)

    def differing(self, crc32s: Iterable[tuple[str, int, str]]) -> Iterator[str]:
        """Yield how the files of a folder without a manifest differ together.

        Parameters
        ----------
        crc32s
            Path, size and checksum of each file; "" if a checksum is not known.
        """
        inside = [
            (path.removeprefix(f"{self._path}/"), Written(size, crc32))
            for path, size, crc32 in crc32s
            if path != self._list
        ]
        if not all(written.crc32 for _, written in inside):
            return
        for one in self._expected:
            if one.files_crc32:
                found = Written(crc32=files_crc32(inside))
                same = replace(one, written=Written(crc32=one.files_crc32))
                yield from _problems(same, found, told(self._store, self._path))

    @cached_property
    def _manifest(self) -> Manifest:
        place = self._files.get(self._list)
        if place is None:
            return Manifest()
        try:
            return get_manifest(self._store, place.path.removesuffix(manifest_path("")), None)
        except ObjectError:
            # The manifest is compared with its own checksum as well.
            return Manifest()

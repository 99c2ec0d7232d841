"""The list of a stored folder's files, which lies beside the folder.

DataJoint's has path and size of each file; here each has its checksum too, and ``folders`` names
those that are empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import ChecksumError
from dj_dagster.objects.checksums import Written, told
from dj_dagster.objects.store import Store, checked_path


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written into a folder.

    Attributes
    ----------
    files
        By path in the folder.
    folders
        The empty ones.
    """

    files: Mapping[str, Written] = field(default_factory=dict[str, Written])
    folders: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(written.size or 0 for written in self.files.values())


def manifest_path(folder: str) -> str:
    """Return where the list of a folder's files lies."""
    return f"{folder}.manifest.json"


def put_manifest(store: Store, folder: str, content: Manifest, created: str) -> str:
    """Write the list of a folder's files and return its own checksum."""
    files = [{"path": path, **content.files[path].fields} for path in sorted(content.files)]
    fields: dict[str, Any] = {
        "files": files,
        "total_size": content.size,
        "item_count": len(files),
        "created": created,
    }
    if content.folders:
        fields["folders"] = sorted(content.folders)
    data = json.dumps(fields, indent=2).encode()
    store.put(manifest_path(folder), data)
    return str(Written.from_bytes(data).crc32)


def get_manifest(store: Store, folder: str, crc32: str | None) -> Manifest:
    """Read the list of a folder's files.

    Raises
    ------
    MissingExternalFile
        If there is none.
    ChecksumError
        If it is not what was written.
    """
    path = manifest_path(folder)
    data = store.get(path)
    Written(crc32=crc32).check(Written.from_bytes(data), told(store, path))
    try:
        fields = json.loads(data)
        files = {checked_path(file["path"]): Written.of(file) for file in fields["files"]}
        return Manifest(files, tuple(map(checked_path, fields.get("folders", ()))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ChecksumError(
            f"{told(store, path)} is no list of a folder's files: {error!r}."
        ) from error


def files_crc32(files: Iterable[tuple[str, Written]]) -> str:
    """Return one checksum of many files: of their paths, sizes and checksums, in order."""
    lines = (f"{path}\0{written.size}\0{written.crc32}\n" for path, written in sorted(files))
    return str(Written.from_bytes("".join(lines).encode(errors="surrogateescape")).crc32)

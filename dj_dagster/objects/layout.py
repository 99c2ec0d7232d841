"""What lies in the two managed sections of a store, schema by schema.

Only what has the shape of an object is found: files that people put beside them are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dj_dagster.objects.manifest import manifest_path
from dj_dagster.objects.store import Stat, Store
from dj_dagster.objects.store_settings import StoreSettings

_CONTENT = re.compile(r"[a-z2-7]{26}(\.[0-9a-f]+)?")
_KEY_FOLDER = re.compile(r"[a-z_][a-z0-9_]*=")
_ROW_OBJECT = re.compile(r"[a-z][a-z0-9_]*_[A-Za-z0-9_-]{4,16}(\..*)?", re.DOTALL)
_MANIFEST = manifest_path("")


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object with all its files: a folder's, and the list of them beside it, belong together.

    Attributes
    ----------
    path
        What a row that refers to the object says.
    """

    path: str
    files: tuple[Stat, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def modified(self) -> float:
        """When the latest file was written."""
        return max(file.modified for file in self.files)


def schema_folders(store: Store, schema: str) -> Iterator[str]:
    """Yield the folders that hold a schema's objects; those of partitions are looked into."""
    settings = store.settings
    yield f"{settings.hash_prefix.strip('/')}/{schema}"
    yield from _row_folders(store, settings.schema_prefix.strip("/"), schema)


def schema_objects(store: Store, schema: str) -> Iterator[FoundObject]:
    """Yield the objects of a schema."""
    content, *folders = schema_folders(store, schema)
    for file in store.scan(content):
        if _CONTENT.fullmatch(file.path.rpartition("/")[2]):
            yield FoundObject(file.path, (file,))
    for folder in folders:
        yield from _row_objects(store, folder)


def object_root(path: str, schema: str, settings: StoreSettings) -> str:
    """Return the path of the object that a file of a schema belongs to, "" for none.

    Examples
    --------
    >>> from dj_dagster.objects.store_settings import FileStoreSettings
    >>> settings = FileStoreSettings(protocol="file", location="/data")
    >>> object_root("_schema/lab/scan/scan_id=1/movie_Ab3d.zarr/0/c/1", "lab", settings)
    '_schema/lab/scan/scan_id=1/movie_Ab3d.zarr'
    >>> object_root("_schema/lab/notes.txt", "lab", settings)
    ''
    """
    section = f"{settings.schema_prefix.strip('/')}/"
    if not path.startswith(section):
        return path
    parts = path.removeprefix(section).split("/")
    start = 0
    while start < len(parts) and _KEY_FOLDER.match(parts[start]):
        start += 1
    if parts[start : start + 1] != [schema]:
        return ""
    return _root_below(path, len(section.split("/")) + start)


def _row_objects(store: Store, folder: str) -> Iterator[FoundObject]:
    found: dict[str, list[Stat]] = {}
    depth = folder.count("/") + 1
    for file in store.scan(folder):
        if root := _root_below(file.path, depth):
            found.setdefault(root, []).append(file)
    for path, files in found.items():
        yield FoundObject(path, tuple(files))


def _root_below(path: str, depth: int) -> str:
    """Return the object of a file, whose schema's folder has so many parts."""
    parts = path.split("/")
    # After the schema comes the table, then the key, then the object.
    end = depth + 1
    while end < len(parts) and _KEY_FOLDER.match(parts[end]):
        end += 1
    if end >= len(parts):
        return ""
    name = parts[end].removesuffix(_MANIFEST) if end == len(parts) - 1 else parts[end]
    return "/".join([*parts[:end], name]) if _ROW_OBJECT.fullmatch(name) else ""


def _row_folders(store: Store, folder: str, schema: str) -> Iterator[str]:
    for name in store.folders(folder):
        if name == schema:
            yield f"{folder}/{name}"
        elif _KEY_FOLDER.match(name):
            yield from _row_folders(store, f"{folder}/{name}", schema)

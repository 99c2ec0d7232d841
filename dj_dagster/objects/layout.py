"""Places of objects in a store: its managed sections, and objects named by their row.

In the managed sections only files whose paths have the shape of an object's are found, and files
that people put beside them are not.

An object named by its row lies where DataJoint puts it,
``{schema_prefix}/[partition key=value/…]{schema}/{table}/{key=value/…}{attribute}_{token}.ext``;
the random token keeps two writers, and two versions, apart.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from urllib.parse import quote

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.heading import Value
from dj_dagster.objects.checksums import manifest_path
from dj_dagster.objects.stores.store import Stat, Store
from dj_dagster.objects.stores.store_settings import StoreSettings

_CONTENT = re.compile(r"[a-z2-7]{26}(\.[0-9a-f]+)?")
_KEY_FOLDER = re.compile(r"[a-z_][a-z0-9_]*=")
_ROW_OBJECT = re.compile(r"[a-z][a-z0-9_]*_[A-Za-z0-9_-]{4,16}(\..*)?", re.DOTALL)
_MANIFEST = manifest_path("")


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object with all its files; those of a folder include the manifest beside it.

    Attributes
    ----------
    path
        The path by which rows refer to the object.
    """

    path: str
    files: tuple[Stat, ...]

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def modified(self) -> float:
        """The time at which the latest file was written."""
        return max(file.modified for file in self.files)


def schema_folders(store: Store, schema: str) -> Iterator[str]:
    """Yield the folders that hold a schema's objects, those below partitions included."""
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
    """Return the path of the object that a file of a schema belongs to, "" for other files.

    Examples
    --------
    >>> from dj_dagster.objects.stores.store_settings import FileStoreSettings
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
    """Return the object that a file belongs to; `depth` parts of its path are the schema's."""
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


_TOKEN_LETTERS = f"{string.ascii_letters}{string.digits}-_"
_SPECIAL = re.compile(r'[/\\:*?"<>|]')
_LONGEST = 100
_KEPT = 50
_MOST_BYTES = 180
"""Bytes of a value in a folder's name, which has at most 255 with the name of the attribute."""

_KEPT_BYTES = 150


def object_path(
    settings: StoreSettings,
    schema: str,
    table: str,
    attribute: str,
    key: Mapping[str, Value],
    extension: str = "",
) -> str:
    """Return a path for a new object; each call gives a different one.

    Parameters
    ----------
    key
        The primary key of the row, as far as it is known.
    extension
        The extension with its dot: ``".npy"``.

    Raises
    ------
    InvalidValueError
        If the extension would put the object into a folder, where it is not found.

    Examples
    --------
    >>> from dj_dagster.objects.stores.store_settings import FileStoreSettings
    >>> settings = FileStoreSettings(protocol="file", location="/data", token_length=4)
    >>> object_path(settings, "lab", "__scan", "movie", {"subject": "a/b", "scan": 1}, ".tif")[:-8]
    '_schema/lab/__scan/subject=a%2Fb/scan=1/movie_'
    """
    if set(extension) & set("/\\\0"):
        raise InvalidValueError(
            f"the extension {extension!r} separates folders, which the name of an object cannot: "
            "write one such as '.bin', or rename the file."
        )
    first = [name for name in _pattern_names(settings.partition_pattern) if name in key]
    token = "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(settings.token_length))
    return "/".join(
        [
            settings.schema_prefix.strip("/"),
            *(f"{name}={key_text(key[name])}" for name in first),
            schema,
            table,
            *(f"{name}={key_text(value)}" for name, value in key.items() if name not in first),
            f"{attribute}_{token}{extension}",
        ]
    )


def key_text(value: object) -> str:
    """Return the value of a key attribute as a part of a path.

    Examples
    --------
    >>> key_text(datetime(2024, 1, 31, 12)), key_text("50/50")
    ('2024-01-31T12-00-00', '50%2F50')
    """
    match value:
        case datetime():
            text = value.strftime("%Y-%m-%dT%H-%M-%S")
        case date():
            text = value.isoformat()
        case _:
            text = str(value)
    if _SPECIAL.search(text):
        text = quote(text, safe="")
    data = text.encode()
    if len(text) > _LONGEST or len(data) > _MOST_BYTES:
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        kept = text[:_KEPT].encode()[:_KEPT_BYTES].decode(errors="ignore")
        text = f"{kept}_{digest[:8]}"
    return text


def _pattern_names(pattern: str | None) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(pattern or "") if name]

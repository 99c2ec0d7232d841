"""The files of a release as a whole: their checksums, their description as an RO-Crate, a check.

The list of checksums is as ``sha256sum -c`` reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from dj_dagster.errors import ChecksumError, ConfigurationError, counted

CRATE, MANIFEST, HEAD = "ro-crate-metadata.json", "manifest-sha256.txt", "release.json"
PROV = "prov.json"

_SPECIFICATION = "https://w3id.org/ro/crate/1.2"
_MEDIA_TYPES = {
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".txt": "text/plain",
}
_ESCAPES = {"\\": r"\\", "\n": r"\n", "\r": r"\r"}
_PLAIN = {escape: char for char, escape in _ESCAPES.items()}

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors of reading JSON or Parquet that is not as it was written."""


def place_of(folder: str | Path) -> Path:
    """Return the absolute path of a release's folder, which need not exist.

    Raises
    ------
    ConfigurationError
        If nothing can have this name: it is too long, say, or begins with ``~`` and a user who is
        not known here.
    """
    try:
        place = Path(folder).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            place.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        said = str(error.strerror if isinstance(error, OSError) else error).removesuffix(".")
        raise ConfigurationError(f"{str(folder)!r:.300} is not a path: {said}.") from error
    return place


def write_json(file: Path, content: object) -> None:
    """Write JSON, sorted and indented."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8", newline="\n")


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Tree:
    """The paths of all that is in a folder.

    Attributes
    ----------
    files
        All but plain folders, sorted.
    empty
        The folders that hold nothing.
    unreadable
        The folders that cannot be read, each with the reason.
    """

    files: tuple[str, ...]
    empty: tuple[str, ...]
    unreadable: Mapping[str, str]


def tree(folder: Path) -> Tree:
    """Return what is in a folder."""
    files: list[Path] = []
    empty: list[Path] = []
    errors: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=errors.append):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        files += [Path(root) / name for name in (*names, *links)]
        if not folders and not names:
            empty.append(Path(root))
    unreadable = {Path(each.filename): each.strerror or str(each) for each in errors}
    return Tree(
        tuple(sorted(place.relative_to(folder).as_posix() for place in files)),
        tuple(sorted(place.relative_to(folder).as_posix() for place in empty)),
        {place.relative_to(folder).as_posix(): why for place, why in unreadable.items()},
    )


def write_manifest(folder: Path) -> str:
    """Write the checksums of all files, and return that of the list itself."""
    names = [name for name in tree(folder).files if name != MANIFEST]
    lines = [_line(checksum(folder / name), name) for name in names]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8", newline="\n")
    return checksum(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the checksums by path.

    Raises
    ------
    ChecksumError
        If it cannot be read, is not as `write_manifest` writes it, or names a file outside of the
        folder.
    """
    try:
        text = (folder / MANIFEST).read_bytes().decode()
    except (OSError, ValueError) as error:
        raise ChecksumError(f"{folder / MANIFEST} cannot be read: {error}.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        digest, _, escaped = line.removeprefix("\\").partition("  ")
        name = _unescaped(escaped) if line.startswith("\\") else escaped
        path = PurePosixPath(name)
        inside = not path.is_absolute() and ".." not in path.parts
        if not inside or len(digest) != 64 or f"{line}\n" != _line(digest, str(path)):
            raise ChecksumError(f"{folder / MANIFEST}, line {number}, is damaged: {line!r:.200}.")
        found[name] = digest
    return found


def write_crate(folder: Path, root: Mapping[str, object], descriptions: Mapping[str, str]) -> None:
    """Describe all files that are in a folder as an RO-Crate.

    Parameters
    ----------
    root
        Name, description, date and licence of the whole.
    descriptions
        Descriptions of some of the files, by path.
    """
    names = [name for name in tree(folder).files if name not in (CRATE, MANIFEST)]
    ids = {name: reference(name) for name in names}
    metadata = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": _SPECIFICATION},
    }
    whole = {**root, "@id": "./", "@type": "Dataset"}
    whole["hasPart"] = [{"@id": ids[name]} for name in names]
    files = [_file(folder, name, ids[name], descriptions.get(name, "")) for name in names]
    context = [f"{_SPECIFICATION}/context", {"sha256": "https://schema.org/sha256"}]
    write_json(folder / CRATE, {"@context": context, "@graph": [metadata, whole, *files]})


def crate_checksums(folder: Path) -> dict[str, str]:
    """Return what the RO-Crate says of its files: checksums by their identifiers.

    Raises
    ------
    ChecksumError
        If it cannot be read.
    """
    try:
        graph = json.loads((folder / CRATE).read_text(encoding="utf-8"))["@graph"]
        return {each["@id"]: each["sha256"] for each in graph if each["@type"] == "File"}
    except UNREADABLE as error:
        raise ChecksumError(f"{folder / CRATE} cannot be read: {error!r}.") from error


def reference(name: str) -> str:
    """Return the identifier of a file: its path as a URI relative to the folder."""
    return quote(name, safe="/=")


def _file(folder: Path, name: str, identifier: str, description: str) -> dict[str, object]:
    place = folder / name
    found: dict[str, object] = {
        "@id": identifier,
        "@type": "File",
        "name": PurePosixPath(name).name,
        "contentSize": str(place.stat().st_size),
        "sha256": checksum(place),
    }
    if media := _MEDIA_TYPES.get(place.suffix):
        found["encodingFormat"] = media
    if description:
        found["description"] = description
    return found


def _line(digest: str, name: str) -> str:
    """Return a line of the list, of a name with line ends in it as sha256sum writes it."""
    escaped = "".join(_ESCAPES.get(char, char) for char in name)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _unescaped(name: str) -> str:
    return re.sub(r"\\.", lambda found: _PLAIN.get(found[0], found[0]), name)


@dataclass(frozen=True)
class Verification:
    """The findings of a check of a release.

    Attributes
    ----------
    files
        The number of files that the release lists.
    digest
        The checksum of the list of checksums, which stands for the whole release.
    problems
        The files that are missing, changed or too many.
    """

    folder: Path
    files: int
    digest: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        if self.problems:
            return f"{self.folder}: {len(self.problems)} PROBLEMS"
        return f"{self.folder} is whole: {counted(self.files, 'file')}, sha256 {self.digest}"


def verify_release(folder: str | Path) -> Verification:
    """Compare all files of a release with their checksums.

    Compare the digest with the published one to see that the checksums were not changed either.

    Raises
    ------
    ConfigurationError
        If the folder holds no release, or one that this user may not read.

    Examples
    --------
    ::

        found = verify_release("/releases/2026-11")
        assert not found.problems, found.problems
    """
    place = place_of(folder)
    try:
        digest = checksum(place / MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(
            f"{place} holds no release: {MANIFEST} is missing. Name the folder that "
            "dj-dagster release has written."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{place / MANIFEST} cannot be read: {error.strerror}. Name the folder that dj-dagster "
            "release has written, and give this user the right to read it."
        ) from error
    try:
        listed = read_manifest(place)
        problems = list(_problems(place, listed))
    except ChecksumError as error:
        listed, problems = {}, [str(error)]
    # A name that is not UTF-8 cannot be printed.
    shown = (problem.encode(errors="backslashreplace").decode() for problem in problems)
    return Verification(place, len(listed), digest, tuple(shown))


def _problems(folder: Path, listed: dict[str, str]) -> Iterator[str]:
    for needed in (CRATE, HEAD, PROV):
        if needed not in listed:
            yield f"{needed} is not in {MANIFEST}"
    there = tree(folder)
    present = {*there.files} - {MANIFEST}
    for name in sorted(present - listed.keys()):
        yield f"{name} is not part of the release"
    folders = {str(folder) for name in listed for folder in PurePosixPath(name).parents}
    for name in sorted({*there.empty} - folders):
        yield f"The empty folder {name} is not part of the release"
    for name, why in sorted(there.unreadable.items()):
        yield f"The folder {name} cannot be read: {why}"
    for name, expected in listed.items():
        if name in present:
            yield from _damage(folder, name, expected)
        elif there.unreadable.keys().isdisjoint(map(str, PurePosixPath(name).parents)):
            yield f"{name} is missing"
    yield from _described(folder, listed)


def _damage(folder: Path, name: str, expected: str) -> Iterator[str]:
    place = folder / name
    try:
        if place.is_symlink() or not place.is_file():
            yield f"{name} is not a file"
        elif checksum(place) != expected:
            yield f"{name} has changed since it was written"
    except OSError as error:
        yield f"{name} cannot be read: {error.strerror}"


def _described(folder: Path, listed: dict[str, str]) -> Iterator[str]:
    """Yield where the RO-Crate says something else than the list."""
    if CRATE not in listed or not (folder / CRATE).is_file():
        return
    try:
        said = crate_checksums(folder)
    except ChecksumError as error:
        yield str(error)
        return
    for name, expected in listed.items():
        if name != CRATE and said.pop(reference(name), None) != expected:
            yield f"{CRATE} does not describe {name} as it is listed"
    for identifier in said:
        yield f"{CRATE} describes {identifier}, which is not listed"

"""The files of a release as a whole: their checksums, their description as an RO-Crate, a check.

The list of checksums is as ``sha256sum -c`` reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
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
_ESCAPES = {"%": "%25", "\n": "%0A", "\r": "%0D"}


def write_json(file: Path, content: object) -> None:
    """Write JSON, sorted and indented."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8", newline="\n")


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_in(folder: Path) -> list[str]:
    """Return the paths of all that is in a folder but plain folders, sorted."""
    found = (place for place in folder.rglob("*") if place.is_symlink() or not place.is_dir())
    return sorted(place.relative_to(folder).as_posix() for place in found)


def write_manifest(folder: Path) -> str:
    """Write the checksums of all files, and return that of the list itself."""
    names = [name for name in files_in(folder) if name != MANIFEST]
    lines = [f"{checksum(folder / name)}  {_escaped(name)}\n" for name in names]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8", newline="\n")
    return checksum(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the checksums by path.

    Raises
    ------
    ChecksumError
        If it cannot be read, or names a file outside of the folder.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ChecksumError(f"{folder / MANIFEST} cannot be read: {error}.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        digest, _, name = line.partition("  ")
        path = PurePosixPath(_plain(name))
        if len(digest) != 64 or not name or path.is_absolute() or ".." in path.parts:
            raise ChecksumError(f"{folder / MANIFEST}, line {number}, is damaged: {line!r:.200}.")
        found[str(path)] = digest
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
    names = [name for name in files_in(folder) if name not in (CRATE, MANIFEST)]
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
    except (OSError, ValueError, KeyError, TypeError) as error:
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


def _escaped(name: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in name)


def _plain(name: str) -> str:
    for char, escape in reversed(_ESCAPES.items()):
        name = name.replace(escape, char)
    return name


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

    That nobody changed both is told by the digest, which the release was announced with.

    Raises
    ------
    ConfigurationError
        If the folder holds no release.

    Examples
    --------
    ::

        found = verify_release("/releases/2026-11")
        assert not found.problems, found.problems
    """
    place = Path(folder).expanduser().absolute()
    if not (place / MANIFEST).is_file():
        raise ConfigurationError(
            f"{place} holds no release: {MANIFEST} is missing. Name the folder that "
            "dj-dagster release has written."
        )
    try:
        listed = read_manifest(place)
        problems = tuple(_problems(place, listed))
    except ChecksumError as error:
        listed, problems = {}, (str(error),)
    return Verification(place, len(listed), checksum(place / MANIFEST), problems)


def _problems(folder: Path, listed: dict[str, str]) -> Iterator[str]:
    for needed in (CRATE, HEAD, PROV):
        if needed not in listed:
            yield f"{needed} is not in {MANIFEST}"
    present = {*files_in(folder)} - {MANIFEST}
    for name in sorted(present - listed.keys()):
        yield f"{name} is not part of the release"
    for name, expected in listed.items():
        place = folder / name
        if name not in present:
            yield f"{name} is missing"
        elif place.is_symlink() or not place.is_file():
            yield f"{name} is not a file"
        elif checksum(place) != expected:
            yield f"{name} has changed since it was written"
    yield from _described(folder, listed)


def _described(folder: Path, listed: dict[str, str]) -> Iterator[str]:
    """Yield where the RO-Crate says something else than the list."""
    if CRATE not in listed or not (folder / CRATE).is_file():
        return
    said = crate_checksums(folder)
    for name, expected in listed.items():
        if name != CRATE and said.pop(reference(name), None) != expected:
            yield f"{CRATE} does not describe {name} as it is listed"
    for identifier in said:
        yield f"{CRATE} describes {identifier}, which is not listed"

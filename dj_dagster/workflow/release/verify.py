"""Verification of a release, by its own files alone: neither a database nor an extra is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dj_dagster.errors import ChecksumError, ConfigurationError
from dj_dagster.workflow.release import crate


@dataclass(frozen=True)
class Verification:
    """What a check of a release found.

    Attributes
    ----------
    files
        How many files the release lists.
    digest
        The checksum of the list of checksums, which stands for the whole release.
    problems
        What is missing, changed or too many.
    """

    folder: Path
    files: int
    digest: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        if self.problems:
            return f"{self.folder}: {len(self.problems)} PROBLEMS"
        return f"{self.folder} is whole: {self.files} files, sha256 {self.digest}"


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
    if not (place / crate.MANIFEST).is_file():
        raise ConfigurationError(
            f"{place} holds no release: {crate.MANIFEST} is missing. Name the folder that "
            "dj-dagster release has written."
        )
    try:
        listed = crate.read_manifest(place)
        problems = tuple(_problems(place, listed))
    except ChecksumError as error:
        listed, problems = {}, (str(error),)
    return Verification(place, len(listed), crate.checksum(place / crate.MANIFEST), problems)


def _problems(folder: Path, listed: dict[str, str]) -> Iterator[str]:
    for needed in (crate.CRATE, crate.HEAD, crate.PROV):
        if needed not in listed:
            yield f"{needed} is not in {crate.MANIFEST}"
    present = {*crate.files_in(folder)} - {crate.MANIFEST}
    for name in sorted(present - listed.keys()):
        yield f"{name} is not part of the release"
    for name, expected in listed.items():
        place = folder / name
        if name not in present:
            yield f"{name} is missing"
        elif place.is_symlink() or not place.is_file():
            yield f"{name} is not a file"
        elif crate.checksum(place) != expected:
            yield f"{name} has changed since it was written"
    yield from _described(folder, listed)


def _described(folder: Path, listed: dict[str, str]) -> Iterator[str]:
    """Yield where the RO-Crate says something else than the list."""
    if crate.CRATE not in listed or not (folder / crate.CRATE).is_file():
        return
    said = crate.crate_checksums(folder)
    for name, expected in listed.items():
        if name != crate.CRATE and said.pop(crate.reference(name), None) != expected:
            yield f"{crate.CRATE} does not describe {name} as it is listed"
    for identifier in said:
        yield f"{crate.CRATE} describes {identifier}, which is not listed"

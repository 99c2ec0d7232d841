"""What a collector found and did, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from dj_dagster.objects.layout import FoundObject


@dataclass(frozen=True)
class GarbageReport:
    """What a collector found in one store, and what it removed.

    Attributes
    ----------
    store
        The name of the store.
    schemas
        Whose objects were looked at.
    deleting
        Whether garbage was removed; else it was only listed.
    kept, kept_bytes
        Number and bytes of the objects that rows refer to.
    young, young_bytes
        Objects without a row that are within the grace period.
    garbage
        Objects without a row, as they were found.
    deleted, deleted_bytes
        What was moved to the trash of them.
    missing
        Paths that rows refer to and the store does not have: data was lost.
    restored, restored_bytes
        Files that came back out of the trash, those of missing objects among them.
    trash, trash_bytes
        Files that are in the trash now.
    freed_bytes
        What was deleted for good: out of the trash, and what killed writers had left.
    """

    store: str
    schemas: tuple[str, ...]
    deleting: bool
    kept: int = 0
    kept_bytes: int = 0
    young: int = 0
    young_bytes: int = 0
    garbage: tuple[FoundObject, ...] = field(default=(), repr=False)
    deleted: int = 0
    deleted_bytes: int = 0
    missing: tuple[str, ...] = ()
    restored: int = 0
    restored_bytes: int = 0
    trash: int = 0
    trash_bytes: int = 0
    freed_bytes: int = 0

    @property
    def garbage_bytes(self) -> int:
        """Bytes of the garbage."""
        return sum(found.size for found in self.garbage)

    def __str__(self) -> str:
        done = (
            f"moved {self.deleted} ({_bytes(self.deleted_bytes)}) to the trash"
            if self.deleting
            else "nothing removed in this dry run"
        )
        back = (
            f"; restored {self.restored} files ({_bytes(self.restored_bytes)})"
            if self.restored
            else ""
        )
        lost = f"; {len(self.missing)} MISSING: {self.missing[0]} …" if self.missing else ""
        return (
            f"store {self.store}, {', '.join(self.schemas)}: {self.kept} objects in use "
            f"({_bytes(self.kept_bytes)}), {self.young} young ({_bytes(self.young_bytes)}), "
            f"{len(self.garbage)} garbage ({_bytes(self.garbage_bytes)}); {done}{back}; "
            f"{self.trash} files in the trash ({_bytes(self.trash_bytes)}), "
            f"{_bytes(self.freed_bytes)} freed{lost}"
        )


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"

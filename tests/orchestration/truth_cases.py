"""Histories that have ended in a difference once, each as short as it could be made."""

from __future__ import annotations

from tests.orchestration.truth_player import Act

QUIET: Act = ("quiet",)


def session(number: int, weight: int = 1, approved: int = 1) -> Act:
    return "insert", "Session", (1, number), (weight, approved), False


PARAM: Act = ("insert", "Param", (1,), (1,), False)


def shown(number: int) -> str:
    return f"subject=1/session={number}"


CASES: dict[str, list[Act]] = {
    "nothing is made below an orphan, which has no partition": [
        session(1),
        QUIET,
        ("rename", "Session", (1, 1), (2, 4)),
        QUIET,
        ("outside_delete", "Below", (1, 1)),
    ],
    "nothing is made below an orphan beside others that are made": [
        session(1),
        session(2),
        QUIET,
        ("rename", "Session", (1, 1), (2, 4)),
        QUIET,
        ("truncate", "Below"),
        QUIET,
        session(1),
    ],
    "a deleted row of people is shown as missing": [
        session(1),
        QUIET,
        ("insert", "Grade", (1, 1), (1,), False),
        QUIET,
        ("delete", "Grade", (1, 1)),
    ],
    "what hung on a row that fails now is shown as missing": [
        session(1),
        session(2),
        QUIET,
        ("spoil", "Made", (1, 1)),
        ("launch", ("Made", "Below"), shown(1), shown(2), True),
    ],
    "a deleted row that is not to be made again is shown as missing": [
        session(1),
        session(2),
        QUIET,
        ("update", "Session", (1, 1), (1, 0), False),
        ("delete", "Chosen", (1, 1)),
    ],
    "a row that is not in the key source any more is left by a recompute": [
        session(1),
        session(2),
        QUIET,
        ("update", "Session", (1, 1), (1, 0), False),
        QUIET,
        ("launch", ("Chosen",), shown(1), shown(2), True),
    ],
    "parts are shown as their master after a dead run and a changed input": [
        session(1),
        session(2),
        QUIET,
        ("die", ("Made", "Below"), shown(1), shown(2), False),
        ("replace", "Session", (1, 1), (0, 0)),
        QUIET,
    ],
    "keys that a dead run was not to make are not shown as failed": [
        session(1, approved=0),
        session(2, approved=0),
        QUIET,
        ("die", ("Chosen",), shown(1), shown(2), True),
    ],
    "rows made again outside with the same values leave those below current": [
        session(1),
        PARAM,
        QUIET,
        ("outside_delete", "Made", (1, 1)),
    ],
    "rows whose parent was renamed stay, and the new key is made": [
        session(1),
        PARAM,
        QUIET,
        ("rename", "Session", (1, 1), (1, 2)),
        QUIET,
        ("launch", ("Fine",), f"{shown(1)}/param=1", f"{shown(2)}/param=1", True),
    ],
    "rows of an earlier make are stale, whoever made them": [
        session(3),
        ("populate", "Chosen", True),
        ("change", "Chosen"),
    ],
    "a run that was created before the make changed makes what is stale": [
        session(3),
        session(5000),
        QUIET,
        ("create", ("Made", "Below"), shown(3), shown(5000), False),
        ("change", "Below"),
    ],
    "what was made from a row that people change is stale": [
        session(1),
        PARAM,
        QUIET,
        ("update", "Param", (1,), (2,), True),
    ],
    "a stale row that is made again between two looks is fresh": [
        session(1),
        PARAM,
        QUIET,
        ("update", "Param", (1,), (2,), True),
        QUIET,
        ("outside_delete", "Fine", (1, 1, 1)),
        ("populate", "Fine", True),
    ],
    "the age of a row is not that of one which had its key before": [
        session(3),
        session(5),
        QUIET,
        ("rename", "Session", (1, 5), (1, 6)),
        QUIET,
        ("change", "Below"),
        ("rename", "Session", (1, 3), (1, 5)),
        QUIET,
        ("launch", ("Below",), shown(5), shown(5), False),
    ],
}

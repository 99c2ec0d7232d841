"""Verdicts of people: the sortings, and their units, that are good enough to go on with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import dj_dagster as dj
from dj_dagster.class_access import on_class
from dj_dagster.errors import InvalidValueError, QueryError
from dj_dagster.model.heading import Value
from dj_dagster.relational.algebra.condition import refuse_oversights
from pipelines.ephys.paramset import ParamSet as ParamSet  # definitions name it
from pipelines.ephys.session import ProbeInsertion as ProbeInsertion  # definitions name it
from pipelines.ephys.sorting import SpikeSorting

schema = dj.Schema("ephys_verdict")


@schema
class Verdict(dj.Manual):
    definition = """
    # what a person says of the units of a sorting
    -> ProbeInsertion
    -> ParamSet
    ---
    accepted : bool
    judged_by : varchar(64)
    verdict_reason="" : varchar(255)
    judged_digest : char(40)         # units_digest of the units that were looked at
    """

    class Unit(dj.Part):
        definition = """
        # a unit that is to be taken otherwise than the sorting as a whole
        -> master
        unit : int32
        ---
        unit_accepted : bool
        unit_reason="" : varchar(255)
        """

        def _check_direct_insert(self) -> None:
            """Refuse rows of others than `judge`, which files of the verdict would not follow."""
            raise InvalidValueError(_BY_JUDGE)

        @on_class
        def update1(self, row: Mapping[str, Value]) -> None:
            """Refuse a change, for the same reason."""
            raise InvalidValueError(_BY_JUDGE)


_BY_JUDGE = (
    "Verdicts on units are entered with that on their sorting, so that files of an earlier verdict "
    "are made anew: call pipelines.ephys.verdict.judge(key, accepted=True, by=..., units={3: "
    "False}), or run the job judge_sortings."
)

# It refers to the recording and parameters, not to the rows of the sorting, which are deleted when
# it is computed again. The digest shows whether the new units are those that were judged.


def judged() -> Any:
    """Return the sortings whose present units have a verdict, joined with the verdict."""
    return SpikeSorting * Verdict & "judged_digest = units_digest"


def waiting() -> Any:
    """Return the sortings that wait for a verdict: without one, or with one on other units."""
    return SpikeSorting - judged().proj()


def judge(
    sortings: Any,
    *,
    accepted: bool,
    by: str,
    reason: str = "",
    units: Mapping[int, bool] | None = None,
) -> int:
    """Enter a verdict on sortings, replacing earlier ones, and return the number of sortings.

    Rows that depend on an earlier verdict are deleted with it.

    Parameters
    ----------
    sortings
        A restriction of `SpikeSorting`: a key, several, or SQL.
    units
        Whether each unit is accepted, for units that differ from their sorting.

    Raises
    ------
    InvalidValueError
        If no sorting matches, a sorting lacks one of the units, nobody is named, or units of a
        rejected sorting are accepted.
    QueryError
        If the restriction compares no attribute of a sorting, and so holds for all of them.
    """
    if not by.strip():
        raise InvalidValueError("A verdict is somebody's: say by whom it is.")
    kept = sorted(unit for unit, each in (units or {}).items() if each)
    if kept and not accepted:
        raise InvalidValueError(
            f"Units {kept} would not be delivered, as their sorting is rejected: accept it, and "
            "refuse its other units."
        )
    rows: list[dict[str, Any]] = []
    if sortings:
        _check_condition(sortings)
        chosen = SpikeSorting & sortings
        refuse_oversights(chosen.node, "judge sortings")
        rows = chosen.to_dicts(order_by="KEY")
    if not rows:
        raise InvalidValueError(f"There is no sorting {sortings!r}: nothing was judged.")
    with Verdict.connection.transaction:
        for row in rows:
            key = {name: row[name] for name in SpikeSorting.primary_key}
            known = set((SpikeSorting.Unit & key).to_arrays("unit"))
            if unknown := sorted(set(units or {}) - known):
                raise InvalidValueError(f"The sorting {key} has no unit {unknown[0]}.")
            (Verdict & key).delete(prompt=False)
            Verdict.insert1(
                {
                    **key,
                    "accepted": accepted,
                    "judged_by": by,
                    "verdict_reason": reason,
                    "judged_digest": row["units_digest"],
                }
            )
            Verdict.Unit.insert(
                (
                    {**key, "unit": unit, "unit_accepted": each}
                    for unit, each in (units or {}).items()
                ),
                allow_direct_insert=True,
            )
    return len(rows)


def _check_condition(sortings: Any) -> None:
    """Refuse a condition without a comparison, such as an attribute whose value was forgotten."""
    if sortings is not True and not isinstance(sortings, str):
        return
    words = re.findall(r"\w+", str(sortings).casefold())
    names = SpikeSorting().heading.names
    if len(words) < 2 or not {*words} & {*names}:
        raise QueryError(
            f"The condition {sortings!r} compares no attribute of a sorting with a value, and "
            f"would hold for all of them. The attributes are {', '.join(names)}."
        )

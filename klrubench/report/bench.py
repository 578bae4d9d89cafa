"""Speed measurements beside what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from klrubench.report.text import Column, missing, significant, table


def bench_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a measurement: what, how large, how fast, the goal and the least that is needed, the verdict.

    Args:
        rows: mappings with `name`, `size`, `value`, `unit`, `goal`, `must`, and `lower_is_better` where it is.
    """
    return "\n".join(
        table(
            [
                Column(("measured",), [str(row["name"]) for row in rows], left=True, gap=0),
                Column(("size",), [str(row.get("size", "")) for row in rows], left=True, gap=2),
                Column(("value",), [significant(row["value"], 3) for row in rows], gap=2),
                Column(("unit",), [str(row.get("unit", "")) for row in rows], left=True),
                Column(("goal",), [_target(row.get("goal")) for row in rows], gap=2),
                Column(("must",), [_target(row.get("must")) for row in rows], gap=2),
                Column(("",), [_met(row) for row in rows], left=True, gap=2),
            ]
        )
    )


def _target(value: Any) -> str:
    return "" if missing(value) else significant(value, 3)


def _met(row: Mapping[str, Any]) -> str:
    if missing(row.get("must")):
        return ""
    sign = -1 if row.get("lower_is_better") else 1
    if sign * row["value"] < sign * row["must"]:
        return "too slow"
    return "goal met" if not missing(row.get("goal")) and sign * row["value"] >= sign * row["goal"] else "enough"

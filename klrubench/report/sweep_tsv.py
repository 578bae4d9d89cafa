"""The judgement of a sweep as tab-separated lines: what claims and other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klrubench.errors import UsageError
from klrubench.report.text import tsv

NAMES = {"fresh": "tuned on", "held": "held out"}


def judged_tsv(found: Mapping[str, Any]) -> str:
    """A line for each setting and workload, or the means over those `tuned on` and `held out`.

    Columns: `setting`, `workload`, `measure`, `mean`, `low`, `high` (95 %, over fresh seeds), and the setting's
    parameters where they are the same for all.
    `tuned_alone` is the setting that was best on that workload. Raises UsageError: the sweep has no judgement, or
    several objectives.
    """
    judged = found.get("confirmed")
    if not judged:
        raise UsageError(f"--tsv: sweep {found['name']} has not been judged; the sweep's own command goes on")
    if "by_workload" not in judged:
        raise UsageError("--tsv: a sweep with several objectives has a front; use --json")
    rows = []
    for row in judged["rows"]:
        values = {name: each[0] for name, each in row["values"].items() if len(set(each)) == 1}
        rows += [_row(judged, row["who"], NAMES[on], row[on], values) for on in NAMES if row.get(on)]
    for workload, told in judged["by_workload"].items():
        rows += [_row(judged, name, workload, mean, {}) for name, mean in told.items()]
    return tsv(rows)


def _row(
    judged: Mapping[str, Any], setting: str, workload: str, mean: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    where = {"setting": setting, "workload": workload, "measure": judged["measure"]}
    return {**where, **{name: mean[name] for name in ("mean", "low", "high")}, **values}

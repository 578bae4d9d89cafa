"""Claims beside what the stored results give: as text, as Markdown, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from klrubench.report.text import Column, table
from klrubench.study.evidence import Found

HEAD = """\
# Claims

Each number that this study claims, what has to be run for it, what was expected, and what the stored results give.
Written by `klrubench claims --write` from claims.toml; `klrubench claims --check` computes it again from the stored
runs, `klrubench verify results/reference --sample 5` computes runs again.

"""


def claims_text(found: Sequence[Found]) -> str:
    """The table, what does not hold, and a last line that counts."""
    columns = [
        Column(("claim",), [each.claim.name for each in found], left=True, gap=0),
        Column(("expected",), [number(each.claim.expected) for each in found], gap=2),
        Column(("+-",), [number(each.claim.tolerance) for each in found], gap=1),
        Column(("found",), [_value(each) for each in found], gap=2),
        Column(("+-",), [number(each.half, 2) if each.half is not None else "" for each in found], gap=1),
        Column(("",), ["holds" if each.holds else "DOES NOT HOLD" for each in found], left=True, gap=2),
        Column(("runs",), [each.claim.runs.name for each in found], left=True, gap=2),
    ]
    runs = {each.claim.runs.name: each.claim.runs for each in found}
    lines = [line.rstrip() for line in table(columns)] if found else []
    lines += [f"{each.claim.name}: {each.why}" for each in found if each.why]
    lines += ["", *(f"{each.name}, about {each.minutes:g} min: {each.command}" for each in runs.values())]
    return "\n".join([*lines, f"{sum(each.holds for each in found)} of {len(found)} claims hold"])


def claims_markdown(found: Sequence[Found]) -> str:
    """CLAIMS.md: the same claims and results give the same bytes."""
    runs = {each.claim.runs.name: each.claim.runs for each in found}
    lines = ["| runs | command | minutes |", "| --- | --- | ---: |"]
    commands = {name: each.command.replace("|", "\\|") for name, each in runs.items()}
    lines += [f"| {name} | `{commands[name]}` | {each.minutes:g} |" for name, each in runs.items()]
    lines += [
        "",
        "| id | claim | from | runs | expected | found | holds |",
        "| --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for each in found:
        claim = each.claim
        half = f" ± {number(each.half, 2)}" if each.half is not None else ""
        unit = f" {claim.unit}" if claim.unit else ""
        cells = (
            claim.name, claim.text, came_from(each), claim.runs.name,
            f"{number(claim.expected)} ± {number(claim.tolerance)}{unit}", f"{_value(each)}{half}{unit}",
            "yes" if each.holds else "**no**",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def claims_data(found: Sequence[Found], wrong: Sequence[str]) -> dict[str, Any]:
    """Plain data: `claims` (a row each) and `findings` (what does not agree in the prose)."""
    rows = [
        {
            "id": each.claim.name,
            "claim": each.claim.text,
            "command": each.claim.runs.command,
            "minutes": each.claim.runs.minutes,
            "from": came_from(each),
            "expected": each.claim.expected,
            "tolerance": each.claim.tolerance,
            "found": each.value,
            "half": each.half,
            "holds": each.holds,
            "why": each.why,
        }
        for each in found
    ]
    return {"claims": rows, "findings": list(wrong)}


def came_from(each: Found) -> str:
    """Where the value comes from: `slowdown_pct: kv, klruscand; minus first_touch`."""
    of = each.claim.of
    words = [f"{of['column']}: {', '.join(_plain(of))}"]
    for word, side in (("minus", each.claim.minus), ("over", each.claim.over)):
        words += [f"{word} {', '.join(_plain(side))}"] if side else []
    return "; ".join(words)


def _plain(side: Any) -> list[str]:
    named = ("file",) if "file" in side else ("workload", "policy")
    found = [
        ", ".join(side[name]) if isinstance(side[name], list) else str(side[name]) for name in named if name in side
    ]
    rest = {name: value for name, value in side.items() if name not in (*named, "column", "times")}
    return [*found, *(f"scale=1/{value}" if name == "fold" else f"{name}={value}" for name, value in rest.items())]


def _value(each: Found) -> str:
    return "-" if each.value is None else number(each.value)


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, without an exponent where it is not needed."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits or abs(value) >= 1e9 else f"{value:.0f}"

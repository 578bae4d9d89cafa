"""The difference of two sets of results as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from klrubench.report.text import Column, fixed, keyed, missing, table, wrapped

_SHOWN = 8


def difference_text(found: Mapping[str, Any], names: tuple[str, str], width: int) -> str:
    """What `klrubench diff` prints.

    Args:
        found: what `study.difference.difference` returns.
        names: how the two sides are called.
        width: columns of text a line may have.
    """
    lines = wrapped(f"{found['pairs']} pairs of runs; A: {names[0]}, B: {names[1]}", width, "  ")
    for side, commits in zip("AB", found["commits"], strict=True):
        lines += wrapped(f"{side} computed by {', '.join(commits[:_SHOWN])}", width, "  ")
    if found["components"]:
        told = ", ".join(f"{name} ({n})" for name, n in found["components"].items())
        lines += wrapped(f"differs in (pairs): {told}", width, "  ")
    else:
        lines.append("the same code and settings on both sides")
    lines += _some(found["details"], "  ", width)
    rows = [row for row in found["rows"] if row["word"] != "same"]
    lines += ["", *_table(rows)] if rows else []
    same = len(found["rows"]) - len(rows)
    if same:
        lines.append(f"{same} of {len(found['rows'])} rows are the same to the last digit")
    for side, titles in (("A", found["only_a"]), ("B", found["only_b"])):
        if titles:
            lines += [f"only in {side}: {len(titles)}", *_some(titles, "  ", width)]
    if rows:
        lines += wrapped(
            "B over A, paired by seed, 95 % interval; equal: surely within +-1 %; hit: points of DRAM's share", width
        )
    return "\n".join(lines)


def _some(lines: Sequence[str], indent: str, width: int) -> list[str]:
    shown = [piece for line in lines[:_SHOWN] for piece in wrapped(indent + line, width, indent + "  ")]
    return shown + ([f"{indent}... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    several = len({(row["machine"], row["ratio"]) for row in rows}) > 1
    short, key = keyed([str(row["policy"]) for row in rows], 28)
    columns = [Column(("workload",), [str(row["workload"])[:24] for row in rows], left=True, gap=0)]
    if several:
        columns.append(Column(("machine",), [f"{row['machine']} {row['ratio']}" for row in rows], left=True, gap=2))
    columns += [
        Column(("policy",), [short[str(row["policy"])] for row in rows], left=True, gap=2),
        Column(("seeds",), [str(row["seeds"]) for row in rows], gap=2),
        Column(("time", "%"), [_signed(row["time_pct"]) for row in rows], gap=2),
        Column(("95 %",), [_interval(row) for row in rows], gap=2),
        Column(("charged", "%"), [_signed(row["charged_pct"]) for row in rows], gap=2),
        Column(("hit", "points"), [_signed(row["hit_points"]) for row in rows], gap=2),
        Column(("",), [row["word"] for row in rows], left=True, gap=2),
    ]
    return [*table(columns), *key]


def _signed(value: float) -> str:
    text = fixed(value, 2)
    return text if text.startswith("-") or not text.strip("0.") else f"+{text}"


def _interval(row: Mapping[str, Any]) -> str:
    return "-" if missing(row["low_pct"]) else f"[{_signed(row['low_pct'])}, {_signed(row['high_pct'])}]"

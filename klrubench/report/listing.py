"""Lists of names and of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from klrubench.report.text import Column, fixed, share, table, wrapped

_HIDDEN = ("file", "policies")
_SHOWN: dict[str, Callable[[Any], str]] = {
    "run": lambda value: str(value)[:10],
    "computed": lambda value: str(value)[:16].replace("T", " "),
    "time_s": lambda value: fixed(value, 2),
    "work_s": lambda value: f"{value:g}",
    "dram_hit_share": lambda value: share(value, 1),
}
_HEADS = {"time_s": "time s", "work_s": "work s", "dram_hit_share": "DRAM hit %"}


def listing_text(title: str, rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """Rows as a table without rules; the column `about` takes what is left of the width.

    Args:
        title: a line above, or empty.
        rows: mappings of the same keys.
        width: columns of text a line may have.
    """
    if not rows:
        return f"{title}: none" if title else "none"
    names = [name for name in rows[0] if name not in _HIDDEN and any(row[name] not in ("", None) for row in rows)]
    columns = [_column(name, rows, gap=0 if index == 0 else 2) for index, name in enumerate(names)]
    lines = _fitted(columns, names, rows, width) if "about" in names else table(columns)
    return "\n".join([*([title] if title else []), *(f"  {line}" if title else line for line in lines)])


def plan_text(rows: Sequence[Mapping[str, Any]], stored: int, width: int) -> str:
    """Which runs would be computed: a count, then for each reason and pair of workload and policy the seeds.

    Args:
        rows: workload, policy, machine, ratio, seed and why, a row a run.
        stored: how many runs need no computing.
        width: columns of text a line may have.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        groups.setdefault((row["workload"], row["policy"], row["why"]), []).append(row["seed"])
    lines = [f"{stored + len(rows)} runs: {stored} stored, {len(rows)} to compute"]
    if not groups:
        return lines[0]
    head = [
        Column(("workload",), [workload for workload, _, _ in groups], left=True, gap=0),
        Column(("policy",), [policy for _, policy, _ in groups], left=True, gap=2),
        Column(("runs",), [str(len(seeds)) for seeds in groups.values()], gap=2),
    ]
    room = width - sum(column.space for column in head) - 2
    why = Column(
        ("why",), [text if len(text) <= room else text[: room - 3] + "..." for _, _, text in groups], left=True, gap=2
    )
    return "\n".join([*lines, *table([*head, why])])


def _column(name: str, rows: Sequence[Mapping[str, Any]], gap: int) -> Column:
    show = _SHOWN.get(name, str)
    number = all(isinstance(row[name], (int, float)) for row in rows)
    return Column((_HEADS.get(name, name),), [show(row[name]) for row in rows], left=not number, gap=gap)


def _fitted(columns: list[Column], names: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """The table without heads, its `about` wrapped in the column it starts in."""
    first = [column for column, name in zip(columns, names, strict=True) if name != "about"]
    start = sum(column.space for column in first) + 2
    lines: list[str] = []
    for index, row in enumerate(rows):
        texts = wrapped(str(row["about"]), max(24, width - start - 2))
        label = "".join(column.set(column.cells[index]) for column in first)
        lines += [f"{label}  {texts[0]}".rstrip(), *(" " * start + text for text in texts[1:])]
    return lines

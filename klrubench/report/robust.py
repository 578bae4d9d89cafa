"""Does the verdict survive? One block a workload: a line for each policy, and a table of settings."""

from __future__ import annotations

from typing import Any

from klrubench.report.heads import heads
from klrubench.report.text import Column, table, wrapped
from klrubench.study.robust import FACTORS, Cell, Robustness, Setting, Survival

MARKS = {"better": "", "worse": "", "equal": "=", "unsure": "?"}


def robust_text(found: Robustness, width: int) -> str:
    """Sentences and tables, no line wider than `width`."""
    blocks = []
    for workload in dict.fromkeys(each.workload for each in found.survivals):
        own = [each for each in found.survivals if each.workload == workload]
        lines = [line for each in own for line in wrapped(_sentence(each, found.baseline), width, "    ")]
        blocks.append("\n".join([f"{workload}, against {found.baseline}", *lines, "", *_table(own)]))
    notes = [
        *heads([each.policy for each in found.survivals])[1],
        f"points of slowdown against {found.baseline}, paired seeds; = surely within +-1 point, ? not significant",
        f"each factor alone, then all together ({', '.join(FACTORS)}; a resolution III fraction: no single culprit)",
    ]
    return "\n\n".join([*blocks, "\n".join(line for note in notes for line in wrapped(note, width, "  "))])


def _sentence(each: Survival, baseline: str) -> str:
    asked, others = each.asked, len(each.cells) - 1
    charged = "charged" if each.charged else "spare"
    words = {
        "better": f"{-asked.points:.1f} points better than {baseline}",
        "worse": f"{asked.points:.1f} points worse than {baseline}",
        "equal": f"equal to {baseline}",
        "unsure": f"not significantly different from {baseline} ({asked.points:+.1f})",
    }
    said = [f"{each.policy} ({charged}): {words[asked.word]}", f"holds in {each.holds} of {others} settings"]
    for word, text in (("worse", "worse"), ("better", "better"), ("equal", "equal"), ("unsure", "not significant")):
        alone, mixed = each.moved(word), each.moved(word, alone=False)
        if alone or mixed:
            names = [cell.setting.label for cell in alone] + ([f"{len(mixed)} of the combined"] if mixed else [])
            said.append(f"{text} with {', '.join(names)}")
    return "; ".join(said)


def _table(own: list[Survival]) -> list[str]:
    settings = list(dict.fromkeys(cell.setting for each in own for cell in each.cells))
    names, _ = heads([each.policy for each in own])
    columns = [Column(("setting",), [_short(setting) for setting in settings], left=True, gap=0)]
    for each in own:
        cells = {cell.setting: cell for cell in each.cells}
        head = (*names[each.policy], "charged" if each.charged else "spare")
        texts = [_value(cells.get(setting)) for setting in settings]
        columns.append(Column(head, texts, gap=1 if each.charged else 3))
    return [line.rstrip() for line in table(columns)]


def _short(setting: Setting) -> str:
    return setting.label if len(setting.factors) < 2 else " ".join(f"x{factor:g}" for _, factor in setting.factors)


def _value(cell: Cell | None) -> str:
    return "-" if cell is None else f"{cell.points:+.1f}{MARKS[cell.word]}"


def robust_json(found: Robustness) -> dict[str, Any]:
    """Everything, with full numbers."""
    return {
        "baseline": found.baseline,
        "verdicts": [
            {
                "workload": each.workload,
                "policy": each.policy,
                "charged": each.charged,
                "word": each.asked.word,
                "holds": each.holds,
                "settings": len(each.cells) - 1,
                "cells": [
                    {
                        "setting": dict(cell.setting.factors),
                        "points": cell.points,
                        "low": cell.low,
                        "high": cell.high,
                        "word": cell.word,
                    }
                    for cell in each.cells
                ],
            }
            for each in found.survivals
        ],
    }

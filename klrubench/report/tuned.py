"""Default and tuned side by side: a row a policy, what was judged where, the winners, and whether the order changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from klrubench.report.text import Column, blocks, fixed, half, joined, keyed, points, wrapped
from klrubench.study.ranking import Difference, Order, Pair
from klrubench.study.statistics import Estimate
from klrubench.study.sweep.plan import BASE
from klrubench.study.tuned_answer import ACCOUNTS, HELD_OUT, SUITE, Contestant, Tuned

NAME = 20
TITLES = {"charged": "kernel threads charged", "spare": "kernel threads on spare cores"}
SCOPES = {SUITE: "workloads it was tuned on", HELD_OUT: "held-out workloads"}
EACH = {SUITE: "each it was tuned on", HELD_OUT: "each held out"}
SIGNS = {"equal": "=", "n.s.": "~", "1 seed": "~"}


def tuned_text(found: Tuned, width: int) -> str:
    """All of it, no line wider than `width`."""
    told = found.manifest
    short, key = keyed([*(each.label for each in found.contestants), *told["workloads"], *told["held_out"]], NAME)
    parts = [_head(found, width)]
    for account in ACCOUNTS:
        parts.append([f"slowdown %, {TITLES[account]}", *_whole(found, account, short, width)])
    for account in ACCOUNTS:
        for scope, title in EACH.items():
            lines = _each(found, scope, account, short, width)
            parts += [[f"slowdown %, {TITLES[account]}: {title}", *lines]] if lines else []
    parts.append(_winners(found, width))
    parts.append([line for account in ACCOUNTS for line in _order(found.orders[account], account, width)])
    parts.append([line for note in [*key, *_notes(found)] for line in wrapped(note, width, "  ")])
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in parts)


def _head(found: Tuned, width: int) -> list[str]:
    told = found.manifest
    seeds, lasts, scales = told["seeds"], told["duration_s"], told["scales"]
    sampler = told["sampler"]
    tuned = len(told["sweeps"])
    first = [
        f"{tuned} {'policy' if tuned == 1 else 'policies'} tuned, {told['budget']} trials each",
        f"{sampler['name']}, seed {sampler['seed']}",
        f"objective {told['objective']} slowdown",
        f"{told['machine']} {told['ratio'] or ''}".strip(),
    ]
    held = ", ".join(told["held_out"]) or "no workload"
    return [
        *joined(first, width, ", ", "  "),
        *wrapped(
            f"tuned on {', '.join(told['workloads'])}: {lasts['sweep']:g} s at scale {_scales(scales['sweep'])}, seeds "
            f"{_seeds(seeds['sweep'])}; the best {told['top']} and the default again, {lasts['judging']:g} s at "
            f"{_scales(scales['judging'])}: seeds {_seeds(seeds['choosing'])} choose the winner, seeds "
            f"{_seeds(seeds['judging'])} judge it; held out: {held}",
            width,
            "  ",
        ),
    ]


def _scales(folds: dict[str, int]) -> str:
    return " to ".join(f"1/{fold}" for fold in sorted({min(folds.values()), max(folds.values())}))


def _seeds(seeds: Sequence[int]) -> str:
    return f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"


def _whole(found: Tuned, account: str, short: dict[str, str], width: int) -> list[str]:
    """The means: default, tuned and their difference, on what they were tuned on and on what was held out."""
    labels = [each.label for each in found.contestants]
    groups = []
    for scope, title in SCOPES.items():
        cells = [found.cell(label, scope, "", account) for label in labels]
        rows = [cell for cell in cells if cell is not None]
        if not rows:
            continue
        columns = [
            Column(("default",), [_level(row.default) for row in rows], group=title, gap=2),
            Column(("tuned",), [_level(row.tuned) for row in rows], group=title, gap=2),
            Column(
                ("difference",),
                [_gain(row.difference) for row in rows],
                group=title,
                left=True,
                gap=2,
            ),
        ]
        groups.append(columns)
    return _laid([short[label] for label in labels], groups, width)


def _each(found: Tuned, scope: str, account: str, short: dict[str, str], width: int) -> list[str]:
    """Workload by workload, where a scope has several."""
    labels = [each.label for each in found.contestants if each.ranked]
    names = found.manifest["workloads" if scope == SUITE else "held_out"]
    groups = []
    for name in names if len(names) > 1 else []:
        rows = [cell for label in labels if (cell := found.cell(label, scope, name, account)) is not None]
        marks = ["" if row.difference is None else _mark(row.difference) for row in rows]
        columns = [
            Column(("default",), [points(row.default.pct) for row in rows], gap=3),
            Column(("tuned",), [points(row.tuned.pct) if row.tuned else "" for row in rows]),
            Column((" " * 5,), marks, left=True, gap=2),
        ]
        groups.append([dataclasses.replace(column, group=short[name]) for column in columns])
    return _laid([short[label] for label in labels], groups, width)


def _laid(labels: list[str], groups: list[list[Column]], width: int) -> list[str]:
    if not groups:
        return []
    parts = blocks([Column(("",), labels, left=True, gap=0)], groups, [], width)
    return [line for k, part in enumerate(parts) for line in ([""] if k else []) + part]


def _level(found: Estimate | None) -> str:
    if found is None:
        return ""
    around = half(found.half_pct)
    return points(found.pct) + (f"+-{around}" if around else "")


def _gain(found: Difference | None) -> str:
    if found is None:
        return ""
    return "the default won" if found.word == "same" else _difference(found)


def _difference(found: Difference) -> str:
    ends = "" if found.low is None else f" [{fixed(found.low, 1)},{fixed(found.high, 1)}]"
    return f"{_signed(found.points)}{ends} {_mark(found)}".rstrip()


def _signed(value: float) -> str:
    text = fixed(value, 1)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def _mark(found: Difference) -> str:
    return "" if found.word == "exact" else found.word


def _winners(found: Tuned, width: int) -> list[str]:
    """What each was tuned to, and what that took."""
    lines = ["tuned to"]
    for each in found.contestants:
        if each.tuned is not None:
            lines += [*wrapped(f"  {_spent(each)}", width, "    "), *_winner(each, width)]
        elif each.why not in ("a bound", "a control"):
            lines += wrapped(f"  {each.label}: shown as it is, {each.why}", width, "    ")
    return lines


def _spent(each: Contestant) -> str:
    counts, axes = each.sweep["counts"], len(each.sweep["about"]["space"]["axes"])
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    spent = f"{counts['trials']} trials ({counts['complete']} full, {counts['pruned']} pruned{failed})"
    return f"{each.label}: {spent} over {axes} parameter{'s'[: axes != 1]}; sweep {each.sweep['name']}"


def _winner(each: Contestant, width: int) -> list[str]:
    """The winner as `-p` takes it, in lines that break after a comma."""
    if each.tuned is None or each.default_won:
        return wrapped("    its default: none of the best trials was better on fresh seeds", width, "    ")
    return [f"    {line}" for line in joined(each.tuned.label.split(","), width - 4, ",", "  ")]


def _order(found: Order, account: str, width: int) -> list[str]:
    """The order before and after, and what of the change is sure."""
    lines = [f"order, {TITLES[account]}"]
    for word, labels, tuned in (("defaults", found.default, False), ("tuned", found.tuned, True)):
        chain = labels[0]
        for before, label in pairwise(labels):
            chain += f" {SIGNS.get(found.between(before, label, tuned).word, '<')} {label}"
        lines += wrapped(f"  {word:<9} {chain}", width, " " * 12)
    lines += wrapped(_pays(found), width, "    ") if BASE in found.tuned else []
    turned = [pair for pair in found.pairs if pair.change == "reversed"]
    for pair in turned:
        lines += wrapped(f"  tuning makes {_turn(pair)}", width, "    ")
    if not turned:
        lines.append("  tuning makes no two of them change places significantly")
    words = {"parted": "told apart only once tuned", "joined": "no longer told apart once tuned"}
    for change, text in words.items():
        names = [_ahead(pair) for pair in found.pairs if pair.change == change]
        lines += joined([f"  {text}: {names[0]}", *names[1:]], width, "; ", "    ") if names else []
    return lines


def _pays(found: Order) -> str:
    """Which of the tuned are worth it at all: tuning may well find the setting that hardly moves a page."""
    pairs = [pair for pair in found.pairs if BASE in (pair.first, pair.second) and pair.tuned.sign]
    ahead = [pair.first if pair.tuned.sign < 0 else pair.second for pair in pairs]
    names = ", ".join(label for label in ahead if label != BASE)
    return f"  surely better than {BASE} once tuned: {names or 'none'}"


def _turn(pair: Pair) -> str:
    return (
        f"{pair.first} and {pair.second} change places: {_difference(pair.default)} points between them with defaults, "
        f"{_difference(pair.tuned)} once tuned"
    )


def _ahead(pair: Pair) -> str:
    sure: Any = pair.default if pair.change == "joined" else pair.tuned
    first, second = (pair.first, pair.second) if sure.sign < 0 else (pair.second, pair.first)
    return f"{first} < {second}"


def _notes(found: Tuned) -> list[str]:
    several = len(found.manifest["seeds"]["judging"]) > 1
    notes = [
        "difference: tuned - default in points of slowdown against all_top, seeds paired, 95 % interval of each alone; "
        "* p < .05, ** p < .01 by Holm over the policies; equal: surely within 1 point",
        "order: < surely less slowdown, = equal, ~ not told apart; Holm over all pairs, before and after",
    ]
    return notes if several else ["1 judging seed: no intervals, nothing is significant; use --seeds 3 or more"]

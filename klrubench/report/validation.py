"""What `validate` prints of observed facts: row by row, then how many agree and which do not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from klrubench.report.text import wrapped
from klrubench.validation.facts import CLOCK, KERNELS
from klrubench.validation.finding import Part
from klrubench.validation.runner import Row, summary

_LABEL = 13


def facts_text(rows: Sequence[Row], width: int) -> str:
    """All rows by group, with a head and a foot; no line passes `width`."""
    lines = head_lines(rows, width)
    for group, members in groupby(rows, key=lambda row: row.group):
        lines += ["", group]
        for row in members:
            lines += row_lines(row, width)
    return "\n".join([*lines, "", *foot_lines(rows, width)])


def head_lines(rows: Sequence[Row], width: int) -> list[str]:
    """What is compared with what, and what is not held out."""
    used = [name for name in KERNELS if any(_runs_on(row, name) for row in rows)]
    lines = wrapped(f"{len(rows)} observations of real kernels, and what klrubench does in the same set-up", width)
    kernels = "; ".join(KERNELS[name] for name in used)
    about = ["no rule and no cost of klrubench is fitted to a row"]
    if any(row.is_input for row in rows):
        about.append("[input]: a count that the cost table takes as it is, which shows only that it is charged")
    if any(row.inferred for row in rows):
        about.append("[inferred]: part of the set-up is not recorded and was read off the row")
    texts = (f"kernels: {kernels}", f"clock: {CLOCK}", "; ".join(about))
    return lines + [line for text in texts if text for line in wrapped(f"  {text}", width, "    ")]


def _runs_on(row: Row, kernel: str) -> bool:
    return kernel in row.fact.kernel.split("/")


def row_lines(row: Row, width: int) -> list[str]:
    """One fact: name, kernel, tolerance and verdict, then both sides, then what differs and why."""
    fact = row.fact
    marks = f"{fact.kernel}, {fact.compare_as}{' [input]' * row.is_input}{' [inferred]' * bool(row.inferred)}"
    lines = [f"  {fact.id:<24} {row.verdict:<12} {marks}"]
    lines += _fact("", fact.quantity, width)
    lines += _fact("kernel", f"{fact.measured} {_unit(row)}".rstrip(), width)
    lines += _fact("klrubench", row.text, width)
    lines += _fact("set-up", row.inferred, width) if row.inferred else []
    for part in row.parts:
        if not part.agrees:
            lines += _fact("differs", difference(part), width)
            lines += _fact("because", row.known[part.name], width) if part.name in row.known else []
    return lines


def _unit(row: Row) -> str:
    return row.fact.unit if re.fullmatch(r"[\d/.]+", row.fact.measured) else ""


def difference(part: Part) -> str:
    """A comparison that does not hold, in words: `popped: 74,802 measured, 127,553 simulated (1.71x; +-50)`."""
    ratio = ""
    if _number(part.measured) and _number(part.simulated) and part.measured:
        ratio = f"{part.simulated / part.measured:.2f}x; "
    return f"{part.name}: {shown(part.measured)} measured, {shown(part.simulated)} simulated ({ratio}{part.tolerance})"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool) or not _number(value):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _fact(label: str, text: str, width: int) -> list[str]:
    first, *rest = wrapped(text, width - _LABEL - 2)
    return [f"    {label:<{_LABEL - 3}} {first}".rstrip(), *(" " * (_LABEL + 2) + line for line in rest)]


def foot_lines(rows: Sequence[Row], width: int) -> list[str]:
    """How many agree, and the names of those that do not."""
    counts = summary(rows)
    verdicts = ", ".join(f"{number} {_plural(verdict, number)}" for verdict, number in counts["verdicts"].items())
    lines = wrapped(f"{counts['rows']} rows: {verdicts}", width)
    others = [f"{counts[name]} {name}" for name in ("inputs", "inferred") if counts[name]]
    held = f"held out: {counts['held_out_agree']} of {counts['held_out']} agree"
    lines += wrapped("; ".join([held, *([f"not held out: {', '.join(others)}"] if others else [])]), width)
    return [*lines, *_named(rows, width)]


def _plural(verdict: str, number: int) -> str:
    plain = {"agrees": "agree", "differs": "differ", "known miss": "known misses"}
    return verdict if number == 1 else plain.get(verdict, verdict)


def _named(rows: Sequence[Row], width: int) -> Iterator[str]:
    for verdict in ("differs", "known miss", "not modelled"):
        names = [row.fact.id for row in rows if row.verdict == verdict]
        if names:
            yield from wrapped(f"{verdict}: {', '.join(names)}", width, "  ")

"""Run the checks that were asked for, fact by fact."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from klrubench.errors import UnknownNameError
from klrubench.validation.facts import CLOCK, KERNELS, Fact, facts
from klrubench.validation.finding import CHECKS, Check, Part

GROUPS = ("mglru", "klruscand", "pghot", "hint_faults", "costs")
STRICT = ("exact", "abs", "shape")

ABSENT: dict[str, tuple[str, str]] = {
    "touch": ("costs", "what a program does between two loads is the workload's to say"),
    "hint_fault_promote_flush": ("costs", "each promotion costs the same; the flush of each 31st is not in its 10070"),
    "move_pages_batch": ("costs", "no run calls move_pages(); batched promotion and demotion cost 7000 a page here"),
    "move_pages_16": ("costs", "no run calls move_pages()"),
    "move_pages_1": ("costs", "no run calls move_pages()"),
}
"""Facts that no check stands for, with their group and the reason."""


@dataclass(frozen=True)
class Row:
    """One fact and what became of it.

    Attributes:
        verdict: `agrees`, `known miss`, `differs` or `not modelled`.
        is_input: the number is klrubench's own cost table's, so that the row is not held out.
        text: what klrubench does, or why it does nothing of the kind.
        parts: the comparisons; `known`: reasons for those that are known not to hold.
        inferred: what of the set-up was read off the row itself.
    """

    fact: Fact
    group: str
    verdict: str
    is_input: bool
    text: str
    parts: tuple[Part, ...]
    known: dict[str, str]
    seconds: float
    inferred: str = ""

    @property
    def held_out(self) -> bool:
        """Whether no number of the row has gone into klrubench or into the row's set-up."""
        return not (self.is_input or self.inferred or self.verdict == "not modelled")

    @property
    def fails(self) -> bool:
        """Whether the command must fail: an exact, abs or shape row that differs for no known reason."""
        return self.verdict == "differs" and self.fact.compare_as.startswith(STRICT)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        row = asdict(self.fact)
        parts = [
            {**vars(part), "measured": plain(part.measured), "simulated": plain(part.simulated)} for part in self.parts
        ]
        told = {"group": self.group, "verdict": self.verdict, "is_input": self.is_input, "klrubench": self.text}
        return {**row, **told, "parts": parts, "known": self.known, "inferred": self.inferred}


def plain(value: Any) -> Any:
    """Sets, tuples and numpy scalars as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(each) for each in value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.item() if hasattr(value, "item") else value


def load_checks() -> dict[str, Check]:
    """Every check by the id of its fact."""
    for group in GROUPS:
        import_module(f"klrubench.validation.{group}")
    return CHECKS


def group_of(fact: str) -> str:
    """The group of a fact."""
    return ABSENT[fact][0] if fact in ABSENT else load_checks()[fact].group


def select(only: Sequence[str] = ()) -> list[str]:
    """Ids of the facts that names of facts or groups stand for, by group and in the order of the file; all for no name.

    Raises:
        UnknownNameError: no such fact or group.
    """
    every = facts()
    for name in only:
        if name not in every and name not in GROUPS:
            raise UnknownNameError("fact or group", name, [*GROUPS, *every], "klrubench validate --json lists them")
    chosen = [fact for fact in every if not only or fact in only or group_of(fact) in only]
    return sorted(chosen, key=lambda fact: GROUPS.index(group_of(fact)))


def run_check(fact: str) -> Row:
    """The row of one fact."""
    of = facts()[fact]
    if fact in ABSENT:
        return Row(of, ABSENT[fact][0], "not modelled", False, ABSENT[fact][1], (), {}, 0.0)
    check, began = load_checks()[fact], time.perf_counter()
    found = check.run()
    verdict = "agrees" if found.agrees else "differs" if check.unexpected(found) else "known miss"
    known = {} if found.agrees else check.known
    took = time.perf_counter() - began
    return Row(of, check.group, verdict, check.is_input, found.text, found.parts, known, took, check.inferred)


def run_checks(only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of `select(only)`, each as soon as it is known."""
    for fact in select(only):
        yield run_check(fact)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts by verdict, of all rows and of those that are held out."""
    held = [row for row in rows if row.held_out]
    return {
        "rows": len(rows),
        "verdicts": dict(Counter(row.verdict for row in rows)),
        "inputs": sum(row.is_input for row in rows),
        "inferred": sum(bool(row.inferred) for row in rows),
        "held_out": len(held),
        "held_out_agree": sum(row.verdict == "agrees" for row in held),
        "failed": [row.fact.id for row in rows if row.fails],
    }


def to_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything as plain data."""
    return {"clock": CLOCK, "kernels": KERNELS, "summary": summary(rows), "facts": [row.to_dict() for row in rows]}

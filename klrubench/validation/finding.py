"""What a check returns: a sentence on what klrubench does, and each comparison behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """One comparison of a check.

    Attributes:
        name: what is compared.
        measured, simulated: both sides.
        tolerance: how far apart they may be, in words.
        agrees: whether they are not further apart.
    """

    name: str
    measured: Any
    simulated: Any
    tolerance: str
    agrees: bool


@dataclass(frozen=True)
class Finding:
    """What klrubench does in the set-up of one fact: a sentence, and the comparisons."""

    text: str
    parts: tuple[Part, ...]

    @property
    def agrees(self) -> bool:
        """Whether every comparison holds."""
        return all(part.agrees for part in self.parts)

    def differing(self) -> list[Part]:
        """The comparisons that do not hold."""
        return [part for part in self.parts if not part.agrees]


def same(name: str, measured: Any, simulated: Any) -> Part:
    """The two must be equal."""
    return Part(name, measured, simulated, "exact", bool(measured == simulated))


def near(name: str, measured: float, simulated: float, *, by: float = 0.0, share: float = 0.0) -> Part:
    """The two may differ by `by`, or by a share of the measured one, whichever is more."""
    allowed = max(by, share * abs(measured))
    words = [f"{by:g}" if by else "", f"{100 * share:g} %" if share else ""]
    tolerance = "+-" + " or ".join(filter(None, words))
    return Part(name, measured, simulated, tolerance, bool(abs(simulated - measured) <= allowed))


def below(name: str, simulated: float, limit: float) -> Part:
    """A deviation that must stay under a limit."""
    return Part(name, 0, simulated, f"< {limit:g}", bool(simulated < limit))


def holds(name: str, rule: str, true: bool, found: Any = None) -> Part:
    """A rule that must hold; `found` is what was seen."""
    return Part(name, rule, ("yes" if true else "no") if found is None else found, "rule", bool(true))


@dataclass(frozen=True)
class Check:
    """The set-up of one fact.

    Attributes:
        id: the fact's.
        group: facts that belong together (`--only GROUP`).
        run: simulates and compares.
        is_input: klrubench takes the number as it is (its cost table), so that agreement says only that it is charged.
        known: comparisons that are known not to hold, with the reason.
        inferred: what of the set-up is not recorded and was read off this very observation; empty if nothing was.
    """

    id: str
    group: str
    run: Callable[[], Finding]
    is_input: bool = False
    known: dict[str, str] = field(default_factory=dict)
    inferred: str = ""

    def unexpected(self, finding: Finding) -> list[Part]:
        """Comparisons that do not hold and are not known not to."""
        return [part for part in finding.differing() if part.name not in self.known]


CHECKS: dict[str, Check] = {}


def check(
    fact: str, group: str, *, is_input: bool = False, known: dict[str, str] | None = None, inferred: str = ""
) -> Callable[[Callable[[], Finding]], Callable[[], Finding]]:
    """Enter a function as the check of a fact."""

    def enter(run: Callable[[], Finding]) -> Callable[[], Finding]:
        CHECKS[fact] = Check(fact, group, run, is_input, known or {}, inferred)
        return run

    return enter


def finding(text: str, *parts: Part, more: Sequence[Part] = ()) -> Finding:
    """A finding from its comparisons."""
    return Finding(text, (*parts, *more))

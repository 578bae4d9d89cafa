"""The observations that come along: one checkable fact a row, and two time lines."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OBSERVED = Path(__file__).parent / "observed"
CLOCK = (
    "emulated machine with one CPU; its clock counts executed instructions, 2 ns each: only ratios of times mean "
    "anything"
)
KERNELS = {
    "6.1": "6.1 (Debian)",
    "6.12": "6.12 (Debian)",
    "6.18": "6.18 (Debian)",
    "klru-rfc2": "klru-rfc2 = 6.17.8 with klruscand RFC v2 and pghot RFC v2 (patches 1, 2, 3, 8) as posted",
}


@dataclass(frozen=True)
class Fact:
    """A row of facts.csv.

    Attributes:
        id: its name.
        kernel: on which it was measured (keys of `KERNELS`, several with a stroke between; `any`).
        quantity, measured, unit: what was looked at and what was seen.
        compare_as: `exact`, `shape`, `abs X` or `ratio`: how a simulator may be compared with it.
    """

    id: str
    kernel: str
    quantity: str
    measured: str
    unit: str
    compare_as: str

    @property
    def number(self) -> float:
        """The number that `measured` begins with."""
        return float(self.measured.split()[0])


@cache
def facts() -> dict[str, Fact]:
    """Every fact by its id, in the order of the file; the two time lines follow."""
    with open(OBSERVED / "facts.csv", newline="", encoding="utf-8") as file:
        rows = [Fact(**row) for row in csv.DictReader(file)]
    return {fact.id: fact for fact in [*rows, *TIME_LINES]}


@cache
def curve(name: str) -> list[dict[str, int]]:
    """A time line, row by row: `hint_fault_hotset` or `klruscand_hotset`."""
    with open(OBSERVED / f"{name}.csv", newline="", encoding="utf-8") as file:
        return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


TIME_LINES = (
    Fact(
        "hint_fault_hotset",
        "6.12",
        "time line of the hotset workload under numa_balancing=2, each second: pages of each class on the fast node",
        "42 rows: hint_fault_hotset.csv",
        "pages",
        "abs 2% of class, 2% of totals",
    ),
    Fact(
        "klruscand_hotset",
        "klru-rfc2",
        "time line of the hotset workload under klruscand, each half second: pages of each class, sightings, "
        "promotions",
        "25 rows: klruscand_hotset.csv",
        "pages",
        "abs 2% of class",
    ),
)

"""Small machines and workloads, and a walker that only watches: what tests of whole runs share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from klrubench.generate import Part, RangeStream
from klrubench.machine import Machine, load_machine
from klrubench.mm import mglru
from klrubench.policy import Policy
from klrubench.simulate import Options, RunResult, simulate
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy, find_workload
from klrubench.workload import Layout, Stream, Vma, Workload


class Touched(Workload):
    """Uniform touches of the first `part` of memory; the rest is never touched again."""

    part = 1.0

    def stream(self, layout: Layout) -> Stream:
        return RangeStream(layout, [Part(1.0, 0, max(1, int(layout.pages * self.part)), self.read_share)])


class Quarter(Touched):
    """A working set of a quarter of memory."""

    part = 0.25


class Neighbours(Workload):
    """Two tenants of different size and pace, the second with a file mapping between two anonymous ones."""

    def tenants(self) -> list[Workload]:
        common = {"placement": self.placement}
        return [
            Quarter(footprint_gib=self.footprint_gib, rate=3.0, threads=4, **common),
            Parts(footprint_gib=0.06, rate=1.0, threads=2, **common),
        ]


class Parts(Touched):
    """Three mappings."""

    def vmas(self, layout: Layout) -> list[Vma]:
        return [Vma(600), Vma(900, file=True), Vma(layout.pages - 1500)]

    def stream(self, layout: Layout) -> Stream:
        return RangeStream(layout, [Part(1.0, 0, 600, 0.5)])


class Watcher(Policy):
    """klruscand's walk of the lower tiers with nothing behind it: counts what each pass reports."""

    interval_ms = 500.0

    def start(self, system: System) -> None:
        self.passes: list[tuple[float, int]] = []
        system.daemon("watcher", self.scan)

    def scan(self, system: System) -> Iterator[Any]:
        walker = mglru.WalkObject()
        while True:
            wake_ms, young = system.now_ms + self.interval_ms, 0
            for lruvec in system.lruvecs(tier="lower"):
                walker.zero()
                young += sum(len(pages) for pages in mglru.walk(system, lruvec, 1 << 20, walker) if pages is not None)
            self.passes.append((system.now_ms / 1000, young))
            yield system.until_ms(wake_ms)


def machine(ratio: tuple[float, float] = (1, 2), **options: Any) -> Machine:
    return load_machine("cxl-asic", ratio=ratio, **options)


def run(
    policy: str,
    workload: Workload,
    *,
    where: Machine | None = None,
    duration_s: float = 6,
    fold: int = 16,
    seed: int = 1,
    values: dict[str, Any] | None = None,
    **options: Any,
) -> RunResult:
    return simulate(
        where or machine(),
        workload,
        find_policy(policy)(**(values or {})),
        seed,
        duration_s=duration_s,
        fold=fold,
        options=Options(**options),
    )


def kv(**values: Any) -> Workload:
    return find_workload("kv")(**{"footprint_gib": 0.25, **values})

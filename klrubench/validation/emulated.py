"""The emulated machine of the observations, a program that touches what a set-up says,
and ways to watch a system run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from klrubench.engine.access import CLOCK, ORIGIN, touch_pmd
from klrubench.engine.bits import ACCESSED, NODE_MASK
from klrubench.engine.kthread import CONTEXT, GO_ON, REQUEST, turn_of
from klrubench.machine import Machine, load_machine
from klrubench.mm import Pghot
from klrubench.mm.state import MM_RAN
from klrubench.policy import Policy
from klrubench.simulate.build import build
from klrubench.simulate.loop import Options, start_policy
from klrubench.simulate.system import System
from klrubench.simulate.truth import mark_windows
from klrubench.study.plugins import find_policy, find_workload
from klrubench.workload import Layout, Vma, Workload

SLOW_PAGES = 262_112  # the slow node of the emulated machine lacks 32 pages of its 1 GiB
PAGES_PER_GIB = 1 << 18
TABLE = 512
NS_PER_INSTRUCTION = 2
PERIOD_S = 2.048  # of klruscand's passes at 2000 ms and HZ=1000; pass k begins at k * PERIOD_S
CLASS_PAGES = np.array([4096, 12_288, 49_152])  # hot, warm and cold pages of the hotset workload
HOTSET_PAGES = 65_536

Plan = list[tuple[float, np.ndarray]]


def emulated(fast_pages: int = PAGES_PER_GIB, slow_pages: int = SLOW_PAGES, **options: Any) -> Machine:
    """The emulated machine with nodes of other sizes; `options` as for `load_machine`."""
    machine = load_machine("emulated", **options)
    sizes = (fast_pages, slow_pages)
    nodes = tuple(
        replace(node, capacity_gib=pages / PAGES_PER_GIB) for node, pages in zip(machine.nodes, sizes, strict=True)
    )
    return replace(machine, nodes=nodes)


class Script(Workload):
    """A program that touches given pages at given seconds, and its last page at all other times.

    Args:
        pages: 4 KiB pages, a multiple of 512; the last PTE table belongs to the page touched in between.
        plan: (second, pages): the touches start at that second and follow each other at `rate_hz` a second.
        vmas: pages of each mapping.
        values: parameters of any workload.
    """

    def __init__(self, pages: int, plan: Plan, rate_hz: int = 8192, vmas: tuple[int, ...] = (), **values: Any) -> None:
        self.plan, self.rate_hz, self.mappings = plan, rate_hz, vmas or (pages,)
        given = {"placement": "lower", "open_loop": True, "compute_ns": 0.0} | values
        super().__init__(
            footprint_gib=pages / PAGES_PER_GIB, rate=rate_hz / pages, threads=1, mlp=1.0, touches=1, **given
        )

    def vmas(self, layout: Layout) -> list[Vma]:
        """The mappings that were asked for."""
        return [Vma(pages) for pages in self.mappings]

    def content(self) -> str:
        """Digest of the plan: streams are kept by it."""
        digest = hashlib.blake2b(repr(self.mappings).encode())
        for second, pages in self.plan:
            digest.update(repr(second).encode() + np.asarray(pages, np.uint32).tobytes())
        return digest.hexdigest()

    def stream(self, layout: Layout) -> Script:
        """This program on a layout."""
        self.words = np.full(layout.accesses, layout.pages - 1, np.uint32)
        for second, pages in self.plan:
            first = round(second * self.rate_hz)
            self.words[first : first + len(pages)] = pages
        return self

    def fill(self, out: np.ndarray, first: int) -> None:
        """Touches number `first` and on."""
        out[:] = self.words[first : first + len(out)]


def start(
    policy: str | Policy = "first_touch",
    workload: str | Workload = "hotset",
    *,
    machine: Machine | None = None,
    duration_s: float = 20,
    seed: int = 1,
    fold: int = 1,
    policy_values: dict[str, Any] | None = None,
    workload_values: dict[str, Any] | None = None,
    idle_s: float = 0.0,
    phases: bool = False,
    daemon_cpus: str = "spare",
) -> System:
    """A system whose policy (a name, or an instance) has been started; the program sleeps for `idle_s` first."""
    program = workload if isinstance(workload, Workload) else find_workload(workload)(**(workload_values or {}))
    chosen = find_policy(policy)(**(policy_values or {})) if isinstance(policy, str) else policy
    machine = machine or emulated()
    system = build(machine, program, chosen, seed, duration_s, fold, Options(phases=phases, daemon_cpus=daemon_cpus))
    mark_windows(system)
    system.state[:, [CLOCK, ORIGIN]] = round(idle_s * 1e12)
    for tenant in system.tenants:
        tenant.slept_ps = tenant.asleep_until_ps = round(idle_s * 1e12)
    start_policy(system, chosen)
    system.policy = chosen  # type: ignore[attr-defined]
    return system


def starved(**values: Any) -> Policy:
    """klruscand whose kpromoted never runs."""

    class Starved(find_policy("klruscand")):  # type: ignore[misc]
        def start(self, system: System) -> None:
            self.store = system.add(Pghot(threshold=self.threshold, window_ms=self.window_ms))
            system.daemon("klruscand", self.scan)

    made: Policy = Starved(**values)
    return made


def watch(system: System, every_ms: int, look: Callable[[System], Any]) -> list[tuple[float, Any]]:
    """Run to the end; (second, look(system)) at every multiple of `every_ms`."""
    seen: list[tuple[float, Any]] = []
    system.every_ms(every_ms, lambda: seen.append((system.now_ps / 1e12, look(system))))
    system.run()
    return seen


def between_passes(system: System, look: Callable[[System], Any]) -> list[Any]:
    """Run to the end; what `look` sees in the middle between two passes: entry k after pass k."""
    return [seen for second, seen in watch(system, 1024, look) if round(second * 1000) % 2048 == 1024]


def before_pass(passes: list[int], pages: np.ndarray) -> Plan:
    """A plan for `Script` that touches the pages once, a second before each of these passes."""
    return [(number * PERIOD_S - 1, pages) for number in passes]


def stat(index: int) -> Callable[[System], int]:
    """A look at one counter."""
    return lambda system: int(system.mm.stat[index])


def fast_pages(system: System) -> np.ndarray:
    """Whether each page is on node 0."""
    return np.asarray((system.mm.pte & NODE_MASK) == 0)


def on_fast(system: System, classes: np.ndarray) -> tuple[int, int, int]:
    """Pages of each class on node 0."""
    fast = fast_pages(system)[: len(classes)]
    hot, warm, cold = (int(np.count_nonzero(fast & (classes == c))) for c in range(3))
    return hot, warm, cold


def hotset_classes(system: System) -> np.ndarray:
    """The class of each page of a system that runs `hotset`: 0 hot, 1 warm, 2 cold."""
    tenant = system.tenants[0]
    return np.asarray(tenant.workload.class_of(tenant.feed.layout))  # type: ignore[attr-defined]


def touch(system: System, pages: np.ndarray) -> None:
    """Leave the bits that touches of these pages leave, and that the program has run."""
    system.mm.pte[pages] |= np.uint8(ACCESSED)
    system.mm.mms[:, MM_RAN:] = 1
    for first in np.unique(pages // TABLE) * TABLE:
        touch_pmd(system.mm.pte64, int(first))


def untouch(system: System) -> None:
    """Forget the accessed bits of all PTEs (those that populating has left)."""
    system.mm.pte[:] &= np.uint8(0xFF ^ ACCESSED)


class Meter:
    """What a system's threads are charged from now on: `events` by name of the operation, and each charge of those that
    are generators in `log`.
    """

    def __init__(self, system: System) -> None:
        self._charged: Counter[str] = Counter()
        self._compiled = [(thread, thread.events.copy()) for thread in system.kernel_threads.started]
        self.log: list[Counter[str]] = []
        self.system, charge, charge_full = system, system.charge, system.charge_full

        def note(counts: dict[str, int], each: int) -> None:
            self.log.append(Counter({name: int(n) * each for name, n in counts.items()}))
            self._charged.update(self.log[-1])

        def metered(**counts: int) -> None:
            note(counts, system.fold)
            charge(**counts)

        def metered_full(**counts: int) -> None:
            note(counts, 1)
            charge_full(**counts)

        system.charge, system.charge_full = metered, metered_full  # type: ignore[method-assign]

    @property
    def events(self) -> Counter[str]:
        """Events by name of the operation, full size."""
        found = Counter(self._charged)
        for thread, before in self._compiled:
            found.update(dict(zip(thread.costs, ((thread.events - before) * self.system.fold).tolist(), strict=True)))
        return found

    def instructions(self, *names: str, events: Counter[str] | None = None) -> float:
        """Guest instructions charged under these names (all if none is given), in total or for `events`."""
        return instructions_of(self.system, self.events if events is None else events, *names)


def instructions_of(system: System, events: Counter[str], *names: str) -> float:
    """Guest instructions that events take: those under these names (all if none is given)."""
    return sum(events[name] * system.machine.costs[name].ns / NS_PER_INSTRUCTION for name in names or events)


def turns(system: System, name: str) -> Iterator[tuple[int, Counter[str]]]:
    """Let a compiled kernel thread take its turns one after the other until it waits; (picoseconds, events) of each."""
    thread = next(thread for thread in system.kernel_threads.started if thread.name == name)
    row = thread.row
    while True:
        before, row[REQUEST] = thread.events.copy(), GO_ON
        spent = turn_of(thread.turn).ctypes(int(row[CONTEXT]), 0, system.now_ps)
        done = (thread.events - before) * system.fold
        yield spent, Counter(dict(zip(thread.costs, done.tolist(), strict=True)))
        if row[REQUEST] != GO_ON:
            return


def instructions(machine: Machine, name: str) -> float:
    """What one operation costs, in guest instructions."""
    return machine.costs[name].ns / NS_PER_INSTRUCTION

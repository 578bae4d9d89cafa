"""Toy kernel threads, each a list of pieces of work, as rows of compiled turns or as generators, and what they saw."""

from __future__ import annotations

import ctypes
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from small_runs import Quarter, Touched, machine

from klrubench.engine.kthread import FLUSHES, GO_ON, JIFFIES, PARK, PS_PER_MS, PS_PER_S, REQUEST, SLEEP, TURN
from klrubench.mm.state import MM_RAN, NOW_MS
from klrubench.simulate import Options
from klrubench.simulate.build import build
from klrubench.simulate.scheduler import Daemon
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy
from klrubench.workload import Workload

SMALL = {"footprint_gib": 0.25, "rate": 2.0}


class Pair(Workload):
    """Two tenants of different pace; the second may sleep."""

    def tenants(self) -> list[Workload]:
        naps = {"busy_s": self.busy_s, "idle_s": self.idle_s}
        return [
            Quarter(footprint_gib=self.footprint_gib, rate=3.0, threads=4),
            Touched(footprint_gib=self.footprint_gib, rate=1.0, threads=2, **naps),
        ]


NAPS = {"busy_s": 0.11, "idle_s": 0.07}
WORKLOADS: dict[str, Callable[[], Workload]] = {
    "one": lambda: Quarter(**SMALL),
    "one that sleeps": lambda: Quarter(**SMALL, **NAPS),
    "two": lambda: Pair(**SMALL),
    "two, one sleeps": lambda: Pair(**SMALL, **NAPS),
}


@dataclass(frozen=True)
class Piece:
    """One turn: picoseconds of work, TLB flushes, what the thread wants then, the thread that it wakes (-1: none)."""

    work_ps: int
    request: int = GO_ON
    jiffies: int = 0
    flushes: int = 0
    wakes: int = -1


@dataclass(frozen=True)
class Toy:
    """A thread. With `waits` it starts parked and has a word that wakes it."""

    pieces: tuple[Piece, ...]
    phase_ms: float = 0.0
    waits: bool = False


@dataclass
class Stage:
    """One run of toys: their words, what they still have to do, and the log of their turns."""

    system: System
    toys: Sequence[Toy]
    marks_ran: bool = True
    log: list[tuple[Any, ...]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    daemons: list[tuple[int, Daemon]] = field(default_factory=list)
    keep: list[Any] = field(default_factory=list)
    seen: int = 0

    def __post_init__(self) -> None:
        self.words = [np.zeros(1, np.int64) for _ in self.toys]
        self.left = [list(toy.pieces) for toy in self.toys]

    def take(self, index: int) -> Piece:
        """The next piece of a thread, which notes what it finds; when there is none it parks for ever."""
        system = self.system
        ran = system.mm.mms[: len(system.tenants), MM_RAN].tolist()
        touches = [tenant.touches for tenant in system.tenants]
        self.log.append((system.now_ps, index, int(system.mm.setting[NOW_MS]), touches, ran, self.seen))
        system.mm.mms[: len(system.tenants), MM_RAN] = 0
        self.words[index][0] = 0
        piece = self.left[index].pop(0) if self.left[index] else Piece(0, PARK)
        if piece.wakes >= 0:
            self.words[piece.wakes][0] = 1
        return piece

    def start_row(self, index: int) -> None:
        """A row whose turns are Python's."""
        toy = self.toys[index]

        def turn(context: int, unused: int, now_ps: int) -> int:
            try:
                assert now_ps == self.system.now_ps
                piece = self.take(index)
                row[REQUEST], row[JIFFIES], row[FLUSHES] = piece.request, piece.jiffies, piece.flushes
                return piece.work_ps
            except BaseException as error:
                self.failures.append(error)
                row[REQUEST] = PARK
                return 0

        thread = row_of(self.system, f"toy {index}", turn, toy.phase_ms, self.words[index] if toy.waits else None)
        row = thread.row
        self.keep.append(thread)

    def start_generator(self, index: int) -> None:
        """The same thread as a generator."""
        toy, hz = self.toys[index], self.system.machine.hz

        def steps(system: System) -> Iterator[Any]:
            while True:
                piece = self.take(index)
                system.current.spent_ps += piece.work_ps
                system.flush_tlb(piece.flushes, system.fold)
                sleep = system.sleep_ms(piece.jiffies * 1000 / hz)
                yield {GO_ON: None, PARK: system.parked, SLEEP: sleep}[piece.request]

        thread = self.system.daemon(f"toy {index}", steps, phase_ms=toy.phase_ms, parked=toy.waits)
        self.daemons.append((index, thread))

    def wake(self) -> None:
        """Wake generators whose word is set (those with a word only)."""
        for index, thread in self.daemons:
            if self.toys[index].waits and thread.parked and self.words[index][0]:
                self.system.wake(thread)

    def outcome(self) -> dict[str, Any]:
        """All that must not depend on what kind of thread did the work."""
        system = self.system
        assert not self.failures
        return {
            "log": self.log, "cpu_ps": system.cpu_ps, "app_ps": system.app_ps, "state": system.state.tolist(),
            "stalled": [+Counter(tenant.stalled_ps) for tenant in system.tenants], "counts": system.counts.tolist(),
            "slept": [tenant.slept_ps for tenant in system.tenants], "op_hist": system.op_hist.tolist(),
            "now": system.now_ps, "left": self.left,
        }  # fmt: skip


TURN_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)


def row_of(system: System, name: str, turn: Any, phase_ms: float = 0.0, word: np.ndarray | None = None) -> Any:
    """A kernel thread's row that calls a Python function `turn(context, unused, now_ps)`."""
    callback = TURN_TYPE(turn)
    thread = system.kernel_thread(name, turn, (), (), phase_ms=phase_ms, wake_word=word)
    thread.row[TURN] = ctypes.cast(callback, ctypes.c_void_p).value
    system.__dict__.setdefault("callbacks", []).append(callback)
    return thread


def run_events(system: System, wake: Callable[[], None]) -> None:
    """The loop over due events where all threads are generators and `wake` looks at their words between them."""
    events, busy = system._events, system._busy()
    clock = min(busy) if busy else int(system.state[:, 0].max())
    system.now_ps = max(system.now_ps, min(clock, events[0][0]) if events else clock)
    for marks, tenant in zip(system._marks, system.tenants, strict=True):
        while marks and marks[0][0] <= tenant.touches:
            heapq.heappop(marks)[2]()
    if not busy:
        return
    wake()
    while events and events[0][0] <= clock:
        at, _, ticket, thread = heapq.heappop(events)
        system.now_ps = max(system.now_ps, at)
        system.mm.setting[NOW_MS] = system.now_ps // PS_PER_MS
        if not isinstance(thread, Daemon):
            thread()
        elif thread.ticket == ticket:
            system._step(thread)
        wake()


def expiry(now: int, delta: int) -> int:
    """The timer wheel: the next multiple of the granularity after expiry, 8 times coarser from 63 x 8^n jiffies on."""
    grain = 1
    while grain < 8**8 and delta >= 63 * grain:
        grain *= 8
    return ((now + delta) // grain + 1) * grain


def turns_alone(toys: Sequence[Toy], starts: Sequence[int], hz: int) -> list[tuple[int, int]]:
    """(time, thread) of all turns on CPUs of their own, by the rules alone: a heap, and nothing else runs."""
    heap: list[tuple[int, int, int]] = []
    rank, parked, set_words, done_at = 0, set(), set(), [0] * len(toys)
    left, log = [list(toy.pieces) for toy in toys], []
    for index, toy in enumerate(toys):
        if toy.waits:
            parked.add(index)
        else:
            rank += 1
            heapq.heappush(heap, (starts[index], rank, index))
    while heap:
        now, _, index = heapq.heappop(heap)
        log.append((now, index))
        set_words.discard(index)
        piece = left[index].pop(0) if left[index] else Piece(0, PARK)
        if piece.wakes >= 0:
            set_words.add(piece.wakes)
        ready = done_at[index] = now + piece.work_ps
        if piece.request == SLEEP:
            jiffy = expiry(ready * hz // PS_PER_S, piece.jiffies)
            ready = max(ready, jiffy * PS_PER_S // hz)
        if piece.request == PARK:
            parked.add(index)
        else:
            rank += 1
            heapq.heappush(heap, (ready, rank, index))
        for other in sorted(parked & set_words):
            if toys[other].waits:
                rank += 1
                parked.discard(other)
                heapq.heappush(heap, (max(now, done_at[other]), rank, other))
    return log


def system_of(
    workload: str = "one", hz: int = 1000, duration_s: float = 0.5, chunk: int = 65_536, **options: Any
) -> System:
    """A small machine, pages placed, and no policy."""
    where = machine(hz=hz)
    return build(
        where, WORKLOADS[workload](), find_policy("first_touch")(), 1, duration_s, 32, Options(chunk=chunk, **options)
    )

"""kswapd, kmigrated and the kpromoteds again in plain Python, as generators that say what they want, and how they are
put in the place of the compiled turns: as callbacks in the same rows, or as generators in the queue of events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from toy_threads import row_of, run_events

from klrubench.engine.kthread import FLUSHES, JIFFIES, PARK, PS_PER_S, REQUEST, SLEEP
from klrubench.mm import kmigrated, kpromoted, pghot, pghot_v0, pghot_v1, vmscan
from klrubench.mm.lru import is_classic
from klrubench.mm.migrate import FLUSH_PAGES, demoted_page_ps, slice_ps
from klrubench.mm.pghot_map import migrate_ready
from klrubench.mm.state import (
    DEMOTION_TARGET,
    FREE,
    KSWAPD_FAILURES,
    KSWAPD_WAKE,
    KSWAPD_WAKES,
    STATS,
    VMA_ORDER,
    WMARK_HIGH,
    WMARK_PROMO,
)
from klrubench.simulate.scheduler import Daemon, Scheduler
from klrubench.simulate.system import System


class Bill:
    """What a thread was charged for: in this turn, and how many simulated events in all."""

    def __init__(self, system: System) -> None:
        self.system, self.events = system, Counter[str]()
        self.spent_ps, self.flushes = 0.0, 0

    def charge(self, **counts: int) -> None:
        """Simulated events, each of which stands for as many as the machine is folded."""
        self.events.update(counts)
        self.spent_ps += sum(
            self.system.machine.costs[name].ns * 1000 * (n * self.system.fold) for name, n in counts.items()
        )

    def moves(self, cost: str, folios: int, pages: int) -> None:
        """Folios moved: those of 2 MiB are 512 pages each."""
        huge = (pages - folios) // 511
        self.charge(**{cost: folios - huge, "migrate_2m": huge})


def kswapd(system: System, bill: Bill, node: int) -> Iterator[Any]:
    """Woken, it demotes in slices until the node is balanced or nothing more can be had."""
    mm, fold = system.mm, system.fold
    state, progress, walk = mm.node[node], np.zeros(4, np.int64), np.zeros(vmscan.N_WALK, np.int64)
    largest = 1 << int(mm.vma[:, VMA_ORDER].max())
    price = np.array([system.cost_ps("kswapd_scan"), demoted_page_ps(system), vmscan.SLICE_PS // fold], np.int64)
    batch, examine = max(1, vmscan.MIN_LRU_BATCH // fold), max(1, vmscan.MAX_LRU_BATCH // fold)

    def short(extra: int) -> int:
        mark = WMARK_PROMO if system.balance_to_promo else WMARK_HIGH
        return (
            max(int(state[mark]) + (max(1, largest // fold) if largest > 1 else 0), largest if largest > 1 else 0)
            + extra
            - int(state[FREE])
        )

    def counters() -> dict[str, int]:
        return dict(zip(STATS, mm.stat.tolist(), strict=True))

    while True:
        state[KSWAPD_WAKE] = 0
        if state[KSWAPD_FAILURES] < 16:
            mm.stat[KSWAPD_WAKES] += 1
            stolen = 0
            if state[DEMOTION_TARGET] >= 0:
                progress[:] = 12, 0, 0, 0
                while progress[0] >= 1 and short(batch) > 0:
                    old, target = counters(), int(state[FREE]) + short(batch)
                    vmscan.balance_slice(mm, node, system.n_memcgs, target, price, examine, fold, walk, progress)
                    new = {name: n - old[name] for name, n in counters().items()}
                    stolen += new["pgsteal_kswapd"]
                    bill.charge(aging_pte=new["pgaging_pte"], aging_young=new["pgaging_young"])
                    bill.charge(carry_page=new["pgcarried"], kswapd_scan=int(progress[3]))
                    progress[3] = 0
                    bill.moves("kswapd_page", new["demote_folios"], new["pgsteal_kswapd"])
                    yield None
            failed = is_classic.py_func(mm) and not stolen and short(0) > 0
            state[KSWAPD_FAILURES] = state[KSWAPD_FAILURES] + 1 if failed else 0
        state[KSWAPD_WAKE] = 0
        yield "park"


def migrated(system: System, bill: Bill, thread: kmigrated.Kmigrated) -> Iterator[Any]:
    """While something was recorded: walks over the node's frames, in slices; else 100 ms of sleep."""
    pghot, node, fold = thread.pghot, thread.node, system.fold
    (first, last), arrays = pghot.sections[node], pghot.arrays
    names = ("kmigrated_pfn", "kpromoted_pop", "kpromoted_page", "migrate_2m")
    price = np.array([*(system.cost_ps(name) for name in names), slice_ps(system)], np.int64)
    while True:
        while arrays.active[node]:
            arrays.active[node] = 0
            arrays.state[node] = first, -1, 0
            while arrays.state[node, 0] < last:
                jiffies = system.now_ps * system.machine.hz // PS_PER_S
                steps, taken, folios, pages, bill.flushes = migrate_ready(
                    arrays, system.mm, node, last, price, jiffies, pghot.rules, fold
                )
                bill.moves("kpromoted_page", folios, pages)
                bill.charge(kpromoted_pop=taken - folios, kmigrated_pfn=steps)
                thread.worked_ps[0] += bill.spent_ps
                yield None
        yield 100


def swept(system: System, bill: Bill, store: pghot_v0.SweptPghot) -> Iterator[Any]:
    """Each second a sweep over all hash lists, in slices."""
    arrays, fold = store.arrays, system.fold
    names = ("pghot_list_element", "kpromoted_pop", "kpromoted_page", "migrate_2m")
    price = np.array([*(system.cost_ps(name) for name in names), slice_ps(system)], np.int64)
    while True:
        yield 1000
        bill.spent_ps += system.machine.costs["pghot_list_element"].ns * 1000 * 65_536
        at = 0 if arrays.setting[pghot_v0.COUNT] else len(arrays.order)
        while at < len(arrays.order):
            jiffies = system.now_ps * system.machine.hz // PS_PER_S
            at, visited, folios, pages, refused = pghot_v0.sweep(arrays, system.mm, at, price, jiffies, fold)
            bill.moves("kpromoted_page", folios, pages)
            bill.charge(pghot_list_element=visited, kpromoted_pop=refused)
            bill.flushes = folios * fold
            yield None


def popped(system: System, bill: Bill, thread: kpromoted.Kpromoted) -> Iterator[Any]:
    """1024 records of the heap a wake, every 20 ms; while the heap is empty it waits to be kicked."""
    store, node, carry = thread.pghot, thread.node, 0
    pop = pghot_v1.pop_promote if isinstance(store, pghot_v1.UnpackedPghot) else pghot.pop_promote
    while True:
        if store.arrays.heap_n[node] == 0:
            thread.asleep_from_ps = system.now_ps + round(bill.spent_ps)
            yield "park"
        else:
            yield 20
        budget, carry = divmod(1024 + carry, system.fold)
        jiffies = system.now_ps * system.machine.hz // PS_PER_S
        n, folios, pages = pop(store.arrays, system.mm, node, budget, jiffies, store.rules, system.fold)
        thread.wakes += 1
        thread.full += n == budget
        bill.moves("kpromoted_page", folios, pages)
        bill.charge(kpromoted_pop=n - folios)
        bill.flushes = -(-pages * system.fold // FLUSH_PAGES)


def kick(thread: kpromoted.Kpromoted) -> None:
    """Come back at the next multiple of the period since it fell asleep; those before it were wakes too."""
    if thread.asleep_from_ps >= 0:
        system, at = thread.system, thread.asleep_from_ps
        period_ps = system.timer_ms(20) * 10**9
        at += period_ps
        while at <= system.now_ps:
            at += period_ps
            thread.wakes += 1
        thread.asleep_from_ps = -1
        (system.wake if isinstance(thread.thread, Daemon) else system.wake_kernel_thread)(thread.thread, at)


class Twins:
    """Puts plain Python in the place of the compiled turns of the systems built from now on."""

    def __init__(self, patch: pytest.MonkeyPatch, as_rows: bool) -> None:
        self.as_rows, self.bills = as_rows, dict[str, Bill]()
        self.sleepers: list[tuple[Any, np.ndarray]] = []
        attach, twins = pghot_v0.SweptPghot.attach, self

        def attach_kswapd(thread: vmscan.Kswapd, system: System) -> None:
            word = system.mm.node[thread.node, KSWAPD_WAKE : KSWAPD_WAKE + 1]
            twins.start(system, "kswapd", lambda bill: kswapd(system, bill, thread.node), 0.0, word)

        def attach_kmigrated(thread: kmigrated.Kmigrated, system: System) -> None:
            thread.system = system
            twins.start(system, "kmigrated", lambda bill: migrated(system, bill, thread), 100.0)

        def attach_swept(store: pghot_v0.SweptPghot, system: System) -> None:
            with pytest.MonkeyPatch.context() as only:
                only.setattr(system, "kernel_thread", lambda *_: None, raising=False)
                attach(store, system)
            twins.start(system, "kpromoted", lambda bill: swept(system, bill, store), 0.0)

        def attach_kpromoted(thread: kpromoted.Kpromoted, system: System) -> None:
            thread.system, thread.asleep_from_ps, thread.wakes, thread.full = system, -1, 0, 0
            thread.thread = twins.start(system, "kpromoted", lambda bill: popped(system, bill, thread), 0.0)
            thread.pghot.waiting.append(thread)

        def share(thread: kpromoted.Kpromoted) -> dict[str, float]:
            return {"kpromoted": thread.full / thread.wakes if thread.wakes else 0.0}

        for name, twin in (("attach", attach_kpromoted), ("kick", kick), ("bound", share)):
            patch.setattr(kpromoted.Kpromoted, name, twin)
        patch.setattr(vmscan.Kswapd, "attach", attach_kswapd)
        patch.setattr(kmigrated.Kmigrated, "attach", attach_kmigrated)
        patch.setattr(pghot_v0.SweptPghot, "attach", attach_swept)
        if not as_rows:
            patch.setattr(Scheduler, "_run_events", lambda system: run_events(system, lambda: twins.wake(system)))

    def wake(self, system: System) -> None:
        """Wake generators whose word is set."""
        for thread, word in self.sleepers:
            if thread.parked and word[0]:
                system.wake(thread)

    def start(
        self,
        system: System,
        name: str,
        make: Callable[[Bill], Iterator[Any]],
        phase_ms: float,
        word: np.ndarray | None = None,
    ) -> Any:
        """Start a thread as a callback in a row or as a generator."""
        bill = self.bills[name] = Bill(system)
        steps, hz = make(bill), system.machine.hz

        def work(_system: System) -> Iterator[Any]:
            while True:
                bill.spent_ps, bill.flushes = 0.0, 0
                wants = next(steps)
                system.current.spent_ps += bill.spent_ps
                system.flush_tlb(bill.flushes, system.fold)
                yield None if wants is None else system.parked if wants == "park" else system.sleep_ms(wants)

        def turn(context: int, unused: int, now_ps: int) -> int:
            bill.spent_ps, bill.flushes = 0.0, 0
            wants = next(steps)
            thread.row[FLUSHES] = bill.flushes
            if wants == "park":
                thread.row[REQUEST] = PARK
            elif wants is not None:
                thread.row[REQUEST], thread.row[JIFFIES] = SLEEP, -(-wants * hz // 1000)
            return round(bill.spent_ps)

        if self.as_rows:
            thread = row_of(system, name, turn, phase_ms, word)
            return thread
        daemon = system.daemon(name, work, phase_ms=phase_ms, parked=word is not None)
        if word is not None:
            self.sleepers.append((daemon, word))
        return daemon

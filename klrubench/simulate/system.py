"""The machine while it runs: what policies and mechanisms may ask of it. Daemons, deadlines, charges, scale."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.access import CLOCK, GAP, N_CATEGORIES, OP_BINS, STALL, TENANT_WORDS
from klrubench.engine.array_table import addresses
from klrubench.engine.bits import TABLE_SHIFT
from klrubench.engine.kthread import (
    AT,
    BOARD_WORDS,
    BUSY_THREADS,
    FOREVER,
    GOAL,
    PS_PER_MS,
    PS_PER_S,
    RANK,
    RUNNING_UNTIL,
)  # fmt: skip
from klrubench.engine.latency import (
    CACHE_PS,
    COMPUTE_PS,
    CPU_SHARE,
    FOLD,
    MLP,
    NODE_COLUMNS,
    QUANTUM_PS,
    TENANT_COLUMNS,
    THREADS,
)
from klrubench.engine.quantum import Engine
from klrubench.engine.random import stream_key
from klrubench.engine.tlb import NEXT_SWITCH_PS, SWITCH_PS
from klrubench.errors import ScaleError
from klrubench.mm.fault import no_fault
from klrubench.mm.folio import whole_folios
from klrubench.mm.mglru.trylock import set_trylock_miss
from klrubench.mm.page_idle import draw_lower
from klrubench.mm.state import (
    LRU_GEN_LACKS,
    MM_MEMCG,
    MM_RAN,
    NODE_KEY,
    NOW_MS,
    PAGES_EACH,
    STATS,
    TIER,
    TIERING,
    TWO_STEP,
    VMA_ORDER,
    WAKE_ON_REFUSE,
    WINDOW,
    Mm,
)
from klrubench.simulate.feed import hottest
from klrubench.simulate.kernel_threads import FLUSHES, KernelThread, Turn
from klrubench.simulate.scheduler import Daemon, Hrtimer, Scheduler, Sleep, Until
from klrubench.simulate.taps import Consume, Sampler, Stop, Tap
from klrubench.simulate.tenant import Tenant
from klrubench.simulate.truth import by_folio, top_leaves, window_counts

if TYPE_CHECKING:
    from klrubench.machine import Machine

EMPTY_LOG = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Lruvec:
    """(memcg, node) and its row in the lruvec table."""

    memcg: int
    node: int
    index: int


class System(Scheduler):
    """One run's machine. Policies use the methods that follow `# for policies`."""

    def __init__(
        self,
        machine: Machine,
        mm: Mm,
        tenants: list[Tenant],
        fold: int,
        seed: int,
        daemon_cpus: str,
        phases: bool,
        n_memcgs: int,
    ) -> None:
        self.machine, self.mm, self.tenants, self.fold, self.seed = machine, mm, tenants, fold, seed
        self.shared_cpus, self.phases = daemon_cpus == "shared", phases
        self.n_memcgs = n_memcgs
        self._start_clock()
        self.sysctls = dict(machine.sysctls)
        self.balance_to_promo = self.may_see_future = False
        self.mechanisms: list[Any] = []
        self._cpu_ps: dict[str, float] = {}
        self._app_ps: dict[str, float] = {}
        self.fault_ctx, self.fault_spent = np.zeros(1, np.int64), lambda: 0
        self.fault_words = np.array([no_fault.address, 0], np.int64)
        mm.setting[TWO_STEP] = int(machine.kernel_at_least("6.14"))
        mm.setting[WINDOW] = -1
        mm.setting[PAGES_EACH] = fold
        mm.setting[LRU_GEN_LACKS] = 7 & ~self.sysctls["lru_gen/enabled"]
        mm.setting[NODE_KEY] = int(stream_key(seed, "demotion target")) >> 1
        top = [k for k in machine.top_nodes if machine.nodes[k].cpus] or list(machine.top_nodes)
        self.default_target = top[0]

    def allocate_engine(self) -> None:
        """Make the engine's state for the tenants; called once, when all are known."""
        machine, t, k = self.machine, len(self.tenants), len(self.machine.nodes)
        home = machine.cpu_nodes[0]
        self.state = np.zeros((t, TENANT_WORDS), np.int64)
        self.counts, self.at_start, self.mix, self.spent = (np.zeros((t, N_CATEGORIES), np.int64) for _ in range(4))
        self.other_ps, self.factor = np.zeros(t), np.ones(k)
        self.params, self.node_params = np.zeros((t, TENANT_COLUMNS)), np.zeros((k, NODE_COLUMNS))
        self.latency = np.zeros((t, k, 2))
        self.cost, self.op_hist = np.zeros((t, N_CATEGORIES), np.int64), np.zeros((t, OP_BINS), np.int64)
        self.quantum = np.array([QUANTUM_PS, 0], np.int64)
        self._price_ps = {name: cost.ns * 1000 for name, cost in machine.costs.items()}
        for node, where in enumerate(machine.nodes):
            self.node_params[node] = where.read_gb_s / 1000, where.write_gb_s / 1000, where.load_alpha, where.load_beta
            self.latency[:, node] = where.read_ns[home] * 1000, where.write_ns[home] * 1000
        for tenant in self.tenants:
            row, timing = self.params[tenant.index], tenant.timing
            row[[COMPUTE_PS, MLP, THREADS]] = timing.compute_ns * 1000, timing.mlp, timing.threads
            row[[FOLD, CACHE_PS, CPU_SHARE]] = self.fold, machine.cache_hit_ns * 1000, 1.0
            if timing.open_loop:
                self.state[tenant.index, GAP] = round(timing.touch_ns * 1000 * self.fold)

        self.board = np.zeros((t, BOARD_WORDS), np.int64)
        self.board[:, [GOAL, BUSY_THREADS]] = [(tenant.accesses, tenant.threads) for tenant in self.tenants]
        shape = np.array([(t.first_page, t.pages, t.workload.touches, MM_RAN) for t in self.tenants], np.int64)
        self.engine = Engine(
            self.mm.pte, self.mm.pte64, self.state, self.counts, self.cost, self.at_start, self.mix, self.op_hist,
            self.fault_words, EMPTY_LOG, self.quantum, self.other_ps, self.params, self.latency, self.node_params,
            self.mm.traffic, self.factor, shape, self.mm.tlb, self.spent, self.clock, self.kernel_threads.rows,
            self.board, self.shootdown, self.mm.setting[NOW_MS : NOW_MS + 1], self.mm.mms,
        )  # fmt: skip
        self._switch_tasks()
        self.engine_addresses = addresses(list(self.engine))
        self.engine_address = self.engine_addresses.ctypes.data
        self.tlb_rule = True if len(self.mm.tlb) else None
        self._watch()

    def _switch_tasks(self) -> None:
        """Let context switches flush where the sysctl says so: each thread at each tick, in turn."""
        if len(self.mm.tlb) and self.sysctls["tlb/flush_on_switch"]:
            for tenant in self.tenants:
                self.mm.tlb[tenant.index, [SWITCH_PS, NEXT_SWITCH_PS]] = PS_PER_S // (self.machine.hz * tenant.threads)

    # --- for policies: time -------------------------------------------------------------------------------------------
    @property
    def now_ms(self) -> float:
        """Virtual time in ms."""
        return self.now_ps / PS_PER_MS

    @property
    def jiffies(self) -> int:
        """Timer ticks since the start."""
        return self.now_ps * self.machine.hz // PS_PER_S

    def sleep_ms(self, ms: float) -> Sleep:
        """Sleep as schedule_timeout does: whole jiffies, rounded up by the timer wheel."""
        return Sleep(ms)

    def sleep_exact_ms(self, ms: float) -> Sleep:
        """Sleep to the next timer tick after `ms` (work that hangs on the tick, not on the wheel)."""
        return Sleep(ms, wheel=False)

    def sleep_us(self, us: int) -> Hrtimer:
        """Sleep by a high-resolution timer, exactly (usleep_range)."""
        return Hrtimer(us * PS_PER_MS // 1000)

    def until_ms(self, ms: float) -> Until:
        """Sleep until a time in ms, rounded by the timer wheel; returns at once if it has passed."""
        return Until(int(ms * PS_PER_MS))

    def until_ps(self, ps: int) -> Until:
        """Sleep until a time in ps, rounded by the timer wheel; returns at once if it has passed."""
        return Until(ps)

    def timer_ms(self, ms: float) -> int:
        """Length in ms of a wheel sleep of `ms` that starts on a tick."""
        return round(1000 * self._expiry(0, max(1, round(ms * self.machine.hz / 1000))) / self.machine.hz)

    # --- for policies: scale and settings -----------------------------------------------------------------------------
    def scaled(self, n: int, name: str) -> int:
        """A full-size count at the scale of this run.

        Raises:
            ScaleError: it falls under one.
        """
        if n < self.fold:
            raise ScaleError(
                f"scale 1/{self.fold} leaves less than one of {name} ({n}); use "
                f"--scale 1/{1 << max(0, n.bit_length() - 1)} or larger"
            )
        return round(n / self.fold)

    def budget(self, n: int, carry: int, name: str) -> tuple[int, int]:
        """A full-size budget a wake at scale, and the remainder to carry to the next wake."""
        if n < self.fold:
            self.scaled(n, name)
        return divmod(n + carry, self.fold)

    def sysctl(self, name: str) -> int:
        """Value of a setting."""
        return self.sysctls[name]

    def set_tiering(self, mode: int, wake: bool = False) -> None:
        """Apply kernel.numa_balancing; bit 2 (or `wake`, our switch) lets refused promotions wake kswapd,
        which balances to promo.
        """
        self.sysctls["kernel.numa_balancing"] = mode
        tiering = bool(mode & 2)
        self.mm.setting[TIERING] = tiering
        self.mm.setting[WAKE_ON_REFUSE] = tiering or wake
        self.balance_to_promo = tiering or wake

    def need_resched(self) -> bool:
        """Whether the running thread has had its CPU for a tick while a tenant waits for it (where they share CPUs)."""
        thread = self.current
        if thread is None or not self.shared_cpus or all(tenant.finished for tenant in self.tenants):
            return False
        return thread.spent_ps * self.machine.hz >= PS_PER_S

    def slice_over(self) -> bool:
        """Whether the running thread has worked for a quantum (10 ms) since others ran, or must give way: `yield`."""
        thread = self.current
        return thread is None or thread.spent_ps >= QUANTUM_PS or self.need_resched()

    def set_trylock_miss(self, share: float) -> None:
        """Let a share of all try-locks of page-table walks miss (those of scanners and of aging)."""
        set_trylock_miss(self.mm, share, int(stream_key(self.seed, "try-locks")) >> 1)

    # --- for policies: mechanisms and threads -------------------------------------------------------------------------
    def add(self, mechanism: Any) -> Any:
        """Attach a mechanism; its metadata, bounds and gauges are read from it."""
        mechanism.attach(self)
        self.mechanisms.append(mechanism)
        return mechanism

    def daemon(
        self, name: str, run: Callable[[System], Iterator[Any]], *, phase_ms: float = 0.0, parked: bool = False,
        tenant: Tenant | None = None,
    ) -> Daemon:  # fmt: skip
        """Start a kernel thread (or, with `tenant`, work in that tenant's context) at a seeded phase within
        `phase_ms`.
        """
        thread = Daemon(name, run(self), tenant, parked)
        self.daemons.append(thread)
        if tenant is None:
            self.cpu_ps.setdefault(name, 0.0)
        if not parked:
            self._schedule(thread, self._start_ps(name, phase_ms))
        return thread

    def kernel_thread(
        self, name: str, turn: Turn, costs: Sequence[str], own: Sequence[np.ndarray], *,
        phase_ms: float = 0.0, wake_word: np.ndarray | None = None,
    ) -> KernelThread:  # fmt: skip
        """Start a kernel thread whose turns are compiled, for those that take thousands of them (engine/kthread.py).

        Args:
            turn: what it does in a turn; its context is the table of the arrays `row`, `events` (i64) and `price_ps`
                (f64), both in the order of `costs`, and `own`.
            wake_word: i64 [1] that wakes it when it is not 0; with it the thread starts parked.
        """
        thread = self.kernel_threads.start(self, name, turn, costs, own)
        self.cpu_ps.setdefault(name, 0.0)
        if wake_word is not None:
            self.kernel_threads.wake_by(thread, wake_word)
        else:
            thread.row[[AT, RANK]] = self._start_ps(name, phase_ms), self._next_rank()
        return thread

    def wake_kernel_thread(self, thread: KernelThread, at_ps: int) -> None:
        """Wake a parked compiled thread at a time, not before it is done with the work it has been charged for."""
        if thread.row[AT] == FOREVER:
            thread.row[[AT, RANK]] = max(at_ps, int(thread.row[RUNNING_UNTIL])), self._next_rank()

    def _start_ps(self, name: str, phase_ms: float) -> int:
        """When a thread runs first: at a seeded phase within `phase_ms`."""
        return self.now_ps + (int(self.rng(f"phase of {name}").random() * phase_ms * PS_PER_MS) if self.phases else 0)

    def wake(self, thread: Daemon, at_ps: int | None = None) -> None:
        """Wake a parked thread, not before it is done with the work it has been charged for."""
        if thread.parked:
            thread.parked = False
            self._schedule(thread, max(self.now_ps if at_ps is None else at_ps, thread.running_until))

    def rng(self, name: str) -> np.random.Generator:
        """A random generator of this run's seed for one use."""
        return np.random.Generator(np.random.PCG64(int(stream_key(self.seed, name))))

    @property
    def memcgs(self) -> list[str]:
        """Names of the memcgs: what their tenants call it, or the name of the only one."""
        names: dict[int, str] = {}
        for tenant in self.tenants:
            names.setdefault(int(self.mm.mms[tenant.index, MM_MEMCG]), tenant.workload.memcg or tenant.name)
        return [names[memcg] for memcg in sorted(names)]

    def vmstat(self, name: str) -> int:
        """A counter of /proc/vmstat, in simulated pages or events."""
        return int(self.mm.stat[STATS.index(name)])

    def lruvecs(self, tier: str = "lower", memcgs: Sequence[int] | None = None) -> Iterator[Lruvec]:
        """lruvecs of all memcgs, or of some, node by node: of the `lower` tiers or of the `top` one."""
        for node in range(len(self.mm.node)):
            if (self.mm.node[node, TIER] > 0) == (tier == "lower"):
                for memcg in range(self.n_memcgs) if memcgs is None else memcgs:
                    yield Lruvec(memcg, node, memcg * len(self.mm.node) + node)

    def random_lower_pages(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Up to `n` different random folios of the lower tiers (fewer where few lie there), each by its first page; a
        large one is as likely as all its pages.
        """
        out = np.empty(n, np.int64)
        found = 0
        share = max(0.02, float(np.count_nonzero(self.mm.node[:, TIER])) and 1 - top_leaves(self) / len(self.mm.pte))
        for _attempt in range(3):
            ids = rng.integers(0, len(self.mm.pte), int(1.3 * n / share) + 16)
            found = draw_lower(self.mm, ids, out)
            if found == n:
                break
            share = max(0.005, share / 3)
        return out[:found]

    def random_lower_folios(self, rng: np.random.Generator, pages: int) -> tuple[np.ndarray, int]:
        """Different random folios of the lower tiers with up to so many 4 KiB pages in all; (first pages, what is left
        for want of a folio that small).
        """
        drawn = self.random_lower_pages(rng, pages >> int(self.mm.vma[:, VMA_ORDER].min()))
        sizes = np.cumsum(1 << self.mm.vma[self.mm.block_vma[drawn >> TABLE_SHIFT], VMA_ORDER])
        n = int(np.searchsorted(sizes, pages, side="right"))
        left = pages - int(sizes[n - 1] if n else 0)
        return drawn[:n], min(left, (1 << int(self.mm.vma[:, VMA_ORDER].max())) - 1)

    def future(self) -> tuple[np.ndarray, list[int]]:
        """(u32 [windows, pages] touches that miss the CPU cache, first touch number of each window): for oracles only.

        Raises:
            PermissionError: the policy does not say `needs_truth`.
        """
        if not self.may_see_future:
            raise PermissionError("only a policy with needs_truth = True may ask for the future")
        feed = self.tenants[0].feed
        for tenant in self.tenants:  # counting fills the buffers of streams that are not kept
            self._forget_span(tenant)
        return window_counts(self), [feed.window_start(index) for index in range(feed.windows())]

    def hottest(self, counts: np.ndarray) -> np.ndarray:
        """The pages with the largest counts, as many as the top tier holds, in page order; large folios as a whole, the
        last only if all of it has room.
        """
        return whole_folios(self.mm, hottest(by_folio(self.mm, counts), top_leaves(self)))

    def on_fault(self, handler: Any, context: np.ndarray, spent_ps: Callable[[], int]) -> None:
        """Install the compiled fault handler; `spent_ps` reads the application time it has charged."""
        self.fault_words[:] = handler.address, context.ctypes.data
        self.fault_ctx, self.fault_spent = context, spent_ps

    def handles_faults(self) -> bool:
        """Whether a fault handler has been installed."""
        return int(self.fault_words[0]) != no_fault.address

    def tap(self, tenant: Tenant, consume: Consume) -> None:
        """Let hardware of mm/ (a device that sees each request) read a tenant's touches once they are served;
        see `taps.py`.
        """
        tap = Tap(tenant, consume)
        self.taps.append(tap)
        tenant.feed.taps.append(tap)

    def sampler(self, tenant: Tenant, period: int, name: str) -> Sampler:
        """Hardware samples of a tenant, one touch in `period`: `take()` gives those since the last call."""
        sampler = Sampler(tenant, period, self.seed, name)
        self.tap(tenant, sampler.consume)
        return sampler

    def at_touch(self, number: int, action: Callable[[], None], tenant: int = 0) -> None:
        """Call `action` when a tenant (the first) has made so many touches (oracles, phases, instruments)."""
        heapq.heappush(self._marks[tenant], (number, self._next_rank(), action))
        self._forget_span(self.tenants[tenant])

    # --- for policies: charges ----------------------------------------------------------------------------------------
    def cost_ps(self, name: str) -> int:
        """Cost of an operation in ps."""
        return round(self.machine.costs[name].ns * 1000)

    def charge(self, **counts: int) -> None:
        """Charge simulated events to the running thread; each stands for 1/scale events."""
        if self.current is not None:
            price, fold, spent = self._price_ps, self.fold, 0.0
            for name, n in counts.items():
                if n:
                    spent += price[name] * (int(n) * fold)
            self.current.spent_ps += spent

    def charge_full(self, **counts: int) -> None:
        """Charge full-size events (a pass, a wake, a list walk) to the running thread."""
        if self.current is not None:
            price, spent = self._price_ps, 0.0
            for name, n in counts.items():
                spent += price[name] * n
            self.current.spent_ps += spent

    def charge_moves(self, cost: str, folios: int, pages: int) -> None:
        """Charge migration of folios to the running thread: those of 4 KiB at `cost` each, of 2 MiB at `migrate_2m`,
        others on the line between the two.
        """
        huge, rest = divmod(int(pages) - int(folios), 511)
        self.charge(**{cost: int(folios) - huge, "migrate_2m": huge})
        if rest and self.current is not None:
            more_ps = self._price_ps["migrate_2m"] - self._price_ps[cost]
            self.current.spent_ps += more_ps * (rest * self.fold) / 511

    def charge_tenant(self, tenant: Tenant, under: str = "task_numa_work", **counts: int) -> float:
        """Charge work in a tenant's context to one of its threads, shown `under` a name; returns its ps.

        `NAME_once` is not scaled.
        """
        spent = 0.0
        for name, n in counts.items():
            once = name.endswith("_once")
            spent += self.machine.costs[name.removesuffix("_once")].ns * 1000 * int(n) * (1 if once else self.fold)
        self._app_ps[under] = self._app_ps.get(under, 0.0) + spent
        self._stall(tenant, spent / tenant.threads, under)
        return spent

    def as_tenant(self, tenant: Tenant, at_ps: int, under: str, work: Callable[[], None]) -> None:
        """Do what one of a tenant's threads did at a time since the last stop; it pays what `work` charges, also where
        it has gone to sleep or come to its end since.
        """
        now_ps, thread = self.now_ps, Daemon(under, iter(()), tenant)
        self.now_ps, self.current = at_ps, thread
        work()
        self.now_ps, self.current = now_ps, None
        self._app_ps[under] = self._app_ps.get(under, 0.0) + thread.spent_ps
        self._delay(tenant, thread.spent_ps / tenant.threads, under)

    def at_stops(self, action: Callable[[], None]) -> None:
        """Call `action` at every stop of the tenants, before any kernel thread has its turn."""
        self.taps.append(Stop(action))

    def flush_tlb(self, moved: int, per_flush: int) -> None:
        """All-thread stalls of the TLB shootdowns that migration of `moved` pages (or folios) needs, one for
        `per_flush` of them.
        """
        if moved:
            flushes = -(-moved * self.fold // per_flush)
            stall = flushes * self.machine.costs["shootdown"].ns * 1000
            for tenant in self.tenants:
                self._stall(tenant, stall, FLUSHES)
                if tenant.running:
                    self._app_ps[FLUSHES] = self._app_ps.get(FLUSHES, 0.0) + stall * tenant.threads

    def _stall(self, tenant: Tenant, ps: float, under: str) -> None:
        if tenant.running:
            self._delay(tenant, ps, under)

    def _delay(self, tenant: Tenant, ps: float, under: str) -> None:
        stall = round(ps)
        base = tenant.index * TENANT_WORDS
        self._words[base + CLOCK] += stall
        self._words[base + STALL] += stall
        tenant._stalled_ps[under] = tenant._stalled_ps.get(under, 0) + stall

"""Virtual time: threads as generators, an event queue, and tenants that advance between deadlines."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.access import CLOCK, LOG_FULL, TENANT_WORDS, TOUCH
from klrubench.engine.kthread import (
    ASLEEP_UNTIL,
    CLOCK_WORDS,
    DUE_PS,
    EACH_NS,
    FOREVER,
    HZ,
    LAST_RANK,
    NOW_PS,
    PS_PER_MS,
    PS_PER_S,
    SHARED,
    SHOOTDOWN_WORDS,
    UNCOMPILED,
    WORKED,
    timer_expiry,
)  # fmt: skip
from klrubench.engine.latency import solve_latency
from klrubench.engine.quantum import (
    FINISHED,
    LOOK,
    NO_TURN,
    OVER,
    ROUND_OVER,
    WORD_AT,
    WORDS_LEFT,
    run_alone,
    run_threads,
    run_together,
)
from klrubench.mm.state import NOW_MS
from klrubench.simulate.kernel_threads import PREEMPTED, KernelThreads

if TYPE_CHECKING:
    from klrubench.machine import Machine
    from klrubench.mm.state import Mm
    from klrubench.simulate.tenant import Tenant


class Parked:
    """Yielded by a daemon that waits to be woken."""


@dataclass(frozen=True)
class Sleep:
    """Yielded by a daemon: sleep so many milliseconds after the work is done
    (`wheel`: rounded as the timer wheel does).
    """

    ms: float
    wheel: bool = True


@dataclass(frozen=True)
class Until:
    """Yielded by a daemon: sleep until a time, rounded by the timer wheel; no sleep if it has passed."""

    ps: int


@dataclass(frozen=True)
class Hrtimer:
    """Yielded by a daemon: sleep so many picoseconds, exactly, after the work is done (usleep_range)."""

    ps: int


@dataclass
class Daemon:
    """A kernel thread that is a generator, or work done in a tenant's context (`tenant`)."""

    name: str
    steps: Iterator[Any]
    tenant: Tenant | None
    parked: bool = False
    running_until: int = 0
    spent_ps: float = 0.0
    ticket: int = 0


class Scheduler:
    """The loop of a run, mixed into `System`, which owns the state that it works on."""

    machine: Machine
    mm: Mm
    tenants: list[Tenant]
    shared_cpus: bool
    _cpu_ps: dict[str, float]
    _app_ps: dict[str, float]
    board: np.ndarray
    state: np.ndarray
    mix: np.ndarray
    other_ps: np.ndarray
    params: np.ndarray
    latency: np.ndarray
    node_params: np.ndarray
    factor: np.ndarray
    cost: np.ndarray
    engine_address: int
    tlb_rule: bool | None
    parked = Parked()

    if TYPE_CHECKING:

        def wake(self, thread: Daemon) -> None: ...

        def _stall(self, tenant: Tenant, ps: float, under: str) -> None: ...

    def _start_clock(self) -> None:
        """Make the queues; called once, before the first thread is started."""
        self.clock, self.shootdown = np.zeros(CLOCK_WORDS, np.int64), np.zeros(SHOOTDOWN_WORDS)
        self.clock[HZ], self.clock[SHARED] = self.machine.hz, self.shared_cpus
        self.shootdown[EACH_NS] = self.machine.costs["shootdown"].ns
        self._clock, self.kernel_threads = self.clock.data, KernelThreads()
        self.daemons: list[Daemon] = []
        self.current: Daemon | None = None
        self._events: list[tuple[int, int, int, Any]] = []
        self.taps: list[Any] = []

    @property
    def now_ps(self) -> int:
        """Virtual time in ps."""
        return self._clock[NOW_PS]

    @now_ps.setter
    def now_ps(self, ps: int) -> None:
        self._clock[NOW_PS] = ps

    def _next_rank(self) -> int:
        """Rank of a new event: what comes first of two at one time."""
        self._clock[LAST_RANK] += 1
        return self._clock[LAST_RANK]

    def _watch(self) -> None:
        """Views of the few words that the loop reads at every stop: a tenth of the price of indexing the arrays."""
        self._words = self.state.data.cast("B").cast("q")
        self._now_ms = self.mm.setting.data
        self._spans, self._turns = np.zeros((len(self.tenants), 2), np.int64), np.zeros(3, np.int64)
        self._goals = [(tenant.index * TENANT_WORDS, tenant.accesses) for tenant in self.tenants]
        self._look_at = [-1] * len(self.tenants)
        self._marks: list[list[tuple[int, int, Callable[[], None]]]] = [[] for _ in self.tenants]
        self._marks_at = [(marks, base + TOUCH) for marks, (base, _) in zip(self._marks, self._goals, strict=True)]

    def _schedule(self, thread: Any, at_ps: int) -> None:
        rank = self._next_rank()
        if isinstance(thread, Daemon):
            thread.ticket = rank
        heapq.heappush(self._events, (at_ps, rank, rank, thread))

    def _expiry(self, now: int, delta: int) -> int:
        """Jiffy at which a timer armed at jiffy `now` for `delta` fires."""
        return int(timer_expiry.py_func(now, delta))

    def _tick_ps(self, jiffy: int) -> int:
        return jiffy * PS_PER_S // self.machine.hz

    def timer_jiffies(self, ms: float) -> int:
        """Whole jiffies of a sleep of `ms`, rounded up (msecs_to_jiffies)."""
        ticks = ms * self.machine.hz
        return -(-int(ticks) // 1000) if ticks % 1000 else int(ticks) // 1000

    def _wake_time(self, request: Any, ready: int) -> int:
        """When a thread that yielded `request`, done with its work at `ready`, runs again."""
        hz = self.machine.hz
        if isinstance(request, Hrtimer):
            return ready + request.ps
        if isinstance(request, Sleep):
            jiffies, now = self.timer_jiffies(request.ms), ready * hz // PS_PER_S
            return max(ready, self._tick_ps(self._expiry(now, jiffies) if request.wheel else now + max(1, jiffies)))
        if request.ps <= ready:
            return ready
        now = ready * hz // PS_PER_S
        return max(ready, self._tick_ps(self._expiry(now, -(-(request.ps - self._tick_ps(now)) * hz // PS_PER_S))))

    def _step(self, thread: Daemon) -> None:
        """Let a thread run to its next yield, then account and schedule it."""
        self.current, thread.spent_ps = thread, 0.0
        request = next(thread.steps, self.parked)
        self.current = None
        spent = round(thread.spent_ps)
        if thread.tenant is None:
            self._cpu_ps[thread.name] += spent
            if self.shared_cpus and spent:
                spent = self._preempt(spent)
        thread.running_until = self.now_ps + spent
        if request is None:  # it goes on as soon as its work is done
            self._schedule(thread, thread.running_until)
        elif isinstance(request, Parked):
            thread.parked = True
        else:
            self._schedule(thread, self._wake_time(request, thread.running_until))

    def _preempt(self, spent: int) -> int:
        """A kernel thread on the tenants' CPUs: it takes its time from them,
        and gets a fair share with n busy threads.
        """
        busy = [tenant for tenant in self.tenants if tenant.running]
        threads = sum(tenant.threads for tenant in busy)
        if not threads:
            return spent
        for tenant in busy:
            self._stall(tenant, spent / threads, PREEMPTED)
        return spent * (threads + 1) // threads

    def _collect(self) -> None:
        """Take over what compiled threads have used and caused, if any has run."""
        if self._clock[WORKED]:
            self.kernel_threads.collect(self)

    @property
    def cpu_ps(self) -> dict[str, float]:
        """CPU time of each kernel thread."""
        self._collect()
        return self._cpu_ps

    @property
    def app_ps(self) -> dict[str, float]:
        """CPU time in the tenants' threads, by what it was spent on."""
        self._collect()
        return self._app_ps

    def run(self) -> None:
        """Run until every tenant has done its work."""
        solve_latency(
            self.mix,
            self.other_ps,
            self.params,
            self.latency,
            self.node_params,
            self.mm.traffic,
            self.factor,
            self.cost,
        )
        while self._busy():
            self._advance(self._events[0][0] if self._events else FOREVER)
            self._run_events()
        self._collect()

    def _busy(self) -> list[int]:
        """Clocks of the tenants that have work left."""
        words = self._words
        return [words[base + CLOCK] for base, goal in self._goals if words[base + TOUCH] < goal]

    def _run_events(self) -> None:
        """Run every thread whose time has come: all tenants have reached it."""
        events, busy = self._events, self._busy()
        clock = min(busy) if busy else int(self.state[:, CLOCK].max())
        begun = not busy or self._mark_is_due()
        if begun:
            self._begin(clock)
        if not busy:
            return
        while True:
            at, rank = events[0][:2] if events else (FOREVER, 0)
            run_threads(self.engine_address, clock, at, rank, begun)
            self._compile_turns(at, rank)
            begun = True
            if at > clock:
                return
            at, _, ticket, thread = heapq.heappop(events)
            self.now_ps = max(self.now_ps, at)
            self._now_ms[NOW_MS] = self.now_ps // PS_PER_MS
            if not isinstance(thread, Daemon):
                thread()
            elif thread.ticket == ticket:
                self._step(thread)

    def _compile_turns(self, event_ps: int, rank: int) -> None:
        """Where a turn that is due is not compiled yet, compile it and take it, and all that were to be taken then."""
        while number := self._clock[UNCOMPILED]:
            self.kernel_threads.compile(number - 1)
            self._clock[UNCOMPILED] = 0
            run_threads(self.engine_address, self._clock[DUE_PS], event_ps, rank, True)

    def _begin(self, clock: int) -> None:
        """Set the time to that of the first event (compiled, but where Python has something to do before it),
        and do what hangs on touches.
        """
        first = min(self.kernel_threads.first_ps(), self._events[0][0] if self._events else FOREVER)
        self.now_ps = max(self.now_ps, min(clock, first))
        for marks, touch in self._marks_at:
            while marks and marks[0][0] <= self._words[touch]:
                heapq.heappop(marks)[2]()
        self._now_ms[NOW_MS] = self.now_ps // PS_PER_MS

    def every_ms(self, ms: int, action: Callable[[], None]) -> None:
        """Call `action` at every multiple of `ms` (instruments; costs nothing in virtual time)."""

        def again() -> None:
            action()
            self._schedule(again, (self.now_ps // (ms * PS_PER_MS) + 1) * ms * PS_PER_MS)

        self._schedule(again, ms * PS_PER_MS)

    def _mark_is_due(self) -> bool:
        """Whether something hangs on a touch that has been made."""
        words = self._words
        return any(marks and marks[0][0] <= words[touch] for marks, touch in self._marks_at)

    def _limit(self, tenant: Tenant) -> int:
        """Touches that the tenant may make before Python must look: a mark, its duty cycle, its end."""
        base, limit = self._goals[tenant.index]
        done, marks = self._words[base + TOUCH], self._marks[tenant.index]
        if marks:
            limit = min(limit, max(done + 1, marks[0][0]))
        if tenant.busy_touches:
            limit = min(limit, (done // tenant.busy_touches + 1) * tenant.busy_touches)
        return limit - done

    def _advance(self, deadline: int) -> None:
        if self.taps or self._mark_is_due():  # both come before any thread that moves pages
            deadline = min(deadline, self.kernel_threads.first_ps())
        if len(self.tenants) == 1:
            self._advance_alone(self.tenants[0], deadline)
        else:
            self._advance_together(deadline)
        for tap in self.taps:
            tap.catch_up()

    def _advance_alone(self, tenant: Tenant, deadline: int) -> None:
        words, accesses = self._words, tenant.accesses
        while words[CLOCK] < deadline and words[TOUCH] < accesses:
            marked = self._limit(tenant)
            stream, count = tenant.feed.window(words[TOUCH], marked)
            served, reason = run_alone(self.engine_address, stream, count, deadline, self.tlb_rule)
            self._compile_turns(FOREVER, 0)
            if (served and self._pause(tenant)) or reason == LOG_FULL or served == marked:
                return

    def _pause(self, tenant: Tenant) -> bool:
        """At the end of a busy phase the tenant sleeps; True if it did."""
        if not tenant.busy_touches or tenant.touches % tenant.busy_touches or tenant.finished:
            return False
        self._words[tenant.index * TENANT_WORDS + CLOCK] += tenant.idle_ps
        tenant.slept_ps += tenant.idle_ps
        tenant.asleep_until_ps = self._words[tenant.index * TENANT_WORDS + CLOCK]
        self.board[tenant.index, ASLEEP_UNTIL] = tenant.asleep_until_ps
        return True

    def _advance_together(self, deadline: int) -> None:
        """Several tenants, in turns that are taken in the compiled loop; a tenant comes back for words, a mark,
        sleep or its end.
        """
        while True:
            index = run_together(self.engine_address, self._spans, self._turns, deadline, self.tlb_rule)
            if index == ROUND_OVER:
                return
            if index == NO_TURN:
                self._compile_turns(FOREVER, 0)
            else:
                self._next_span(self.tenants[index])

    def _forget_span(self, tenant: Tenant) -> None:
        """Let the tenant come back for words before it goes on."""
        if self._spans[tenant.index, WORDS_LEFT] > 0:
            self._spans[tenant.index, WORDS_LEFT] = 0
            self._look_at[tenant.index] = -1

    def _next_span(self, tenant: Tenant) -> None:
        """Handle what the tenant has come to, and give it its next words."""
        index, span = tenant.index, self._spans[tenant.index]
        if tenant.touches == self._look_at[index]:
            self._pause(tenant)
            self._turns[OVER] = self._turns[LOOK] = 1
        if tenant.finished:
            span[WORDS_LEFT] = FINISHED
            return
        limit = self._limit(tenant)
        self._look_at[index] = tenant.touches + limit
        words, span[WORDS_LEFT] = tenant.feed.window(tenant.touches, limit)
        span[WORD_AT] = words.ctypes.data

"""Kernel threads whose turns are compiled: the loop runs them between touches without asking Python.

kswapd and kmigrated beside a busy tenant take some 20,000 short turns in two minutes; as generators each costs 20 us
beside its work. A turn is a compiled function of the signature of a fault handler, `int64 turn(int64 context, int64
unused, int64 now_ps)`: it does the thread's next piece of work, says in the thread's row what it wants then (GO_ON,
PARK, SLEEP), and returns the picoseconds that the work takes. Threads that take few turns stay generators; both kinds
share one clock and one order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from klrubench.engine.access import CLOCK, STALL, TOUCH
from klrubench.engine.jit import cfunc, njit_inline, njit_source
from klrubench.engine.pointer import array_i64, call_handler

if TYPE_CHECKING:
    from klrubench.engine.kinds import Flag, Int

SIGNATURE = types.int64(types.int64, types.int64, types.int64)
MAX_THREADS = 16
FOREVER = 1 << 62
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000

# i64 columns of a thread's row: time and rank of its next turn (FOREVER: parked); addresses of its turn (0: not
# compiled yet), of its context, and of the word that wakes it (0: none); when its work is done; what it wants after it,
# and for how many jiffies; TLB flushes and picoseconds since they were last collected
AT, RANK, TURN, CONTEXT, WAKE_WORD, RUNNING_UNTIL, REQUEST, JIFFIES, FLUSHES, SPENT, ROW_WORDS = range(11)
GO_ON, PARK, SLEEP = range(3)
# i64 words of the run's clock: virtual time; rank of the latest event; ticks a second; whether threads share the
# tenants' CPUs; threads there are; whether there is something to collect; 1 + the row of a thread whose turn is due and
# not compiled, and up to which time turns were to be taken then
NOW_PS, LAST_RANK, HZ, SHARED, N_THREADS, WORKED, UNCOMPILED, DUE_PS, CLOCK_WORDS = range(9)
# i64 columns of what the clock knows of a tenant: touches of its work, busy threads, end of its sleep; picoseconds that
# it stood still for TLB flushes and for kernel threads, since they were last collected
GOAL, BUSY_THREADS, ASLEEP_UNTIL, FLUSH_STALL, THREAD_STALL, BOARD_WORDS = range(6)
# f64 words: price of a TLB shootdown; picoseconds of all threads that stood still for one, since they were collected
EACH_NS, THREAD_PS, SHOOTDOWN_WORDS = range(3)


_COMPILING = Lock()


@cache
def _compiled(function: Callable[[int, int, int], Int]) -> Any:
    return cfunc(SIGNATURE)(function)


def turn_of(function: Callable[[int, int, int], Int]) -> Any:
    """The compiled turn (its `address` is what a row holds), made when it is first due and kept.

    One for all runs of a process: of two that its threads made at once the one not kept would take its code with it.
    """
    with _COMPILING:
        return _compiled(function)


@njit_inline
def jiffies_at(ps: int, hz: int) -> Int:
    """Timer ticks since the start; whole seconds apart, so that no product passes 63 bits."""
    return ps // PS_PER_S * hz + ps % PS_PER_S * hz // PS_PER_S


@njit_inline
def tick_ps(jiffy: int, hz: int) -> Int:
    """The time of a tick."""
    return jiffy // hz * PS_PER_S + jiffy % hz * PS_PER_S // hz


@njit_inline
def timer_expiry(now: int, delta: int) -> Int:
    """Jiffy at which a timer armed at jiffy `now` for `delta` fires
    (calc_wheel_index: 64 slots a level, 8 times coarser each).
    """
    expires, level = now + max(0, delta), 0
    while level < 8 and delta >= 63 << (3 * level):
        level += 1
    shift = 3 * level
    return ((expires + (1 << shift)) >> shift) << shift


@njit_inline
def charged(events: np.ndarray, price_ps: np.ndarray, name: int, n: int, fold: int) -> float:
    """Picoseconds of `n` simulated events, which are counted."""
    events[name] += n
    return price_ps[name] * (n * fold)


@njit_inline
def charged_moves(
    events: np.ndarray, price_ps: np.ndarray, small: int, huge: int, folios: int, pages: int, fold: int
) -> float:
    """Picoseconds of migrating folios of 4 KiB and 2 MiB, under the names `small` and `huge`; they are counted.

    Folios between them lie on the line between the two: as many of 2 MiB as they have pages for, and the rest by page.
    """
    leaves, rest = (pages - folios) // 511, (pages - folios) % 511
    spent = charged(events, price_ps, small, folios - leaves, fold) + charged(events, price_ps, huge, leaves, fold)
    return spent + (price_ps[huge] - price_ps[small]) * (rest * fold) / 511


@njit_inline
def stall(tenants: np.ndarray, board: np.ndarray, t: int, ps: float, column: int) -> None:
    """Let a tenant stand still."""
    rounded = np.int64(np.rint(ps))
    tenants[t, CLOCK] += rounded
    tenants[t, STALL] += rounded
    board[t, column] += rounded


@njit_inline
def is_busy(tenants: np.ndarray, board: np.ndarray, t: int) -> Flag:
    """Whether a tenant has work left."""
    return tenants[t, TOUCH] < board[t, GOAL]


@njit_inline
def is_running(tenants: np.ndarray, board: np.ndarray, t: int, now_ps: int) -> Flag:
    """Whether a tenant has work left and is awake."""
    return is_busy(tenants, board, t) and now_ps >= board[t, ASLEEP_UNTIL]


@njit_source
def stall_for_flushes(tenants: np.ndarray, board: np.ndarray, shootdown: np.ndarray, flushes: int, now_ps: int) -> None:
    """All-thread stalls of TLB shootdowns."""
    ps = flushes * shootdown[EACH_NS] * 1000
    for t in range(len(tenants)):
        if is_running(tenants, board, t, now_ps):
            stall(tenants, board, t, ps, FLUSH_STALL)
            shootdown[THREAD_PS] += ps * board[t, BUSY_THREADS]


@njit_source
def preempt(tenants: np.ndarray, board: np.ndarray, spent: int, now_ps: int) -> Int:
    """A thread on the tenants' CPUs takes its time from them, and gets a fair share with n busy threads."""
    busy = np.int64(0)
    for t in range(len(tenants)):
        busy += board[t, BUSY_THREADS] if is_running(tenants, board, t, now_ps) else 0
    if busy == 0:
        return spent
    for t in range(len(tenants)):
        if is_running(tenants, board, t, now_ps):
            stall(tenants, board, t, spent / busy, THREAD_STALL)
    return spent * (busy + 1) // busy


@njit_inline
def first_thread(clock: np.ndarray, rows: np.ndarray) -> int:
    """The thread whose turn is next; row 0 where all are parked or there is none (its time is FOREVER then)."""
    first = 0
    for k in range(1, clock[N_THREADS]):
        if rows[k, AT] < rows[first, AT] or (rows[k, AT] == rows[first, AT] and rows[k, RANK] < rows[first, RANK]):
            first = k
    return first


@njit_source
def wake_threads(clock: np.ndarray, rows: np.ndarray) -> None:
    """Wake parked threads whose word is set, not before they are done with what they were charged for."""
    for k in range(clock[N_THREADS]):
        if rows[k, AT] == FOREVER and rows[k, WAKE_WORD] != 0 and array_i64(rows[k, WAKE_WORD], 1)[0] != 0:
            clock[LAST_RANK] += 1
            rows[k, AT], rows[k, RANK] = max(clock[NOW_PS], rows[k, RUNNING_UNTIL]), clock[LAST_RANK]


@njit_source
def next_time(row: np.ndarray, hz: int) -> Int:
    """When a thread that is done with its work runs again."""
    ready = row[RUNNING_UNTIL]
    if row[REQUEST] == PARK:
        return FOREVER
    if row[REQUEST] == GO_ON:
        return ready
    return max(ready, tick_ps(timer_expiry(jiffies_at(ready, hz), row[JIFFIES]), hz))


@njit_source
def step_thread(
    clock: np.ndarray, row: np.ndarray, tenants: np.ndarray, board: np.ndarray, shootdown: np.ndarray
) -> None:
    """Let a thread do its next piece of work, then account and schedule it."""
    now = clock[NOW_PS]
    row[REQUEST], row[FLUSHES] = GO_ON, 0
    spent = call_handler(row[TURN], row[CONTEXT], 0, now)
    if row[FLUSHES] > 0:
        stall_for_flushes(tenants, board, shootdown, row[FLUSHES], now)
    clock[WORKED] = 1
    row[SPENT] += spent
    if clock[SHARED] and spent > 0:
        spent = preempt(tenants, board, spent, now)
    row[RUNNING_UNTIL] = now + spent
    row[AT] = next_time(row, clock[HZ])
    if row[AT] != FOREVER:
        clock[LAST_RANK] += 1
        row[RANK] = clock[LAST_RANK]

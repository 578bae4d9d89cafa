"""The run's side of compiled kernel threads: starting them, and taking over what they have used and caused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.array_table import addresses
from klrubench.engine.kthread import (
    AT,
    CONTEXT,
    FLUSH_STALL,
    FOREVER,
    MAX_THREADS,
    N_THREADS,
    ROW_WORDS,
    SPENT,
    THREAD_PS,
    THREAD_STALL,
    TURN,
    WAKE_WORD,
    WORKED,
    turn_of,
)

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.simulate.scheduler import Scheduler
    from klrubench.simulate.system import System

Turn = Callable[[int, int, int], "Int"]
FLUSHES, PREEMPTED = "tlb flushes", "kernel threads"  # what a tenant stands still for


@dataclass(frozen=True)
class KernelThread:
    """A kernel thread whose turns are compiled (engine/kthread.py).

    Attributes:
        row: its row of the table. events: simulated events that it was charged for, in the order of `costs`.
        turn: what it does, before it is compiled. keep: what the row and the context point to.
    """

    name: str
    turn: Turn
    costs: tuple[str, ...]
    row: np.ndarray
    events: np.ndarray
    keep: tuple[Any, ...]


class KernelThreads:
    """All of one run."""

    def __init__(self) -> None:
        self.rows = np.zeros((MAX_THREADS, ROW_WORDS), np.int64)
        self.rows[:, AT] = FOREVER
        self._words = self.rows.data.cast("B").cast("q")
        self.started: list[KernelThread] = []

    def start(
        self, system: System, name: str, turn: Turn, costs: Sequence[str], own: Sequence[np.ndarray]
    ) -> KernelThread:
        """Give a thread a row, parked; see `System.kernel_thread`.

        Raises:
            RuntimeError: the table is full.
        """
        if len(self.started) == MAX_THREADS:
            raise RuntimeError(f"more than {MAX_THREADS} compiled kernel threads")
        row, events = self.rows[len(self.started)], np.zeros(len(costs), np.int64)
        arrays = (row, events, np.array([system.machine.costs[cost].ns * 1000 for cost in costs], np.float64), *own)
        context = addresses(list(arrays))
        row[CONTEXT] = context.ctypes.data
        self.started.append(KernelThread(name, turn, tuple(costs), row, events, (arrays, context)))
        system.clock[N_THREADS] = len(self.started)
        return self.started[-1]

    def compile(self, number: int) -> None:
        """Compile a thread's turn, when it is first due: most runs never wake kswapd, which takes eight seconds."""
        thread = self.started[number]
        thread.row[TURN] = turn_of(thread.turn).address

    def wake_by(self, thread: KernelThread, word: np.ndarray) -> None:
        """Let a word (i64 [1]) wake a parked thread when it is not 0."""
        thread.row[WAKE_WORD] = word.ctypes.data

    def first_ps(self) -> int:
        """Time of the next turn."""
        words = self._words
        return min([FOREVER, *(words[k * ROW_WORDS + AT] for k in range(len(self.started)))])

    def collect(self, system: Scheduler) -> None:
        """Take over what the threads have used and caused since they were last asked."""
        system.clock[WORKED] = 0
        words, shootdown = self._words, system.shootdown
        for k, thread in enumerate(self.started):
            system._cpu_ps[thread.name] += words[k * ROW_WORDS + SPENT]
            words[k * ROW_WORDS + SPENT] = 0
        if shootdown[THREAD_PS]:
            system._app_ps[FLUSHES] = system._app_ps.get(FLUSHES, 0.0) + float(shootdown[THREAD_PS])
            shootdown[THREAD_PS] = 0.0
        for tenant in system.tenants:
            stalls = system.board[tenant.index]
            for column, under in ((FLUSH_STALL, FLUSHES), (THREAD_STALL, PREEMPTED)):
                if stalls[column]:
                    tenant._stalled_ps[under] = tenant._stalled_ps.get(under, 0) + int(stalls[column])
                    stalls[column] = 0

"""`klrubench bench`: CPU time of the hot parts, as ratios to a random read-modify-write loop of the same process.

Wall time says little on a shared machine, so kernels are timed with `time.thread_time`, best of a few repeats, beside a
loop that only reads, changes and writes random bytes of the same footprint: what the memory allows at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from klrubench.engine.access import AHEAD, CLOCK, N_CATEGORIES, OP_BINS, TENANT_WORDS, run_touches
from klrubench.engine.bits import ACCESSED, ID_MASK
from klrubench.engine.jit import njit
from klrubench.engine.prefetch import prefetch
from klrubench.generate import ZipfStream
from klrubench.workload import Layout

TOUCHES = 1 << 23
REPEATS = 5
CHUNK = 1 << 16
SIZES = (20, 24, 26)
WRITES = 0.3
NODES = 4
FOREVER = 1 << 62
POLICIES = ("klruscand", "numa_balancing", "random_sampling", "random_promotion", "oracle_window")

Row = dict[str, Any]
Say = Callable[[str], None]


@njit
def random_bytes(state: np.ndarray, words: np.ndarray) -> None:
    """The reference: read, change and write random bytes, prefetched as the access loop does."""
    for k in range(len(words) - AHEAD):
        prefetch(state, np.uint64(words[k + AHEAD] & np.uint32(ID_MASK)))
        state[words[k] & np.uint32(ID_MASK)] += np.uint8(1)


def best(action: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Least CPU seconds of this thread over a few repeats (one more goes first, for compiling)."""
    action()
    times = []
    for _ in range(repeats):
        begin = time.thread_time()
        action()
        times.append(time.thread_time() - begin)
    return min(times)


class Loop:
    """The access loop alone on `pages` pages spread over four nodes."""

    def __init__(self, pages: int) -> None:
        from klrubench.mm.fault import no_fault

        rng = np.random.default_rng(1)
        self.pte = (rng.integers(0, NODES, pages) | ACCESSED).astype(np.uint8)
        self.tenant, self.counts = np.zeros(TENANT_WORDS, np.int64), np.zeros(N_CATEGORIES, np.int64)
        self.cost, self.hist = np.full(N_CATEGORIES, 1000, np.int64), np.zeros(OP_BINS, np.int64)
        self.handler, self.log = no_fault.address, np.zeros((0, 2), np.int64)

    def serve(self, words: np.ndarray, count: int) -> None:
        """Serve a stream."""
        self.tenant[CLOCK] = 0
        run_touches(
            self.pte,
            self.pte.view(np.uint64),
            words,
            count,
            self.tenant,
            self.counts,
            self.cost,
            FOREVER,
            8,
            self.hist,
            self.handler,
            0,
            0,
            self.log,
        )


def zipf_stream(pages: int) -> ZipfStream:
    """Zipf(0.99) over `pages`, 30 % writes."""
    return ZipfStream(Layout(pages, pages, 1, 7, TOUCHES, 1.0), 0.99, 1.0 - WRITES)


def kernels(size: int) -> list[Row]:
    """Engine, generator and both together at 2^size pages."""
    pages = 1 << size
    stream, loop = zipf_stream(pages), Loop(pages)
    words = np.zeros(TOUCHES + AHEAD, np.uint32)
    chunk = np.zeros(CHUNK + AHEAD, np.uint32)
    stream.fill(words[:TOUCHES], 0)
    state = np.zeros(pages, np.uint8)
    reference = best(lambda: random_bytes(state, words))
    engine = best(lambda: loop.serve(words, TOUCHES))

    def generate() -> None:
        for first in range(0, TOUCHES, CHUNK):
            stream.fill(chunk[:CHUNK], first)

    def both() -> None:
        for first in range(0, TOUCHES, CHUNK):
            stream.fill(chunk[:CHUNK], first)
            loop.serve(chunk, CHUNK)

    made, together = best(generate), best(both)
    million, name = TOUCHES / 1e6, f"2^{size}"
    goals = {20: (280, 150), 24: (190, 100), 26: (140, 80)}[size]
    return [
        _row("random byte loop (reference)", name, million / reference, "M/s"),
        _row("access loop", name, million / engine, "M/s"),
        _row("access loop / reference", name, reference / engine, "x", 0.75, 0.5),
        _row("generate zipf", name, million / made, "M/s", 350, 150),
        _row("generate + simulate", name, million / together, "M/s", *goals),
    ]


def _row(
    name: str,
    size: str,
    value: float,
    unit: str,
    goal: float | None = None,
    must: float | None = None,
    lower: bool = False,
) -> Row:
    return {
        "name": name,
        "size": size,
        "value": value,
        "unit": unit,
        "goal": goal,
        "must": must,
        "lower_is_better": lower,
    }


def walk(size: int = 24) -> list[Row]:
    """A page-table walk over 2^size pages with no bit set, one page in 1000 young, and all young; ns a page."""
    from klrubench.mm.mglru.walk import DONE, FORCE, N_WALK, walk_mm
    from klrubench.mm.state import new_mm

    pages = 1 << size
    mm = new_mm([(pages, 0, False, 0)], [pages, pages], [0, 1], 1, 1 << 15)
    mm.folio[:] = 3
    rng, state, nothing = np.random.default_rng(1), np.zeros(N_WALK, np.int64), np.empty(0, np.uint32)
    rows = []
    for name, share in (("none young", 0.0), ("1 in 1000 young", 0.001), ("all young", 1.0)):
        mm.pte[:] = 1 + ACCESSED * (rng.random(pages) < share)
        fresh = mm.pte.copy()
        times = []
        for _ in range(3 * REPEATS):  # a walk is a few ms: one in three meets a quiet moment
            mm.pte[:] = fresh
            state[:] = 0
            state[FORCE] = 1
            begin = time.thread_time()
            while walk_mm(mm, state, 0, 1, 1, nothing) != DONE:
                pass
            times.append(time.thread_time() - begin)
        goal, must = (0.03, 0.15) if share < 0.01 else (None, None)
        rows.append(_row(f"walk, {name}", f"2^{size}", min(times) * 1e9 / pages, "ns/page", goal, must, lower=True))
    return rows


def policy_costs(policies: Sequence[str] = POLICIES, limit: float = 2.0) -> list[Row]:
    """CPU time of a kv run (stream made and served, bounds of the default suite) over that of first_touch.

    Args:
        policies: `NAME[:k=v,...]`.
        limit: what none of them may cost.
    """
    from klrubench.machine import load_machine
    from klrubench.params import parse_spec
    from klrubench.simulate import simulate
    from klrubench.simulate.feed import forget_feeds
    from klrubench.study.plugins import find_policy, find_workload

    machine, workload = load_machine("cxl-asic"), find_workload("kv")()
    chosen = [(text, find_policy(name)(**values)) for text in policies for name, values in (parse_spec(text),)]

    def run(policy: Any) -> float:
        def once() -> None:
            forget_feeds()
            simulate(machine, workload, policy, 1, duration_s=120, fold=32)

        return best(once, 2)

    base = run(find_policy("first_touch")())
    rows = [_row("first_touch on kv, 6.3e7 touches", "1/32", base, "s")]
    return rows + [
        _row(f"{text} / first_touch on kv", "1/32", run(policy) / base, "x", 1.3, limit, lower=True)
        for text, policy in chosen
    ]


def _klruscand_run(seed: int) -> float:
    """One klruscand run in a worker; returns its CPU seconds."""
    from klrubench.machine import load_machine
    from klrubench.simulate import simulate
    from klrubench.simulate.feed import forget_feeds
    from klrubench.study.plugins import find_policy, find_workload

    forget_feeds()
    begin = time.thread_time()
    simulate(load_machine("cxl-asic"), find_workload("kv")(), find_policy("klruscand")(), seed, duration_s=120, fold=32)
    return time.thread_time() - begin


def two_workers(runs: int = 8, rounds: int = 3) -> list[Row]:
    """Wall time of a few klruscand runs with one spawned worker over that with two
    (all warm; the best of some rounds, in turn).
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    spawn = multiprocessing.get_context("spawn")
    walls = {1: math.inf, 2: math.inf}
    with ProcessPoolExecutor(1, mp_context=spawn) as one, ProcessPoolExecutor(2, mp_context=spawn) as two:
        pools = {1: one, 2: two}
        for jobs, pool in pools.items():
            list(pool.map(_klruscand_run, range(100, 100 + 2 * jobs)))
        for _ in range(rounds):
            for jobs, pool in pools.items():
                begin = time.perf_counter()
                list(pool.map(_klruscand_run, range(runs)))
                walls[jobs] = min(walls[jobs], time.perf_counter() - begin)
    return [_row("two workers / one, klruscand on kv", f"{runs} runs", walls[1] / walls[2], "x", 1.9, 1.7)]


def run_bench(quick: bool = False, policies: Sequence[str] = (), progress: Say = lambda text: None) -> list[Row]:
    """All measurements, as rows of name, size, value, unit, goal, must, lower_is_better.

    Args:
        quick: only the kernels at 2^20 pages and the walk.
        policies: only what these cost over first_touch (`NAME[:k=v,...]`).
        progress: called with one line before each part.
    """
    if policies:
        progress("policies on kv")
        return policy_costs(policies, limit=3.0)
    rows: list[Row] = []
    for size in SIZES[:1] if quick else SIZES:
        progress(f"kernels at 2^{size} pages")
        rows += kernels(size)
    progress("page-table walk")
    rows += walk(20 if quick else 24)
    if not quick:
        progress("policies on kv")
        rows += policy_costs()
        progress("two workers")
        rows += two_workers()
    return rows

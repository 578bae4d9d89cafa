"""Kernel threads as rows of compiled turns: the same moments, order, stalls and charges as generators and as the rules
alone, for toy threads and for kswapd, kmigrated and the kpromoteds of v0, v1 and v2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError
from slow_kthreads import Twins
from small_runs import machine
from toy_threads import WORKLOADS, Piece, Stage, Toy, expiry, run_events, system_of, turns_alone

from klrubench.engine.kthread import (
    GO_ON,
    MAX_THREADS,
    PARK,
    PS_PER_S,
    SLEEP,
    jiffies_at,
    tick_ps,
    timer_expiry,
    turn_of,
)
from klrubench.mm.state import DEMOTION_TARGET, KSWAPD_FAILURES
from klrubench.simulate import Options, kernel_threads, simulate
from klrubench.simulate.kernel_threads import KernelThread, KernelThreads
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy, find_workload

ROWS, GENERATORS = "rows", "generators"
PHASES = (Phase.explicit, Phase.generate)
MS = 10**9


def staged(
    toys: Sequence[Toy],
    kinds: Sequence[str],
    tap: bool = False,
    marks: Sequence[tuple[int, int]] = (),
    beats: Sequence[tuple[int, int]] = (),
    **where: Any,
) -> Stage:
    """Run toys, each as a row or a generator; `marks` and `beats` set words at touches and every so many ms."""
    system = system_of(**where)
    stage = Stage(system, toys)
    for index, kind in enumerate(kinds):
        stage.start_row(index) if kind == ROWS else stage.start_generator(index)
    if ROWS not in kinds:
        system._run_events = lambda: run_events(system, stage.wake)  # type: ignore[method-assign]

    def setter(index: int) -> Callable[[], None]:
        return lambda: stage.words[index].fill(1)

    for touch, index in marks:
        system.at_touch(touch, setter(index % len(toys)))
    for ms, index in beats:
        system.every_ms(ms, setter(index % len(toys)))

    def consume(words: Any, first: int) -> None:
        assert first == stage.seen
        stage.seen += len(words)

    if tap:
        system.tap(system.tenants[0], consume)
    system.run()
    return stage


@st.composite
def toy_sets(draw: st.DrawFn) -> tuple[Toy, ...]:
    """Up to seven threads with short lists of work, many of which meet."""
    n = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7]))
    work = st.one_of(st.sampled_from([0, 1, MS, 4 * MS, 10 * MS, 25 * MS]), st.integers(0, 30 * MS))
    piece = st.builds(
        Piece,
        work_ps=work,
        request=st.sampled_from([GO_ON, GO_ON, SLEEP, SLEEP, PARK]),
        jiffies=st.one_of(st.integers(0, 5), st.integers(0, 80)),
        flushes=st.sampled_from([0, 0, 1, 40, 3000, 20_000]),
        wakes=st.integers(-1, n - 1),
    )
    toy = st.builds(
        Toy,
        pieces=st.lists(piece, min_size=draw(st.sampled_from([0, 4, 8])), max_size=12).map(tuple),
        phase_ms=st.sampled_from([0.0, 0.0, 20.0]),
        waits=st.booleans(),
    )
    return tuple(draw(st.lists(toy, min_size=n, max_size=n)))


# --- turns: rows against generators and against the rules -----------------------------------------------------------
MACHINES: dict[str, Any] = {
    "toys": toy_sets(),
    "kinds": st.lists(st.sampled_from([ROWS, GENERATORS]), min_size=7, max_size=7),
    "workload": st.sampled_from(list(WORKLOADS)),
    "hz": st.sampled_from([100, 250, 1000]),
    "phases": st.booleans(),
}


@settings(deadline=None, max_examples=80, phases=PHASES)
@given(
    **MACHINES,
    cpus=st.sampled_from(["spare", "shared"]),
    tap=st.booleans(),
    marks=st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 6)), max_size=3),
    beats=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=2),
    chunk=st.sampled_from([7, 4096, 65_536]),
)
def test_rows_generators_and_any_mix_of_them_take_the_same_turns(
    toys: tuple[Toy, ...], kinds: list[str], workload: str, hz: int, cpus: str, phases: bool, tap: bool,
    marks: list[tuple[int, int]], beats: list[tuple[int, int]], chunk: int,
) -> None:  # fmt: skip
    """Time, order, touches served, marks of having run, stalls, CPU time: one outcome."""
    n = len(toys)
    where = {"workload": workload, "hz": hz, "daemon_cpus": cpus, "phases": phases}
    where |= {"tap": tap, "marks": marks, "beats": beats}
    expected = staged(toys, [GENERATORS] * n, **where).outcome()
    mixed = [ROWS if toy.waits else kind for toy, kind in zip(toys, kinds, strict=False)]  # a row is woken by its word
    for kind in ([ROWS] * n, mixed):
        if ROWS in kind:
            stage = staged(toys, kind, chunk=chunk, **where)
            assert stage.outcome() == expected
            assert all(entry[5] == (entry[3][0] if tap else 0) for entry in stage.log)


@settings(deadline=None, max_examples=80, phases=PHASES)
@given(**MACHINES)
def test_turns_are_those_of_a_heap_and_the_timer_wheel(
    toys: tuple[Toy, ...], kinds: list[str], workload: str, hz: int, phases: bool
) -> None:
    """On CPUs of their own, whatever the tenants do, threads run when a plain queue by (time, rank) says."""
    where = {"workload": workload, "hz": hz, "phases": phases}
    kinds = [ROWS if toy.waits else kind for toy, kind in zip(toys, kinds, strict=False)]
    stage = staged(toys, kinds, **where)
    system = system_of(**where)
    expected = turns_alone(toys, [system._start_ps(f"toy {k}", toy.phase_ms) for k, toy in enumerate(toys)], hz)
    seen = [entry[:2] for entry in stage.log]
    assert seen == expected[: len(seen)]
    assert all(at >= stage.system.now_ps for at, _ in expected[len(seen) :])


@pytest.mark.parametrize("kind", [ROWS, GENERATORS])
def test_a_walk_that_was_followed_by_no_touch_leaves_the_mark_of_having_run_clear(kind: str) -> None:
    """A flush stalls the tenant past the next thread's time: that one finds the mark as the first has left it."""
    flusher = Toy((Piece(0, SLEEP, 0), Piece(0, SLEEP, 0), Piece(0, PARK, flushes=3000)))
    watcher = Toy((Piece(0, SLEEP, 2), Piece(0, SLEEP, 3)))
    stage = staged((flusher, watcher), [kind, GENERATORS], phases=False)
    assert [(at // MS, who, ran) for at, who, _, _, ran, _ in stage.log] == [
        (0, 0, [1]), (0, 1, [0]), (1, 0, [1]), (2, 0, [1]), (3, 1, [0]), (7, 1, [0]),
    ]  # fmt: skip
    assert len({tuple(entry[3]) for entry in stage.log[3:]}) == 1


@pytest.mark.parametrize("kind", [ROWS, GENERATORS])
def test_a_thread_that_stalls_a_tenant_past_the_next_stop_sends_it_to_no_sleep(kind: str) -> None:
    """The tenant sleeps at the end of its busy phases: not at touch 0, not twice."""
    stage = staged((Toy((Piece(0, PARK, flushes=30_000),)),), [kind], workload="one that sleeps", beats=[(5, 0)])
    (tenant,) = stage.system.tenants
    assert tenant.stalled_ps == {"tlb flushes": 60 * MS}
    assert tenant.slept_ps == (tenant.accesses - 1) // tenant.busy_touches * tenant.idle_ps == 140 * MS


# --- kswapd, kmigrated and the kpromoteds against plain Python ------------------------------------------------------
def at_once(patch: pytest.MonkeyPatch) -> list[KernelThread]:
    """The compiled threads of the runs from now on."""
    found: list[KernelThread] = []
    start = KernelThreads.start

    def note(*given: Any) -> KernelThread:
        found.append(start(*given))
        return found[-1]

    patch.setattr(KernelThreads, "start", note)
    return found


STUCK: list[System] = []


def stuck(system: System) -> None:
    """kswapd has failed 15 times, and the top node has nowhere to demote to."""
    STUCK.append(system)
    system.mm.node[0, DEMOTION_TARGET] = -1
    system.mm.node[0, KSWAPD_FAILURES] = 15


KLRUSCAND = {"v3": {"preset": "pghot-v3"}, "v0": {"preset": "rfc-v1"}, "v5": {"pghot": "v5-compact"}}
RUNS: dict[str, dict[str, Any]] = {
    f"{version} {cpus}": {"policy": "klruscand", "values": values, "daemon_cpus": cpus}
    for version, values in KLRUSCAND.items()
    for cpus in ("spare", "shared")
}
RUNS |= {
    "v3 at 250 Hz, uniform": RUNS["v3 spare"] | {"hz": 250, "workload": "uniform"},
    "v3, 2 MiB": RUNS["v3 shared"] | {"page": "2m", "fold": 128},
    "v0 at 250 Hz, sleep": RUNS["v0 shared"] | {"hz": 250, "busy_s": 0.7, "idle_s": 0.4},
    "v5, two tenants": RUNS["v5 shared"] | {"workload": "mixed", "fold": 256},
    "v2": {"policy": "klruscand"},
    "v2 at 250 Hz, sleep": {
        "policy": "klruscand",
        "values": {"interval_ms": 500},
        "hz": 250,
        "busy_s": 0.7,
        "idle_s": 0.4,
    },
    "v1": {"policy": "klruscand", "values": {"pghot": "v1", "interval_ms": 500}, "daemon_cpus": "shared"},
    "random": {"policy": "random_promotion"},
    "random, classic": {"policy": "random_promotion", "lru": 0, "daemon_cpus": "shared"},
    "random, classic, stuck": {"policy": "random_promotion", "lru": 0, "watch": stuck},
    "random, stuck": {"policy": "random_promotion", "watch": stuck},
    "hint faults": {"policy": "numa_balancing", "lru": 0},
}


def run_of(
    policy: str, values: dict[str, Any] | None = None, workload: str = "kv", hz: int = 1000, lru: int = 7,
    fold: int = 512, chunk: int = 65_536, daemon_cpus: str = "spare", watch: Any = None, **how: Any,
) -> str:  # fmt: skip
    """The result of a run of 12 s, as text."""
    where = machine(hz=hz, sysctls={"lru_gen/enabled": lru})
    result = simulate(
        where, find_workload(workload)(**how), find_policy(policy)(**(values or {})), 1, duration_s=12, fold=fold,
        options=Options(daemon_cpus=daemon_cpus, chunk=chunk), watch=watch,
    )  # fmt: skip
    return json.dumps(result.to_dict(), sort_keys=True)


@pytest.mark.parametrize("kind", list(RUNS))
def test_compiled_turns_are_those_of_plain_python(kind: str) -> None:
    """One result with kswapd, kmigrated and kpromoted in Python, called from the rows or queued as generators; and as
    many events of each kind charged.
    """
    with pytest.MonkeyPatch.context() as patch:
        compiled = at_once(patch)
        result = run_of(**RUNS[kind])
    assert any(thread.events.any() for thread in compiled) != ("stuck" in kind)
    for as_rows in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            twins = Twins(patch, as_rows)
            assert run_of(**RUNS[kind]) == result
        for thread in compiled:
            expected = twins.bills[thread.name].events
            assert dict(zip(thread.costs, thread.events.tolist(), strict=True)) == {
                k: expected[k] for k in thread.costs
            }


@pytest.mark.parametrize("cpus", ["spare", "shared"])
def test_the_chunk_is_never_visible(cpus: str) -> None:
    """Words served 1, 7, 4096 or 65,536 at a time while compiled threads take turns between them."""
    values = RUNS[f"v3 {cpus}"]
    assert len({run_of(**values, chunk=chunk) for chunk in (1, 7, 4096, 65_536)}) == 1


def test_kswapd_gives_up_after_16_failures_under_the_classic_lru_only() -> None:
    """Nothing to be had: under classic LRU the 16th wake is the last that it looks; under MGLRU it never fails."""
    for kind, wakes, failures in (("random, classic, stuck", 1, 16), ("random, stuck", 2, 0)):
        run_of(**RUNS[kind])
        system = STUCK[-1]
        found = system.vmstat("kswapd_wakes"), int(system.mm.node[0, KSWAPD_FAILURES])
        assert (min(found[0], 2), found[1]) == (wakes, failures)
        assert system.cpu_ps["kswapd"] == 0


# --- time -----------------------------------------------------------------------------------------------------------
HZ = st.sampled_from([100, 250, 300, 1000])


@settings(deadline=None, max_examples=400)
@given(ps=st.integers(0, 10**18), hz=HZ)
@example(ps=10**18, hz=1000)
@example(ps=10**18, hz=300)
def test_ticks_of_a_time_and_the_time_of_a_tick(ps: int, hz: int) -> None:
    """Whole numbers of any size in Python; the compiled ones have 63 bits."""
    jiffy = ps * hz // PS_PER_S
    assert jiffies_at(ps, hz) == jiffy
    assert tick_ps(jiffy, hz) == jiffy * PS_PER_S // hz <= ps
    assert tick_ps(jiffy + 1, hz) == (jiffy + 1) * PS_PER_S // hz


@settings(deadline=None, max_examples=400)
@given(now=st.integers(0, 10**9), level=st.integers(0, 9), near=st.integers(-2, 2), more=st.integers(-3, 10**6))
def test_the_timer_wheel(now: int, level: int, near: int, more: int) -> None:
    """Around each level's end and anywhere: late by up to one grain, never early; the same from Python."""
    for delta in (63 * 8**level + near, more):
        fires = timer_expiry(now, delta)
        grain = 8 ** next((k for k in range(8) if delta < 63 * 8**k), 8)
        assert fires == expiry(now, max(0, delta)) == timer_expiry.py_func(now, delta)
        assert fires % grain == 0 and now + max(0, delta) < fires <= now + max(0, delta) + grain


# --- order ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workload", ["one", "two"])
@pytest.mark.parametrize("kinds", list(product([ROWS, GENERATORS], repeat=3)))
def test_of_two_turns_at_one_time_the_one_that_was_scheduled_first_comes_first(
    workload: str, kinds: tuple[str, ...]
) -> None:
    """Three threads meet at each tick: in the order in which they were scheduled, at 0, whatever work came between."""
    even = (Piece(0, SLEEP, 4),) * 4
    late = (Piece(6 * MS, SLEEP, 0), *even)  # done at 6 ms, when the tick at 7 ms is its next
    toys = (Toy((Piece(0, SLEEP, 6), *even)), Toy(late), Toy((Piece(0, SLEEP, 6), *even)))
    stage = staged(toys, kinds, workload=workload, phases=False)
    times: dict[int, list[int]] = {}
    for at, who, *_ in stage.log:
        times.setdefault(at // MS, []).append(who)
    assert times[0] == [0, 1, 2] and len(times) == 6
    assert all(who == [0, 1, 2] for who in times.values())


@pytest.mark.parametrize("kinds", list(product([ROWS, GENERATORS], repeat=2)))
def test_the_order_is_that_of_scheduling_not_of_starting(kinds: tuple[str, ...]) -> None:
    """The first thread takes a turn more, in which it is scheduled again: from then on it is second."""
    step = (Piece(0, SLEEP, 4),) * 3
    toys = (Toy((Piece(0, SLEEP, 0), Piece(0, SLEEP, 3), *step)), Toy((Piece(0, SLEEP, 4), *step)))
    log = [(at // MS, who) for at, who, *_ in staged(toys, kinds, phases=False).log]
    assert log[:3] == [(0, 0), (0, 1), (1, 0)]
    assert log[3:] == [(ms, who) for ms in (5, 10, 15, 20) for who in (1, 0)]


# --- starting threads -----------------------------------------------------------------------------------------------
def nothing(context: int, unused: int, now_ps: int) -> int:
    """A turn that goes on after a second."""
    return 1_000_000_000_000


def unknown(context: int, unused: int, now_ps: int) -> int:
    """A turn that cannot be compiled."""
    return missing_name  # type: ignore[name-defined]  # noqa: F821


def test_a_full_table_says_so() -> None:
    system = system_of()
    room = MAX_THREADS - len(system.kernel_threads.started)
    assert [thread.name for thread in system.kernel_threads.started] == ["kswapd"] and room == 15
    for k in range(room):
        system.kernel_thread(f"thread {k}", nothing, (), ())
    with pytest.raises(RuntimeError, match="more than 16 compiled kernel threads"):
        system.kernel_thread("one more", nothing, (), ())
    assert "one more" not in system.cpu_ps
    system.run()
    assert all(system.cpu_ps[f"thread {k}"] == PS_PER_S for k in range(room))


def test_a_turn_is_compiled_once_for_all_threads_of_a_process() -> None:
    """Two at once would be two pieces of code, of which only one is kept."""

    def turn(context: int, unused: int, now_ps: int) -> int:
        return now_ps + 1

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(turn_of, [turn] * 8))
    assert len({id(each) for each in made}) == 1 and made[0].ctypes(0, 0, 6) == 7


@pytest.mark.parametrize("workload", ["one", "two"])
def test_what_cannot_be_compiled_ends_the_run(workload: str) -> None:
    system = system_of(workload)
    system.kernel_thread("unknown", unknown, (), ())
    with pytest.raises(TypingError, match="missing_name"):
        system.run()


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("workload", ["one", "two"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_in_a_first_turn_ends_the_run(
    error: type[BaseException], workload: str, woken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: neither lost, nor tried again while the word that wakes the thread is still set."""
    system, word, calls = system_of(workload), np.zeros(1, np.int64), []

    def fails(turn: Any) -> Any:
        calls.append(turn)
        if len(calls) > 3:
            word[0] = 0
        raise error("in the middle of compiling")

    monkeypatch.setattr(kernel_threads, "turn_of", fails)
    system.kernel_thread("woken" if woken else "started", nothing, (), (), wake_word=word if woken else None)
    system.every_ms(10, lambda: word.fill(1))
    with pytest.raises(error, match="in the middle of compiling"):
        system.run()
    assert calls == [nothing] and not system.tenants[0].finished

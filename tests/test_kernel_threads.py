"""Kernel threads as rows of compiled turns: the same moments, order, stalls and charges as generators and as the rules
alone, for toy threads and for kswapd, kmigrated and v0's kpromoted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from slow_kthreads import Twins
from small_runs import machine
from toy_threads import WORKLOADS, Piece, Stage, Toy, expiry, run_events, system_of, turns_alone

from klrubench.engine.kthread import GO_ON, PARK, PS_PER_S, SLEEP, jiffies_at, tick_ps, timer_expiry
from klrubench.mm.state import DEMOTION_TARGET, KSWAPD_FAILURES
from klrubench.simulate import Options, simulate
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
    n = draw(st.integers(1, 7))
    work = st.one_of(st.sampled_from([0, 1, MS, 4 * MS, 10 * MS, 25 * MS]), st.integers(0, 30 * MS))
    piece = st.builds(
        Piece,
        work_ps=work,
        request=st.sampled_from([GO_ON, GO_ON, SLEEP, SLEEP, PARK]),
        jiffies=st.one_of(st.integers(0, 5), st.integers(0, 80)),
        flushes=st.sampled_from([0, 0, 1, 40, 3000]),
        wakes=st.integers(-1, n - 1),
    )
    toy = st.builds(
        Toy,
        pieces=st.lists(piece, max_size=8).map(tuple),
        phase_ms=st.sampled_from([0.0, 0.0, 20.0]),
        waits=st.booleans(),
    )
    return tuple(draw(st.lists(toy, min_size=n, max_size=n)))


# --- turns: rows against generators and against the rules -----------------------------------------------------------
@settings(deadline=None, max_examples=150, phases=PHASES)
@given(
    toys=toy_sets(),
    kinds=st.lists(st.sampled_from([ROWS, GENERATORS]), min_size=7, max_size=7),
    workload=st.sampled_from(list(WORKLOADS)),
    hz=st.sampled_from([100, 250, 1000]),
    cpus=st.sampled_from(["spare", "shared"]),
    phases=st.booleans(),
    tap=st.booleans(),
    marks=st.lists(st.tuples(st.integers(1, 1200), st.integers(0, 6)), max_size=3),
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


@settings(deadline=None, max_examples=150, phases=PHASES)
@given(
    toys=toy_sets(),
    kinds=st.lists(st.sampled_from([ROWS, GENERATORS]), min_size=7, max_size=7),
    workload=st.sampled_from(list(WORKLOADS)),
    hz=st.sampled_from([100, 250, 1000]),
    phases=st.booleans(),
)
def test_turns_are_those_of_a_heap_and_the_timer_wheel(
    toys: tuple[Toy, ...], kinds: list[str], workload: str, hz: int, phases: bool
) -> None:
    """On CPUs of their own threads take their turns whatever the tenants do: a plain queue by (time, rank) says when."""
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


# --- kswapd, kmigrated and v0's kpromoted against plain Python ------------------------------------------------------
def at_once(patch: pytest.MonkeyPatch) -> list[KernelThread]:
    """The compiled threads of the runs from now on."""
    found: list[KernelThread] = []
    start = KernelThreads.start

    def note(*given: Any) -> KernelThread:
        found.append(start(*given))
        return found[-1]

    patch.setattr(KernelThreads, "start", note)
    return found


def stuck(system: System) -> None:
    """kswapd has failed 15 times, and the top node has nowhere to demote to."""
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
            assert dict(zip(thread.costs, thread.events.tolist(), strict=True)) == {k: expected[k] for k in thread.costs}


@pytest.mark.parametrize("cpus", ["spare", "shared"])
def test_the_chunk_is_never_visible(cpus: str) -> None:
    """Words served 1, 7, 4096 or 65,536 at a time while compiled threads take turns between them."""
    values = RUNS[f"v3 {cpus}"]
    assert len({run_of(**values, chunk=chunk) for chunk in (1, 7, 4096, 65_536)}) == 1

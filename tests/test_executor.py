"""The executor: same bytes on any number of workers; failures, deaths, Ctrl-C and full disks lose nothing."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import study_fakes
from hypothesis import given
from hypothesis import strategies as st
from study_fakes import answer, toy_result, toy_spec, write, write_study, write_workload

from klrubench.errors import RunFailedError, ScaleError, StoreError
from klrubench.study.executor import InterruptedRunsError, grouped, raise_failures, run_all
from klrubench.study.executors.crew import Crew
from klrubench.study.identity import canonical
from klrubench.study.progress import Bar, Quiet, clock, progress_for
from klrubench.study.spec import RunSpec
from klrubench.study.store import Store
from klrubench.study.worker import work


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_study(tmp_path))
    return tmp_path


@pytest.fixture
def store(study: Path) -> Store:
    return Store(study / "results")


def some(count: int) -> list[RunSpec]:
    return [toy_spec(seed=seed) for seed in range(1, count + 1)]


def test_two_workers_store_the_bytes_of_one(study: Path) -> None:
    one, two = Store(study / "one"), Store(study / "two")
    run_all(some(6), jobs=1, store=one, task=answer)
    run_all(some(6), jobs=2, store=two, task=answer)
    assert one.ids() == two.ids() == sorted(spec.run_id for spec in some(6))
    for run_id in one.ids():
        a, b = one.get(run_id, series=True), two.get(run_id, series=True)
        assert a is not None and b is not None
        assert canonical([a["id"], a["spec"], a["result"]]) == canonical([b["id"], b["spec"], b["result"]])


def test_a_manifest_says_how_it_came_about(store: Store) -> None:
    record = next(iter(run_all(some(1), store=store, task=answer).records.values()))
    manifest = record["manifest"]
    assert manifest["wall_s"] == 0.01
    assert set(manifest["versions"]) >= {"klrubench", "python", "numba", "numpy"}
    assert {"commit", "cpu", "command", "created", "system"} <= set(manifest)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_run_does_not_stop_the_others(store: Store, jobs: int) -> None:
    batch = run_all(some(5), jobs=jobs, store=store, task=study_fakes.fail_on_two)
    assert len(store.ids()) == len(batch.records) == 4
    assert [failure.spec.seed for failure in batch.failures] == [2]
    with pytest.raises(RunFailedError, match=r"1 of 5 runs failed: toy/mine seed 2: policies/mine\.py:7: ZeroDiv"):
        raise_failures(batch.failures, 5)


def test_an_error_that_all_runs_share_keeps_its_kind(study: Path) -> None:
    batch = run_all(some(3), jobs=1, task=study_fakes.refuse_all)
    with pytest.raises(ScaleError, match=r"^scale 1/512: the scan size falls under a page$"):
        raise_failures(batch.failures, 3)
    raise_failures([], 3)


def test_a_run_that_kills_its_worker_is_named_and_the_others_are_kept(store: Store) -> None:
    batch = run_all(some(6), jobs=2, store=store, task=study_fakes.die_on_two)
    assert [failure.spec.seed for failure in batch.failures] == [2]
    assert "its worker process died 3 times" in batch.failures[0].message
    assert len(store.ids()) == 5


def test_a_worker_that_is_killed_once_costs_nothing(store: Store) -> None:
    batch = run_all(some(6), jobs=2, store=store, task=study_fakes.die_once)
    assert batch.failures == []
    assert len(store.ids()) == 6


def test_ctrl_c_in_this_process_keeps_what_is_done(store: Store) -> None:
    with pytest.raises(InterruptedRunsError, match="interrupted: 2 of 5 runs are kept in results;") as caught:
        run_all(some(5), jobs=1, store=store, task=study_fakes.interrupt_on_three)
    assert caught.value.exit_code == 130
    assert len(store.ids()) == 2


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import study_fakes
from klrubench.study.executor import InterruptedRunsError, run_all
from klrubench.study.store import Store
from pathlib import Path

# no guard against being imported again by a worker: a person's script has none either
specs = [study_fakes.toy_spec(seed=seed) for seed in range(1, 6)]
try:
    run_all(specs, jobs=2, store=Store(Path("results")), task=study_fakes.slow)
except InterruptedRunsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_ctrl_c_at_a_terminal_ends_the_workers_and_keeps_what_is_done(store: Store, study: Path) -> None:
    script = write(study / "script.py", SCRIPT.format(tests=str(Path(__file__).parent)))
    started = subprocess.Popen(
        [sys.executable, str(script)], cwd=study, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(store.ids()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)
    _, told = started.communicate(timeout=60)
    assert started.returncode == 130
    assert told.strip() == "interrupted: 2 of 5 runs are kept in results; the same command goes on from there"
    assert len(store.ids()) == 2
    assert _gone(started.pid)


def _gone(group: int) -> bool:
    """Whether no process of the group is left, soon."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_workers_end_when_the_parent_is_killed(store: Store, study: Path) -> None:
    script = write(study / "script.py", SCRIPT.format(tests=str(Path(__file__).parent)))
    started = subprocess.Popen([sys.executable, str(script)], cwd=study, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(store.ids()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    started.kill()
    started.wait()
    assert _gone(started.pid)


class FullStore(Store):
    """A store whose disk is full for a while."""

    refusals = 0

    def put(self, *args: object) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise StoreError("no room to write results to results: No space left on device")
        super().put(*args)  # type: ignore[arg-type]


def test_what_could_not_be_stored_is_kept_in_memory_and_tried_again(study: Path) -> None:
    store = FullStore(study / "results")
    store.refusals = 2
    batch = run_all(some(4), jobs=1, store=store, task=answer)
    assert len(store.ids()) == 4
    assert batch.store_error is None

    store.refusals = 100
    batch = run_all([toy_spec(seed=seed) for seed in range(10, 13)], jobs=1, store=store, task=answer)
    assert len(batch.records) == len(batch.unstored) == 3
    assert "no room" in str(batch.store_error)


def test_an_unwritable_store_is_told_before_anything_is_computed(study: Path) -> None:
    (study / "results").write_text("")

    def never(spec: RunSpec) -> None:
        raise AssertionError("computed")

    with pytest.raises(StoreError, match="cannot write results"):
        run_all(some(1), jobs=1, store=Store(study / "results"), task=never)  # type: ignore[arg-type]


def test_groups_stay_together_longest_first(study: Path) -> None:
    write_workload(study, "big")
    specs = [toy_spec(seed=seed, policy=policy) for policy in ("mine", "other") for seed in (1, 2)]
    specs += [toy_spec(workload="big", policy=policy, work=10.0) for policy in ("mine", "other")]
    names = [[(spec.workload.name, spec.seed, spec.policy.name) for spec in group] for group in grouped(specs)]
    assert names == [
        [("big", 1, "mine"), ("big", 1, "other")],
        [("toy", 1, "mine"), ("toy", 1, "other")],
        [("toy", 2, "mine"), ("toy", 2, "other")],
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(2, 4), st.randoms(use_true_random=False))
def test_workers_keep_to_their_groups_and_idle_ones_take_half_of_the_longest_rest(
    sizes: list[int], jobs: int, chance: random.Random
) -> None:
    """Whatever the order in which workers come back: every run once; a group is shared only when none is waiting."""
    crew = Crew(jobs, ThreadPoolExecutor, lambda pool: None)
    crew.groups = deque(deque((k, run) for run in range(size)) for k, size in enumerate(sizes))  # type: ignore[misc]
    crew.workers = [SimpleNamespace(own=deque()) for _ in range(jobs)]  # type: ignore[misc]
    done: list[object] = []
    while any(worker.own for worker in crew.workers) or crew.groups:
        worker = chance.choice(crew.workers)
        if not worker.own:
            waiting, longest = len(crew.groups), max(len(each.own) for each in crew.workers)
            worker.own = crew._more()
            assert len(crew.groups) == max(0, waiting - 1)
            assert waiting or len(worker.own) == (longest + 1) // 2
        if worker.own:
            done.append(worker.own.popleft())
    assert sorted(done) == [(k, run) for k, size in enumerate(sizes) for run in range(size)]  # type: ignore[type-var]


def _simulated(monkeypatch: pytest.MonkeyPatch, simulate: object) -> None:
    import klrubench.machine
    import klrubench.simulate

    class Machine:
        @staticmethod
        def from_dict(data: object) -> object:
            return data

    # into the module's dictionary: asking it for its own `simulate` would load the kernels
    monkeypatch.setattr(klrubench.machine, "Machine", Machine)
    monkeypatch.setitem(vars(klrubench.simulate), "Options", dict)
    monkeypatch.setitem(vars(klrubench.simulate), "simulate", simulate)


def test_an_error_in_a_plugin_is_told_with_its_place(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = study / "policies" / "mine.py"
    file.write_text(file.read_text() + "\n    def start(self, system):\n        return 1 // 0\n")

    def simulate(machine: object, workload: object, policy: object, seed: int, **more: object) -> None:
        policy.start(None)  # type: ignore[attr-defined]

    _simulated(monkeypatch, simulate)
    line = len(file.read_text().splitlines())
    said = work(toy_spec())
    assert said.result is None
    assert said.message == f"policies/mine.py:{line}: ZeroDivisionError: integer division or modulo by zero"
    assert "Traceback" in said.detail


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"time_s": float("nan")}, "the result's metrics.time_s=nan is not a finite number"),
        ({"time_s": object()}, "the result holds a value that is not plain data: object"),
    ],
)
def test_a_result_that_json_cannot_hold_fails_by_name(
    study: Path, monkeypatch: pytest.MonkeyPatch, metrics: dict[str, object], told: str
) -> None:
    class Result:
        def to_dict(self) -> dict[str, object]:
            return {"metrics": metrics}

    _simulated(monkeypatch, lambda *args, **more: Result())
    assert work(toy_spec()).message.startswith(told)


def test_a_result_reads_back_from_the_store_as_it_was_computed(
    study: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    class Result:
        def to_dict(self) -> dict[str, object]:
            return {**toy_result(toy_spec(), time_s=np.float64(0.1)), "pages": (np.int64(3), np.arange(2))}

    _simulated(monkeypatch, lambda *args, **more: Result())
    batch = run_all([toy_spec()], jobs=1, store=store)
    found = store.get(toy_spec().run_id, series=True)
    assert found is not None
    assert found == batch.records[toy_spec().run_id]
    assert found["result"]["pages"] == [3, [0, 1]]


def test_sources_edited_meanwhile_are_not_mixed_in(study: Path) -> None:
    stale = toy_spec(framework={"engine": "of yesterday"})
    assert "sources differ here" in work(stale).message


def test_the_bar_is_for_terminals_only(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(progress_for(io.StringIO()), Quiet)
    stream = Terminal()
    bar = progress_for(stream)
    assert isinstance(bar, Bar)
    run_all(some(3), jobs=1, progress=bar, task=answer)
    said = stream.getvalue()
    assert "] 3/3" in said
    assert said.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (27.4, "0:27"), (65, "1:05"), (3600, "1:00:00"), (-3, "0:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text

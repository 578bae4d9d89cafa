"""Threads, dask and Slurm: the same bytes wherever runs are computed, and what happens when a worker is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import study_fakes
from hypothesis import given
from hypothesis import strategies as st
from study_fakes import toy_spec, write, write_study

from klrubench.errors import UnknownNameError, UsageError
from klrubench.study.executor import run_all
from klrubench.study.executors import open_executor
from klrubench.study.executors.cluster import shares, slurm_cluster
from klrubench.study.executors.overhead import TASKS, overhead
from klrubench.study.executors.slurm import read_profile
from klrubench.study.identity import canonical
from klrubench.study.spec import RunSpec, make_spec, policy_part, workload_part
from klrubench.study.store import Store
from klrubench.study.worker import Answer

WITHOUT_DASK = "dask.distributed is not installed (pip install 'klrubench[cluster]')"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_study(tmp_path))
    return tmp_path


def small(policies: tuple[str, ...] = ("first_touch", "klruscand"), seeds: int = 2) -> list[RunSpec]:
    """Real runs of a fraction of a second."""
    from klrubench.machine import load_machine

    machine, workload = load_machine("cxl-asic"), workload_part("uniform:footprint_gib=0.25")
    parts = [policy_part(name) for name in policies]
    return [
        make_spec(machine, workload, part, seed, duration_s=3.0, fold=1)
        for seed in range(1, seeds + 1)
        for part in parts
    ]


def stored(folder: Path, specs: list[RunSpec], **how: Any) -> dict[str, str]:
    """Bytes of each result by run id."""
    store = Store(folder)
    batch = run_all(specs, store=store, **how)
    assert not batch.failures, batch.failures[0].message
    records = {spec.run_id: store.get(spec.run_id, series=True) for spec in specs}
    return {run_id: canonical(record["result"]) for run_id, record in records.items() if record is not None}


def test_threads_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    """Real runs: each thread has streams of its own, or they would tread on each other's."""
    specs = small(("first_touch", "klruscand", "numa_balancing", "random_sampling"), seeds=3)
    one = stored(tmp_path / "one", specs, jobs=1)
    assert stored(tmp_path / "threads", specs, jobs=3, executor="threads") == one
    assert len(one) == 12


def test_an_executor_stays_for_several_rounds(study: Path) -> None:
    with open_executor("processes", 2) as backend:
        first = run_all([toy_spec(seed=seed) for seed in (1, 2)], executor=backend, task=study_fakes.say_who)
        second = run_all([toy_spec(seed=seed) for seed in (3, 4, 5)], executor=backend, task=study_fakes.say_who)
    who = [{record["manifest"]["cpu"] for record in batch.records.values()} for batch in (first, second)]
    assert who[1] <= who[0]


@pytest.mark.parametrize(
    ("text", "jobs", "told"),
    [
        ("proceses", None, "no executor 'proceses'; did you mean processes?"),
        ("threads:4", None, "threads takes nothing after it; say how many with --jobs"),
        ("dask", None, "needs an address or a scheduler file"),
        ("slurm:", None, "needs a profile"),
        ("dask:nowhere.json", None, "no such scheduler file"),
        ("dask:tcp://127.0.0.1:9", 3, "--jobs 3: the workers of"),
    ],
)
def test_wrong_executors_are_one_clear_line(study: Path, text: str, jobs: int | None, told: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=told) as caught, open_executor(text, jobs):
        pass
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 64))
def test_shares_cut_groups_without_mixing_them(sizes: list[int], slots: int) -> None:
    groups: Any = [[(k, run) for run in range(size)] for k, size in enumerate(sizes)]
    cut: Any = shares(groups, slots)
    assert [run for share in cut for run in share] == [run for group in groups for run in group]
    assert all(len({k for k, _ in share}) == 1 for share in cut)
    total = sum(sizes)
    assert all(len(share) <= max(1, total // (3 * slots)) for share in cut)


# --- dask, for real ---------------------------------------------------------------------------------------------------
class Cluster:
    """A scheduler and workers as processes of this machine, joined by a scheduler file."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "scheduler.json", folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_" + words[0],
            *words[1:],
            "--scheduler-file",
            str(self.file),
        ]
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.Popen(command, cwd=self.folder, env=environment, **quiet)  # type: ignore[call-overload]
        self.started.append(process)
        return process

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while not self.file.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)

    def end(self) -> None:
        for process in reversed(self.started):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason=WITHOUT_DASK)
    found = Cluster(tmp_path)
    found.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    found.wait()
    for name in ("one", "two"):
        found.start("worker", "--no-nanny", "--nthreads", "1", "--name", name, "--no-dashboard")
    yield found
    found.end()


def test_a_dask_worker_is_killed_in_mid_run_and_nothing_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    specs = small(seeds=12)
    victim, results = cluster.started[1], Store(tmp_path / "dask")

    def kill_soon() -> None:
        while len(results.ids()) < 3:
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_soon)
    killer.start()
    there = stored(results.path, specs, executor=f"dask:{cluster.file}")
    killer.join()
    assert victim.wait() == -signal.SIGKILL
    assert there == stored(tmp_path / "here", specs, jobs=1)


def test_a_policy_of_the_user_s_own_travels_with_the_task(cluster: Cluster, study: Path) -> None:
    """Its text and that of what it imports: when the workers meet it the files are gone."""
    helper = write(study / "policies" / "rule.py", "def half(pages):\n    return pages // 2\n")
    text = (
        "from klrubench.policy import Policy\nfrom .rule import half\n\n\n"
        'class Own(Policy):\n    """Says what its helper says."""\n\n'
        "    def start(self, system):\n        system.daemon(f'half of 10 is {half(10)}', self.rest)\n\n"
        "    def rest(self, system):\n        while True:\n            yield system.sleep_ms(1000)\n"
    )
    own = write(study / "policies" / "own.py", text)
    specs = small(("own",), seeds=1)
    helper.unlink()
    own.unlink()
    batch = run_all(specs, executor=f"dask:{cluster.file}")
    assert not batch.failures, batch.failures[0].message
    assert "half of 10 is 5" in next(iter(batch.records.values()))["result"]["cpu"]


def test_a_run_that_kills_dask_workers_is_named_and_the_others_are_kept(cluster: Cluster, study: Path) -> None:
    """Each death takes a worker; new ones come, as a nanny or a batch system would start them."""
    stop = threading.Event()

    def restart() -> None:
        while not stop.wait(0.2):
            dead = [process for process in cluster.started[1:] if process.poll() is not None]
            for process in dead:
                cluster.started.remove(process)
                cluster.start("worker", "--no-nanny", "--nthreads", "1", "--no-dashboard")

    keeper = threading.Thread(target=restart)
    keeper.start()
    try:
        specs = [toy_spec(seed=seed) for seed in range(1, 7)]
        batch = run_all(specs, executor=f"dask:{cluster.file}", task=study_fakes.die_on_two)
    finally:
        stop.set()
        keeper.join()
    assert [failure.spec.seed for failure in batch.failures] == [2]
    assert "its worker died each time" in batch.failures[0].message
    assert len(batch.records) == 5


def test_overhead_is_measured_with_tasks_that_do_nothing(study: Path) -> None:
    with open_executor("threads", 2) as backend:
        found = overhead(backend)
    assert 0 < found.task_ms < 1000 * TASKS
    assert found.strangers == ()


def test_a_worker_with_another_klrubench_is_named(study: Path) -> None:
    from klrubench.study.executors import Backend

    def elsewhere(groups: Any, task: Any, keep: Any) -> None:
        for group in groups:
            keep(group[0], Answer(None, host={"name": "node7", "same": False}))

    assert overhead(Backend("dask:x", 2, elsewhere)).strangers == ("node7",)


# --- Slurm ------------------------------------------------------------------------------------------------------------
PROFILE = """
jobs = 3
cores = 4
memory = "16GB"
walltime = "02:00:00"
queue = "long"
directives = ["--exclusive"]
prologue = ["module load python"]
"""


def test_a_profile_becomes_a_job_script(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed (pip install 'klrubench[cluster]')")
    profile = read_profile(write(tmp_path / "p.toml", PROFILE))
    with slurm_cluster(profile, "slurm:p.toml") as found:
        script = found.job_script()
    for line in (
        "-p long",
        "-t 02:00:00",
        "--exclusive",
        "module load python",
        "NUMBA_NUM_THREADS=1",
        "--lifetime 6900s",
    ):
        assert line in script
    assert "--nworkers 4" in script and "--nthreads 1" in script


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs = 3", "cores: field required"),
        (PROFILE.replace("02:00:00", "2 hours"), "walltime: string should match"),
        (PROFILE.replace("02:00:00", "00:05:00"), "must last longer than 600 s"),
        (PROFILE.replace('"16GB"', '"much"'), "memory: string should match"),
        (PROFILE + "nodes = 2\n", "nodes: extra inputs"),
        ("jobs = = 3", "no valid TOML"),
    ],
)
def test_a_bad_profile_is_one_clear_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        read_profile(write(tmp_path / "p.toml", text))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        read_profile(tmp_path / "gone.toml")

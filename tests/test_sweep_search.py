"""A sweep finds the valley, goes on exactly where it was stopped, and gives the same on any number of processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_fakes import Stopping, asked, broken, coarse, moody, trials_of_journal, valley, write_sweep_study

from klrubench.errors import RunFailedError, StoreError, UsageError
from klrubench.report.sweep_tsv import judged_tsv
from klrubench.study.executor import InterruptedRunsError
from klrubench.study.store import Store
from klrubench.study.suite import question
from klrubench.study.sweep.drive import Swept, sweep
from klrubench.study.sweep.storage import Place, opened


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_sweep_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: str = "results", task: Any = valley, jobs: int = 1, **more: Any) -> Swept:
    rest = {name: more.pop(name) for name in ("name", "storage", "say") if name in more}
    return sweep(asked(**more), store=folder, jobs=jobs, task=task, **rest)


def test_the_winner_is_in_the_valley_and_beats_default_and_first_touch(study: Path) -> None:
    found = run(trials=40).summary
    winner, rows = found["confirmed"]["winner"], {row["who"]: row for row in found["confirmed"]["rows"]}
    assert 320 <= winner["values"]["interval_ms"] <= 1280
    assert abs(winner["values"]["threshold"] - 3) <= 1
    assert rows["tuned on all"]["fresh"]["mean"] < rows["default"]["fresh"]["mean"] - 1
    assert rows["tuned on all"]["against_default"]["high"] < 0
    assert found["confirmed"]["beats_base"]["word"] == "less"
    assert found["counts"]["pruned"] > 0
    assert found["counts"]["cells"] < 9 * found["counts"]["trials"]


def test_seeds_and_workloads_that_judge_chose_nothing(study: Path) -> None:
    confirmed = run().summary["confirmed"]
    tuning, choosing, judging = {1, 2, 3}, set(confirmed["choosing_seeds"]), set(confirmed["seeds"])
    assert not (tuning & choosing or tuning & judging or choosing & judging)
    assert confirmed["held_out"] == ["four"]
    assert "four" not in confirmed["workloads"]


def test_the_winner_file_is_a_study(study: Path) -> None:
    found = run()
    told = question(study=found.winner)
    assert found.summary["confirmed"]["winner"]["label"] in told.policy
    assert "mine" in told.policy
    assert set(told.workload) == {"one", "two", "three", "four"}
    assert list(told.all_seeds) == found.summary["confirmed"]["seeds"]
    scales = found.summary["confirmed"]["scales"]
    assert told.scale == "auto" or told.scale == f"1/{max(scales.values())}"


def test_best_so_far_never_rises_and_the_first_trial_is_the_default(study: Path) -> None:
    found = run().summary
    steps = [each["objective"] for each in found["best_so_far"]]
    assert steps == sorted(steps, reverse=True)
    assert found["best_so_far"][0]["trial"] == 0
    assert found["best_so_far"][0]["values"]["interval_ms"] == 2000


def test_the_best_trial_is_never_pruned_by_a_worse_one(study: Path) -> None:
    run(trials=32)
    told = trials_of_journal(study / "results")
    whole = [each for each in told if each[1] == "COMPLETE"]
    assert all(len(each[4]) == 9 for each in whole)
    best = min(each[3][0] for each in whole)
    for each in told:
        if each[1] == "PRUNED":
            assert sum(each[4].values()) / len(each[4]) > best


@pytest.mark.parametrize("after", [1, pytest.param(40, marks=pytest.mark.slow), 101])
def test_after_ctrl_c_the_same_command_gives_the_same_trials(study: Path, after: int) -> None:
    run("whole")
    with pytest.raises(InterruptedRunsError, match="interrupted"):
        run("parts", Stopping(after))
    run("parts")
    assert trials_of_journal(study / "parts") == trials_of_journal(study / "whole")


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from sweep_fakes import asked, valley
from klrubench.study.sweep.drive import sweep
import optuna
owner, name = {where!r}.split(".")
place = {{"Study": optuna.Study, "Trial": optuna.trial.Trial}}[owner]
before, left = getattr(place, name), [{after}]
def dying(self, *args, **more):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, *args, **more)
setattr(place, name, dying)
sweep(asked(), store="parts", jobs=1, task=valley)
"""


@pytest.mark.parametrize(
    ("where", "after"),
    [
        ("Trial.report", 30),
        pytest.param("Study.tell", 5, marks=pytest.mark.slow),
        pytest.param("Study.ask", 13, marks=pytest.mark.slow),
    ],
)
def test_after_kill_the_same_command_gives_the_same_trials(study: Path, where: str, after: int) -> None:
    run("whole")
    code = KILLED.format(tests=str(Path(__file__).parent), where=where, after=after)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == -9, ended.stderr
    run("parts")
    assert trials_of_journal(study / "parts") == trials_of_journal(study / "whole")


def test_deterministic_on_any_number_of_processes(study: Path) -> None:
    run("one")
    run("two", jobs=2)
    assert trials_of_journal(study / "two") == trials_of_journal(study / "one")


def test_the_same_command_again_computes_nothing(study: Path) -> None:
    first = run()
    calls = Stopping(1)
    second = run(task=calls)
    assert calls.seen == 0
    assert second.summary["confirmed"] == first.summary["confirmed"]


def test_more_trials_go_on_from_those_that_are_there(study: Path) -> None:
    run(trials=16)
    found = run(trials=24)
    assert found.summary["counts"]["trials"] == 24


def test_a_constraint_holds_for_the_winner(study: Path) -> None:
    found = run(constraint=("daemon_cpu<=0.05",), trials=40).summary
    assert found["confirmed"]["winner"]["values"]["interval_ms"] >= 1999
    assert found["best"]["values"]["interval_ms"] >= 1999
    assert found["counts"]["beyond"] + found["counts"]["pruned"] > 0


def test_a_constraint_that_nothing_meets_has_no_winner(study: Path) -> None:
    with pytest.raises(RunFailedError, match="no winner"):
        run(constraint=("charged<=1",), trials=8)


def test_a_front_is_what_brute_force_says_and_nothing_is_pruned(study: Path) -> None:
    found = run(objective=("charged", "traffic"), trials=32, sampler="nsga2").summary
    told = [tuple(each[3]) for each in trials_of_journal(study / "results")]
    assert len(told) == 32
    best = {a for a in told if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in told)}
    assert {tuple(each["objectives"]) for each in found["front"]} == best
    assert len(found["confirmed"]["rows"]) >= 2


def test_trials_that_fail_are_counted_and_said(study: Path) -> None:
    found = run(task=moody, param=("threshold=6:7",), trials=24).summary
    assert found["counts"]["failed"] > 0
    assert found["failures"] == ["policies/mine.py:7: ValueError: seven"]
    assert found["confirmed"]["winner"]["values"]["threshold"] == 6


def test_a_policy_that_always_fails_ends_the_sweep(study: Path) -> None:
    with pytest.raises(RunFailedError, match="trials in a row failed"):
        run(task=broken, trials=40)


def test_a_range_begins_where_the_scale_can_hold_it(study: Path) -> None:
    said: list[str] = []
    found = run(task=coarse, say=said.append, trials=16).summary
    assert found["counts"]["failed"] == 0
    assert any(line.startswith("batch from 1024, not 64") for line in said)


def test_a_name_belongs_to_one_question(study: Path) -> None:
    run(name="mine-1", trials=8)
    with pytest.raises(UsageError, match="another --name"):
        run(name="mine-1", trials=8, seed=2)


def test_two_drivers_do_not_share_a_journal(study: Path) -> None:
    place, other = Place(None, study / "s"), Place(None, study / "s")
    with (
        opened(place, "x", 1, {"identity": "i"}),
        pytest.raises(StoreError, match="another klrubench"),
        opened(other, "x", 1, {"identity": "i"}),
    ):
        pass
    with opened(other, "x", 1, {"identity": "i"}):
        pass


@pytest.mark.slow
def test_a_database_takes_over_what_a_dead_driver_left(study: Path) -> None:
    url = f"sqlite:///{study}/sweeps.db"
    with pytest.raises(InterruptedRunsError):
        run("store", Stopping(60), storage=url)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from sweep_fakes import Stopping, asked\n"
        f"from klrubench.study.sweep.drive import sweep\n"
        f"sweep(asked(), store='other', storage={url!r}, jobs=1, task=Stopping(70, kill=True))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == -9, ended.stderr
    found = run("store", storage=url)
    assert found.summary["counts"]["trials"] >= 24
    import optuna

    study_ = optuna.load_study(study_name=found.name, storage=url)
    lost = [trial for trial in study_.trials if "lost" in trial.user_attrs]
    assert lost
    done = [trial.params for trial in study_.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert all(trial.params in done for trial in lost)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "nsga2", "nsga3", "grid", "random", "cori"])
def test_every_sampler_stays_inside_the_space(study: Path, sampler: str) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    param = ("interval_ms=100:5000:log", "threshold=2:4")
    found = run(sampler=sampler, param=param, fix={"quick": "false"}, trials=10, fresh_seeds=1, top=1)
    told = trials_of_journal(study / "results")
    assert all(100 <= each[2]["interval_ms"] <= 5000 and 2 <= each[2]["threshold"] <= 4 for each in told)
    assert len({str(each[2]) for each in told}) > 2
    assert found.summary["counts"]["trials"] == len(told)


def test_runs_of_a_trial_are_in_the_store(study: Path) -> None:
    run(trials=8)
    store = Store(study / "results")
    assert len(store.ids()) > 8 * 4


@pytest.mark.usefixtures("study")
def test_the_judgement_as_tab_separated_lines() -> None:
    """The same numbers, a line for each setting and workload; nothing for a front."""
    found = run(trials=24).summary
    judged = found["confirmed"]
    lines = [line.split("\t") for line in judged_tsv(found).splitlines()]
    rows = {(row[0], row[1]): row for row in lines[1:]}
    assert lines[0][:6] == ["setting", "workload", "measure", "mean", "low", "high"]
    means = {row["who"]: row["fresh"]["mean"] for row in judged["rows"]}
    assert {who: float(rows[who, "tuned on"][3]) for who in means} == means
    for workload in [*judged["workloads"], *judged["held_out"]]:
        told = judged["by_workload"][workload]
        assert {"first_touch", "default", "tuned"} <= set(told)
        assert {name: float(rows[name, workload][3]) for name in told} == {k: v["mean"] for k, v in told.items()}
        assert ("tuned_alone" in told) == (workload in judged["workloads"])
    with pytest.raises(UsageError, match="a front; use --json"):
        judged_tsv(run(objective=("charged", "traffic"), trials=16, sampler="nsga2").summary)

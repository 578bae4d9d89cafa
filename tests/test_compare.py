"""compare(): computes what is missing, says what it would compute and why, and carries on after trouble."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from study_fakes import toy_result, write_policy, write_study, write_workload

import klrubench
from klrubench.errors import RunFailedError, StoreError, UnknownNameError
from klrubench.study.compare import Comparison, compare
from klrubench.study.executor import raise_failures
from klrubench.study.run import run
from klrubench.study.store import Store

SLOWDOWN = {
    "all_top": 0.0,
    "all_lower": 0.3,
    "first_touch": 0.2,
    "random_promotion": 0.18,
    "mine": 0.1,
    "other": 0.25,
    "oracle_static": 0.05,
    "oracle_window": 0.04,
}
COMPUTED: list[str] = []


def simulate(machine: Any, workload: Any, policy: Any, seed: int, **given: Any) -> SimpleNamespace:
    """In place of the simulator: times that follow from the policy's name and the seed."""
    COMPUTED.append(f"{workload.label()}/{policy.label()}/{seed}")
    if policy.values.get("interval_ms") == 13:
        raise ValueError("thirteen")
    time_s = given["duration_s"] * (1 + SLOWDOWN[policy.name()]) * (1 + 0.001 * math.sin(seed * len(policy.name())))
    made = toy_result(SimpleNamespace(seed=seed, policy=SimpleNamespace(label="")), time_s)  # type: ignore[arg-type]
    made["metrics"] |= {"touches_per_page_s": workload.rate, "young_share": 0.5}
    return SimpleNamespace(to_dict=lambda: made)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import klrubench.simulate

    write_study(tmp_path)
    for name, place in (
        ("all_top", "top"),
        ("all_lower", "lower"),
        ("oracle_static", "truth"),
        ("oracle_window", "truth"),
    ):
        write_policy(tmp_path, name, role="bound", place=place)
    for name in ("first_touch", "random_promotion"):
        write_policy(tmp_path, name)
    write_workload(tmp_path, "calm", control=True)
    monkeypatch.chdir(tmp_path)
    # into the module's dictionary: asking it for its own `simulate` would load the kernels
    monkeypatch.setitem(vars(klrubench.simulate), "simulate", simulate)
    monkeypatch.setitem(vars(klrubench.simulate), "Options", options_class())
    COMPUTED.clear()
    return tmp_path


def options_class() -> type:
    from dataclasses import make_dataclass

    return make_dataclass("Options", [("daemon_cpus", str, "spare"), ("chunk", int, 4096)])


def ask(**given: Any) -> Comparison:
    about: dict[str, Any] = {"policies": ["mine", "other"], "workloads": ["toy"], "seeds": 3, "jobs": 1}
    return compare(**{**about, **given})


def test_bounds_stand_beside_the_contestants_and_the_best_is_named(study: Path) -> None:
    found = ask()
    assert (found.n_computed, found.n_cached, found.failures) == (24, 0, [])
    cells = found.matrix()
    assert list(cells["policy"]) == list(SLOWDOWN)
    pct = dict(zip(cells["policy"], cells["slowdown_pct"], strict=True))
    assert pct["mine"] == pytest.approx(10, abs=0.3)
    gaps = dict(zip(cells["policy"], cells["gap_closed"], strict=True))
    assert gaps["mine"] == pytest.approx((20 - 10) / (20 - 5), abs=0.05)
    best = found.verdicts().to_dicts()[0]
    assert (best["best"], best["next_best"]) == ("mine", "random_promotion")
    assert found.suite_scores().filter(policy="mine")["settings"].to_list() == [1]
    assert found.wide()[0]["policy"] == "all_top"


def test_the_same_again_computes_nothing(study: Path) -> None:
    first = ask()
    COMPUTED.clear()
    again = ask()
    assert COMPUTED == []
    assert (again.n_computed, again.n_cached) == (0, 24)
    assert again.runs["cached"].all()
    assert again.matrix().equals(first.matrix())
    assert (study / "results" / "results.parquet").exists()


def test_only_what_changed_is_computed_again(study: Path) -> None:
    ask()
    COMPUTED.clear()
    file = study / "policies" / "mine.py"
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    dry = ask(dry_run=True)
    assert COMPUTED == []
    assert dry.to_run is not None
    assert set(dry.to_run["why"]) == {"changed since it was stored: policy code"}
    assert dry.n_cached == 21
    ask(seeds=4)
    assert sorted(COMPUTED) == sorted(
        [*(f"toy/mine/{n}" for n in (1, 2, 3, 4)), *(f"toy/{p}/4" for p in SLOWDOWN if p != "mine")]
    )


def test_a_dry_run_writes_nothing(study: Path) -> None:
    dry = ask(dry_run=True)
    assert dry.to_run is not None
    assert set(dry.to_run["why"]) == {"not in the store"}
    assert dry.to_run.height == 24
    assert not (study / "results").exists()


def test_a_damaged_result_is_named_and_computed_again(study: Path) -> None:
    first = ask()
    store = Store(study / "results")
    store.file(store.ids()[0]).write_bytes(b"{")
    COMPUTED.clear()
    said: list[str] = []
    again = ask(say=said.append)
    assert len(COMPUTED) == 1
    assert any("damaged result set aside" in line for line in said)
    assert again.matrix().equals(first.matrix())


def test_axes_make_rows_of_their_own(study: Path) -> None:
    found = ask(policies=["mine"], rates=[0.5, 8], ratios=["1:2", "1:8"], placements=["lower"], seeds=2)
    settings = found.matrix()["setting"].unique().to_list()
    assert sorted(settings) == [
        f"toy:rate={rate},placement=lower {ratio}" for rate in ("0.5", "8") for ratio in ("1:2", "1:8")
    ]
    assert found.header["varies"] == ["ratio"]
    assert set(found.header["scales"]) == {"toy:rate=0.5,placement=lower", "toy:rate=8,placement=lower"}


def test_slowdowns_against_another_baseline(study: Path) -> None:
    found = ask(policies=["mine"], baseline="other:interval_ms=500.0")
    cells = found.matrix()
    pct = dict(zip(cells["policy"], cells["slowdown_pct"], strict=True))
    assert pct["other:interval_ms=500"] == 0
    assert pct["mine"] == pytest.approx(100 * (1.1 / 1.25 - 1), abs=0.3)


def test_short_durations_and_single_seeds_are_warned_about(study: Path) -> None:
    said: list[str] = []
    found = ask(duration_s=3, seeds=1, say=said.append)
    assert "3 s is under 4 intervals of 2 s: mine has hardly begun; use --duration 8 or more" in found.warnings
    assert any(line.startswith("1 seed:") for line in found.warnings)
    assert [f"warning: {line}" for line in found.warnings] == said
    assert found.verdicts()["word"].to_list() == ["too few seeds"]


def test_a_failed_policy_costs_the_others_nothing(study: Path) -> None:
    found = ask(policies=["mine", "mine:interval_ms=13"])
    assert len(found.failures) == 3
    assert found.matrix().height == 7
    with pytest.raises(RunFailedError, match=r"3 of 24 runs failed: toy/mine:interval_ms=13 seed 1: .*Error: thirteen"):
        raise_failures(found.failures, found.n_computed + 3)


def test_wrong_names_are_told_before_anything_runs(study: Path) -> None:
    for given in ({"policies": ["mien"]}, {"workloads": ["toi"]}, {"suite": "qick"}, {"machine": "cxl-asik"}):
        with pytest.raises(UnknownNameError, match="did you mean"):
            ask(**given)
    with pytest.raises(UnknownNameError, match="no parameter of workload toy 'idel'"):
        ask(workloads=["toy:idel=60"])
    assert COMPUTED == []


def test_a_full_disk_still_gives_the_table(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Store, *args: object) -> None:
        raise StoreError("no room to write results to results: No space left on device")

    monkeypatch.setattr(Store, "put", refuse)
    found = ask()
    assert found.matrix().height == 8
    assert isinstance(found.store_error, StoreError)


def test_outside_a_study_it_says_where_results_go(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    (study / "pyproject.toml").unlink()
    with pytest.raises(UnknownNameError):
        ask(say=said.append)
    monkeypatch.setattr("klrubench.study.plugins.plugin_roots", lambda: [("study", study)])
    ask(say=said.append)
    assert said == ["not in a study: results go to ./klrubench-results"]
    assert (study / "klrubench-results" / "results.parquet").exists()


def test_python_gets_a_frame(study: Path) -> None:
    found = klrubench.compare(["mine"], ["toy"], seeds=2, jobs=1)
    assert isinstance(found, pl.DataFrame)
    assert {"policy", "workload", "slowdown_pct", "half_pct", "gap_closed"} <= set(found.columns)


def test_one_run_is_stored_with_its_series_and_shared_with_compare(study: Path) -> None:
    record = run("mine", "toy", seed=2)
    assert record["result"]["series"]["t_s"] == [0.0, 1.0, 2.0]
    assert record["cached"] is False
    assert run("mine", "toy", seed=2) == {**record, "cached": True}
    assert ask(ratios=None).n_cached == 1

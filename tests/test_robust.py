"""Does the verdict survive: the design, what moves, and what is said of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_fakes import write_study

from klrubench.cli import run
from klrubench.errors import UsageError
from klrubench.report.robust import robust_text
from klrubench.study.robust import FACTORS, Cell, Setting, Survival, compare_robustly, robust_runs, settings
from klrubench.study.spec import RunSpec
from klrubench.study.suite import question


def asked(**given: Any) -> Any:
    return question("quick", policy=["klruscand"], **{"workload": ["kv"], "duration": 1.0, **given})


def of(found: dict[tuple[str, Setting], list[RunSpec]], **factors: float) -> RunSpec:
    """The first run of klruscand under a setting."""
    runs = next(runs for (_, setting), runs in found.items() if dict(setting.factors) == factors)
    return next(run for run in runs if run.policy.name == "klruscand")


def test_the_combined_settings_are_balanced_and_no_two_factors_move_together() -> None:
    """Main effects of a resolution III design: columns of +-1 that are orthogonal and sum to 0."""
    found = settings()
    assert found[0] == Setting() and len(set(found)) == len(found) == 1 + 11 + 8
    combined = [dict(setting.factors) for setting in found if len(setting.factors) == len(FACTORS)]
    signs = np.array([[1 if each[name] > 1 else -1 for name in FACTORS] for each in combined])
    assert signs.shape == (8, 5)
    assert not signs.sum(axis=0).any()
    for a, b in itertools.combinations(range(5), 2):
        assert signs[:, a] @ signs[:, b] == 0


def test_each_factor_moves_what_it_names_and_nothing_else() -> None:
    found = robust_runs(asked(), "first_touch")
    base = of(found)
    moved = of(found, cost=4.0)
    costs, others = moved.machine["costs"], base.machine["costs"]
    assert all(costs[name]["ns"] == pytest.approx(4 * others[name]["ns"]) for name in others)
    assert moved.machine["nodes"] == base.machine["nodes"] and moved.workload == base.workload
    slow = of(found, latency=1.5)
    for node, before in zip(slow.machine["nodes"], base.machine["nodes"], strict=True):
        factor = 1.5 if before["tier"] else 1.0
        assert node["read_ns"] == pytest.approx([factor * ns for ns in before["read_ns"]])
    assert slow.machine["costs"] == base.machine["costs"]
    assert of(found, rate=4.0).workload.params["rate"] == 4 * base.workload.params["rate"]
    assert of(found, mlp=2.0).workload.params["mlp"] == 2 * base.workload.params["mlp"]
    assert tuple(of(found, DRAM=2.0).machine["ratio"]) == (2.0, 2.0)
    assert {run.fold for runs in found.values() for run in runs} == {128}


def test_a_closed_loop_has_no_rate_to_move() -> None:
    found = robust_runs(asked(workload=["gups"]), "first_touch")
    assert found and all(setting.get("rate") == 1 for _, setting in found)


def test_axes_are_refused() -> None:
    for given in ({"rates": [1, 2]}, {"ratio": ["1:1", "1:2"]}, {"machine": ["cxl-asic", "optane"]}):
        with pytest.raises(UsageError, match="--robust walks rates and ratios itself"):
            robust_runs(asked(**given), "first_touch")


def cell(word: str, *factors: tuple[str, float]) -> Cell:
    points = {"better": -3.0, "worse": 3.0, "equal": 0.1, "unsure": 1.5}[word]
    return Cell(Setting(factors), points, points - 1, points + 1, word)


def test_what_holds_and_what_moves_a_verdict() -> None:
    cells = (
        cell("better"), cell("better", ("cost", 2.0)), cell("worse", ("cost", 4.0)), cell("equal", ("rate", 4.0)),
        cell("worse", ("cost", 4.0), ("rate", 4.0)),
    )  # fmt: skip
    found = Survival("kv", "klruscand", False, cells)
    assert found.holds == 1
    assert [each.setting.label for each in found.moved("worse")] == ["cost x4"]
    assert [each.setting.label for each in found.moved("worse", alone=False)] == ["cost x4, rate x4"]
    assert [each.setting.label for each in found.moved("equal")] == ["rate x4"]
    assert found.moved("better") == []


def test_a_real_answer_again_from_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "-w", "uniform:footprint_gib=0.5", "-p", "klruscand", "--robust", "--suite", "quick"]
    words += ["--duration", "2", "--scale", "1/4", "--seeds", "2", "--results", str(tmp_path), "--jobs", "1"]
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {(each["policy"], each["charged"]) for each in told["verdicts"]} == {
        ("klruscand", False),
        ("klruscand", True),
    }
    assert all(len(each["cells"]) == 20 for each in told["verdicts"])
    assert run(words) == 0
    text = capsys.readouterr()
    assert "80 runs: 80 cached, 0 computed" in text.err
    assert "klruscand (spare): " in text.out and "holds in" in text.out and max(map(len, text.out.splitlines())) <= 100
    assert run([*words, "--dry-run"]) == 2


def test_a_failed_run_leaves_its_setting_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from klrubench.study import gather

    real = gather.run_all
    monkeypatch.setattr(gather, "run_all", lambda runs, **how: real(runs[:-2], **how))
    monkeypatch.chdir(write_study(tmp_path))
    found = compare_robustly(
        ["klruscand"], ["uniform:footprint_gib=0.25"], suite="quick", seeds=2, duration_s=1.0, scale="1/4", jobs=1
    )
    sizes = {len(each.cells) for each in found.survivals}
    assert sizes == {19}
    assert "holds in" in robust_text(found, 100)

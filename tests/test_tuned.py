"""Default and tuned with one budget: the same for each, resumed, judged on other seeds; and what changes the order."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_1samp
from study_fakes import write
from sweep_fakes import POLICY, trials_of_journal, valley, write_sweep_study

import klrubench
from klrubench import cli
from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.report.tuned import tuned_text
from klrubench.study.executor import InterruptedRunsError
from klrubench.study.ranking import differences, order
from klrubench.study.spec import RunSpec
from klrubench.study.statistics import holm
from klrubench.study.tuned import compare_tuned
from klrubench.study.tuned_answer import HELD_OUT, SUITE, Tuned
from klrubench.study.worker import Answer

PLAIN = '''
"""A policy file."""

from klrubench.policy import Policy


class Plain(Policy):
    """Nothing to set."""
'''


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two policies to tune, one without parameters; each test has results folders of its own."""
    folder = write_sweep_study(tmp_path_factory.mktemp("study"))
    write(folder / "policies" / "yours.py", POLICY.replace("Mine", "Yours"))
    write(folder / "policies" / "plain.py", PLAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def whole(study: Path) -> Tuned:
    """A comparison from end to end, in the folder `whole`."""
    said: list[str] = []
    found = tuned(folder="whole", say=said.append)
    assert any(line.startswith("policy 2 of 2, yours: sweep yours-tuned12-") for line in said)
    return found


def played(spec: RunSpec) -> Answer:
    """`mine` as it is; `yours` is better by default and hardly better tuned; `plain` never moves; bounds do nothing."""
    name, params = spec.policy.name, dict(spec.policy.params)
    if name == "yours":
        params = {
            **params,
            "threshold": 4,
            "quick": True,
            "interval_ms": 1000.0 + 0.2 * abs(params["interval_ms"] - 2000),
        }
    if name == "plain":
        params = {"interval_ms": 5000.0, "threshold": 2, "quick": False}
    acted = {"yours": "mine", "plain": "mine"}.get(name, name if name in ("mine", "all_top") else "first_touch")
    return valley(dataclasses.replace(spec, policy=dataclasses.replace(spec.policy, name=acted, params=params)))


class Stopping:
    """`played`, stopped by Ctrl-C at its n-th run."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, 0

    def __call__(self, spec: RunSpec) -> Answer:
        self.seen += 1
        if self.seen == self.after:
            raise KeyboardInterrupt
        return played(spec)


def tuned(policies: tuple[str, ...] = ("mine", "yours", "plain"), folder: str = "results", **more: Any) -> Tuned:
    """A small comparison; the second call with the same folder goes on with it."""
    given: dict[str, Any] = {"budget": 12, "held_out": ["three"], "seeds": 3, "jobs": 1, "task": played, **more}
    return compare_tuned(list(policies), given.pop("workloads", ["one", "two"]), store=folder, **given)


def test_each_policy_has_the_same_budget_and_the_manifest_says_it(whole: Tuned) -> None:
    found = whole
    policies = {each["policy"]: each for each in found.to_record()["policies"]}
    assert [policies[name]["trials"]["trials"] for name in ("mine", "yours")] == [12, 12]
    assert policies["plain"]["why_not_tuned"] == "no parameter to tune"
    assert policies["first_touch"]["why_not_tuned"] == "a bound"
    told = found.manifest
    assert told["budget"] == 12
    assert told["sampler"] == {"name": "tpe", "seed": 1, "deterministic": True, "pruner": "wilcoxon p<0.1"}
    assert told["spaces"]["mine"]["axes"][0] == "interval_ms=10:15000:log"
    assert set(told["spaces"]) == set(told["sweeps"]) == {"mine", "yours"}
    assert told["objective"] == "charged" and told["versions"]["optuna"] and "commit" in told
    assert json.loads(found.file.read_text()) == json.loads(json.dumps(found.to_record()))


def test_what_judges_chose_nothing(whole: Tuned) -> None:
    seeds = whole.manifest["seeds"]
    assert {name: len(each) for name, each in seeds.items()} == {"sweep": 3, "choosing": 3, "judging": 3}
    for a, b in itertools.combinations(seeds.values(), 2):
        assert not set(a) & set(b)
    assert {cell.workload for cell in whole.cells if cell.scope == HELD_OUT} == {"", "three"}
    assert {cell.workload for cell in whole.cells if cell.scope == SUITE} == {"", "one", "two"}


def test_the_same_call_again_computes_nothing(whole: Tuned) -> None:
    assert whole.computed > 0
    calls = Stopping(1)
    again = tuned(folder="whole", task=calls)
    assert (calls.seen, again.computed) == (0, 0)
    assert again.to_record() == whole.to_record()
    assert again.file == whole.file


@pytest.mark.parametrize(("share", "where"), [(0.1, "policy 1 of 2, mine"), (0.8, "policy 2 of 2, yours")])
def test_after_ctrl_c_the_same_call_gives_the_same(study: Path, whole: Tuned, share: float, where: str) -> None:
    folder = f"parts {share}"
    with pytest.raises(InterruptedRunsError, match=f"^{where}: interrupted: .* goes on from there$"):
        tuned(folder=folder, task=Stopping(int(share * whole.computed)))
    again = tuned(folder=folder)
    assert 0 < again.computed < whole.computed
    assert again.to_record() == whole.to_record()
    for name in whole.manifest["sweeps"].values():
        assert trials_of_journal(study / folder, name) == trials_of_journal(study / "whole", name)


def test_another_budget_is_another_sweep_but_shares_runs(study: Path) -> None:
    """Trials of a longer sweep must not stand beside a shorter one's as if they had cost the same."""
    long = tuned(("mine",), budget=16)
    short = tuned(("mine",), budget=8)
    assert all(each.sweep["counts"]["trials"] == 8 for each in short.contestants if each.tuned)
    assert not set(long.manifest["sweeps"].values()) & set(short.manifest["sweeps"].values())
    first, second = (trials_of_journal(study / "results", f.manifest["sweeps"]["mine"]) for f in (long, short))
    assert [each[:3] for each in second] == [each[:3] for each in first[:8]]
    assert short.computed < long.computed / 2


def test_the_numbers_are_those_of_the_runs(study: Path, whole: Tuned) -> None:
    """The cell of a workload, once more from its runs: slowdown, paired difference, t interval."""
    found = whole
    cell = found.cell("mine", SUITE, "one", "charged")
    winner = next(each for each in found.contestants if each.label == "mine")
    assert cell is not None and cell.difference is not None and winner.tuned is not None
    times: dict[tuple[str, int], float] = {}
    for record in _records(study):
        spec = record["spec"]
        if spec["workload"]["label"] == "one" and spec["duration_s"] == 120.0:
            times[spec["policy"]["label"], spec["seed"]] = record["result"]["metrics"]["charged_time_s"]
    seeds = found.manifest["seeds"]["judging"]
    logs = {
        label: [math.log(times[label, seed] / times["all_top", seed]) for seed in seeds]
        for label in ("mine", winner.tuned.label)
    }
    usual = math.fsum(logs["mine"]) / len(seeds)
    assert cell.default.pct == pytest.approx(100 * math.expm1(usual))
    pairs = [a - b for a, b in zip(logs[winner.tuned.label], logs["mine"], strict=True)]
    test = ttest_1samp(pairs, 0.0)
    low = test.confidence_interval(0.95).low
    assert cell.difference.low == pytest.approx(100 * math.exp(usual) * math.expm1(low))
    assert cell.difference.points < 0


def _records(study: Path) -> Iterator[dict[str, Any]]:
    from klrubench.study.store import Store

    store = Store(study / "whole")
    return (record for run_id in store.ids() if (record := store.get(run_id)) is not None)


def test_the_order_turns_and_the_text_says_so(whole: Tuned) -> None:
    found = whole
    turned = {(p.first, p.second) for p in found.orders["charged"].pairs if p.change == "reversed"}
    assert ("mine", "yours") in turned
    text = tuned_text(found, 100)
    assert "tuning makes mine and yours change places: +" in text
    assert "surely better than first_touch once tuned: mine, yours, plain" in text
    assert "plain: shown as it is, no parameter to tune" in text
    assert "yours" in text and max(map(len, text.splitlines())) <= 100
    assert max(map(len, tuned_text(found, 72).splitlines())) <= 72


def test_without_held_out_workloads_and_with_one_seed(study: Path) -> None:
    found = tuned(("mine",), budget=4, held_out=["none"], seeds=1, workloads=["one"])
    assert found.manifest["seeds"] == {"sweep": [1], "choosing": [2], "judging": [3]}
    assert all(cell.difference is None or cell.difference.p is None for cell in found.cells)
    text = tuned_text(found, 100)
    assert "held-out" not in text and "held out: no workload" in text and "1 judging seed: no intervals" in text


def test_a_default_that_wins_is_said(study: Path) -> None:
    found = tuned(("mine:interval_ms=900,threshold=3",), budget=1)
    one = found.contestants[0]
    assert one.default_won
    assert "the default won" in tuned_text(found, 100)
    assert all(cell.difference is None or cell.difference.points == 0 for cell in found.cells)


def suite(*values: float) -> dict[str, list[float]]:
    return {"w": list(values)}


def test_p_is_the_paired_t_test_and_holm_is_over_the_family() -> None:
    base = suite(0.30, 0.31, 0.29, 0.30)
    family = {"a": suite(0.27, 0.29, 0.25, 0.28), "b": suite(0.20, 0.25, 0.19, 0.24), "c": base}
    found = differences({name: (own, base) for name, own in family.items()})
    raw = [ttest_1samp([a - b for a, b in zip(family[n]["w"], base["w"], strict=True)], 0.0).pvalue for n in "ab"]
    assert [found[name].p for name in "abc"] == pytest.approx(holm([*raw, 1.0]))
    assert found["c"].word == "equal" and found["c"].sign == 0


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((0.10, 0.20), (0.30, 0.20), "reversed"),
        ((0.20, 0.20), (0.10, 0.20), "parted"),
        ((0.10, 0.20), (0.201, 0.20), "joined"),
        ((0.10, 0.20), (0.05, 0.20), ""),
    ],
)
def test_what_counts_as_a_change_of_order(before: tuple[float, float], after: tuple[float, float], change: str) -> None:
    noise = (0.0, 0.001, -0.001, 0.0005)
    stages = [
        {"a": suite(*(first + each for each in noise)), "b": suite(*(second - each for each in noise))}
        for first, second in (before, after)
    ]
    found = order(*stages)
    assert [pair.change for pair in found.pairs] == [change]
    assert set(found.default) == set("ab")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"budget": 0}, UsageError, "needs a trial"),
        ({"ratios": ["1:1", "1:2"]}, UsageError, "one machine and one ratio"),
        ({"machine": ["cxl-asic", "optane"]}, UsageError, "one machine and one ratio"),
        ({"rates": [1.0]}, UsageError, "no --rates or --placement"),
        ({"baseline": "first_touch"}, UsageError, "no --baseline first_touch"),
        ({"first_seed": 7}, UsageError, "no first_seed=7"),
        ({"held_out": ["one"]}, UsageError, "tunes on it too"),
        ({"policies": ("plain",)}, UsageError, "none of these policies has a parameter"),
        ({"policies": ("mime",)}, UnknownNameError, "did you mean mine"),
        ({"policies": ("mine:interval_ms=1",)}, ParameterError, "interval_ms"),
        ({"sampler": "tpo"}, UnknownNameError, "did you mean tpe"),
        ({"speed": 3}, ParameterError, "speed"),
    ],
)
def test_bad_uses_are_told_before_anything_is_computed(
    study: Path, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    calls = Stopping(1)
    with pytest.raises(error, match=words) as caught:
        tuned(**{"task": calls, **given})
    assert calls.seen == 0 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "4"], "add --tuned"),
        (["--held-out", "kv"], "add --tuned"),
        (["--tuned", "--robust"], "--tuned takes no --robust"),
        (["--tuned", "--dry-run"], "--tuned takes no --dry-run"),
        (["--tuned", "--wide"], "--tuned takes no --wide"),
        (["--tuned", "--format", "tsv"], "not as --format tsv"),
        (["--tuned", "--format", "lkml"], "not as --format lkml"),
        (["--tuned", "-w", "kv", "--held-out", "kv"], "tunes on it too"),
        (["--tuned", "--ratios", "1:1,1:2"], "one machine and one ratio"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["compare", "-p", "klruscand", *options, "--results", "r"]) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.strip().count("\n") == 0 and not told.out


def test_the_same_through_python(study: Path) -> None:
    assert {"compare_tuned", "sweep"} <= set(dir(klrubench))
    assert klrubench.compare_tuned is compare_tuned
    found = klrubench.sweep(
        "mine", ["one"], trials=8, held_out=["four"], store="results", jobs=1, deterministic=True, task=played
    )
    assert found.trials.height == 8
    assert {"trial", "state", "feasible", "charged", "interval_ms", "why"} <= set(found.trials.columns)
    assert found.winner.startswith("mine") and found.winner in found.winner_file.read_text()
    whole = found.trials.filter(found.trials["state"] == "complete")
    assert whole["charged"].min() == found.summary["best"]["objectives"][0]
    both = tuned(("mine",), budget=4).frame()
    assert set(both["account"]) == {"charged", "spare"}


SMALL = ["-w", "kv:footprint_gib=0.25", "--held-out", "hotset:footprint_gib=0.25", "-p", "klruscand:hash=sized"]


def test_real_runs_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["compare", *SMALL, "--tuned", "--budget", "4", "--seeds", "2", "--duration", "4", "--scale", "1/4"]
    words += ["--results", str(tmp_path / "r"), "--jobs", "1"]
    assert cli.run([*words, "--json"]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert record["manifest"]["budget"] == 4
    assert "\x1b" not in told.err and "\r" not in told.err
    assert cli.run(words) == 0
    text = capsys.readouterr()
    assert "1 sweep of 4 trials; 0 runs computed now" in text.err
    assert "workloads it was tuned on" in text.out and "oracle_static" in text.out
    assert max(map(len, text.out.splitlines())) <= 100

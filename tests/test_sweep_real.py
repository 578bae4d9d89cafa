"""A tiny sweep of real runs from the command line to the winner's file and back into a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from klrubench import cli
from klrubench.study.suite import question

SMALL = "kv:footprint_gib=0.25"
ARGUMENTS = [
    "sweep",
    "klruscand:hash=sized",
    *("-w", SMALL, "--held-out", "hotset:footprint_gib=0.25"),
    *("--trials", "6", "--seeds", "2", "--duration", "4", "--full-duration", "6", "--fresh-seeds", "2"),
    *("--param", "interval_ms=50:2000:log", "--fix", "batch=131072", "--jobs", "1", "--deterministic"),
]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def test_a_sweep_from_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*ARGUMENTS, "--results", str(results)]) == 0
    told = capsys.readouterr()
    assert "tuned on all" in told.out and "first_touch" in told.out
    assert "short and coarse runs (4 s" in told.err
    toml = next((results / "sweeps").glob("*.toml"))
    assert toml.stem.startswith("klruscand-")
    found = question(study=toml)
    assert any(text.startswith("klruscand:") and "hash=sized" in text for text in found.policy)
    assert cli.run(["sweep", "show", toml.stem, "--results", str(results), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["counts"]["trials"] == 6
    assert summary["about"]["space"]["fixed"] == {"hash": "sized", "batch": 131072}
    assert set(summary["slices"]) == {"interval_ms", "threshold", "window_ms"}
    first = summary["best_so_far"]
    assert cli.run([*ARGUMENTS, "--results", str(results)]) == 0, "the same command again"
    capsys.readouterr()
    assert cli.run(["sweep", "show", toml.stem, "--results", str(results), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_so_far"] == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "show"], "which sweep?"),
        (["sweep", "show", "none-1234"], "no sweep 'none-1234'"),
        (["sweep", "klruscand", "kv"], "workloads go with -w"),
        (["sweep", "klruscan"], "did you mean klruscand"),
        (["sweep", "all_top"], "nothing to search"),
        (["sweep", "klruscand", "-o", "speed"], "no objective 'speed'"),
        (["sweep", "klruscand", "--constraint", "daemon_cpu"], "write MEASURE<=NUMBER"),
        (["sweep", "klruscand", "--sampler", "cmaes", "-o", "charged,traffic"], "sampler cmaes"),
        (["sweep", "klruscand", "--ratio", "1:1", "-w", "kv", "--held-out", "kv"], "tunes on it too"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert cli.run(arguments) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.strip().count("\n") <= 1 and "Traceback" not in told.err

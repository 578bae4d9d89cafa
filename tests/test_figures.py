"""Figures: found by name, drawn from stored runs alone, byte for byte the same, honest about what did not come out."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from klrubench import cli
from klrubench.errors import KlrubenchError, UnknownNameError, UsageError
from klrubench.figures.captions import caption, judged
from klrubench.figures.drawing import Answer, answer, need_matplotlib, write
from klrubench.figures.finding import REFERENCE, figure_files, load_figure
from klrubench.figures.frames import mean_by, runs_frame, slowdowns
from klrubench.figures.latex import booktabs, latex
from klrubench.figures.style import LOOKS, OTHERS, VENUES, venue
from klrubench.study.ask import runs_of

NAMES = sorted(path.stem for path in REFERENCE.glob("*.py"))
pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")


def _share(*words: object) -> float:
    """A number from 0 to 1 out of words, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=4).digest(), "big") / 2**32


def _record(run: Any) -> dict[str, Any]:
    """What the store would hold of a run, with invented results."""
    spec = run.to_record()
    draw = _share(run.policy.label, run.workload.label, spec["machine"]["ratio"], run.seed)
    hit = 1.0 if run.policy.name == "all_top" else 0.3 + 0.6 * draw
    time_s = run.duration_s * (1.2 - 0.2 * hit)
    steps = 40
    metrics = {
        "time_s": time_s, "steady_time_s": time_s / 2, "charged_time_s": time_s * 1.02,
        "charged_steady_time_s": time_s * 0.51, "dram_hit_share": hit, "steady_dram_hit_share": hit,
        "daemon_cpu_s": 30 * draw, "app_cpu_s": 3 * draw, "promoted_mib_s": 50 * draw, "recall": draw,
        "precision": 1 - draw / 2, "fold": run.fold, "duration_s": run.duration_s,
    }  # fmt: skip
    counts = [1000.0 * step for step in range(steps)]
    result = {
        "metrics": metrics,
        "cpu": {"klruscand": 20 * draw, "kpromoted": 5 * draw, "kswapd": 5 * draw, "hint faults": draw, "mine": draw},
        "vmstat": {"ptescan_slots": int(1e6 * draw)},
        "series": {
            "t_s": list(range(steps)),
            "misses": counts,
            "hits_top": [hit * each for each in counts],
            "nr_top_pages": [2.8e6] * steps,
        },
    }
    return {"id": run.run_id, "spec": spec, "result": result, "manifest": {}}


_kept: dict[str, Answer] = {}


def _answer(name: str) -> Answer:
    if name not in _kept:
        figure = load_figure(name, quick=True)
        _kept[name] = answer(figure, [_record(run) for run in runs_of(figure.questions())])
    return _kept[name]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.klrubench]\n")
    (tmp_path / "figures").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


MINE = '''
"""Mine."""
from klrubench.figures import asked, expect

CAPTION = "My figure."
RUNS = [asked(["first_touch"], ["kv"])]
EXPECT = [expect("Two is more than one.", lambda data: data["y"][1] > data["y"][0])]

def data(frame):
    import polars as pl
    return pl.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]})

def draw(axes, data):
    axes.plot(data["x"], data["y"], label="50 % & more_")
'''


def test_every_figure_says_what_it_shows_and_what_it_expects() -> None:
    assert len(NAMES) >= 12
    for name in NAMES:
        figure = load_figure(name)
        assert len(figure.caption) > 80 and figure.caption.endswith("."), name
        assert figure.expectations and all(each.statement.endswith(".") for each in figure.expectations), name
        assert figure.runs and len(figure.path.read_text().splitlines()) <= 120, name


def test_the_room_of_figures_does_not_know_how_to_run() -> None:
    for file in REFERENCE.parent.rglob("*.py"):
        text = file.read_text()
        for word in (
            "klrubench.simulate",
            "study.executor",
            "study.gather",
            "study.run ",
            "study.compare",
            "study.worker",
        ):
            assert word not in text, (file.name, word)


def _some_then_slow(name: str) -> Any:
    quick = ("recovery", "rate_interval", "posted", "cost_split")
    return name if name in quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [_some_then_slow(name) for name in NAMES])
def test_draws_from_runs_and_writes_all_files(name: str, tmp_path: Path) -> None:
    found = _answer(name)
    write(found, tmp_path, venue("usenix"))
    files = _bytes(tmp_path)
    assert set(files) == {f"{name}.{ending}" for ending in ("pdf", "png", "csv", "tex", "txt")}
    assert pl.read_csv(tmp_path / f"{name}.csv").shape == found.data.shape
    assert b"CreationDate" not in files[f"{name}.pdf"] and b"/Type3" not in files[f"{name}.pdf"]
    assert "paired seeds" in found.caption and "scale 1/" in found.caption and "Quick version" in found.caption


@pytest.mark.parametrize("name", ["page_size", "hot_set_size"])
def test_drawn_twice_the_bytes_are_the_same(name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(_answer(name), tmp_path / folder, venue("acm"))
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_what_is_drawn_is_what_the_csv_says(tmp_path: Path) -> None:
    from matplotlib.figure import Figure as Sheet

    found = _answer("hot_set_size")
    write(found, tmp_path, venue("usenix"))
    told = pl.read_csv(tmp_path / "hot_set_size.csv")
    axes = Sheet().add_subplot()
    found.figure.draw(axes, found.data)
    drawn = {line.get_label(): line for line in axes.get_lines()}
    part = told.filter(told["policy"] == "numa_balancing").sort("hot_pct")
    assert drawn["NUMA balancing"].get_xdata().tolist() == part["hot_pct"].to_list()
    assert drawn["NUMA balancing"].get_ydata().tolist() == part["hit_pct"].to_list()


def test_each_venue_has_its_width(tmp_path: Path) -> None:
    import struct

    for name, place in (("ieee", VENUES["ieee"]), ("acm", VENUES["acm"])):
        write(_answer("cost_split"), tmp_path / name, place)
        data = (tmp_path / name / "cost_split.png").read_bytes()
        assert struct.unpack(">I", data[16:20])[0] == pytest.approx(200 * place.column, abs=1)
    with pytest.raises(UnknownNameError, match="no venue 'ieeee'; did you mean ieee"):
        venue("ieeee")


def test_the_closed_form_of_the_oracle() -> None:
    figure = load_figure("hot_set_size")
    scope = vars(__import__("sys").modules[figure.data.__module__])
    assert scope["closed_form"](20) == pytest.approx(0.9 + 0.1 / 3)
    assert scope["closed_form"](100) == pytest.approx(1 / 3)
    below, above = scope["closed_form"](100 / 3 - 1e-9), scope["closed_form"](100 / 3 + 1e-9)
    assert below == pytest.approx(above)


def test_the_gain_of_knowing_counts_by_drawing_them() -> None:
    import numpy as np

    scope = vars(__import__("sys").modules[load_figure("hot_set_size").data.__module__])
    rng, pages = np.random.default_rng(1), 60_000
    for hot_pct in (10.0, 60.0):
        hot = round(pages * hot_pct / 100)
        means = np.full(pages, 24.0)
        means[:hot] += 240 * 0.9 * pages / hot
        counts = rng.poisson(means)
        share = np.sort(counts)[-pages // 3 :].sum() / counts.sum()
        assert share == pytest.approx(scope["closed_form"](hot_pct) + scope["luck"](hot_pct), abs=0.002)


def test_an_expectation_fails_when_the_data_is_perturbed() -> None:
    figure = load_figure("hot_set_size")
    scope = vars(__import__("sys").modules[figure.data.__module__])
    good = pl.DataFrame([
        {"policy": name, "hot_pct": hot, "hit_pct": 100 * (scope["closed_form"](hot) + scope["luck"](hot)),
         "closed_form_pct": 100 * scope["closed_form"](hot), "luck_pct": 100 * scope["luck"](hot)}
        for name in ("oracle_static", "klruscand:hash=sized") for hot in scope["HOT"]
    ])  # fmt: skip
    assert all(each.good for each in judged(figure, good))
    bad = good.with_columns(pl.col("hit_pct") + 3)
    verdicts = judged(figure, bad)
    assert [each.good for each in verdicts] == [False, False, True]
    words = caption(figure, _runs(), verdicts)
    assert words.count("EXPECTED, BUT DID NOT COME OUT:") == 2 and "Found: 3.0" in words


def _runs() -> pl.DataFrame:
    return runs_frame([_record(run) for run in runs_of(load_figure("slow_ratio", quick=True).questions())])


@pytest.mark.parametrize("name", NAMES)
def test_every_expectation_can_fail_and_none_breaks_on_missing_points(name: str) -> None:
    found = _answer(name)
    numbers = [column for column, dtype in found.data.schema.items() if dtype == pl.Float64 and "_ms" not in column]
    verdicts: dict[str, set[bool]] = {}
    for factor in (0.0, 1.0, -1.0, 1000.0):
        for column in [None, *numbers]:
            chosen = numbers if column is None else [column]
            data = found.data.with_columns(pl.col(each) * factor for each in chosen)
            first = pl.int_range(pl.len()) == 0
            lone = found.data.with_columns(pl.when(first).then(pl.col(c) * factor).otherwise(pl.col(c)) for c in chosen)
            for each in [*judged(found.figure, data), *judged(found.figure, lone)]:
                verdicts.setdefault(each.statement, set()).add(each.good)
    assert all(False in seen for seen in verdicts.values()), verdicts
    assert not any(each.good for each in judged(found.figure, pl.DataFrame()))


def test_a_figure_of_ones_own_is_found_and_drawn(study: Path) -> None:
    (study / "figures" / "mine.py").write_text(MINE)
    assert "mine" in figure_files() and "rate_map" in figure_files()
    figure = load_figure("mine")
    found = answer(figure, [_record(run) for run in runs_of(figure.questions())])
    write(found, study / "out", venue("ieee"))
    assert (study / "out" / "mine.csv").read_text() == "x,y\n1.0,1.0\n2.0,2.0\n"
    assert "My figure." in (study / "out" / "mine.txt").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"figures/mine.py:1"),
        (MINE.replace("CAPTION", "TITLE"), "figures/mine.py: a figure needs CAPTION"),
        (MINE.replace('RUNS = [asked(["first_touch"], ["kv"])]', "RUNS = ['kv']"), "RUNS is a list of asked"),
        (MINE + "\nWIDTH = 'wide'\n", "WIDTH='wide': write 'column' or 'page'"),
    ],
)
def test_a_broken_figure_is_one_line(study: Path, text: str, message: str) -> None:
    (study / "figures" / "mine.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_figure("mine")


def test_an_error_in_data_names_the_figure(study: Path) -> None:
    (study / "figures" / "mine.py").write_text(MINE.replace("import polars as pl", "raise KeyError('hot')"))
    figure = load_figure("mine")
    with pytest.raises(KlrubenchError, match=r"figure mine: data\(\): KeyError: 'hot'"):
        answer(figure, [_record(run) for run in runs_of(figure.questions())])
    with pytest.raises(KlrubenchError, match="none of its runs is stored"):
        answer(figure, [])


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is there; the ids of none exist in a store on disk."""
    from klrubench.study import gather
    from klrubench.study.executor import Batch

    def there(runs: list[Any], *_: Any) -> gather.Gathered:
        return gather.Gathered(
            {run.run_id: _record(run) for run in runs}, frozenset(run.run_id for run in runs), Batch()
        )

    monkeypatch.setattr(gather, "gather", there)


def test_the_command_draws_and_says_what_did_not_come_out(
    study: Path, stored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "figures" / "mine.py").write_text(MINE)
    (study / "figures" / "wrong.py").write_text(MINE.replace("] > data", "] < data").replace("Two", "One"))
    both = ["figures", "--only", "mine", "--only", "wrong"]
    assert cli.run([*both, "--venue", "ieee"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == ["results/figures/mine.pdf", "results/figures/wrong.pdf"]
    assert "wrong: did not come out: One is more than one." in told.err
    assert "EXPECTED, BUT DID NOT COME OUT: One" in (study / "results" / "figures" / "wrong.txt").read_text()
    assert cli.run([*both, "--check"]) == 1
    told = capsys.readouterr()
    assert told.out == "wrong: did not come out: One is more than one.\n"
    assert "1 of 2 expectations did not come out" in told.err
    assert cli.run([*both[:3], "--check"]) == 0
    assert capsys.readouterr().out == "1 of 1 expectations came out\n"


def test_one_broken_figure_does_not_keep_the_others_from_being_drawn(
    study: Path, stored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "figures" / "mine.py").write_text(MINE)
    (study / "figures" / "broken.py").write_text(MINE.replace("import polars as pl", "raise KeyError('hot')"))
    assert cli.run(["figures", "--only", "broken", "--only", "mine"]) == 1
    told = capsys.readouterr()
    assert told.out == "results/figures/mine.pdf\n"
    assert "figure broken: data(): KeyError: 'hot'" in told.err and "not made: broken" in told.err
    assert cli.run(["figures", "--list", "--only", "mine"]) == 0
    assert capsys.readouterr().out.split() == ["mine", "5", "of", "5", "runs", "missing", "Mine."]


def _no_winners(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from klrubench.figures import winners

    monkeypatch.setattr(winners, "bundled_root", lambda: folder / "none")


def test_without_winners_one_line_says_which_sweeps_make_them(
    study: Path, stored: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _no_winners(monkeypatch, study)
    (study / "figures" / "mine.py").write_text(MINE)
    assert cli.run(["figures", "--only", "tuning", "--only", "mine"]) == 1
    told = capsys.readouterr()
    assert told.out == "results/figures/mine.pdf\n"
    assert "figure tuning: no winner's file yet; run: klrubench sweep klruscand --name tuning-klruscand ;" in told.err
    assert "not made: tuning" in told.err
    assert cli.run(["figures", "--list", "--only", "tuning"]) == 0
    assert "cannot be told yet" in capsys.readouterr().out


def test_winners_of_the_study_go_first_and_a_damaged_one_is_named(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from klrubench.figures.winners import lacking, winner_file, winners

    for policy in ("klruscand", "numa_balancing", "random_sampling"):
        (found,) = winners([policy])
        assert found.tuned.partition(":")[0] == found.default == policy
        assert not set(found.tuned_on) & set(found.held_out)
        asked = found.questions(["all_top"])
        assert {seed for each in asked for seed in each.all_seeds}.isdisjoint(range(1, found.told["first_seed"]))
        assert [each.workload[0] for each in asked] == [*found.tuned_on, *found.held_out]
    kept = winner_file("klruscand")
    assert kept is not None and kept.parent == REFERENCE.parents[2] / "results" / "reference" / "sweeps"
    own = study / "results" / "sweeps" / kept.name
    own.parent.mkdir(parents=True)
    own.write_text(re.sub(r"interval_ms=\d+", "interval_ms=1234", kept.read_text()))
    assert winner_file("klruscand") == own and "interval_ms=1234" in winners(["klruscand"])[0].tuned
    for damaged in (
        "policy = [",
        "seeds = 3",
        kept.read_text().replace("[sweep]", "[other]"),
        kept.read_text().replace("klruscand", "damon"),
        kept.read_text().replace("first_seed = ", "first_seed = 1 #"),
    ):
        own.write_text(damaged)
        assert not winners(["klruscand"])
        line = lacking(["klruscand"])
        assert line.startswith(("results/sweeps/", "study file results/sweeps/", "no setting")) and "\n" not in line


def test_a_name_that_is_no_figure() -> None:
    with pytest.raises(UnknownNameError, match="no figure 'ratemap'; did you mean rate_map"):
        load_figure("ratemap")


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r"figures need matplotlib: pip install 'klrubench\[figures\]'"):
        need_matplotlib()


def test_quick_is_coarser_and_has_fewer_seeds() -> None:
    figure, quick = load_figure("slow_ratio"), load_figure("slow_ratio", quick=True)
    assert (figure.questions()[0].seeds, figure.questions()[0].scale) == (5, "1/64")
    assert (quick.questions()[0].seeds, quick.questions()[0].scale) == (3, "1/128")


def test_means_and_slowdowns_by_hand() -> None:
    frame = pl.DataFrame({"who": ["a", "a", "b"], "value": [1.0, 3.0, 5.0]})
    found = mean_by(frame, ["who"], "value")
    assert found["value"].to_list() == [2.0, 5.0] and found["seeds"].to_list() == [2, 1]
    assert found["value_half"][0] == pytest.approx(12.706, abs=0.001) and found["value_half"][1] is None
    runs = _runs()
    row = slowdowns(runs).filter(pl.col("policy") == "first_touch").row(0, named=True)
    mine = runs.filter((pl.col("policy") == "first_touch") & (pl.col("ratio") == row["ratio"])).sort("seed")["time_s"]
    base = runs.filter((pl.col("policy") == "all_top") & (pl.col("ratio") == row["ratio"])).sort("seed")["time_s"]
    assert row["slowdown_pct"] == pytest.approx(100 * ((mine / base).log().mean().__rpow__(2.718281828459045) - 1))
    assert json.loads(row["workload_json"])["footprint_gib"] == 32.0


def test_latex_is_escaped_and_ruled() -> None:
    assert latex("50 % of a_b & c") == r"50 \% of a\_b \& c"
    text = booktabs(pl.DataFrame({"policy": ["a_b", "c"], "hit_pct": [1.23456, None]}), "t", "100 %")
    assert r"a\_b & 1.235 \\" in text and r"c & -- \\" in text and r"\begin{tabular}{lr}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_looks_differ_without_colour() -> None:
    for looks in (LOOKS.values(), OTHERS):
        assert len({look.marker for look in looks}) == len(looks)
        assert len({look.hatch for look in looks}) >= len(looks) - 1

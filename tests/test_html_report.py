"""`report`: one HTML file, whole in itself; read by a parser, and opened in a real browser where there is one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from small_runs import machine
from sweep_fakes import asked, valley, write_sweep_study
from typer.testing import CliRunner

from klrubench.cli import app
from klrubench.errors import UsageError
from klrubench.report.html import LINES, report
from klrubench.study.overview import comparisons, runs_of, slowdowns, sweeps
from klrubench.study.run import run_spec
from klrubench.study.spec import make_spec, policy_part, workload_part
from klrubench.study.store import Store
from klrubench.study.sweep.drive import sweep
from klrubench.study.sweep.journals import journals

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SMALL = "kv:footprint_gib=0.25"
POLICIES = ("all_top", "klruscand", "klruscand:interval_ms=500", "klruscand:interval_ms=1000", "first_touch")
VOID = {"meta", "input", "br", "link", "img"}
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("stored"))
    for policy in POLICIES:
        for seed in (1, 2):
            spec = make_spec(machine(), workload_part(SMALL), policy_part(policy), seed, duration_s=8, fold=8)
            run_spec(spec, store)
    _sweeps(tmp_path_factory.mktemp("swept"), store.path / "sweeps")
    return store


def _sweeps(study: Path, folder: Path) -> None:
    """Journals of two sweeps whose runs cost nothing: one objective, and two."""
    write_sweep_study(study)
    with contextlib.chdir(study):
        sweep(asked(trials=24), name="one", store="results", storage=str(folder), jobs=1, task=valley)
        both = asked(trials=16, objective=("charged", "traffic"), sampler="nsga2")
        sweep(both, name="two", store="results", storage=str(folder), jobs=1, task=valley)


@pytest.fixture(scope="module")
def page(stored: Store) -> str:
    pytest.importorskip("plotly")
    return report(stored)


class Reader(HTMLParser):
    """Tags that are open, ids, addresses, cells of tables, and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.ids += [own["id"]] if own.get("id") else []
        self.addresses += [str(own[name]) for name in ("src", "href", "action") if own.get(name)]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_is_whole_in_itself(page: str) -> None:
    found = read(page)
    assert found.addresses == [] and len(found.ids) == len(set(found.ids))
    assert len(found.scripts) == 3 and sum(len(script) > 1_000_000 for script in found.scripts) == 1
    wanted = re.findall(r'getElementById\("([a-z-]+)"\)', found.scripts[2])
    assert set(wanted) <= set(found.ids)
    assert "default-src 'none'" in page
    data = json.loads(found.scripts[0])
    for group, name in ((data["comparisons"], "compare"), (data["sweeps"], "sweep")):
        assert group and all(f"{name}-{k}" in found.ids for k in range(len(group)))


def test_its_numbers_are_those_of_the_runs(page: str, stored: Store) -> None:
    found = read(page)
    runs = next(table for table in found.tables if "seed" in table[0])
    shown = {row[runs[0].index("id")]: row for row in runs[1:]}
    own = slowdowns(runs_of(stored)[0])
    for record in stored.scan():
        row, metrics = shown[record["id"][:10]], record["result"]["metrics"]
        assert row[runs[0].index("time, s")] == f"{metrics['time_s']:.2f}"
        assert float(row[runs[0].index("slowdown, %")]) == pytest.approx(own[record["id"]][0], abs=0.006)
    data = json.loads(found.scripts[0])
    assert len(data["runs"]) == len(shown) == 10 and data["first"] in data["runs"]
    for run_id, run in data["runs"].items():
        assert len(run["y"]) == len(LINES) and all(len(line) == len(run["t"]) > 3 for line in run["y"])
        parts = [float(line.split()[0]) for line in run["parts"].splitlines()]
        assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=0.005), run_id
        assert run["command"].startswith("klrubench run -p ")
    (group,) = comparisons(record for _, record in runs_of(stored)[0])
    assert {row["policy"] for row in group["rows"]} == set(POLICIES) and all(row["seeds"] == 2 for row in group["rows"])


def test_a_parameter_with_three_values_is_drawn(stored: Store) -> None:
    (sweep,) = sweeps(runs_of(stored)[0])
    assert (sweep["policy"], sweep["parameter"], len(sweep["lines"])) == ("klruscand", "interval_ms", 1)
    line = sweep["lines"][0]
    assert line["x"] == [500, 1000, 2000] and not sweep["log"]
    (group,) = comparisons(record for _, record in runs_of(stored)[0])
    at = {row["policy"]: row["slowdown_pct"] for row in group["rows"]}
    assert line["y"][2] == pytest.approx(at["klruscand"]) and line["y"][0] == pytest.approx(at[POLICIES[2]])


def test_sweeps_are_drawn_from_their_journals(page: str, stored: Store) -> None:
    found = read(page)
    figures = {each["id"]: each for each in json.loads(found.scripts[0])["figures"]}
    parts = {"search-0": ("best", "slices", "contour", "importance"), "search-1": ("front-0-1", "importance")}
    assert set(figures) == {f"{head}-{part}" for head, names in parts.items() for part in names} <= set(found.ids)
    graphs = pytest.importorskip("plotly.graph_objects")
    for each in figures.values():
        graphs.Figure(data=each["traces"], layout=each["layout"])  # raises at a property that plotly does not know
    one, two = journals(stored.path / "sweeps")
    line = figures["search-0-best"]["traces"][1]
    assert line["y"] == sorted(line["y"], reverse=True) and line["x"][-1] == one["counts"]["trials"] - 1
    assert line["y"][-1] == pytest.approx(one["best"]["objectives"][0], rel=1e-3)
    cells = [cell for row in figures["search-0-contour"]["traces"][0]["z"] for cell in row if cell is not None]
    assert min(cells) == pytest.approx(one["best"]["objectives"][0], rel=1e-3)
    dots = sum(len(trace["x"]) for trace in figures["search-0-slices"]["traces"])
    assert dots == one["counts"]["complete"] * len(one["slices"])
    front = figures["search-1-front-0-1"]["traces"][1]
    assert front["x"] == sorted(front["x"]) and front["y"] == sorted(front["y"], reverse=True)
    assert len(front["x"]) == sum(trial["front"] for trial in two["trials"]) > 0
    assert "tuned on all" in page and "front of" in page


def test_a_damaged_journal_is_one_line_and_the_page_is_made(stored: Store, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    store = Store(tmp_path / "results")
    shutil.copytree(stored.path, store.path)
    whole = (store.path / "sweeps" / "one.journal").read_bytes()
    for name, data in {"broken": whole[: len(whole) // 3] + b"\xff{]\n" + whole, "none": b"", "other": whole}.items():
        (store.path / "sweeps" / f"{name}.journal").write_bytes(data)
    said: list[str] = []
    figures = json.loads(read(report(store, said.append)).scripts[0])["figures"]
    assert len(said) == 3 and all(line.startswith("warning: ") and "\n" not in line for line in said), said
    assert all(any(f"{name}" in line for line in said) for name in ("broken", "none", "other"))
    assert {figure["id"].rpartition("-")[0] for figure in figures} >= {"search-0", "search-1"}


def test_many_trials_stay_small(stored: Store) -> None:
    from klrubench.report.sweep_page import LEAST_TRIALS, plots

    one = next(journals(stored.path / "sweeps"))
    trials = [{**one["trials"][0], "trial": number, "front": number == 7} for number in range(100_000)]
    figures = plots({**one, "trials": trials}, 0, sweeps=40)
    (dots,) = [trace for trace in figures[0]["traces"] if trace["name"] == "full trials"]
    assert LEAST_TRIALS / 2 < len(dots["x"]) <= LEAST_TRIALS + 1 and 7 in dots["x"]


def test_text_from_outside_stays_text(stored: Store, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    store = Store(tmp_path)
    for record in stored.scan():
        spec = {**record["spec"], "workload": {**record["spec"]["workload"], "label": "</script><b>x"}}
        store.put(record["id"], spec, stored.get(record["id"], series=True)["result"], record["manifest"])  # type: ignore[index]
    found = read(report(store))
    assert len(found.scripts) == 3 and "b" not in found.open
    assert any("</script><b>x" in cell for table in found.tables for row in table for cell in row)


def test_the_default_study_stays_small(stored: Store, tmp_path: Path) -> None:
    """450 runs with time lines of 140 s."""
    pytest.importorskip("plotly")
    store = Store(tmp_path)
    whole = [stored.get(run_id, series=True) for run_id in stored.ids()]
    for number in range(450):
        record: dict[str, Any] = whole[number % len(whole)]  # type: ignore[assignment]
        series = {
            name: [values[-1] * (k + 0.123 * (k % 7)) / 140 for k in range(140)]
            for name, values in record["result"]["series"].items()
        }
        seed = 1 + number // len(whole)
        parts = {**record["spec"]["components"], "seed": str(seed)}
        spec = {**record["spec"], "seed": seed, "components": parts}
        store.put(f"{number:08x}" + record["id"][8:], spec, {**record["result"], "series": series}, record["manifest"])
    assert len(report(store).encode()) < MOST_BYTES


def test_without_plotly_one_line_says_so(stored: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(UsageError, match=r"klrubench\[report\]"):
        report(stored)


def test_the_command(stored: Store, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    done = CliRunner().invoke(app, ["report", str(stored.path), "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0 and "MiB" in done.output
    read((tmp_path / "r.html").read_text())


def test_a_real_browser_draws_and_sorts_it(page: str, tmp_path: Path) -> None:
    """Scripts on, no network: every plot is drawn; a click on a head sorts, one on a row shows that run."""
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        pytest.skip(f"no browser installed (looked for {', '.join(BROWSERS)})")
    clicks = """<script>
      window.addEventListener("load", function () {
        const table = document.getElementById("runs");
        const heads = Array.from(table.tHead.rows[0].cells);
        const head = heads.find(function (cell) { return cell.textContent === "time, s"; });
        head.click();
        const column = head.cellIndex;
        document.body.dataset.times = Array.from(table.tBodies[0].rows).map(function (row) {
          return row.cells[column].textContent; }).join(" ");
        const last = table.tBodies[0].rows[table.tBodies[0].rows.length - 1];
        last.cells[0].click();
        document.body.dataset.clicked = last.dataset.id;
        document.getElementById("filter").value = "first_touch";
        document.getElementById("filter").dispatchEvent(new Event("input"));
      });
    </script></body>"""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", clicks), encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=10000", "--enable-logging=stderr", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    dom = done.stdout
    assert 'data-ready="yes"' in dom, done.stderr[-2000:]
    problems = [line for line in done.stderr.splitlines() if "CONSOLE" in line and ("rror" in line or "efused" in line)]
    assert not problems
    drawn = ("search-0-best", "search-0-slices", "search-0-contour", "search-0-importance", "search-1-front-0-1")
    for name in ("run-plot", "compare-0", "sweep-0", *drawn):
        assert re.search(rf'id="{name}"[^>]*js-plotly-plot', dom) or re.search(rf'js-plotly-plot"[^>]*id="{name}"', dom)
    assert dom.count('class="main-svg"') >= 3
    times = re.search(r'data-times="([^"]+)"', dom)
    assert times and (values := [float(text) for text in times[1].split()]) == sorted(values) and len(values) == 10
    clicked = re.search(r'data-clicked="([0-9a-f]+)"', dom)
    assert clicked and f"klrubench explain {clicked[1][:12]}" in dom
    assert "2 runs shown" in dom

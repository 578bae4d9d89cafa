"""`heatmap`: watching changes nothing, and the picture's numbers are those of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import machine
from typer.testing import CliRunner

from klrubench.cli import app
from klrubench.report.heatmap import heatmap_text, save_png
from klrubench.study.execute import execute
from klrubench.study.heatmap import Heat, heatmap
from klrubench.study.spec import RunSpec, make_spec, policy_part, workload_part


def spec(policy: str = "klruscand", workload: str = "kv:footprint_gib=0.25", **more: object) -> RunSpec:
    values: dict[str, object] = {"duration_s": 8.0, "fold": 8, **more}
    return make_spec(machine(), workload_part(workload), policy_part(policy), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["klruscand", "numab2", "random_sampling", "damon"])
@pytest.mark.parametrize("workload", ["kv:footprint_gib=0.25", "mixed:footprint_gib=0.25"])
def test_watching_changes_nothing(policy: str, workload: str) -> None:
    made = spec(policy, workload)
    assert heatmap(made, 8).result == execute(made)


@pytest.mark.parametrize("order", ["address", "heat"])
def test_the_picture_holds_every_touch_and_every_page(order: str) -> None:
    heat = heatmap(spec(), 8, order)
    metrics = heat.result["metrics"]
    lengths = np.diff(heat.ends_s, prepend=0.0)
    pages = metrics["pages"] / 8
    assert (heat.rate * lengths).sum() * pages == pytest.approx(metrics["accesses"], rel=1e-6)
    assert heat.ends_s[-1] == pytest.approx(metrics["time_s"], rel=1e-9)
    at_end = heat.in_top[:, -1].mean() * metrics["pages"]
    assert at_end == pytest.approx(heat.result["tenants"][0]["dram_pages"], rel=1e-6)
    if order == "heat":
        total = (heat.rate * lengths).sum(axis=1)
        assert (np.diff(total) <= 0).all()


def test_all_pages_lie_where_a_bound_puts_them() -> None:
    assert (heatmap(spec("all_top"), 4).in_top == 1).all()
    assert (heatmap(spec("all_lower"), 4).in_top == 0).all()


def drawn() -> Heat:
    rate = np.array([[1.0, 10.0, 100.0], [0.0, 1.0, 1.0]])
    return Heat(
        rate, np.array([[0, 0.5, 1.0], [1.0, 0.5, 0]]), np.array([1.0, 2.0, 3.0]), ["0.0", "0.5"], "address", {}
    )


def test_shades() -> None:
    text = heatmap_text(drawn(), 80, ascii_only=True)
    rows = [line.partition("|")[2] for line in text.splitlines() if "|" in line]
    assert rows == ["159", "011", "059", "950"]
    assert text.isascii()
    blocks = heatmap_text(drawn(), 80)
    assert [line.partition("▕")[2] for line in blocks.splitlines() if "▕" in line] == ["░▓█", " ░░", " ▒█", "█▒ "]


def test_a_wide_picture_is_narrowed() -> None:
    heat = Heat(np.ones((2, 300)), np.ones((2, 300)), np.arange(300) + 1.0, ["a", "b"], "address", {})
    assert max(map(len, heatmap_text(heat, 72).splitlines())) <= 120
    rows = [line for line in heatmap_text(heat, 72).splitlines() if "▕" in line]
    assert all(len(row) <= 72 for row in rows)


def test_the_image_is_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png"):
        save_png(drawn(), tmp_path / name, "title")
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data == (tmp_path / "b.png").read_bytes()


def test_without_matplotlib_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from klrubench.errors import UsageError

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"klrubench\[figures\]"):
        save_png(drawn(), tmp_path / "x.png", "title")


def test_the_command(tmp_path: Path) -> None:
    words = ["heatmap", "kv:footprint_gib=0.25/klruscand", "--scale", "1/8", "--duration", "6", "--rows", "4"]
    done = CliRunner().invoke(app, [*words, "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "touches a page and second" in done.output and "share of pages in DRAM" in done.output

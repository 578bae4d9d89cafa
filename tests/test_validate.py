"""`klrubench validate`: what it prints and when it fails; a person's own counters beside a run; published tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from klrubench.cli import run
from klrubench.errors import UnknownNameError, UsageError
from klrubench.report.against import against_text, rows_shown
from klrubench.report.validation import facts_text
from klrubench.validation.against import Held, hold_against, read_series
from klrubench.validation.facts import OBSERVED, curve, facts
from klrubench.validation.finding import Check, finding, holds, near, same
from klrubench.validation.runner import ABSENT, Row, load_checks, run_check, select, summary

FAST = ["bloom_threshold", "klru_heap_push", "touch"]


# --- facts and checks -------------------------------------------------------------------------------------------------
def test_every_fact_has_a_check_or_a_reason() -> None:
    """Once each; and every row of the file is read."""
    assert set(load_checks()) | set(ABSENT) == set(facts()) and not set(load_checks()) & set(ABSENT)
    assert len(facts()) == len((OBSERVED / "facts.csv").read_text().splitlines()) - 1 + 2
    assert sorted(select()) == sorted(facts())
    assert len(curve("hint_fault_hotset")) == 41 and len(curve("klruscand_hotset")) == 25


def test_selection_by_group_and_by_name() -> None:
    assert set(select(["pghot", "touch"])) == {"touch", *(c.id for c in load_checks().values() if c.group == "pghot")}
    with pytest.raises(UnknownNameError, match="did you mean klru_gap_rule"):
        select(["klru_gap"])


def test_comparisons() -> None:
    """Equality, an absolute and a relative tolerance (the larger counts), a rule."""
    assert [same("a", 3, 3.0).agrees, same("a", [1], [2]).agrees] == [True, False]
    assert [near("a", 100, 104, by=5).agrees, near("a", 100, 106, by=5).agrees] == [True, False]
    assert [near("a", 200, 219, by=1, share=0.1).agrees, near("a", -200, -221, share=0.1).agrees] == [True, False]
    assert near("a", 1, 1, by=3, share=0.05).tolerance == "+-3 or 5 %"
    assert not finding("text", same("a", 1, 1), holds("b", "rule", False)).agrees


def row(verdict: str, compare_as: str, known: dict[str, str] | None = None) -> Row:
    """A row that differs in one of two comparisons."""
    parts = (same("one", 1, 1), near("two", 1000, 1500, by=50))
    return Row(replace(facts()["touch"], compare_as=compare_as), "costs", verdict, False, "it", parts, known or {}, 0.1)


def test_what_fails_the_command() -> None:
    """An exact, abs or shape row that differs; not a ratio, not what is known."""
    check = Check("touch", "costs", lambda: finding(""), known={"two": "why"})
    assert check.unexpected(finding("", *row("differs", "exact").parts)) == []
    assert [row("differs", how).fails for how in ("exact", "abs 50", "shape", "ratio")] == [True, True, True, False]
    assert not row("known miss", "exact").fails


def test_the_page_shows_misses_and_reasons() -> None:
    rows = [row("differs", "exact"), row("known miss", "abs 50", {"two": "the reason why"}), run_check("touch")]
    for width in (72, 100):
        text = facts_text(rows, width)
        assert max(map(len, text.splitlines())) <= width
        assert "two: 1,000 measured, 1,500 simulated (1.50x; +-50)" in " ".join(text.split())
        assert "the reason why" in text and "instructions" in text
        assert "3 rows: 1 differs, 1 known miss, 1 not modelled" in text
    assert summary(rows)["failed"] == ["touch"] and summary(rows)["held_out"] == 2


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Text names kernel, clock and tolerance; JSON has every comparison."""
    asked = [word for fact in FAST for word in ("--only", fact)]
    assert run(["validate", *asked]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("executed instructions", "only ratios", "6.18 (Debian)", "64 kept, 63 dropped", "exact", "[input]"):
        assert words in text
    assert "3 rows: 2 agree, 1 not modelled held out: 1 of 1 agree; not held out: 1 inputs" in text
    assert run(["validate", *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {fact["id"]: fact["verdict"] for fact in told["facts"]} == {
        "bloom_threshold": "agrees", "klru_heap_push": "agrees", "touch": "not modelled",
    }  # fmt: skip
    assert all(part["agrees"] for fact in told["facts"] for part in fact["parts"])
    assert told["clock"] and told["summary"]["failed"] == []


def test_an_unexpected_difference_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(load_checks()["bloom_threshold"], run=lambda: finding("it", same("tables", 64, 63)))
    monkeypatch.setitem(load_checks(), "bloom_threshold", wrong)
    assert run(["validate", "--only", "bloom_threshold"]) == 1
    assert "tables: 64 measured, 63 simulated" in capsys.readouterr().out
    assert run(["validate", "--only", "nothing_such"]) == 2


# --- a person's own counters ------------------------------------------------------------------------------------------
def written(folder: Path, text: str) -> Path:
    file = folder / "mine.csv"
    file.write_text(text)
    return file


def test_a_series_is_counted_from_its_first_row(tmp_path: Path) -> None:
    """Seconds and counters since then, blanks and unknown columns left out."""
    text = "second, pgpromote_success ,nr_free_pages,numa_pages_migrated\n\n100.5,7,9,1\n102,17,3,1\n110.5,27,5,4\n"
    series = read_series(written(tmp_path, text))
    assert series.seconds == [0, 1.5, 10]
    assert series.counters == {"pgpromote_success": [0, 10, 20], "numa_pages_migrated": [0, 0, 3]}
    assert series.ignored == ("nr_free_pages",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must name the columns, 'second' among them; it has: nothing"),
        ("time,pgpromote_success\n1,2\n2,3\n", "it has: time, pgpromote_success"),
        ("second\n1\n2\n", "no counter that klrubench has"),
        ("second,nr_free_pages\n1,2\n2,3\n", "it has: nr_free_pages"),
        ("second,pgpromote_success,pgpromote_success\n1,2,2\n2,3,3\n", "'pgpromote_success' is there twice"),
        ("second,pgpromote_success\n1,2\n", "1 rows of counters; at least 2"),
        ("second,pgpromote_success\n1,2\n2,3,4\n", "mine.csv:3: 3 values, 2 columns"),
        ("second,pgpromote_success\n1,2\n2,x\n", "mine.csv:3: 'x' is no number"),
        ("second,pgpromote_success\n1,2\n2,nan\n", "'nan' is no number"),
        ("second,pgpromote_success\n1,-2\n2,3\n", "mine.csv:2: '-2' is no number"),
        ("second,pgpromote_success\n2,2\n2,3\n", "mine.csv:3: second goes from 2 to 2"),
        ("second,pgpromote_success\n1,9\n2,3\n", "mine.csv:3: pgpromote_success goes from 9 to 3"),
        ("second,pgpromote_success\n1,2\n200000,3\n", "100000 s at most"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_series(written(tmp_path, text))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_other_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv: no such file"):
        read_series(tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match="not a text file"):
        read_series(tmp_path / "binary.csv")
    assert run(["validate", "--against", str(tmp_path / "gone.csv")]) == 2
    assert run(["validate", "--against", "x.csv", "--only", "touch"]) == 2
    assert "stands alone" in capsys.readouterr().err


SMALL = {"scale": "1/16", "ratio": "1:1", "seed": 3}
WORK = "uniform:footprint_gib=0.5,rate=1,placement=lower"


def recorded(tmp_path: Path) -> Held:
    """A run held against a series that says 1000 promotions a second and no demotion."""
    rows = "\n".join(f"{1000 + second},{1000 * second},5" for second in range(0, 9, 2))
    series = read_series(written(tmp_path, f"second,pgpromote_success,pgdemote_kswapd\n{rows}\n"))
    return hold_against(series, "numa_balancing", WORK, **SMALL)  # type: ignore[arg-type]


def test_a_run_held_against_itself_agrees(tmp_path: Path) -> None:
    """What a run counts, read back as a file: no difference at any second."""
    first = recorded(tmp_path)
    ours = next(pair for pair in first.pairs if pair.name == "pgpromote_success").simulated
    assert ours[0] == 0 < ours[-1] and sorted(ours) == ours
    rows = "\n".join(f"{second},{count + 77!r}" for second, count in zip(first.seconds, ours, strict=True))
    again = hold_against(
        read_series(written(tmp_path, f"second,pgpromote_success\n{rows}\n")), "numa_balancing", WORK, **SMALL  # type: ignore[arg-type]
    )  # fmt: skip
    assert again.pairs[0].end == again.pairs[0].largest == 0


def test_differences_are_shares_of_what_was_measured_at_the_end(tmp_path: Path) -> None:
    held = recorded(tmp_path)
    promoted, demoted = held.pairs
    assert promoted.end == pytest.approx((promoted.simulated[-1] - 8000) / 8000)
    apart = [abs(ours - theirs) / 8000 for ours, theirs in zip(promoted.simulated, promoted.measured, strict=True)]
    assert abs(promoted.largest or 0) == pytest.approx(max(apart))
    assert held.seconds[apart.index(max(apart))] == promoted.largest_at_s
    assert demoted.end is None and demoted.largest is None
    text = against_text(held, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "scale 1/16" in text and "pgpromote_success" in text and f"{100 * (promoted.end or 0):+.1f}" in text
    assert json.loads(json.dumps(held.to_dict()))["pairs"][0]["measured"] == [0, 2000, 4000, 6000, 8000]


def test_long_series_are_thinned_out() -> None:
    assert rows_shown(5) == [0, 1, 2, 3, 4]
    shown = rows_shown(600)
    assert len(shown) == 24 and shown[0] == 0 and shown[-1] == 599

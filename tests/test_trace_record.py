"""Recording, import and the card from the command line; and the trace that comes along as a workload."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from klrubench.cli.trace import app
from klrubench.errors import KlrubenchError, ParameterError, StoreError, TraceFormatError, UnknownNameError, UsageError
from klrubench.trace import record as recording
from klrubench.trace.collect import Collector
from klrubench.trace.format import load
from klrubench.workload import Layout

needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None, reason="recording needs valgrind (apt install valgrind)"
)
BUNDLED = Path(__file__).resolve().parent.parent / "workloads" / "traces"
TEXT = "==1== Lackey\n" + "I  0401ab70,3\n L 1ffe000,8\n S 2000,4\n" * 3000


def trace(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(kind: type[KlrubenchError], words: str, *arguments: object) -> None:
    result = trace(*arguments)
    assert type(result.exception) is kind, result
    assert re.search(words, str(result.exception)), result.exception
    assert "\n" not in str(result.exception)


@needs_valgrind
def test_a_real_program_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "true.parquet"
    result = trace("record", "-o", path, "--llc", "64KiB", "--epoch", 20_000, "--note", "nothing", "--", "true")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert re.fullmatch(rf"{path}: [\d,]+ accesses to \d+ pages in \d+ epochs\n", result.stderr)
    card = json.loads(trace("info", "--json", path).stdout)
    assert card["command"] == "true"
    assert card["note"] == "nothing"
    assert re.fullmatch(r"valgrind-[\d.]+.* lackey", card["tool"])
    assert (card["exit_code"], card["threads"], card["complete"], card["llc_bytes"]) == (0, 1, True, 65536)
    assert card["instructions"] > 50_000
    assert 0 < card["llc_misses"] < card["touches"]
    assert card["touches"] >= card["accesses"]
    assert any("time" in words for words in card["lacks"])


@needs_valgrind
def test_the_programs_exit_code_is_told(tmp_path: Path) -> None:
    result = trace("record", "-o", tmp_path / "a.parquet", "--", "sh", "-c", "exit 3")
    assert result.exit_code == 3
    assert "sh ended with exit code 3" in result.stderr
    assert load(tmp_path / "a.parquet").card.exit_code == 3
    result = trace("record", "-o", tmp_path / "b.parquet", "--", "sh", "-c", "kill -TERM $$")
    assert result.exit_code == 143
    card = load(tmp_path / "b.parquet").card
    assert (card.exit_code, card.complete) == (-15, False)
    assert "what came after signal 15, which ended the program" in card.lacks


@needs_valgrind
def test_max_accesses_stops_the_program_at_that_access(tmp_path: Path) -> None:
    endless = ("sh", "-c", "while :; do :; done")
    result = trace("record", "-o", tmp_path / "a.parquet", "--max-accesses", 5000, "--", *endless)
    assert result.exit_code == 0
    card = load(tmp_path / "a.parquet").card
    assert (card.accesses, card.exit_code, card.complete) == (5000, None, False)
    assert "the end of the program: it was stopped after 5,000 accesses" in card.lacks


@needs_valgrind
def test_an_interrupt_keeps_what_was_recorded() -> None:
    def interrupt(collector: Collector, read_bytes: int) -> None:
        if collector.accesses:
            os.kill(os.getpid(), signal.SIGINT)

    endless = ["sh", "-c", "while :; do :; done"]
    result = recording.record(endless, Collector(None, 1000), filtered=False, progress=interrupt)
    assert result.exit_code is None
    assert result.trace.card.accesses > 0
    assert "the end of the program: recording was interrupted" in result.trace.card.lacks


@needs_valgrind
def test_a_child_that_lives_on_does_not_hold_up_the_end(tmp_path: Path) -> None:
    assert trace("record", "-o", tmp_path / "a.parquet", "--", "sh", "-c", "sleep 60 & exit 0").exit_code == 0


@needs_valgrind
def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    record = ("record", "-o", path, "--")
    fails(UsageError, "command 'nothing' not found; write klrubench trace record -- COMMAND", *record, "nothing")
    script = tmp_path / "script"
    script.write_text("x")
    fails(UsageError, "script' is not executable", *record, script)
    script.chmod(0o755)
    # an ELF file for a processor that is none
    script.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\x00\x01" + bytes(200))
    fails(UsageError, r"valgrind could not run '.*script' \(exit code \d+\)", *record, script)
    assert not path.exists()


def test_without_valgrind_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recording.shutil, "which", lambda name: None)
    fails(UsageError, "apt install valgrind, dnf install valgrind", "record", "-o", tmp_path / "a", "--", "true")


def test_an_output_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    kept = tmp_path / "kept.parquet"
    kept.write_text("mine")
    fails(UsageError, "kept.parquet exists; .* --force", "record", "-o", kept, "--", "true")
    fails(UsageError, "is a folder", "record", "-o", tmp_path, "--", "true")
    fails(StoreError, "cannot write into .*nowhere", "record", "-o", tmp_path / "nowhere" / "a", "--", "true")
    record = ("record", "-o", tmp_path / "a")
    fails(ParameterError, "'2 apples' is no size", *record, "--llc", "2 apples", "--", "true")
    fails(ParameterError, "no last-level cache has 1000 bytes", *record, "--llc", 1000, "--", "true")
    fails(ParameterError, "epoch of 1 ", *record, "--epoch", 1, "--", "true")
    assert kept.read_text() == "mine"


def test_import_and_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("some.log").write_text(TEXT)
    assert trace("import", "some.log", "--llc", "none", "--epoch", 1000).exit_code == 0
    text = trace("info", "some.trace.parquet").stdout
    for words in (
        "3,000 instructions, 6,000 accesses in 3 epochs of 1,000 instructions",
        "none (unfiltered)",
        "2 pages",
        "threads not known",
        "a cache: every touch counts as a miss",
        "program      not known",
    ):
        assert words in text, words
    assert CliRunner().invoke(app, ["import", "-", "-o", "in.parquet"], input=TEXT).exit_code == 0
    assert load("in.parquet").card.llc_bytes == 2 << 20
    Path("cut.log").write_text(TEXT[:-3])
    fails(TraceFormatError, "cut.log, line 9001: .* cut short", "import", "cut.log")
    assert not Path("cut.trace.parquet").exists()
    fails(TraceFormatError, "some.log: is no klrubench trace", "info", "some.log")


def test_help_loads_no_compiler() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from klrubench.cli.trace import app\n"
        "for words in (['--help'], ['record', '--help'], ['info', '--help']): CliRunner().invoke(app, words)\n"
        "print([name for name in ('numba', 'polars', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"


def workload(**values: object):  # type: ignore[no-untyped-def]
    from klrubench.study.plugins import find_workload

    return find_workload("trace")(**values)


def test_the_trace_that_comes_along() -> None:
    path = BUNDLED / "sqlite3.parquet"
    card = load(path).card
    assert (card.command, card.exit_code, card.complete, card.llc_bytes) == ("sqlite3", 0, True, 256 << 10)
    assert card.pages > 3000
    assert card.epochs > 1000
    assert card.accesses > 30_000_000
    assert 500_000 < path.stat().st_size < 3_000_000
    assert not re.search(rb"/(home|root|usr|tmp|var|opt|mnt)\b", path.read_bytes())


def test_the_trace_workload() -> None:
    some = workload()
    layout = Layout(1 << 20, 1 << 15, 32, 3, 1 << 20, 60.0)
    out = np.empty(1 << 20, np.uint32)
    some.stream(layout).fill(out, 0)
    assert (out & (1 << 30) != 0).mean() == pytest.approx(some.cached_share, abs=0.01)
    assert (out[out & (1 << 30) == 0] >> 31 == 0).mean() == pytest.approx(some.read_share, abs=0.01)
    assert int((out & 0x3FFFFFFF).max()) < 1 << 15
    assert np.array_equal(np.sort(some.init_order(layout)), np.arange(1 << 15))
    assert some.content() == load(BUNDLED / "sqlite3.parquet").digest()
    assert "never a timing of sqlite3" in some.notes(layout)[0]
    assert "recorded stream" in some.seeds_change


def test_a_trace_by_path_and_by_a_wrong_name(tmp_path: Path) -> None:
    (tmp_path / "some.log").write_text(TEXT)
    trace("import", tmp_path / "some.log", "-o", tmp_path / "mine.parquet")
    assert workload(file=str(tmp_path / "mine.parquet")).recording().card.pages == 2
    with pytest.raises(UnknownNameError, match="no trace 'sqlite'; did you mean sqlite3"):
        workload(file="sqlite")
    with pytest.raises(UsageError, match=r"cannot read the trace .*nowhere.parquet"):
        workload(file="nowhere.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "mine.parquet").read_bytes()[:-9])
    with pytest.raises(TraceFormatError, match=r"cut.parquet: is cut short"):
        workload(file=str(tmp_path / "cut.parquet"))

"""The command line: what is printed where, one line an error, exit codes, and no heavy imports for `--help`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from klrubench import cli
from klrubench.errors import KlrubenchError, RunFailedError, StoreError
from klrubench.machine import list_machines, load_machine
from klrubench.study.compare import Comparison
from klrubench.study.suite import question
from klrubench.study.table import frame

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numba", "numpy", "polars", "scipy", "optuna", "pydantic", "rich", "matplotlib")
POLICIES = ["all_top", "all_lower", "first_touch", "klruscand", "oracle_static"]


def command_names() -> list[str]:
    return list(cli.COMMANDS)


def in_shell(arguments: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own."""
    program = "from klrubench.cli import main; main()"
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=where, timeout=120, **more
    )


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


# ---- help


@pytest.mark.parametrize("arguments", [["--help"], *[[name, "--help"] for name in cli.COMMANDS]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom klrubench.cli import run\ncode = run(sys.argv[1:])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr.strip() == "[]" and "Usage: klrubench" in done.stdout


def examples_of(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert cli.run([name, "--help"]) == 0
    return re.findall(r"^ +(klrubench .*)$", capsys.readouterr().out.split("Options:")[0], re.MULTILINE)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_parse_and_no_shell_eats_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples_of(name, capsys)
    assert found
    group: Any = typer.main.get_command(cli.app)
    for line in found:
        bare = re.sub(r'"[\w.<=]+"', "", line)  # a comparison has to be quoted, and is
        assert not re.search(r"[*?\[\]{}$!&;|<>()~`\"'\\#^]", bare), line
        words = shlex.split(line)
        assert words[:2] == ["klrubench", name]
        with group.commands[name].make_context(name, words[2:]) as context:
            assert context.params is not None


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in command_names())


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"klrubench \d+\.\d+.*\n", capsys.readouterr().out)


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nonsense", "no such command"),
        ("compere", "compare"),
        ("compare --sed 3", "--seeds"),
        ("compare extra", "extra"),
        ("compare --seeds 0", "--seeds"),
        ("compare --duration -3", "--duration"),
        ("compare --duration nan", "--duration"),
        ("compare --jobs 0", "--jobs"),
        ("compare --format xml", "lkml"),
        ("compare --rates fast", "--rates 'fast'"),
        ("compare --rates 1,-2", "--rates"),
        ("compare --rates inf", "--rates"),
        ("compare --cost walk_pte", "NAME=VALUE"),
        ("compare --sysctl numa_balancing", "NAME=VALUE"),
        ("compare --suite nosuch", "nosuch"),
        ("compare --study nosuch.toml", "nosuch.toml"),
        ("compare -p klruscnd", "klruscand"),
        ("compare -p klruscand:interval_ms", "key=value"),
        ("run -w nosuch", "nosuch"),
        ("run --seed -1", "--seed"),
        ("list everything", "policies"),
        ("describe", "NAME"),
        ("describe klruscnd", "klruscand"),
        ("describe machine:cxl-asci", "cxl-asic"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_2(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(lines_of(shown.err)) == 1
    assert shown.err.startswith("klrubench: ") and said in shown.err


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KlrubenchError("two\nlines"), 1),
        (StoreError("no room"), 5),
        (RunFailedError("a worker was killed"), 6),
        (ZeroDivisionError("a bug"), 70),
        (OSError(28, "No space left on device"), 1),
        (MemoryError("no memory"), 70),
    ],
)
def test_every_error_is_one_line(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("klrubench.study.compare.compare", raising(error))
    monkeypatch.delenv("KLRUBENCH_DEBUG", raising=False)
    assert cli.run(["compare"]) == code
    shown = capsys.readouterr()
    assert shown.out == "" and len(lines_of(shown.err)) == 1 and shown.err.startswith("klrubench: ")


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klrubench.study.compare.compare", raising(KeyboardInterrupt()))
    assert cli.run(["compare"]) == 130


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = "from klrubench.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "describe", "cxl-asic"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(60) in (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_below_stdout_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from klrubench.cli import main; main()", "list", "machines"],
        stdout=open("/dev/full", "w"),  # noqa: SIM115
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == 1 and len(lines_of(done.stderr)) == 1 and "No space left" in done.stderr


# ---- list, describe, doctor


@pytest.mark.parametrize("what", ["policies", "workloads", "machines", "suites"])
def test_list_names_things(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", what, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert cli.run(["list", what]) == 0
    shown = capsys.readouterr().out
    assert found and all(item["name"] in shown for item in found)
    assert max(len(line) for line in shown.splitlines()) <= 100


def test_list_shows_everything_but_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("policies", "workloads", "machines", "suites", "klruscand", "kv", "cxl-asic"))


def test_list_runs_of_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "runs", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == "none"
    assert list(tmp_path.iterdir()) == [], "looking leaves no traces"


def test_describe_a_policy_a_workload_and_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    for name, word in (("klruscand", "interval_ms"), ("kv", "footprint_gib"), ("cxl-asic", "114")):
        assert cli.run(["describe", name]) == 0
        shown = capsys.readouterr().out
        assert word in shown and max(len(line) for line in shown.splitlines()) <= 100
        assert cli.run(["describe", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == name


def test_describe_takes_values_and_refuses_bad_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """What a preset brings is said; a value that compare would refuse is refused here, with the same words."""
    for name in ("klruscand:preset=pghot-v3", "policy:klruscand:preset=pghot-v3"):
        assert cli.run(["describe", name, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["set"]
        assert found["preset"] == found["pghot"].replace("v3", "pghot-v3") and found["interval_ms"] == 500
    assert cli.run(["describe", "klruscand:preset=pghot-v3"]) == 0
    assert "interval_ms=500" in capsys.readouterr().out
    for name, word in (("klruscand:preset=v9", "v9"), ("kv:rate=-4", "rate"), ("kv:nope=1", "nope")):
        assert cli.run(["describe", name]) == 2
        said = capsys.readouterr()
        assert word in said.err and len(said.err.splitlines()) == 1 and not said.out


def test_describe_says_what_the_switches_of_klruscand_switch(capsys: pytest.CaptureFixture[str]) -> None:
    """Each effect of the posted walk, each version of pghot with its defaults, each preset; as text and as JSON."""
    from klrubench.mm import PGHOT_DEFAULTS, PGHOT_VERSIONS
    from klrubench.mm.mglru import EFFECTS

    assert cli.run(["describe", "klruscand", "--json"]) == 0
    choices = json.loads(capsys.readouterr().out)["choices"]
    assert cli.run(["describe", "klruscand"]) == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 100
    words = " ".join(shown.split())
    assert all(meaning in words for meanings in choices.values() for meaning in meanings.values())
    assert choices["effects"] == {name: posted for name, (_, posted, _) in EFFECTS.items()}
    assert choices["variant"]["as_posted"] == "+".join(EFFECTS)
    assert list(choices["pghot"]) == list(PGHOT_VERSIONS)
    for version, meaning in choices["pghot"].items():
        said, window = PGHOT_DEFAULTS[version], f"window_ms={PGHOT_DEFAULTS[version]['window_ms']:g}"
        assert meaning.endswith(f"; threshold={said['threshold']}, {window}")
    assert "first sighting" in choices["pghot"]["v0"] and "as intended" in choices["pghot"]["v3"]
    assert choices["preset"]["pghot-v3"] == "interval_ms=500, pghot=v3"
    assert cli.run(["describe", "numab2", "--json"]) == 0
    assert "choices" not in json.loads(capsys.readouterr().out), "nothing to explain, no entry"


def test_describe_asks_which_if_a_name_means_two_things(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from klrubench.cli import describe

    monkeypatch.setitem(describe._KINDS, "machine", lambda: [*list_machines(), "klruscand"])
    assert cli.run(["describe", "klruscand"]) == 2
    said = capsys.readouterr().err
    assert "policy:klruscand" in said and "machine:klruscand" in said
    assert cli.run(["describe", "policy:klruscand"]) == 0


def test_doctor_finds_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert cli.run(["doctor", "--json", "--results", str(tmp_path / "file" / "results")]) == 1
    states = {check["name"]: check["state"] for check in json.loads(capsys.readouterr().out)}
    assert states["results"] == "broken" and states["python"] == states["compiler"] == "ok"


def test_doctor_survives_a_broken_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from klrubench.cli import doctor

    monkeypatch.setattr(doctor, "_CHECKS", {"odd": raising(ValueError("out\nof order")), "python": doctor._python})
    assert cli.run(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "ValueError: out of order" in shown and "python" in shown


def test_doctor_says_how_to_get_valgrind(monkeypatch: pytest.MonkeyPatch) -> None:
    from klrubench.cli import doctor

    monkeypatch.setattr("shutil.which", lambda _: None)
    state, said = doctor._valgrind(None)
    assert state == "note" and "install valgrind" in said


# ---- bench


def test_bench_prints_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "engine", "size": "2^20 pages", "value": 0.8, "unit": "x", "goal": 0.75, "must": 0.5},
        {"name": "walk", "value": 0.2, "unit": "ns/page", "goal": 0.03, "must": 0.15, "lower_is_better": True},
    ]
    fake = type(sys)("klrubench.bench")
    fake.run_bench = lambda quick, policies, progress: rows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "klrubench.bench", fake)
    assert cli.run(["bench"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"engine +2\^20 pages +0.8 x .*goal met", shown) and re.search(r"walk .*too slow", shown)
    assert cli.run(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows


# ---- compare


def run_row(workload: str, policy: str, seed: int) -> dict[str, Any]:
    """One row of the runs' frame, of a run that never ran."""
    slow = {"all_top": 0.0, "all_lower": 0.22, "first_touch": 0.147, "oracle_static": 0.03}.get(policy, 0.058)
    time = 120 * (1 + slow) * (1 + seed / 1e4)
    return {
        "policy": policy,
        "workload": workload,
        "machine": "cxl-asic",
        "ratio": "1:2",
        "seed": seed,
        "run_id": f"{workload}/{policy}/{seed}",
        "policy_role": "policy" if policy == "klruscand" else "bound",
        "contestant": policy in ("first_touch", "klruscand"),
        "workload_control": False,
        "time_s": time,
        "steady_time_s": time / 2,
        "charged_time_s": time * (1.1 if policy == "klruscand" else 1),
        "dram_hit_share": 0.747,
        "young_share": 0.65,
        "touches_per_page_s": 2.0,
        "threads": 6,
        "cpu_json": json.dumps({"klruscand": 45.0} if policy == "klruscand" else {}),
        "daemon_threads_json": json.dumps(["klruscand"] if policy == "klruscand" else []),
        "bound_json": json.dumps({"kpromoted": 0.98} if policy == "klruscand" else {}),
        "vmstat_json": "{}",
        "notes_json": "[]",
        "sysctls_json": "{}",
    }


def comparison(workloads: tuple[str, ...] = ("kv", "gups"), seeds: int = 3) -> Comparison:
    rows = [run_row(name, policy, seed) for name in workloads for policy in POLICIES for seed in range(1, seeds + 1)]
    facts = {
        "runs": len(rows),
        "seeds": seeds,
        "duration_s": 120.0,
        "machine": load_machine("cxl-asic").to_dict(),
        "varies": [],
        "scales": dict.fromkeys(workloads, 32),
        "footprints_gib": dict.fromkeys(workloads, 32.0),
        "threads": dict.fromkeys(workloads, 6),
        "pages": dict.fromkeys(workloads, "4k"),
        "sysctls": {},
        "daemon_cpus": "spare",
    }
    asked = question("default", policy=["klruscand"], workload=list(workloads))
    return Comparison(asked, frame(rows), facts, n_cached=len(rows) - 2, n_computed=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts made-up runs in place of computing; returns what `compare` was called with."""
    given: dict[str, Any] = {}

    def answer(policies: Any, workloads: Any, **more: Any) -> Comparison:
        given.update(more, policies=policies, workloads=workloads)
        return comparison()

    monkeypatch.setattr("klrubench.study.compare.compare", answer)
    return given


def test_compare_prints_the_table_on_stdout_and_the_count_on_stderr(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["compare"]) == 0
    shown = capsys.readouterr()
    assert "klru-" in shown.out and "14.7" in shown.out and "5.8" in shown.out and "\x1b" not in shown.out
    assert shown.err.strip() == "30 runs: 28 cached, 2 computed"
    assert max(len(line) for line in shown.out.splitlines()) <= 100
    assert all(asked[name] is None for name in ("policies", "workloads", "seeds", "scale", "ratios", "costs", "store"))


def test_compare_hands_on_what_was_given(asked: dict[str, Any]) -> None:
    line = (
        "compare -p klruscand:interval_ms=500,batch=64 -p first_touch -w kv --machine optane --ratio 1:4 "
        "--ratios 1:1,1:2 --rates 0.5,2 --placement lower,random --kernel 6.12 --hz 250 --sysctl numa_balancing=2 "
        "--cost walk_pte=2x --cost pghot_record=300ns --daemon-cpus shared --seeds 5 --duration 60 --scale 1/32 -j 2 "
        "--baseline first_touch --results somewhere --suite quick --dry-run"
    )
    assert cli.run(line.split()) == 0
    assert asked["policies"] == ["klruscand:interval_ms=500,batch=64", "first_touch"] and asked["workloads"] == ["kv"]
    assert asked["machine"] == ["optane"] and asked["ratios"] == ["1:4", "1:1", "1:2"] and asked["rates"] == [0.5, 2]
    assert asked["placements"] == ["lower", "random"] and asked["kernel"] == "6.12" and asked["hz"] == 250
    assert asked["sysctls"] == {"numa_balancing": "2"}
    assert asked["costs"] == {"walk_pte": "2x", "pghot_record": "300ns"} and asked["daemon_cpus"] == "shared"
    assert asked["seeds"] == 5 and asked["duration_s"] == 60 and asked["scale"] == "1/32" and asked["jobs"] == 2
    assert asked["baseline"] == "first_touch" and asked["suite"] == "quick" and asked["dry_run"] is True
    assert asked["store"] == Path("somewhere")


@pytest.mark.parametrize("form", ["text", "tsv", "lkml", "json"])
def test_compare_writes_every_form(asked: dict[str, Any], form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", "--format", form, "--wide"]) == 0
    shown = capsys.readouterr().out
    widest = max(len(line) for line in shown.splitlines())
    if form == "json":
        assert len(json.loads(shown)["cells"]) == 10
    elif form == "tsv":
        assert len(shown.splitlines()) == 11
    else:
        assert widest <= (72 if form == "lkml" else 100) and "metadata" not in shown and "kpromoted 98" in shown
        assert shown.isascii()


def test_json_flag_is_a_format(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["baseline"] == "all_top"


def test_one_workload_gets_the_wide_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("klrubench.study.compare.compare", lambda *_, **__: comparison(("kv",)))
    assert cli.run(["compare", "-w", "kv"]) == 0
    shown = capsys.readouterr().out
    assert "bound by" in shown and "klruscand is best" in shown and "charged: " in shown


def test_a_dry_run_says_what_and_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    planned = frame(
        [
            {
                "policy": "klruscand",
                "workload": "kv",
                "machine": "m",
                "ratio": "1:2",
                "seed": seed,
                "why": "not in the store",
            }
            for seed in (1, 2)
        ]
    )
    found = replace(comparison(), runs=frame([]), to_run=planned, n_cached=7)
    monkeypatch.setattr("klrubench.study.compare.compare", lambda *_, **__: found)
    assert cli.run(["compare", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("9 runs: 7 stored, 2 to compute") and "not in the store" in shown
    assert cli.run(["compare", "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_failed_runs_and_a_full_store_still_show_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = replace(comparison(), store_error=StoreError("no room to write results"))
    monkeypatch.setattr("klrubench.study.compare.compare", lambda *_, **__: found)
    assert cli.run(["compare"]) == 5
    shown = capsys.readouterr()
    assert "geomean" in shown.out and "no room" in shown.err
    monkeypatch.setattr("klrubench.study.executor.raise_failures", raising(RunFailedError("1 of 30 runs failed")))
    assert cli.run(["compare"]) == 6
    assert "geomean" in capsys.readouterr().out


# ---- run


def fake_run(name: str, workload: str, **_: Any) -> dict[str, Any]:
    metrics = {key: value for key, value in run_row(workload, name, 1).items() if isinstance(value, (int, float))}
    times = [float(second) for second in range(60)]
    return {
        "id": "0123456789abcdef",
        "cached": False,
        "manifest": {"wall_s": 1.5},
        "spec": {
            "policy": {"label": name},
            "workload": {"label": workload},
            "machine": {"name": "cxl-asic"},
            "seed": 1,
            "fold": 32,
            "duration_s": 120.0,
        },
        "result": {
            "metrics": metrics,
            "cpu": {"klruscand": 45.0},
            "daemon_threads": ["klruscand"],
            "bound": {},
            "vmstat": {"pgpromote_success": 7, "pgdemote_kswapd": 5},
            "notes": [],
            "series": {"t_s": times, "accesses": times, "hits_top": [time / 2 for time in times]},
        },
    }


def test_run_shows_a_page_with_its_time_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("klrubench.study.run.run", fake_run)
    assert cli.run(["run", "-p", "klruscand", "-w", "kv"]) == 0
    shown = capsys.readouterr().out
    assert (
        "run 5.80" in shown and "charged 16.38" in shown and "klruscand on kv, seed 1" in shown and "time line" in shown
    )
    assert max(len(line) for line in shown.splitlines()) <= 100


def test_run_prints_counters_alone_or_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("klrubench.study.run.run", fake_run)
    assert cli.run(["run", "--vmstat"]) == 0
    assert capsys.readouterr().out == "pgdemote_kswapd 5\npgpromote_success 7\n"
    assert cli.run(["run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["series"]["t_s"][-1] == 59


# ---- output


def test_no_colour_where_nobody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from klrubench.cli import output

    assert output.colour() is False and output.width() == 100
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.colour() is True
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.colour() is False


def test_text_that_a_terminal_cannot_show_is_no_error() -> None:
    program = "import sys\nfrom klrubench.cli import _tolerant\n_tolerant(sys.stdout)\nprint('x \\u2588')"
    where = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=where, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "x ?"


@pytest.mark.slow
def test_a_real_run_is_computed_once(tmp_path: Path) -> None:
    line = ["run", "-p", "first_touch", "-w", "uniform:footprint_gib=1", "--scale", "1/32", "--duration", "5"]
    first = in_shell([*line, "--json", "--results", str(tmp_path)])
    again = in_shell([*line, "--json", "--results", str(tmp_path)])
    assert first.returncode == again.returncode == 0, first.stderr
    one, two = json.loads(first.stdout), json.loads(again.stdout)
    assert (one["cached"], two["cached"]) == (False, True) and one["result"] == two["result"]
    listed = in_shell(["list", "runs", "--results", str(tmp_path)])
    assert "first_touch" in listed.stdout and one["id"][:10] in listed.stdout

"""What lands on a user's machine: the wheel's contents, light imports, suites as data, no stale copies."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

import klrubench
from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.study.suite import BOUNDS_ABOVE, BOUNDS_BELOW, question, suites

TOP = Path(klrubench.__file__).resolve().parent.parent
HEAVY = ("numba", "numpy", "polars", "scipy", "optuna", "pydantic", "rich")


def imported_by(program: str) -> list[str]:
    told = f"{program}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_importing_klrubench_is_light() -> None:
    assert imported_by("import klrubench; klrubench.__version__; dir(klrubench)") == []
    assert imported_by("from klrubench import Policy, Workload, param") == []


def test_public_names_are_there() -> None:
    names = {"Policy", "Workload", "__version__", "compare", "compare_tuned", "param", "run", "sweep"}
    assert set(klrubench.__all__) == names
    assert all(getattr(klrubench, name) is not None for name in klrubench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'comparison'"):
        klrubench.comparison  # noqa: B018  (the access is the test)


@pytest.fixture
def pyproject() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text())


def test_the_checkout_is_a_study_and_declares_its_entry_point(pyproject: dict[str, Any]) -> None:
    assert "klrubench" in pyproject["tool"]
    assert pyproject["project"]["scripts"] == {"klrubench": "klrubench.cli:main"}
    assert pyproject["project"]["license"] == "MIT"
    assert (TOP / "LICENSE").read_text().startswith("MIT License")


def test_every_library_that_is_imported_is_declared(pyproject: dict[str, Any]) -> None:
    """What only an extra brings is imported where it is used, never when a module of ours is loaded."""
    groups = pyproject["project"]["optional-dependencies"]
    extras = [text for name, texts in groups.items() if name not in ("test", "dev") for text in texts]
    declared = {text.split(">")[0] for text in pyproject["project"]["dependencies"]}
    optional = {re.split(r"[>[]", text)[0].replace("-", "_") for text in extras}
    found = set()
    for file in [
        *(TOP / "klrubench").rglob("*.py"),
        *(TOP / "policies").rglob("*.py"),
        *(TOP / "workloads").glob("*.py"),
    ]:
        lines = file.read_text().splitlines()
        words = [line.split() for line in lines if not (line[:1] == " " and optional & set(re.split(r"[ .]+", line)))]
        found |= {line[1].split(".")[0] for line in words if len(line) > 1 and line[0] in ("import", "from")}
    ours = {"klrubench", ""}
    outside = {name for name in found - ours if name.isidentifier() and name not in sys.stdlib_module_names}
    installed = {name for name in outside if importlib.util.find_spec(name) is not None}
    assert installed <= declared | {"llvmlite"}  # which numba brings
    assert not optional & found


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The build hook, its base class replaced: the build's own library is not installed beside the tests."""
    interface = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hatchling.builders.hooks.plugin.interface", interface)
    spec = importlib.util.spec_from_file_location("hatch_build", TOP / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.BundlePlugins()
    made.root = str(TOP)
    return made


def test_a_wheel_holds_policies_and_workloads_inside_the_package(hook: Any) -> None:
    data: dict[str, Any] = {"force_include": {}}
    hook.initialize("standard", data)
    targets = set(data["force_include"].values())
    expected = {
        f"klrubench/_bundled/{path.relative_to(TOP).as_posix()}"
        for folder in ("policies", "workloads", "results/reference/sweeps")
        for path in (TOP / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert targets == expected
    assert "klrubench/_bundled/policies/klruscand.py" in targets
    assert all(target.startswith("klrubench/_bundled/") for target in targets)


def test_an_editable_install_has_no_copy(hook: Any) -> None:
    data: dict[str, Any] = {"force_include": {}}
    hook.initialize("editable", data)
    assert data == {"force_include": {}}


def test_the_wheel_s_folder_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from klrubench.study import folder

    assert folder.bundled_root() == TOP
    (tmp_path / "_bundled").mkdir()
    monkeypatch.setattr(folder, "PACKAGE", tmp_path)
    assert folder.bundled_root() == tmp_path / "_bundled"


def test_results_go_to_the_study_or_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from klrubench.study.folder import results_folder

    monkeypatch.chdir(tmp_path)
    assert results_folder() == (tmp_path / "klrubench-results", "not in a study: results go to ./klrubench-results")
    (tmp_path / "pyproject.toml").write_text("[tool.klrubench]\n")
    assert results_folder() == (tmp_path / "results", "")


def test_the_check_is_a_script_that_parses() -> None:
    script = TOP / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_suites_are_questions() -> None:
    assert suites() == ["default", "full", "quick"]
    default = question()
    assert default.workload == ("kv", "kv:idle=60", "gups:rate=2", "gups", "hotset_shift", "phases", "trace", "uniform")
    assert (default.seeds, default.duration, default.ratio, default.scale) == (3, 120, ("1:2",), "auto")
    for name in suites():
        assert {*BOUNDS_ABOVE, *BOUNDS_BELOW} <= set(question(name).policy)


def test_what_is_given_replaces_the_suite_and_is_framed_by_the_bounds() -> None:
    asked = question("quick", policy=["klruscand", "mine"], workload=["kv"], seeds=7, rates=[0.1, 2], duration=None)
    assert asked.policy == (*BOUNDS_ABOVE, "klruscand", "mine", *BOUNDS_BELOW)
    assert (asked.seeds, asked.rates, asked.duration) == (7, (0.1, 2.0), 60)
    assert question(policy=["first_touch"]).policy == (*BOUNDS_ABOVE, *BOUNDS_BELOW)
    assert "mine" in question(baseline="mine").policy


def test_a_study_file_has_the_names_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'suite = "quick"\nworkloads = ["kv", "gups"]\nratios = ["1:2", "1:8"]\nrates = 2\ndaemon-cpus = "shared"\n'
        '[sysctl]\nnuma_balancing = 2\n[cost]\npghot_record = "2x"\n'
    )
    asked = question(study=file, seeds=1)
    assert asked.workload == ("kv", "gups")
    assert asked.ratio == ("1:2", "1:8")
    assert (asked.rates, asked.daemon_cpus, asked.seeds, asked.duration) == ((2.0,), "shared", 1, 60)
    assert (asked.sysctl, asked.cost) == ({"numa_balancing": 2}, {"pghot_record": "2x"})


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ('polices = "x"\n', UnknownNameError, "no setting in .*bad.toml 'polices'; did you mean polic"),
        ("seeds = 0\n", ParameterError, "seeds=0: input should be greater than or equal to 1"),
        ("seeds = 1.5\nduration = -1\n", ParameterError, "seeds=1.5: .*; duration=-1: "),
        ("workload = []\n", ParameterError, "workload="),
        ('suite = "huge"\n', UnknownNameError, "no suite 'huge'"),
        ("= 3\n", UsageError, "bad.toml: not TOML"),
        ("rates = [1, nan]\n", ParameterError, "rates="),
    ],
)
def test_a_wrong_study_file_is_one_line(tmp_path: Path, text: str, error: type[Exception], told: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(error, match=told) as caught:
        question(study=tmp_path / "bad.toml")
    assert "\n" not in str(caught.value)


def test_a_missing_study_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study file .*gone\.toml: no such file"):
        question(study=tmp_path / "gone.toml")

"""Plug-ins: found by name in the right order, loaded by path, listed without loading, broken ones told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from study_fakes import write, write_policy, write_study, write_workload

from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.study.plugins import (
    find_policy,
    find_workload,
    list_policies,
    list_workloads,
    load,
    policy_source,
)
from klrubench.study.spec import policy_part, workload_part


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_study(tmp_path))
    return tmp_path


def test_found_by_name_from_a_folder_below(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = study / "deep" / "er"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_policy("mine").__doc__ == "Says nothing."
    assert find_policy("mine").name() == "mine"
    assert find_workload("toy")(idle=60).label() == "toy:idle=60"


def test_the_study_goes_before_those_that_come_along(study: Path) -> None:
    write_policy(study, "first_touch", doc="My own first touch.")
    assert find_policy("first_touch").__doc__ == "My own first touch."
    assert "first_touch" in {info.name for info in list_policies() if info.origin == "study"}
    assert "all_top" in {info.name for info in list_policies() if info.origin == "bundled"}


def test_outside_a_study_the_bundled_ones_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_policy("all_top").name() == "all_top"


def test_unknown_name_suggests_the_nearest(study: Path) -> None:
    with pytest.raises(UnknownNameError, match="no policy 'mien'; did you mean mine"):
        find_policy("mien")
    with pytest.raises(UnknownNameError, match="no workload 'toi'"):
        find_workload("toi")


@pytest.mark.parametrize("name", ["../policies/mine", "mine.py", "", "_helper", "/etc/passwd"])
def test_a_path_is_no_name(study: Path, name: str) -> None:
    write(study / "policies" / "_helper.py", "")
    with pytest.raises(UnknownNameError):
        find_policy(name)


def test_listing_loads_nothing(study: Path) -> None:
    write(study / "policies" / "loud.py", 'raise SystemExit("loaded")\n')
    write(study / "policies" / "broken.py", "def f(:\n")
    found = {info.name: info.summary for info in list_policies()}
    assert found["mine"] == "Says nothing."
    assert found["loud"] == ""
    assert found["broken"].startswith("(broken: line 1")


def test_listing_needs_no_heavy_import(study: Path) -> None:
    program = (
        "import sys\nfrom klrubench.study.plugins import list_policies, list_workloads\n"
        "assert list_policies() and list_workloads()\n"
        "print([name for name in ('numba', 'numpy', 'polars', 'scipy', 'pydantic') if name in sys.modules])"
    )
    assert _python(program).stdout.strip() == "[]"


def _python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **env}
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("class A(:\n", "policies/bad.py:1: "),
        ("import nothing_of_the_kind\n", "policies/bad.py:1: ModuleNotFoundError: No module named"),
        ("x = 1\n\ny = x / 0\n", "policies/bad.py:3: ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')\n", "policies/bad.py:1: ValueError: two lines"),
        ("from ._gone import x\n", "policies/bad.py:1: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", "policies/bad.py:2: SystemExit: 3"),
        ("x = 1\n", "policies/bad.py: one file defines one subclass of Policy, this one: none"),
        (
            "from klrubench.policy import Policy\nclass A(Policy): pass\nclass B(Policy): pass\n",
            "policies/bad.py: one file defines one subclass of Policy, this one: A, B",
        ),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(study: Path, text: str, told: str) -> None:
    write(study / "policies" / "bad.py", text)
    with pytest.raises(UsageError) as caught:
        find_policy("bad")
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_a_mended_file_loads(study: Path) -> None:
    file = write(study / "policies" / "bad.py", "x = 1 / 0\n")
    with pytest.raises(UsageError):
        find_policy("bad")
    file.unlink()
    write_policy(study, "bad", doc="Mended.")
    assert find_policy("bad").__doc__ == "Mended."


def test_helpers_are_imported_relatively_and_never_by_a_top_level_name(study: Path) -> None:
    write(study / "policies" / "_shared.py", "from ..common import VALUE\n")
    write(study / "common.py", "VALUE = 41 + 1\n")
    file = write_policy(study, "mine")
    file.write_text("from ._shared import VALUE\n" + file.read_text())
    loaded = find_policy("mine")
    assert sys.modules[loaded.__module__].VALUE == 42
    assert not {"mine", "policies", "policies.mine", "common", "_shared"} & set(sys.modules)


def test_a_base_class_imported_from_a_helper_is_not_the_policy(study: Path) -> None:
    write(
        study / "policies" / "_base.py",
        "from klrubench.policy import Policy, param\nclass Base(Policy):\n    n: int = param(3, low=1)\n",
    )
    write(study / "policies" / "derived.py", "from ._base import Base\nclass Derived(Base):\n    '''D.'''\n")
    assert find_policy("derived")(n=5).label() == "derived:n=5"


def test_an_edit_is_seen_in_the_same_process(study: Path) -> None:
    helper = write(study / "policies" / "_shared.py", "VALUE = 1\n")
    file = write_policy(study, "mine")
    file.write_text("from ._shared import VALUE\n" + file.read_text())
    before = find_policy("mine")
    helper.write_text("VALUE = 2\n")
    after = find_policy("mine")
    assert (sys.modules[before.__module__].VALUE, sys.modules[after.__module__].VALUE) == (1, 2)


def test_a_source_loads_its_own_text_whatever_the_file_says_by_then(study: Path) -> None:
    source = policy_source("mine")
    write_policy(study, "mine", doc="Edited since.")
    assert load(source).__doc__ == "Says nothing."
    assert find_policy("mine").__doc__ == "Edited since."


def test_file_is_known_to_the_plugin(study: Path) -> None:
    write(study / "policies" / "data.txt", "beside")
    file = write_policy(study, "mine")
    file.write_text(
        file.read_text() + "from pathlib import Path\nTEXT = (Path(__file__).parent / 'data.txt').read_text()\n"
    )
    assert sys.modules[find_policy("mine").__module__].TEXT == "beside"


def test_parameters_are_checked_with_the_typed_name(study: Path) -> None:
    assert policy_part("mine:interval_ms=500").label == "mine:interval_ms=500"
    assert policy_part("mine:interval_ms=2000") == policy_part("mine")
    assert workload_part("toy", idle=60.0) == workload_part("toy:idle=60")
    with pytest.raises(ParameterError, match=r"mine\.interval_ms='0'"):
        policy_part("mine:interval_ms=0")
    with pytest.raises(UnknownNameError, match="no parameter of policy mine 'intervall_ms'; did you mean interval_ms"):
        policy_part("mine:intervall_ms=5")


def test_kernels_are_compiled_anew_when_a_helper_changes(study: Path) -> None:
    """numba itself looks only at the file that a kernel stands in."""
    write(
        study / "policies" / "_math.py",
        "from klrubench.engine.jit import njit\n\n\n@njit\ndef twice(x):\n    return x + x\n",
    )
    file = write_policy(study, "mine")
    imports = "from klrubench.engine.jit import njit\nfrom ._math import twice\n"
    file.write_text(f"{imports}{file.read_text()}\n\n@njit\ndef used(x):\n    return twice(x)\n")
    program = (
        "import sys\nfrom klrubench.study.plugins import find_policy\n"
        "print(sys.modules[find_policy('mine').__module__].used(21))"
    )
    cache = {"NUMBA_CACHE_DIR": str(study / "cache")}
    assert _python(program, **cache).stdout.split() == ["42"]
    helper = study / "policies" / "_math.py"
    helper.write_text(helper.read_text().replace("x + x", "x * x"))
    assert _python(program, **cache).stdout.split() == ["441"]


def test_an_installed_package_is_found_last(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = study / "site"
    write(site / "tierlab" / "__init__.py", "from ._own import X\n")
    write(site / "tierlab" / "_own.py", "X = 1\n")
    write(
        site / "tierlab" / "fancy.py",
        "from klrubench.policy import Policy\nfrom tierlab._own import X\n\n\nclass Fancy(Policy):\n    '''Fancy.'''\n",
    )
    info = site / "tierlab-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: tierlab\nVersion: 1.0\n")
    write(info / "entry_points.txt", "[klrubench.policies]\nfancy = tierlab.fancy:Fancy\nmine = tierlab.fancy:Fancy\n")
    monkeypatch.syspath_prepend(str(site))
    assert find_policy("fancy").__doc__ == "Fancy."
    assert find_policy("fancy").name() == "fancy"
    assert find_policy("mine").__doc__ == "Says nothing."
    assert {name for name, _ in policy_source("fancy").files} == {
        "tierlab/fancy.py",
        "tierlab/__init__.py",
        "tierlab/_own.py",
    }
    assert next(info for info in list_policies() if info.name == "fancy").origin == "package tierlab"


def test_a_damaged_pyproject_is_one_line(study: Path) -> None:
    (study / "pyproject.toml").write_text("[tool.klrubench\n")
    with pytest.raises(UsageError, match=r"pyproject\.toml: "):
        list_workloads()


def test_workload_of_a_study(study: Path) -> None:
    write_workload(study, "calm", control=True)
    assert workload_part("calm").facts["control"] is True

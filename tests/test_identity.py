"""Run ids: everything that can change a result changes them, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_fakes import toy_spec, write, write_study

from klrubench.errors import ScaleError
from klrubench.study import identity
from klrubench.study.closure import import_closure
from klrubench.study.identity import framework_hashes, plugin_hash, token_hash
from klrubench.study.plugins import policy_source
from klrubench.study.spec import auto_fold, parse_scale

SOURCE = '''"""Module docstring."""

import os


class A:
    """Class docstring."""

    limit: int = 5  # a comment

    def f(self, x):
        """Docstring."""
        if x:
            # why
            return f"{x!r:>{self.limit}}"

        return "text"
'''


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_study(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module docstring."""\n', ""),
        ("  # a comment", ""),
        ("            # why\n", "            # because\n            # of that\n"),
        ('        """Docstring."""\n', '        r"""Another\n        one."""\n'),
        ("\n\nclass", "\n\n\n\n\nclass"),
        ("    ", "\t"),
        ("limit: int = 5", "limit : int=5"),
        ("\n", "\r\n"),
    ],
)
def test_edits_that_mean_nothing_keep_the_hash(old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert token_hash(SOURCE.replace(old, new)) == token_hash(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 5", "= 6"),
        ('"text"', '"other"'),
        ("!r:>", "!s:>"),
        ("return f", "return rf"),
        ("import os", "import  sys"),
        ('        return "text"', '            return "text"'),
        ("if x:", "if not x:"),
    ],
)
def test_edits_that_may_mean_something_change_the_hash(old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert token_hash(SOURCE.replace(old, new)) != token_hash(SOURCE)


def test_tokens_do_not_depend_on_the_python_version() -> None:
    # f-strings are one token up to 3.11 and many from 3.12 on
    assert 'f"{x!r:>{self.limit}}"' in list(identity.tokens(SOURCE))
    assert token_hash(SOURCE) == "06f88e6ef5f6ab1854a1591f90412512"


@given(st.text(max_size=200))
def test_any_text_has_a_hash(text: str) -> None:
    assert len(token_hash(text)) == 32


def test_every_part_of_a_run_is_in_its_id(study: Path) -> None:
    base = toy_spec()
    changes: list[dict[str, Any]] = [
        {"seed": 2},
        {"policy": "other"},
        {"policy": "mine:interval_ms=500"},
        {"workload": "toy:idle=60"},
        {"duration_s": 60.0},
        {"fold": 16},
        {"options": {"daemon_cpus": "shared", "chunk": 4096}},
        {"machine": {**base.machine, "ratio": [1.0, 4.0]}},
    ]
    ids = [base.run_id, *(toy_spec(**change).run_id for change in changes)]
    ids.append(dataclasses.replace(base, workload=dataclasses.replace(base.workload, content="trace")).run_id)
    ids.append(dataclasses.replace(base, framework={**base.framework, "mm": "edited"}).run_id)
    assert len(set(ids)) == len(ids)


def test_what_cannot_change_a_result_is_not_in_the_id(study: Path) -> None:
    base = toy_spec()
    described = {**base.machine, "source": "another paper", "description": "words"}
    same = [
        toy_spec(machine=described),
        toy_spec(options={"daemon_cpus": "spare", "chunk": 7}),
        toy_spec(work=5.0),
        toy_spec(duration_s=120),
        toy_spec(policy="mine:interval_ms=2000.0"),
        pickle.loads(pickle.dumps(base)),
    ]
    assert {spec.run_id for spec in same} == {base.run_id}


def test_a_comment_in_a_plugin_keeps_the_id_and_a_token_changes_it(study: Path) -> None:
    file, before = study / "policies" / "mine.py", toy_spec().run_id
    file.write_text(file.read_text().replace("Says nothing.", "Says a lot.") + "\n# a comment\n")
    assert toy_spec().run_id == before
    file.write_text(file.read_text() + "EXTRA = 1\n")
    assert toy_spec().run_id != before
    assert toy_spec(policy="other").run_id == toy_spec(policy="other").run_id


def test_the_import_closure_counts_and_nothing_else_in_the_study(study: Path) -> None:
    write(study / "policies" / "_a.py", "from ..lib import b\n")
    write(study / "lib" / "__init__.py", "")
    write(study / "lib" / "b.py", "VALUE = 1\n")
    mine = study / "policies" / "mine.py"
    mine.write_text("from . import _a\n" + mine.read_text())
    files = [name for name, _ in import_closure(mine, study)[0]]
    assert files == ["policies/mine.py", "lib/__init__.py", "lib/b.py", "policies/_a.py"]
    before = toy_spec().run_id
    write(study / "lib" / "unused.py", "VALUE = 1\n")
    write(study / "policies" / "other.py", (study / "policies" / "other.py").read_text() + "X = 1\n")
    assert toy_spec().run_id == before
    write(study / "lib" / "b.py", "VALUE = 2\n")
    assert toy_spec().run_id != before


def test_circular_imports_end(study: Path) -> None:
    write(study / "policies" / "_a.py", "from . import _b\n")
    write(study / "policies" / "_b.py", "from . import _a, mine\n")
    mine = study / "policies" / "mine.py"
    mine.write_text("from . import _a\n" + mine.read_text())
    assert len(import_closure(mine, study)[0]) == 3


def test_framework_modules_that_only_a_plugin_uses_count_for_it_alone(study: Path) -> None:
    mine, plain = study / "policies" / "mine.py", plugin_hash(policy_source("other"))
    mine.write_text(mine.read_text().replace("from klrubench.policy", "import klrubench.mm\nfrom klrubench.policy"))
    counted_anyway = plugin_hash(policy_source("mine"))
    mine.write_text(mine.read_text().replace("klrubench.mm", "klrubench.trace"))
    assert plugin_hash(policy_source("mine")) != counted_anyway
    assert plugin_hash(policy_source("other")) == plain


def test_the_command_line_and_reports_are_not_in_the_id() -> None:
    files = [path for patterns in identity.ROOMS.values() for one in patterns for path in identity.PACKAGE.glob(one)]
    below = {path.relative_to(identity.PACKAGE).parts[0] for path in files}
    assert {"engine", "mm", "machine", "simulate", "policy.py", "workload.py", "params.py"} <= below
    assert not below & {"cli", "report", "study", "trace"}
    assert set(framework_hashes()) == {"engine", "mm", "machine", "simulate", "bases"}


def test_specs_are_plain_data(study: Path) -> None:
    spec = toy_spec()
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert json.loads(json.dumps(spec.to_record())) == spec.to_record()
    assert again.policy.build().label() == "mine"


def test_groups_are_runs_that_meet_the_same_stream(study: Path) -> None:
    assert toy_spec(policy="mine").group == toy_spec(policy="other").group
    assert toy_spec(seed=1).group != toy_spec(seed=2).group
    assert toy_spec().group != toy_spec(workload="toy:idle=60").group


@pytest.mark.parametrize(
    ("text", "fold"),
    [("auto", None), (None, None), ("1", 1), ("1/32", 32), (1, 1), ("0.125", 8), ("1/1048576", 1 << 20)],
)
def test_scales(text: Any, fold: int | None) -> None:
    assert parse_scale(text) == fold


@pytest.mark.parametrize("text", ["2", "1/3", "0", "-1", "1/0", "x", "", "1/2/3", "nan", "1/2097152", "inf"])
def test_impossible_scales(text: str) -> None:
    with pytest.raises(ScaleError, match="scale '"):
        parse_scale(text)


@given(st.floats(1, 1e13))
def test_auto_scale_is_the_nearest_power_of_two(full: float) -> None:
    fold = auto_fold(full)
    assert fold & (fold - 1) == 0
    assert 1 <= fold <= 512
    if 1 < fold < 512:
        assert 6e7 / 1.4143 <= full / fold <= 6e7 * 1.4143
    elif fold == 1:
        assert full <= 6e7 * 1.4143

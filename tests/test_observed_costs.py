"""The cost rows of the observations: guest instructions, read off CPU time charged;
and the rows that stand for nothing here.
"""

from __future__ import annotations

import pytest

from klrubench.validation.runner import ABSENT, run_check, select


@pytest.mark.parametrize("fact", [fact for fact in select(["costs"]) if fact not in ABSENT])
def test_what_a_kernel_did(fact: str) -> None:
    row = run_check(fact)
    assert row.verdict == "agrees" and row.is_input, [part for part in row.parts if not part.agrees]


@pytest.mark.parametrize("fact", ABSENT)
def test_what_is_not_modelled_says_why(fact: str) -> None:
    row = run_check(fact)
    assert row.verdict == "not modelled" and row.text and not row.fails

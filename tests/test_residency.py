"""Where the pages lay that were worth DRAM: the kernel against the same sums in numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.simulate.residency import SUMS, account_window

BITS_ABOVE = 0xFC  # of a page's byte: all that is not its node


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 31))
@settings(deadline=None, max_examples=60)
def test_a_window_is_accounted_as_numpy_does(seed: int, pages: int, index: int) -> None:
    rng = np.random.default_rng(seed)
    pte = (rng.integers(0, 4, pages) | rng.integers(0, 256, pages) & BITS_ABOVE).astype(np.uint8)
    top, real = np.array([True, False, True, False]), rng.random(pages) < 0.9
    size = np.where(real, rng.choice([1, 512], pages), 0)
    counts = (rng.integers(0, 6, pages) * real).astype(np.uint32)
    best = rng.integers(0, 2**32, pages, dtype=np.uint32)
    before, entered, ever = (real & (rng.random(pages) < 0.5) for _ in range(3))
    now, good = top[pte & 3] & real, ((best >> index) & 1 == 1) & real
    median = 2.5
    expected = {
        "misses": counts.sum(), "best": counts[good].sum(), "held": counts[good & before & now].sum(),
        "came": counts[good & ~before & now].sum(), "lost": counts[good & before & ~now].sum(),
        "stayed": counts[good & ~before & ~now].sum(), "entered_pages": size[entered].sum(),
        "untouched_pages": size[entered & (counts == 0)].sum(),
        "below_median_pages": size[entered & (counts < 3)].sum(),
        "gone_pages": size[entered & ~now].sum(),
    }  # fmt: skip
    after = (now & real, now & ~before, ever | now)
    sums = np.zeros(len(SUMS), np.int64)
    account_window(pte, top, real, size, counts, best, index, median, before, entered, ever, sums)
    assert dict(zip(SUMS, sums.tolist(), strict=True)) == {name: int(value) for name, value in expected.items()}
    assert [before.tolist(), entered.tolist(), ever.tolist()] == [each.tolist() for each in after]

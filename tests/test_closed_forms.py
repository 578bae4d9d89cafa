"""What an accessed bit can say, against closed forms: one interval, and k sightings with gaps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from small_runs import Touched, Watcher, machine

from klrubench.engine.bits import NODE_MASK
from klrubench.simulate import Options, simulate
from klrubench.simulate.build import build
from klrubench.simulate.result import check_memory
from klrubench.study.plugins import find_policy

FREE_COSTS = dict.fromkeys(
    ["pghot_record", "pghot_list_element", "heap_push", "kpromoted_page", "kpromoted_pop", "shootdown", "walk_young"],
    "0.001x",
)


@pytest.mark.parametrize(("rate", "interval_ms"), [(0.2, 500), (1.0, 500), (1.0, 2000), (5.0, 300)])
def test_an_accessed_bit_is_set_by_the_exponential_law(rate: float, interval_ms: int) -> None:
    """P(young) = 1 - e^(-rate x gap): the mean over passes, gaps measured start to start."""
    watcher, workload = Watcher(), Touched(footprint_gib=0.125, rate=rate, placement="lower")
    watcher.interval_ms = interval_ms
    result = simulate(machine(), workload, watcher, 3, duration_s=12, fold=2)
    pages = result.metrics["pages"] // 2
    seconds, young = (np.array(column) for column in zip(*watcher.passes, strict=True))
    assert young[0] == pages  # first touch of fresh memory
    served = result.metrics["time_s"] / 12  # the touches come slower from the lower tier
    law = 1 - np.exp(-rate / served * np.diff(seconds))
    sigma = math.sqrt(float((law * (1 - law)).sum()) / pages) / len(law)
    assert abs(float(young[1:].mean()) / pages - float(law.mean())) < 4 * sigma + 0.002


def chain(p: float, threshold: int, reach: int, passes: int) -> list[float]:
    """Share promoted after each pass: sightings with probability p, a gap over `reach` passes starts again at one.

    The state is (sightings so far, passes since the last); every page starts with the sighting of its first touch.
    """
    state, done, shares = {(1, 0): 1.0}, 0.0, [0.0]
    for _ in range(passes):
        after: dict[tuple[int, int], float] = {}
        for (count, idle), share in state.items():
            seen = count + 1 if idle + 1 <= reach else 1
            if seen >= threshold:
                done += share * p
            else:
                after[seen, 0] = after.get((seen, 0), 0.0) + share * p
            after[count, min(idle + 1, reach)] = after.get((count, min(idle + 1, reach)), 0.0) + share * (1 - p)
        state = after
        shares.append(done)
    return shares


@pytest.mark.parametrize(
    ("rate", "threshold", "window_ms", "reach"),
    [(0.4, 2, 1600, 3), (1.0, 3, 1100, 2), (0.8, 2, 600, 1), (0.5, 4, 5000, 9)],
)
def test_a_page_is_promoted_after_k_sightings_with_no_gap_over_the_window(
    rate: float, threshold: int, window_ms: int, reach: int
) -> None:
    """Share on the top tier after each pass of 504 ms against the chain: each sighting 1 - e^(-rate x 0.504)."""
    policy = find_policy("klruscand")(interval_ms=500, threshold=threshold, window_ms=window_ms)
    workload = Touched(footprint_gib=0.125, rate=rate, placement="lower")
    roomy = machine(costs=FREE_COSTS)
    roomy = replace(
        roomy, nodes=tuple(replace(node, capacity_gib=0.5) for node in roomy.nodes)
    )  # its heap holds half of the pages
    system = build(roomy, workload, policy, 4, 8, 1, Options(phases=False))
    policy.start(system)
    pages, seen = 1 << 15, []
    system.every_ms(504, lambda: seen.append(float(np.mean((system.mm.pte[:pages] & NODE_MASK) == 0))))
    system.run()
    expected = chain(1 - math.exp(-rate * 0.504), threshold, reach, len(seen))
    # A look at 504 k ms sees what the passes before it have promoted.
    for k in range(2, len(seen)):
        assert abs(seen[k] - expected[k]) < 4 * math.sqrt(0.25 / pages) + 0.004
    check_memory(system.mm)

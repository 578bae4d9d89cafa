"""Cori's heuristic: the period of a page scheduler follows from how long pages wait for their next touch.

Doudali, Zahka, Gavrilovska: "Cori: Dancing to the Right Beat of Periodic Data Movements over Hybrid Memory Systems",
IPDPS 2021 (arXiv 2101.07200): find the dominant reuse distance, try its multiples. Here the distance is the mode of the
waiting times over bins of equal ratio, every workload with the same weight, touches within 1 ms of each other left out;
several dominant distances, which the paper clusters, are not told apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.errors import UsageError
from klrubench.study.sweep.plan import PERIODS
from klrubench.study.sweep.space import Axis, Space

if TYPE_CHECKING:
    from klrubench.study.spec import RunSpec
    from klrubench.workload import Stream

BINS_A_DOUBLING = 4
LEAST_S = 1e-3
CHUNK = 1 << 20
TOUCHES = 1 << 19
"""Touches of a workload that are looked at, about: those of one page in so many."""

MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def period_axis(space: Space) -> Axis:
    """The searched parameter that is the policy's period; raises UsageError where there is none."""
    found = next((axis for name in PERIODS if (axis := space.axis(name)) is not None), None)
    if found is None:
        raise UsageError(f"sampler cori: the policy searches no period ({', '.join(PERIODS)}); use --sampler tpe")
    return found


def waits(pages: np.ndarray, when: np.ndarray) -> np.ndarray:
    """From each touch to the next of the same page, in no order.

    Args:
        pages: page numbers in the order touched.
        when: the number of each touch, rising.
    """
    order = np.argsort(pages, kind="stable")
    same = pages[order][1:] == pages[order][:-1]
    return np.diff(when[order])[same]


def dominant_s(seconds: np.ndarray) -> float | None:
    """The mode of waiting times over bins of equal ratio (four a doubling, from 1 ms): its middle; `None` for none."""
    known = seconds[seconds >= LEAST_S]
    if not len(known):
        return None
    counts = np.bincount(np.floor(np.log2(known / LEAST_S) * BINS_A_DOUBLING).astype(np.int64))
    return float(LEAST_S * 2 ** ((int(counts.argmax()) + 0.5) / BINS_A_DOUBLING))


def reuse_s(specs: Sequence[RunSpec]) -> float | None:
    """Dominant waiting time of the workloads of some runs, in seconds of an unloaded all-DRAM machine."""
    found = [each for spec in specs for each in _waits_of(spec)]
    return dominant_s(np.concatenate(found)) if found else None


def _waits_of(spec: RunSpec) -> list[np.ndarray]:
    """Waiting times in seconds of the largest tenant, as 2^14 quantiles: each workload counts alike."""
    from klrubench.machine import Machine
    from klrubench.simulate.build import layout_of

    workload = spec.workload.build()
    main = max(workload.tenants(), key=lambda tenant: tenant.full_pages())
    layout = layout_of(Machine.from_dict(spec.machine), main, spec.seed, spec.duration_s, spec.fold)
    gaps = waits(*_sampled(main.stream(layout), layout.accesses))
    if not len(gaps):
        return []
    seconds = np.sort(gaps) * (layout.duration_s / layout.accesses)
    return [seconds[np.linspace(0, len(seconds) - 1, 1 << 14).astype(np.int64)]]


def _sampled(stream: Stream, accesses: int) -> tuple[np.ndarray, np.ndarray]:
    """All touches of one page in so many, chosen by a hash of its number: the pages, and the numbers of the touches."""
    from klrubench.engine.bits import ID_MASK

    one_in = -(-accesses // TOUCHES)
    words, pages, when = np.zeros(min(accesses, CHUNK), np.uint32), [], []
    for first in range(0, accesses, CHUNK):
        some = words[: min(CHUNK, accesses - first)]
        stream.fill(some, first)
        found = some & np.uint32(ID_MASK)
        mine = np.flatnonzero(((found * np.uint32(0x9E3779B1)) >> np.uint32(12)) % np.uint32(one_in) == 0)
        pages.append(found[mine])
        when.append(mine + first)
    return np.concatenate(pages), np.concatenate(when)


def candidates(axis: Axis, reuse: float) -> list[Any]:
    """Multiples of the dominant waiting time inside the range, shortest first."""
    found = [1000 * reuse * multiple for multiple in MULTIPLES]
    legal = [
        axis.clipped(value) if axis.whole else axis.value(value) for value in found if axis.low <= value <= axis.high
    ]
    return list(dict.fromkeys(legal or [axis.clipped(1000 * reuse)]))


def points(space: Space, specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """Drawn points at the candidates, everything else at its default; none where no page is touched twice.

    Raises:
        UsageError: the policy has no period.
    """
    axis, reuse = period_axis(space), reuse_s(specs)
    if reuse is None or not math.isfinite(reuse):
        return []
    return [{**space.start(), axis.name: value} for value in candidates(axis, reuse)]

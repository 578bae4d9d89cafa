"""What a run returns, in full-size numbers, and the laws its counters must obey."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.bits import GEN_MASK, NODE_MASK
from klrubench.errors import ConservationError
from klrubench.mm.state import (
    CAPACITY,
    FREE,
    MAX_SEQ,
    MIN_SEQ_ANON,
    NR_PAGES,
)

if TYPE_CHECKING:
    from klrubench.mm.state import Mm


@dataclass
class RunResult:
    """One run.

    `metrics` are numbers or None; `cpu` seconds by thread; `bound` shares 0..1; `series` cumulative, each second;
    `parts` seconds by cause that add up to `time_s` (`parts.parts_of`); `residency` sums (`residency.Residency`),
    empty where all pages start on the top tier.
    """

    metrics: dict[str, float | int | None]
    cpu: dict[str, float]
    daemon_threads: list[str]
    bound: dict[str, float]
    vmstat: dict[str, int]
    notes: list[str]
    series: dict[str, list[float]] = field(default_factory=dict)
    tenants: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    residency: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {name: plain(value) for name, value in vars(self).items()}


def plain(value: Any) -> Any:
    """The same value without numpy's scalars."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def check_memory(mm: Mm) -> None:
    """Every page in one place: frames, nodes, lists and counters agree.

    Raises:
        ConservationError: naming the law and both sides.
    """
    used = np.zeros(len(mm.node), np.int64)
    listed = np.zeros((len(mm.lru), 8), np.int64)
    for first, last, memcg, file, order, _, leaf in mm.vma.tolist():
        ptes, node = 1 << order - leaf, (mm.pte[first:last] & NODE_MASK).astype(np.int64)
        used += np.bincount(node, minlength=len(used)) << leaf
        folios = mm.folio[first:last].reshape(-1, ptes)
        _law("flags in tail pages", int(folios[:, 1:].any()), 0)
        generation = (folios[:, 0] & GEN_MASK).astype(np.int64) - 1
        _law("isolated folios", int((generation < 0).sum()), 0)
        _law("folios on one node", int((node.reshape(-1, ptes) == node[::ptes, None]).all()), 1)
        lruvec = memcg * len(used) + node[::ptes]
        np.add.at(listed, (lruvec, generation * 2 + file), 1 << order)
        _law(
            "frames that name their page",
            int((mm.frame_page[mm.pfn[first:last]] == np.arange(first, last)).sum()),
            int(last - first),
        )
    for k in range(len(used)):
        _law(f"pages resident on node {k}", int(used[k]), int(mm.node[k, CAPACITY] - mm.node[k, FREE]))
    for row in range(len(mm.lru)):
        for k in range(8):
            _law(
                f"pages of lruvec {row} generation {k // 2} type {k % 2}",
                int(listed[row, k]),
                int(mm.lru[row, NR_PAGES + k]),
            )
        for file in range(2):
            spread = int(mm.lru[row, MAX_SEQ] - mm.lru[row, MIN_SEQ_ANON + file])
            if not 0 <= spread <= 3:
                raise ConservationError(f"lruvec {row}: max_seq - min_seq is {spread}, must be within 0..3")


def _law(what: str, left: int, right: int) -> None:
    if left != right:
        raise ConservationError(f"{what}: {left} != {right}")


def check_counts(touches: int, counted: int, promoted: int, demoted: int, before: int, after: int) -> None:
    """hits + misses = touches; promoted - demoted = change of the top tier's residents."""
    _law("touches by category", counted, touches)
    _law("promoted - demoted", promoted - demoted, after - before)


def check_work(name: str, touches: int, counted: int, asked: int) -> None:
    """A tenant's touches are all counted, and as many as its work has."""
    _law(f"touches of {name} by category", counted, touches)
    _law(f"touches of {name}", touches, asked)

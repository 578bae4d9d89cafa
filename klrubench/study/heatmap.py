"""A run once more, watched: how often each part of memory is touched over time, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from klrubench.study.execute import plain, simulated
from klrubench.study.spec import RunSpec

if TYPE_CHECKING:
    import numpy as np

    from klrubench.simulate.system import System

ORDERS = ("address", "heat")
MOST_COLUMNS = 240


@dataclass
class Heat:
    """A page-by-time picture of one run.

    Attributes:
        rate: f64 [rows, columns], touches a page and second (those served by the CPU cache included).
        in_top: f64 [rows, columns], share 0..1 of the row's pages on the top tier at the column's end.
        ends_s: f64 [columns], virtual time at which each column ends; the first begins at 0.
        labels: what each row begins with: `NAME 3.5` (GiB into the memcg's address space), or `12 %` of all pages.
        order: `address`, or `heat`: pages in the order of their touches, most first, before they are put in rows.
        result: `RunResult.to_dict()` of the run, to the byte what it is without being watched.
    """

    rate: np.ndarray
    in_top: np.ndarray
    ends_s: np.ndarray
    labels: list[str]
    order: str
    result: dict[str, Any]


@dataclass
class _Watch:
    """Where every page lies and how far each tenant is, at whole seconds."""

    every_s: int
    system: Any = None
    times_s: list[float] = field(default_factory=list)
    touches: list[list[int]] = field(default_factory=list)
    on_top: list[np.ndarray] = field(default_factory=list)

    def start(self, system: System) -> None:
        """Begin to look; the run's own instruments stop at whole seconds too, so that nothing is changed by it."""
        self.system = system
        system.every_ms(1000 * self.every_s, self.look)

    def look(self) -> None:
        """One column."""
        import numpy as np

        from klrubench.engine.bits import NODE_MASK
        from klrubench.mm.state import TIER

        mm = self.system.mm
        self.times_s.append(self.system.now_ps / 1e12)
        self.touches.append([tenant.touches for tenant in self.system.tenants])
        self.on_top.append(np.packbits(mm.node[mm.pte & NODE_MASK, TIER] == 0))


def heatmap(spec: RunSpec, rows: int = 24, order: str = "address") -> Heat:
    """Run `spec` in this process and look at every page at most 240 times, at whole seconds.

    Args:
        rows: parts that the pages are put in, equal in pages.
        order: one of `ORDERS`.
    """
    watch = _Watch(max(1, round(spec.duration_s / MOST_COLUMNS)))
    result = simulated(spec, watch.start)
    if not watch.times_s or watch.touches[-1] != [tenant.accesses for tenant in watch.system.tenants]:
        watch.look()
        watch.times_s[-1] = float(max(int(clock) for clock in watch.system.state[:, 0])) / 1e12
    return _picture(watch, rows, order, plain(result.to_dict()))


def _picture(watch: _Watch, rows: int, order: str, result: dict[str, Any]) -> Heat:
    import numpy as np

    from klrubench.simulate.feed import count_touches

    system = watch.system
    real = np.concatenate([np.arange(first, last) for first, last in system.mm.vma[:, :2]])
    counts = np.zeros((len(watch.times_s), len(system.mm.pte)), np.uint32)
    for tenant in system.tenants:
        first = 0
        for column, touches in enumerate(watch.touches):
            mine = counts[column, tenant.first_page : tenant.first_page + tenant.pages]
            while first < touches[tenant.index]:
                words, n = tenant.feed.window(first, touches[tenant.index] - first)
                count_touches(words[:n] & np.uint32(0xBFFFFFFF), mine)
                first += n
    placed = (
        real if order == "address" else real[np.argsort(-counts[:, real].sum(axis=0, dtype=np.int64), kind="stable")]
    )
    rows = min(rows, len(placed))
    starts = np.arange(rows) * len(placed) // rows
    sizes = np.diff([*starts, len(placed)])
    ends = np.array(watch.times_s)
    lengths = np.maximum(np.diff(ends, prepend=0.0), 1e-12)
    touched = np.add.reduceat(counts[:, placed], starts, axis=1, dtype=np.int64).T
    on_top = np.stack([np.unpackbits(bits)[: len(system.mm.pte)][placed] for bits in watch.on_top])
    return Heat(
        touched / sizes[:, None] / lengths,
        np.add.reduceat(on_top, starts, axis=1, dtype=np.int64).T / sizes[:, None],
        ends,
        _labels(system, placed, starts, order),
        order,
        result,
    )


def _labels(system: System, placed: np.ndarray, starts: np.ndarray, order: str) -> list[str]:
    if order == "heat":
        return [f"{100 * start / len(placed):.0f} %" for start in starts]
    labels = []
    for page in placed[starts]:
        tenant = next(t for t in reversed(system.tenants) if t.first_page <= page)
        gib = (int(page) - tenant.first_page) * system.fold * (1 << tenant.feed.shift) / (1 << 18)
        labels.append(f"{tenant.name} {gib:.1f}" if len(system.tenants) > 1 else f"{gib:.1f}")
    return labels

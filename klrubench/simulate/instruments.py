"""What is measured of a run: time, hits, tails, migration, CPU, metadata, convergence, and a time line at 1 Hz."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.access import CACHED, CLOCK, FAULTS, OP_SUB, TOUCH
from klrubench.engine.tlb import FLUSHES, MISSES
from klrubench.mm.state import (
    NUMA_HINT_FAULTS,
    NUMA_LIMITED,
    PGDEMOTE_KSWAPD,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_SUCCESS,
    PROMOTE_REFUSED,
    PROMOTED_AGAIN,
    PROMOTED_BEST,
    PROMOTED_JUDGED,
    STATS,
    TIER,
)  # fmt: skip
from klrubench.simulate.build import top_pages
from klrubench.simulate.parts import mean_parts, parts_of
from klrubench.simulate.residency import Residency
from klrubench.simulate.result import RunResult, check_counts, check_work

if TYPE_CHECKING:
    from klrubench.simulate.system import System
    from klrubench.simulate.tenant import Tenant

SAMPLE_MS = 1000
PS = 1e12
MIB_PAGES = 256
CONVERGED = 0.95
SERIES = (
    "t_s", "accesses", "misses", "hits_top", "nr_top_pages", "pgpromote_success", "pgdemote_kswapd",
    "numa_hint_faults", "numa_pte_updates", "kpromoted_popped", "pghot_recorded_accesses", "pghot_records_heap",
    "daemon_cpu_s", "app_cpu_s", "migrated_mib",
)  # fmt: skip


def op_quantile_ps(hist: np.ndarray, share: float) -> float:
    """Quantile of a latency histogram of `op_bin` bins: the middle of the bin, ps."""
    total = int(hist.sum())
    if not total:
        return float("nan")
    index = int(np.searchsorted(np.cumsum(hist), share * total))
    if index < 2 * OP_SUB:
        return float(index)
    shift = index // OP_SUB - 1
    return float(((index - shift * OP_SUB) << shift) + (1 << shift) / 2)


class Instruments:
    """Reads a system from the start of a run to its end."""

    def __init__(self, system: System, top_at_start: int) -> None:
        self.system, self.top_at_start = system, top_at_start
        self.rows: list[tuple[float, ...]] = []
        self.halves: list[dict[str, float]] = [{} for _ in system.tenants]
        self.peak_metadata = 0
        self.top = np.array([k for k in range(len(system.mm.node)) if system.mm.node[k, TIER] == 0])
        self.residency = Residency(system) if system.mm.best.any() else None
        self.sample()
        system.every_ms(SAMPLE_MS, self.sample)
        for index, tenant in enumerate(system.tenants):
            system.at_touch(tenant.accesses // 2, partial(self.mark_half, index), index)

    def hits(self, tenant: int | None = None) -> tuple[int, int]:
        """(misses served by the top tier, all misses), full size, of one tenant or of all."""
        counts = self.system.counts.sum(axis=0) if tenant is None else self.system.counts[tenant]
        top = sum(int(counts[k] + counts[4 + k]) for k in self.top)
        return top * self.system.fold, int(counts[:CACHED].sum()) * self.system.fold

    def app_s(self) -> float:
        """CPU seconds that mechanisms have cost the application."""
        return (sum(self.system.app_ps.values()) + self.system.fault_spent()) / PS

    def sample(self) -> None:
        """One row of the time line."""
        system, stat = self.system, self.system.mm.stat
        for mechanism in system.mechanisms:
            if hasattr(mechanism, "sample"):
                mechanism.sample()
        self.peak_metadata = max(self.peak_metadata, self.metadata())
        top, misses = self.hits()
        moved = float(stat[PGPROMOTE_SUCCESS] + stat[PGDEMOTE_KSWAPD])
        resident = self.top_at_start + int(stat[PGPROMOTE_SUCCESS] - stat[PGDEMOTE_KSWAPD])
        values = [stat[STATS.index(name)] * system.fold for name in SERIES[5:12]]
        self.rows.append((
            system.now_ps / PS, float(system.counts.sum()) * system.fold, misses, top, resident * system.fold,
            *(float(v) for v in values), sum(system.cpu_ps.values()) / PS, self.app_s(),
            moved * system.fold / MIB_PAGES,
        ))  # fmt: skip

    def mark_half(self, index: int) -> None:
        """Remember the state after half of a tenant's work: the rest is its steady part."""
        top, misses = self.hits(index)
        clock, slept = int(self.system.state[index, CLOCK]), self.system.tenants[index].slept_ps
        self.halves[index] = {
            "time": clock / PS, "slept": slept / PS, "top": top, "misses": misses,
            "daemon": sum(self.system.cpu_ps.values()) / PS,
        }  # fmt: skip

    def half(self, name: str) -> float:
        """Sum over the tenants of what was remembered."""
        return sum(half.get(name, 0.0) for half in self.halves)

    def metadata(self) -> int:
        """Bytes of all mechanisms' side arrays at their kernel size, full size."""
        return sum(int(mechanism.metadata_bytes) for mechanism in self.system.mechanisms)

    def result(self, duration_s: float) -> RunResult:
        """Everything, in full-size numbers; checks the counter laws."""
        system, stat, fold = self.system, self.system.mm.stat, self.system.fold
        self.sample()
        touched = int(system.state[:, TOUCH].sum())
        moved = int(stat[PGPROMOTE_SUCCESS]), int(stat[PGDEMOTE_KSWAPD])
        check_counts(touched, int(system.counts.sum()), *moved, self.top_at_start, top_pages(system))
        for tenant in system.tenants:
            check_work(tenant.name, tenant.touches, int(system.counts[tenant.index].sum()), tenant.accesses)
        metrics = {**self._work(), **self._time(), **self._tail(), **self._migration(), "duration_s": duration_s}
        metrics.update(
            metadata_bytes=self.metadata(), metadata_peak_bytes=self.peak_metadata, convergence_s=self._convergence()
        )
        cpu = {name: ps / PS for name, ps in sorted(system.cpu_ps.items())}
        threads = list(cpu)
        cpu.update({name: ps / PS for name, ps in sorted(system.app_ps.items())})
        if stat[NUMA_HINT_FAULTS]:
            cpu["hint faults"] = system.fault_spent() / PS
        vmstat = {name: int(stat[k]) * fold for k, name in enumerate(STATS) if stat[k]}
        vmstat.update(self._tlb())
        series = {name: [row[k] for row in self.rows] for k, name in enumerate(SERIES)}
        notes = [tenant.timing.note for tenant in system.tenants if tenant.timing.note]
        notes += [note for tenant in system.tenants for note in tenant.workload.notes(tenant.feed.layout)]
        notes += self._tlb_notes()
        notes += [note for mechanism in system.mechanisms if hasattr(mechanism, "notes") for note in mechanism.notes()]
        parts = [parts_of(system, tenant) for tenant in system.tenants]
        tenants = [{**row, "parts": own} for row, own in zip(self._tenants(), parts, strict=True)]
        residency = self.residency.result() if self.residency is not None else {}
        return RunResult(
            metrics, cpu, threads, self._bound(), vmstat, notes, series, tenants, mean_parts(parts), residency
        )

    def _tlb(self) -> dict[str, int]:
        """Counters of the TLBs, if modelled: touches that walked the page table, and times that one was emptied."""
        tlb = self.system.mm.tlb
        if not len(tlb):
            return {}
        return {
            "dtlb_misses": int(tlb[:, MISSES].sum()) * self.system.fold,
            "nr_tlb_flush_all": int(tlb[:, FLUSHES].sum()),
        }

    def _tlb_notes(self) -> list[str]:
        """What a modelled TLB does not see at a small scale."""
        fold = self.system.fold
        if fold == 1 or not len(self.system.mm.tlb):
            return []
        return [
            f"tlb/entries at scale 1/{fold}: the hottest ranks of a skewed stream are dealt out over pages, so that"
            " the TLB holds fewer of their touches than at --scale 1"
        ]

    def _work(self) -> dict[str, Any]:
        system, counts = self.system, self.system.counts.sum(axis=0)
        top, misses = self.hits()
        first = system.tenants[0]
        after = misses - self.half("misses")
        weights = [t.feed.pages for t in system.tenants]
        return {
            "accesses": int(counts.sum()) * system.fold, "misses": misses, "cached": int(counts[CACHED]) * system.fold,
            "writes": int(counts[4:8].sum()) * system.fold, "hits_top": top,
            "dram_hit_share": top / misses if misses else None,
            "steady_dram_hit_share": (top - self.half("top")) / after if after else None,
            "young_share": float(np.average([t.feed.young_share() for t in system.tenants], weights=weights)),
            "touches_per_page_s": float(np.average([t.timing.rate for t in system.tenants], weights=weights)),
            "pages": sum(t.workload.full_pages() for t in system.tenants), "fold": system.fold,
            "threads": sum(t.threads for t in system.tenants), "compute_ns": first.timing.compute_ns,
            "mlp": first.timing.mlp, "all_lower_unloaded_pct": first.timing.all_lower_slowdown_percent(),
        }  # fmt: skip

    def _time(self) -> dict[str, Any]:
        system = self.system
        time = float(system.state[:, CLOCK].mean()) / PS
        ideal = float(np.mean([t.feed.layout.accesses * t.timing.touch_ns * system.fold / 1e9 for t in system.tenants]))
        daemon = sum(system.cpu_ps.values()) / PS
        threads = sum(t.threads for t in system.tenants)
        half, daemon_half = self.half("time") / len(system.tenants), self.halves[0].get("daemon", 0.0)
        return {
            "time_s": time, "ideal_time_s": ideal, "steady_time_s": time - half, "daemon_cpu_s": daemon,
            "app_cpu_s": self.app_s(), "charged_time_s": time + (0.0 if system.shared_cpus else daemon / threads),
            "charged_steady_time_s": time - half + (0.0 if system.shared_cpus else (daemon - daemon_half) / threads),
            "stall_s": float(system.state[:, 4].mean()) / PS,
            "hint_faults": int(system.state[:, FAULTS].sum()) * system.fold,
        }  # fmt: skip

    def _tail(self, index: int = 0) -> dict[str, Any]:
        """Latency of an operation of a tenant (in the run's metrics: the first)."""
        factor = self.system.tenants[index].threads / self.system.fold / 1000.0
        hist = self.system.op_hist[index]
        shares = {"op_p50_ns": 0.5, "op_p99_ns": 0.99, "op_p999_ns": 0.999}
        return {name: op_quantile_ps(hist, share) * factor if hist.sum() else None for name, share in shares.items()}

    def _migration(self) -> dict[str, Any]:
        stat, fold = self.system.mm.stat, self.system.fold
        seconds = float(self.system.state[:, CLOCK].max()) / PS
        promoted, demoted = int(stat[PGPROMOTE_SUCCESS]) * fold, int(stat[PGDEMOTE_KSWAPD]) * fold
        judged = int(stat[PROMOTED_JUDGED])
        return {
            "promoted_pages": promoted, "demoted_pages": demoted, "promoted_mib_s": promoted / MIB_PAGES / seconds,
            "demoted_mib_s": demoted / MIB_PAGES / seconds,
            "promoted_again_share": int(stat[PROMOTED_AGAIN]) * fold / promoted if promoted else None,
            "precision": int(stat[PROMOTED_BEST]) / judged if judged else None, "recall": self._recall(),
        }  # fmt: skip

    def _recall(self) -> float | None:
        """Share of the last window's best set that is on the top tier at the end."""
        mm = self.system.mm
        last = self.system.tenants[0].feed.windows() - 1
        best = (mm.best >> np.uint32(last)) & np.uint32(1) == 1
        if not best.any():
            return None
        return float(np.isin(mm.pte[best] & 3, self.top).mean())

    def _convergence(self) -> float | None:
        """Seconds until the hit share of a second reaches 95 % of the steady one and three seconds in a row stay
        there.
        """
        rows = np.array([row[:4] for row in self.rows])
        if len(rows) < 5:
            return None
        misses, top = np.diff(rows[:, 2]), np.diff(rows[:, 3])
        share = np.divide(top, misses, out=np.zeros_like(top), where=misses > 0)
        steady = float(np.mean(share[len(share) // 2 :]))
        good = share >= CONVERGED * steady
        for k in range(len(good) - 2):
            if good[k : k + 3].all():
                return float(rows[k, 0])
        return None

    def _bound(self) -> dict[str, float]:
        stat = self.system.mm.stat
        bound: dict[str, float] = {}
        for mechanism in self.system.mechanisms:
            if hasattr(mechanism, "bound"):
                bound.update(mechanism.bound())
        tried = int(stat[PROMOTE_REFUSED] + stat[PGPROMOTE_SUCCESS])
        bound["gate"] = int(stat[PROMOTE_REFUSED]) / tried if tried else 0.0
        candidates = int(stat[PGPROMOTE_CANDIDATE])
        bound["rate limit"] = int(stat[NUMA_LIMITED]) / candidates if candidates else 0.0
        return {name: share for name, share in bound.items() if share > 0}

    def _tenants(self) -> list[dict[str, Any]]:
        """A row a memcg. work_s: time awake; steady: the second half of its own work;
        dram_pages: on the top tier at the end.
        """
        return [self._tenant(tenant) for tenant in self.system.tenants]

    def _tenant(self, tenant: Tenant) -> dict[str, Any]:
        (top, misses), half = self.hits(tenant.index), self.halves[tenant.index]
        time, slept = int(self.system.state[tenant.index, CLOCK]) / PS, tenant.slept_ps / PS
        steady_misses = misses - half.get("misses", 0.0)
        return {
            "memcg": tenant.name, "workload": tenant.workload.label(), "threads": tenant.threads,
            "pages": tenant.workload.full_pages(), "time_s": time, "work_s": time - slept,
            "steady_work_s": time - slept - half.get("time", 0.0) + half.get("slept", 0.0),
            "accesses": tenant.touches * self.system.fold, "dram_hit_share": top / misses if misses else None,
            "steady_dram_hit_share": (top - half.get("top", 0.0)) / steady_misses if steady_misses else None,
            "dram_pages": top_pages(self.system, tenant.index) * self.system.fold,
            "touches_per_page_s": tenant.timing.rate, "young_share": tenant.feed.young_share(),
            **self._tail(tenant.index),
        }  # fmt: skip

"""IBS: instruction-based samples of AMD CPUs as a source of hotness, by interrupt, a ring a CPU,
and a worker that empties it.

Source: the IBS driver of the pghot series v1-v5 (arch/x86/mm/ibs.c; 20250910144653.212066-1-bharata@amd.com): op
sampling with the L3-miss filter, user mode, each sample an interrupt that stores frame, time and the CPU's node in a
ring of 150 and queues work on that CPU. Each op has the same chance to be sampled, so a touch that misses the CPU cache
has it too, on either tier; samples of the top tier cost their interrupt and are dropped by the record. Samples are
taken into the records each 10 ms of virtual time; within such a step rings fill and are emptied once a `drain_ms`. Not
modelled: skid and lost tags, kernel-mode samples, the worker's place on the sampled CPU
(it runs like any kernel thread).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from klrubench.simulate import System

RING = 150  # IBS_NR_SAMPLES; the ring is full one before its tail
STEP_MS = 10.0
SAMPLE_BYTES = 24  # struct ibs_sample


class Ibs:
    """Samples of every tenant into a hotness store.

    Args:
        store: takes `record(pages, source, nid)`, as `Pghot` does.
        period: ops between two samples (posted: 10000). ring: samples a CPU's ring has room for.
        drain_ms: from a sample to the run of the worker that empties the ring [A].
    """

    def __init__(self, store: Any, period: int = 10_000, ring: int = RING, drain_ms: float = 1.0) -> None:
        self.store, self.period, self.ring, self.drain_ms = store, period, ring, drain_ms
        self.metadata_bytes = self.taken = self.lost = 0

    def attach(self, system: System) -> None:
        """Start sampling all tenants, and the worker."""
        self.system = system
        self.samplers = [system.sampler(tenant, self.period, "IBS") for tenant in system.tenants]
        self.room = [0] * len(self.samplers)
        self.home = system.machine.cpu_nodes[0]
        self.metadata_bytes = system.machine.cpus * self.ring * SAMPLE_BYTES
        system.daemon("kworker/ibs", self.run, phase_ms=STEP_MS)

    def kept(self, index: int, samples: np.ndarray, step_ms: float) -> np.ndarray:
        """Samples that found room in the rings of the tenant's CPUs during a step."""
        drains = max(1.0, step_ms / self.drain_ms)
        room = int((self.ring - 1) * self.samplers[index].tenant.threads * drains) + self.room[index]
        whole, rest = divmod(room, self.system.fold)
        self.room[index] = rest
        self.taken += len(samples)
        self.lost += max(0, len(samples) - whole)
        return samples[:whole]

    def run(self, system: System) -> Iterator[Any]:
        """The worker: each step the interrupts are charged to the program, the records to the thread."""
        step_ms = max(STEP_MS, self.drain_ms)
        while True:
            for index, sampler in enumerate(self.samplers):
                samples = sampler.take()
                if not len(samples):
                    continue
                system.charge_tenant(sampler.tenant, "IBS interrupts", ibs_sample=len(samples))
                self.store.record(self.kept(index, samples, step_ms), source="hwhint", nid=self.home)
            yield system.sleep_exact_ms(step_ms)

    def bound(self) -> dict[str, float]:
        """Share of samples dropped for want of room in a ring."""
        return {"IBS ring": self.lost / self.taken if self.taken else 0.0}

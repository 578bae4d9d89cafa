"""simulate(): build, start the policy, run, check, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from klrubench.mm.numa_balancing import NumaBalancing
from klrubench.simulate.build import build, placement_of, top_pages
from klrubench.simulate.feed import CHUNK
from klrubench.simulate.instruments import Instruments
from klrubench.simulate.result import RunResult, check_memory
from klrubench.simulate.truth import mark_windows

if TYPE_CHECKING:
    from klrubench.machine import Machine
    from klrubench.policy import Policy
    from klrubench.simulate.system import System
    from klrubench.workload import Workload


@dataclass(frozen=True)
class Options:
    """How a run is made.

    Attributes:
        daemon_cpus: kernel threads run on `spare` CPUs, or `shared` with the tenants.
        chunk: stream words made and served at a time; never visible in the result.
        phases: daemons start at a seeded phase of their period (off: at 0, for comparing with an observation).
    """

    daemon_cpus: str = "spare"
    chunk: int = CHUNK
    phases: bool = True


def start_policy(system: System, policy: Policy) -> None:
    """Start a policy under its kernel.numa_balancing, or the machine's: from 1 on hint faults run beside it.

    They do not where it has a fault handler of its own, nor beside a bound, which is to be the same under any setting.
    """
    mode = policy.sysctls.get("kernel.numa_balancing", system.machine.sysctls["kernel.numa_balancing"])
    system.set_tiering(mode)
    policy.start(system)
    if mode and policy.role != "bound" and not system.handles_faults():
        system.add(NumaBalancing(mode=mode))


def simulate(
    machine: Machine,
    workload: Workload,
    policy: Policy,
    seed: int,
    *,
    duration_s: float,
    fold: int = 1,
    options: Options | None = None,
    watch: Callable[[System], None] | None = None,
) -> RunResult:
    """One run.

    Args:
        seed: 64-bit; the same (machine, workload, policy, seed, duration, fold) gives the same bytes.
        duration_s: the work is what an unloaded all-DRAM machine does in that time.
        fold: full-size pages a simulated page (1/scale).
        watch: told the system before its first touch, to add instruments of its own.
    Raises:
        CapacityError, ScaleError: the run cannot be built. ConservationError: a law does not hold at its end.
    """
    options = options or Options()
    system = build(machine, workload, policy, seed, duration_s, fold, options)
    system.may_see_future = policy.needs_truth
    if placement_of(workload, policy) != "top":
        mark_windows(system)
    instruments = Instruments(system, top_pages(system))
    start_policy(system, policy)
    if watch is not None:
        watch(system)
    system.run()
    check_memory(system.mm)
    policy.finished(system)
    return instruments.result(duration_s)

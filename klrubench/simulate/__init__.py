"""The loop: feed touches, stop at deadlines, run daemons, account time.

A run is a pure function of (machine, workload, policy, seed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.simulate.timing import Timing, resolve_timing

if TYPE_CHECKING:
    from klrubench.simulate.loop import Options, simulate
    from klrubench.simulate.result import RunResult
    from klrubench.simulate.system import Lruvec, System
    from klrubench.simulate.tenant import Tenant

__all__ = ["Lruvec", "Options", "RunResult", "System", "Tenant", "Timing", "resolve_timing", "simulate"]

_HOMES = {
    "Options": "loop",
    "simulate": "loop",
    "RunResult": "result",
    "Lruvec": "system",
    "System": "system",
    "Tenant": "tenant",
}


def __getattr__(name: str) -> Any:
    """The parts that need numba are imported when they are asked for."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"klrubench.simulate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'klrubench.simulate' has no attribute '{name}'")

"""klrubench: a simulator and benchmark of Linux memory tiering.

>>> import klrubench
>>> scores = klrubench.compare(["klruscand", "numa_balancing"], ["kv"])  # a Polars frame
>>> record = klrubench.run("klruscand", "kv")  # one run, with its time series
>>> found = klrubench.sweep("klruscand", ["kv"], trials=50)  # found.winner, and found.trials as a frame
>>> both = klrubench.compare_tuned(["klruscand", "numa_balancing"], ["kv"], budget=48)  # both.frame(), both.manifest
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from klrubench.params import param
    from klrubench.policy import Policy
    from klrubench.study.run import run
    from klrubench.study.sweep.api import sweep
    from klrubench.study.tuned import compare_tuned
    from klrubench.workload import Workload

__version__ = "0.1.0"

__all__ = ["Policy", "Workload", "__version__", "compare", "compare_tuned", "param", "run", "sweep"]

_HOMES = {
    "Policy": "klrubench.policy",
    "Workload": "klrubench.workload",
    "compare_tuned": "klrubench.study.tuned",
    "param": "klrubench.params",
    "run": "klrubench.study.run",
    "sweep": "klrubench.study.sweep.api",
}


def compare(*args: Any, **given: Any) -> pl.DataFrame:
    """Compare policies on workloads; takes what `klrubench.study.compare.compare` takes.

    Returns:
        One row for each workload and policy: slowdown with its interval, gap closed, means of the metrics (see
        `klrubench.study.scores.matrix`). The runs themselves and the verdicts: `klrubench.study.compare.compare`.

    Raises:
        KlrubenchError: one clear line. Runs that failed are told about after all others are computed and stored.
    """
    import warnings

    from klrubench.study.compare import compare as compare_runs
    from klrubench.study.executor import raise_failures

    found = compare_runs(*args, **given)
    if found.to_run is not None:
        return found.to_run
    raise_failures(found.failures, found.n_computed + len(found.failures))
    for line in found.warnings:
        warnings.warn(line, stacklevel=2)
    if found.store_error is not None:
        warnings.warn(f"results are not kept: {found.store_error}", stacklevel=2)
    return found.matrix()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'klrubench' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

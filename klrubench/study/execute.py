"""Execute one run in this process."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from klrubench.errors import RunFailedError
from klrubench.study.identity import framework_hashes
from klrubench.study.spec import RunSpec

if TYPE_CHECKING:
    from klrubench.simulate import RunResult, System


def execute(spec: RunSpec) -> dict[str, Any]:
    """Simulate a run; returns `RunResult.to_dict()` as plain JSON types, exactly as it reads back from the store.

    Raises:
        RunFailedError: the framework's sources are no longer those that the run's id was taken from, or the result is
            not plain finite data.
    """
    if spec.framework != framework_hashes():
        raise RunFailedError(
            "klrubench's own sources differ here: edited while runs were under way, or another version on this worker;"
            " start again"
        )
    return plain(simulated(spec).to_dict())


def simulated(spec: RunSpec, watch: Callable[[System], None] | None = None) -> RunResult:
    """Simulate a run; `watch` is called with the system before it starts."""
    from klrubench.machine import Machine
    from klrubench.simulate import Options, simulate

    return simulate(
        Machine.from_dict(spec.machine),
        spec.workload.build(),
        spec.policy.build(),
        spec.seed,
        duration_s=spec.duration_s,
        fold=spec.fold,
        options=Options(**spec.options),
        watch=watch,
    )


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """A result with numpy scalars and tuples turned into what JSON reads back; names a value that JSON cannot hold."""
    bad = next(_not_finite(result, ""), None)
    if bad is not None:
        raise RunFailedError(f"the result's {bad} is not a finite number: a bug in klrubench or in the plug-in")
    try:
        return dict(json.loads(json.dumps(result, default=_item)))
    except TypeError as error:
        raise RunFailedError(f"the result holds a value that is not plain data: {error}") from None


def _not_finite(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{path}.{key}".strip("."))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _not_finite(inner, path)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path}={value}"


def _item(value: Any) -> Any:
    """numpy scalars and arrays know how to become plain."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)

"""What a worker does with a run: execute it, and answer in plain data whatever happens."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klrubench.errors import (
    ConservationError,
    KlrubenchError,
    RunFailedError,
    ScaleError,
    StoreError,
    TraceFormatError,
    UsageError,
)
from klrubench.study.execute import execute
from klrubench.study.folder import shown
from klrubench.study.loader import place_of
from klrubench.study.manifest import host_facts
from klrubench.study.spec import RunSpec

_KINDS = (ScaleError, UsageError, TraceFormatError, StoreError, ConservationError)


@dataclass(frozen=True)
class Answer:
    """What came of a run.

    Attributes:
        result: `RunResult.to_dict()`, or `None` if the run failed.
        wall_s: seconds it took.
        message: what went wrong, in one line.
        error: class of klrubench.errors to report it with (a plug-in's own could not be sent to another process).
        detail: the traceback; empty for an error a user can make.
        host: CPU, system and library versions of the worker.
    """

    result: dict[str, Any] | None
    wall_s: float = 0.0
    message: str = ""
    error: type[KlrubenchError] = RunFailedError
    detail: str = ""
    host: dict[str, Any] = field(default_factory=dict)


Task = Callable[[RunSpec], Answer]


def work(spec: RunSpec) -> Answer:
    """Execute one run and turn any error into a line."""
    started = time.perf_counter()
    try:
        result = execute(spec)
    except KlrubenchError as error:
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), RunFailedError)
        return Answer(None, message=one_line(error), error=kind)
    except Exception as error:  # a plug-in may raise anything; the other runs go on, and this one is reported
        said = f"{_place(error, spec)}: {type(error).__name__}: {one_line(error)}"
        return Answer(None, message=said, detail=traceback.format_exc())
    return Answer(result, time.perf_counter() - started, host=host_facts())


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def _place(error: Exception, spec: RunSpec) -> str:
    """`file:line`: the deepest frame in the policy, else in the workload, else where it was raised."""
    places = [place_of(error, source) for source in (spec.policy.source, spec.workload.source)]
    last = traceback.extract_tb(error.__traceback__)[-1]
    return next((place for place in places if place), f"{shown(Path(last.filename))}:{last.lineno}")

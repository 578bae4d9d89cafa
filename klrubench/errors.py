"""Errors a person can mend: each prints as one line and has an exit code of its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KlrubenchError(Exception):
    """Base of every error that klrubench reports as one clear line (exit code 1)."""

    exit_code = 1


class UsageError(KlrubenchError):
    """What was typed cannot be run as it stands (exit code 2)."""

    exit_code = 2


class ParameterError(UsageError):
    """A parameter is unknown, of the wrong type, or out of its range."""


class UnknownNameError(UsageError):
    """No policy, workload, machine or parameter has that name; suggests the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        guess = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
        super().__init__(f"no {kind} '{name}'{guess}{f' ({hint})' if hint else ''}")


class ScaleError(UsageError):
    """A constant of the simulated machine falls under one unit at the chosen scale."""


class CapacityError(UsageError):
    """The workload does not fit the machine."""


class TraceFormatError(KlrubenchError):
    """A trace is cut short, damaged, or of a format that is not known (exit code 4)."""

    exit_code = 4


class StoreError(KlrubenchError):
    """Results cannot be written or read back (exit code 5)."""

    exit_code = 5


class RunFailedError(KlrubenchError):
    """A run ended with an error or its worker was killed; the others are kept (exit code 6)."""

    exit_code = 6


class ConservationError(KlrubenchError):
    """A counter law does not hold at the end of a run: a bug in klrubench or a plug-in (exit code 7)."""

    exit_code = 7

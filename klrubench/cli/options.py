"""Options that several commands share, and the reading of `NAME=VALUE` lists."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from klrubench.errors import ParameterError


class Format(StrEnum):
    """How a table is written."""

    text = "text"
    tsv = "tsv"
    lkml = "lkml"
    json = "json"


class DaemonCpus(StrEnum):
    """Where kernel threads run."""

    spare = "spare"
    shared = "shared"


NAMED = "NAME[:k=v,...]"
RATIO_HELP = "Sizes of the tiers, as shares of the footprint."

Kernel = Annotated[str | None, typer.Option(metavar="VERSION", help="Kernel whose rules and costs apply: 6.18.")]
Hz = Annotated[int | None, typer.Option(metavar="HZ", help="Timer ticks a second: 100, 250, 300, 1000.")]
Sysctl = Annotated[
    list[str] | None, typer.Option(metavar="NAME=N", help="Kernel setting; the last part of its name will do.")
]
Cost = Annotated[
    list[str] | None, typer.Option(metavar="NAME=2x", help="Scale a cost, or set it: NAME=300ns. May be repeated.")
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, max=4096, metavar="N", help="Worker processes; default: one a CPU.")
]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="processes|threads|dask:ADDRESS|dask:FILE|slurm:PROFILE.toml", help="Where runs are computed."
    ),
]
Results = Annotated[Path | None, typer.Option(metavar="DIR", help="Where results are; default: the study's results/.")]
Json = Annotated[bool, typer.Option("--json", help="JSON with full numbers.")]

duration_option = typer.Option(min=0.001, max=1e6, metavar="SECONDS", help="Work of so many seconds on unloaded DRAM.")
scale_option = typer.Option(metavar="auto|1/N", help="Simulated share of the machine; auto: about 6e7 accesses.")
daemons_option = typer.Option(help="Kernel threads on spare cores, or the application's.")


def pairs(items: Sequence[str] | None, option: str) -> dict[str, str]:
    """`["a=1", "b=2"]` as a mapping.

    Raises:
        ParameterError: an item that has no `=`, no name or no value.
    """
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ParameterError(f"{option} '{item}': write NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def numbers(text: str | None, option: str) -> list[float]:
    """`0.1,0.5,2` as numbers, none for no text.

    Raises:
        ParameterError: something in it is no positive number.
    """
    try:
        found = [float(item) for item in words(text)]
    except ValueError:
        found = [0.0]
    if any(not 0 < value < float("inf") for value in found):
        raise ParameterError(f"{option} '{text}': write positive numbers with commas between: 0.1,0.5,2")
    return found


def words(text: str | None) -> list[str]:
    """The items of a list with commas."""
    return [item.strip() for item in (text or "").split(",") if item.strip()]

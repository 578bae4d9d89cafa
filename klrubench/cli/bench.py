"""`klrubench bench`: how fast this machine simulates."""

from __future__ import annotations

from typing import Annotated

import typer

from klrubench.cli.options import NAMED, Json


def command(
    quick: Annotated[bool, typer.Option("--quick", help="The smallest memory only.")] = False,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", metavar=NAMED, help="Only what this policy costs; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine simulates.

    Millions of accesses a second, and CPU time against a random read-modify-write loop of the same process.

    \b
    Examples:
      klrubench bench
      klrubench bench --quick --json
      klrubench bench -p klruscand:preset=pghot-v3 -p damon
    """
    from klrubench.bench import run_bench
    from klrubench.cli.output import emit, emit_json, say

    result = run_bench(quick=quick, policies=policy or (), progress=say)
    if as_json:
        emit_json(result)
    else:
        emit(_text(result))


def _text(result: list[dict[str, object]]) -> str:
    """One line a measurement: name, value, unit, the goal and whether it is met."""
    from klrubench.report.bench import bench_text

    return bench_text(result)

"""`klrubench heatmap`: which pages are touched, and where they lie, over time."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from klrubench.cli.one_run import (
    Asked,
    Daemons,
    Duration,
    MachineName,
    PolicyName,
    Ratio,
    Run,
    Scale,
    Seed,
    WorkloadName,
)
from klrubench.cli.options import Cost, DaemonCpus, Hz, Kernel, Results, Sysctl


class Order(StrEnum):
    """How pages are put in rows."""

    address = "address"
    heat = "heat"


def command(
    run: Run = None,
    policy: PolicyName = "klruscand",
    workload: WorkloadName = "kv",
    machine: MachineName = "cxl-asic",
    ratio: Ratio = None,
    kernel: Kernel = None,
    hz: Hz = None,
    sysctl: Sysctl = None,
    cost: Cost = None,
    daemon_cpus: Daemons = DaemonCpus.spare,
    seed: Seed = 1,
    duration: Duration = 120.0,
    scale: Scale = "auto",
    rows: Annotated[int, typer.Option(min=2, max=512, metavar="N", help="Parts that memory is put in.")] = 16,
    order: Annotated[Order, typer.Option("--order", help="Pages by address, or most touched first.")] = Order.address,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw it as an image as well.")] = None,
    results: Results = None,
) -> None:
    """Show touches and residency, page by time. The run is simulated again.

    \b
    Examples:
      klrubench heatmap kv/klruscand --order heat
      klrubench heatmap 21c18822 --rows 32
      klrubench heatmap -w hotset_shift -p numab2 --scale 1/128 --png shift.png
    """
    from klrubench.cli.one_run import chosen
    from klrubench.cli.output import ascii_only, emit, say, width
    from klrubench.report.heatmap import heatmap_text, save_png
    from klrubench.study.again import find_run, spec_of
    from klrubench.study.heatmap import heatmap

    asked = Asked(policy, workload, machine, ratio, kernel, hz, sysctl, cost, daemon_cpus, seed, duration, scale)
    spec, run_id, store = chosen(run, asked, results)
    if spec is None:
        record = find_run(store, run_id, series=False)
        spec = spec_of(record)
        if spec.run_id != record["id"]:
            say(f"warning: run {record['id'][:12]} was made by other code; this is the run as it is today")
    if png is not None and not png.parent.is_dir():
        from klrubench.errors import UsageError

        raise UsageError(f"--png {png}: there is no folder {png.parent}")
    heat = heatmap(spec, rows, order.value)
    names = [node["name"] for tier in (0, 1) for node in spec.machine["nodes"] if node["tier"] == tier] + ["-"]
    emit(f"{spec.title}\n\n" + heatmap_text(heat, width(), ascii_only(), lower=names[1], top=names[0]))
    if png is not None:
        save_png(heat, png, spec.title, names[0])
        say(f"written: {png}")

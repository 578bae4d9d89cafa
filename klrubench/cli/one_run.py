"""The one run that `explain` and `heatmap` look into: by its id, as WORKLOAD/POLICY, or by the options of `run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from klrubench.cli.options import NAMED, RATIO_HELP, DaemonCpus, daemons_option, duration_option, pairs, scale_option

if TYPE_CHECKING:
    from klrubench.study.spec import RunSpec
    from klrubench.study.store import Store

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", help="Id of a stored run or its beginning; or WORKLOAD/POLICY.", show_default=False
    ),
]
PolicyName = Annotated[str, typer.Option("--policy", "-p", metavar=NAMED, help="Policy.")]
WorkloadName = Annotated[str, typer.Option("--workload", "-w", metavar=NAMED, help="Workload.")]
MachineName = Annotated[str, typer.Option("--machine", "-m", metavar="NAME", help="Machine, or a TOML file.")]
Ratio = Annotated[str | None, typer.Option(metavar="A:B", help=RATIO_HELP)]
Daemons = Annotated[DaemonCpus, daemons_option]
Seed = Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, metavar="N", help="Draws stream, page order and phases.")]
Duration = Annotated[float, duration_option]
Scale = Annotated[str, scale_option]


class Asked(NamedTuple):
    """The options of `klrubench run`."""

    policy: str
    workload: str
    machine: str
    ratio: str | None
    kernel: str | None
    hz: int | None
    sysctl: list[str] | None
    cost: list[str] | None
    daemon_cpus: DaemonCpus
    seed: int
    duration: float
    scale: str


def chosen(text: str | None, asked: Asked, results: Path | None) -> tuple[RunSpec | None, str, Store]:
    """(the run, or None where a stored one is meant; the beginning of that one's id; the store)."""
    from klrubench.cli.output import say
    from klrubench.machine import load_machine
    from klrubench.study.gather import open_store
    from klrubench.study.spec import make_spec, parse_scale, policy_part, workload_part

    store = open_store(results, say)
    if text is not None and "/" not in text:
        return None, text, store
    if text is not None:
        workload, _, policy = text.partition("/")
        asked = asked._replace(workload=workload, policy=policy)
    system: dict[str, Any] = {"sysctls": pairs(asked.sysctl, "--sysctl"), "costs": pairs(asked.cost, "--cost")}
    made = load_machine(asked.machine, ratio=asked.ratio, kernel=asked.kernel, hz=asked.hz, **system)
    spec = make_spec(
        made,
        workload_part(asked.workload),
        policy_part(asked.policy),
        asked.seed,
        duration_s=asked.duration,
        fold=parse_scale(asked.scale),
        options={"daemon_cpus": asked.daemon_cpus.value},
    )
    return spec, "", store

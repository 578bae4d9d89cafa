"""Default against tuned, by policy: on the workloads that chose the parameters, and on held-out ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from klrubench.figures import expect, word_for
from klrubench.figures.frames import overall_slowdown
from klrubench.figures.marks import log_axis
from klrubench.figures.style import GREY, look
from klrubench.figures.winners import lacking, winners

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("klruscand", "numa_balancing", "random_sampling")
EQUAL = 1.0  # points within which two slowdowns count as equal
MEAN, GROUPS = "mean", ("tuned on", "held out")
WORK = ("workload", "machine", "ratio", "duration_s", "fold", "seed")
LACKS = partial(lacking, POLICIES)
PANELS, WIDTH, HEIGHT = len(POLICIES), "page", 0.36


def RUNS() -> list[Any]:
    """Default, tuned and no migration, on seeds that chose nothing."""
    return [each for found in winners(POLICIES) for each in found.questions(["all_top", "first_touch"])]


def CAPTION() -> str:
    """What is drawn, and which parameters won."""
    found = winners(POLICIES)
    tried = ", ".join(dict.fromkeys(str(each.trials) for each in found))
    tuned = "; ".join(each.tuned if each.tuned != each.default else f"{each.default} won" for each in found)
    return f"""
        Slowdown against all memory in DRAM with default parameters (hollow) and with those that won a sweep of {tried}
        trials a policy (filled): large marks with kernel threads' CPU time charged, which is what was made small,
        small ones with kernel threads on spare cores. Above the line the workloads that the sweep tuned on, below it
        workloads that it never saw; the seeds are others than those that chose. Means are over the workloads above
        them; bars are 95 % intervals. Ticks: no migration. Tuned: {tuned}.
    """


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown, charged and spare, by policy, workload (and their mean), and setting."""
    import polars as pl

    rows = []
    for each in winners(POLICIES):
        # sweeps may have been judged at different scales: runs go together with those of the tuned policy
        there = frame.filter(frame["policy"] == each.tuned).select(WORK).unique()
        own = frame.join(there, on=WORK, how="semi", maintain_order="left")
        settings = {"default": each.default, "tuned": each.tuned, "no migration": "first_touch"}
        for group, workloads in zip(GROUPS, (each.tuned_on, each.held_out), strict=True):
            for setting, label in settings.items():
                about = {"policy": each.policy, "group": group, "setting": setting, "label": label}
                for name, these in ((MEAN, workloads), *((one, (one,)) for one in workloads)):
                    found = overall_slowdown(own, label, these, ("charged", "spare"))
                    rows.append({**about, "workload": name, **found})
    return pl.DataFrame(rows)


def TABLE(data: pl.DataFrame) -> pl.DataFrame:
    """The means alone."""
    return data.filter(data["workload"] == MEAN).drop("label", "workload")


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A panel a policy, a line a workload from default to tuned; the same axis in all."""
    ends = [*data["charged_pct"].to_list(), *data["spare_pct"].to_list()]
    for panel, policy in zip(axes, POLICIES, strict=True):
        part = data.filter(data["policy"] == policy)
        lines = list(dict.fromkeys(part.select("group", "workload").iter_rows()))
        lines.sort(key=lambda line: (GROUPS.index(line[0]), line[1] == MEAN))
        for place, (group, workload) in enumerate(lines):
            here = part.filter((part["group"] == group) & (part["workload"] == workload))
            _line(panel, policy, -place, {one["setting"]: one for one in here.iter_rows(named=True)})
        panel.axhline(0.5 - sum(group == GROUPS[0] for group, _ in lines), color=GREY, linewidth=0.8)
        names = [f"{group}: mean" if name == MEAN else name for group, name in lines]
        panel.set_yticks([-place for place in range(len(lines))], names if panel is axes[0] else [""] * len(lines))
        log_axis(panel, min(ends), max(ends))
        panel.set(title=word_for(policy), xlabel="slowdown, %")
        panel.grid(False, axis="y")


def _line(panel: Any, policy: str, y: int, at: dict[str, dict[str, Any]]) -> None:
    how, (old, new) = look(policy), (at["default"], at["tuned"])
    panel.plot([old["charged_pct"], new["charged_pct"]], [y, y], color=how.colour, linewidth=1)
    panel.plot(at["no migration"]["charged_pct"], y, "|", color="black", markersize=12, label="no migration")
    for one, fill, up, word in ((old, "white", 0.2, "default"), (new, how.colour, -0.2, "tuned")):
        same = {"color": how.colour, "markerfacecolor": fill}
        panel.plot(one["spare_pct"], y + up, "o", alpha=0.45, markersize=2.2, label=f"{word}, spare cores", **same)
        half = one["charged_half_pct"] or 0
        panel.errorbar(one["charged_pct"], y, xerr=half, fmt=how.marker, label=f"{word}, charged", zorder=4, **same)


def _means(data: Any, group: str) -> dict[str, tuple[float, float]]:
    """By policy: default and tuned."""
    rows = data.filter((data["group"] == group) & (data["workload"] == MEAN)).iter_rows(named=True)
    by = {(one["policy"], one["setting"]): one["charged_pct"] for one in rows}
    return {policy: (by[policy, "default"], by[policy, "tuned"]) for policy in POLICIES}


def _not_worse(data: Any) -> tuple[bool, str]:
    means = _means(data, GROUPS[0])
    told = ", ".join(f"{policy} {old:.1f} % to {new:.1f} %" for policy, (old, new) in means.items())
    return all(new <= old + EQUAL for old, new in means.values()), told


def _less_gained(data: Any) -> tuple[bool, str]:
    own, other = ({name: old - new for name, (old, new) in _means(data, each).items()} for each in GROUPS)
    told = ", ".join(f"{name} {own[name]:.1f} and {other[name]:.1f} points" for name in POLICIES)
    return all(other[name] <= own[name] + EQUAL for name in POLICIES), told


EXPECT = [
    expect("On the workloads it was tuned on no policy is worse tuned than at its defaults, by a point of the mean.",
           _not_worse),
    expect("No policy gains a point more on held-out workloads than on those it was tuned on.", _less_gained),
]  # fmt: skip

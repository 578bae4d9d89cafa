"""Winners of sweeps as figures use them: what was tuned, on what, and the runs that show it on seeds that chose none.

The reference study keeps one file a policy, `results/reference/sweeps/tuning-POLICY.toml`, as `klrubench sweep` wrote
it (`command_for` says how); a file of that name in `results/sweeps` of the study one stands in goes before it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klrubench.errors import KlrubenchError, UsageError
from klrubench.study.folder import bundled_root, results_folder, shown
from klrubench.study.spec import policy_part, workload_part
from klrubench.study.suite import Question, read_study

KEPT = ("results", "reference", "sweeps")
PREFIX = "tuning-"


@dataclass(frozen=True)
class Winner:
    """What a sweep found, read from the file that it wrote.

    Attributes:
        policy: name; `default`, `tuned`: labels (the same where the default itself won).
        tuned_on, held_out: labels of workloads that chose the winner, and of those that did not.
        folds: of each workload, in that order: the scale (1/fold) that it was judged at.
        trials: settings that were tried.
        told: the rest of the file: machine, ratio, seeds that judged, seconds, scale, as `Question` takes them.
    """

    policy: str
    default: str
    tuned: str
    tuned_on: tuple[str, ...]
    held_out: tuple[str, ...]
    folds: tuple[int, ...]
    trials: int
    told: dict[str, Any]

    def questions(self, also: Sequence[str] = ()) -> list[Question]:
        """Default and tuned and the policies in `also`, on each of its workloads, on the seeds that judge."""
        policies = tuple(dict.fromkeys([*also, self.default, self.tuned]))
        return [
            Question(**{**self.told, "policy": policies, "workload": (label,), "scale": f"1/{fold}"})
            for label, fold in zip((*self.tuned_on, *self.held_out), self.folds, strict=True)
        ]


def command_for(policy: str) -> str:
    """The command that writes the file of a policy where it is looked for."""
    return f"klrubench sweep {policy} --name {PREFIX}{policy}"


def winner_file(policy: str) -> Path | None:
    """The file of a policy: of the study one stands in, else of those that come along; `None` if there is none."""
    name, own = f"{PREFIX}{policy}.toml", results_folder()[0]
    places = (own / "sweeps", own / "reference" / "sweeps", bundled_root().joinpath(*KEPT))
    return next((folder / name for folder in places if (folder / name).is_file()), None)


def read_winner(policy: str, file: Path) -> Winner:
    """A winner from its file.

    Raises:
        UsageError: it is not what a sweep of that policy with one objective and held-out workloads writes, in one line.
    """
    told = read_study(file)
    try:
        about = tomllib.loads(file.read_text(encoding="utf-8"))["sweep"]
        default, policies = about["default"], told.pop("policy")
        told.pop("workload")
        others = [label for label in policies if label != default]
        found = Winner(
            policy, default, others[0] if others else default, tuple(about["tuned_on"]), tuple(about["held_out"]),
            tuple(about["folds"]), int(about["trials"]), told,
        )  # fmt: skip
        names = {policy_part(label).name for label in (found.default, found.tuned)}
        labels = [workload_part(text).label for text in (*found.tuned_on, *found.held_out)]
        whole = len(others) <= 1 and names == {policy} and found.tuned_on and found.held_out and told["first_seed"] > 1
        found.questions()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{shown(file)}: no winner of a sweep ({error}); {command_for(policy)}") from None
    except KlrubenchError as error:
        raise UsageError(f"{shown(file)}: {error}; {command_for(policy)}") from None
    if not whole:
        raise UsageError(f"{shown(file)}: one winner, of {policy}, with held-out workloads: {command_for(policy)}")
    told_on, held = labels[: len(found.tuned_on)], labels[len(found.tuned_on) :]
    return Winner(**{**vars(found), "tuned_on": tuple(told_on), "held_out": tuple(held)})


def winners(policies: Sequence[str]) -> list[Winner]:
    """The winners of these policies, those that are there and whole."""
    return [found for found in map(_winner, policies) if isinstance(found, Winner)]


def lacking(policies: Sequence[str]) -> str:
    """What lacks, in one line: the commands that make it, or what is wrong with a file; empty: nothing."""
    missing = [policy for policy in policies if winner_file(policy) is None]
    if missing:
        return f"no winner's file yet; run: {' ; '.join(map(command_for, missing))}"
    return "; ".join(found for found in map(_winner, policies) if isinstance(found, str))


def _winner(policy: str) -> Winner | str:
    """The winner of a policy, or what is wrong with its file."""
    file = winner_file(policy)
    if file is None:
        return "none"
    try:
        return read_winner(policy, file)
    except UsageError as error:
        return str(error)

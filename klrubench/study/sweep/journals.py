"""Every sweep of a results folder, read from its journals for a page that shows them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from klrubench.errors import KlrubenchError, StoreError
from klrubench.study.folder import shown
from klrubench.study.sweep.show import summary
from klrubench.study.sweep.storage import SUFFIX, Place, load
from klrubench.study.sweep.trials import front, trials_of


def journals(folder: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[dict[str, Any]]:
    """What `show.summary` has of each journal in a folder, by name; nothing in it is changed.

    Added: `trials`, one row a trial that is complete: `trial`, `objectives`, `drawn` (parameters as the sampler drew
    them), `feasible`, `front` (on the Pareto front).

    Args:
        folder: where journals are (`results/sweeps`).
        say: told a line for each journal that cannot be read; it is left out.
    """
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            yield _read(folder, file.stem)
        except KlrubenchError as error:
            say(f"warning: {' '.join(str(error).split())}; it is left out")
        except Exception as error:  # optuna replays whatever stands there: a damaged journal may raise anything
            words = " ".join(str(error).split())[:120] or type(error).__name__
            say(f"warning: {shown(file)} is damaged ({words}); it is left out")


def _read(folder: Path, name: str) -> dict[str, Any]:
    study = load(Place(None, folder), name)
    if not study.user_attrs.get("objectives"):
        raise StoreError(f"{shown(folder)}/{name}{SUFFIX}: its sweep has not begun yet")
    trials = trials_of(study)
    best = {trial.number for trial in front(trials)}
    rows = [
        {
            "trial": trial.number,
            "objectives": list(trial.objectives),
            "drawn": trial.drawn,
            "feasible": trial.feasible,
            "front": trial.number in best,
        }
        for trial in trials
        if trial.state == "complete"
    ]
    found = summary(study)
    logs = {axis["name"]: bool(axis["log"]) for axis in study.user_attrs["axes"]}
    return {**found, "trials": rows, "logs": logs}

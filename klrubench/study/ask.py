"""The runs of several questions at once, and their records with time series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from klrubench.study.expand import specs
from klrubench.study.gather import Gathered
from klrubench.study.spec import RunSpec
from klrubench.study.store import Store
from klrubench.study.suite import Question


def runs_of(questions: Sequence[Question]) -> list[RunSpec]:
    """All runs of some questions, each once; raises as `expand.specs`."""
    return list({run.run_id: run for question in questions for run in specs(question)}.values())


def records_of(
    runs: list[RunSpec], store: Store, found: Gathered | None = None, series: bool = False
) -> list[dict[str, Any]]:
    """The records of some runs in their order, those that there are; with their time series if asked for.

    Args:
        found: what was gathered, for results that could not be written.
    """
    kept = found.records if found is not None else {}
    both = ((kept.get(run.run_id), store.get(run.run_id, series=True) if series else None) for run in runs)
    records = (stored if stored is not None else held for held, stored in both)
    return [record for record in records if record is not None]

"""`klrubench figures`: the figures and tables of a study, from stored results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klrubench.cli.options import Executor, Jobs, Results

if TYPE_CHECKING:
    from klrubench.figures.drawing import Answer
    from klrubench.figures.finding import Figure
    from klrubench.study.gather import Workers
    from klrubench.study.store import Store


class VenueName(StrEnum):
    """Where a figure is to be printed: its widths and type size."""

    usenix = "usenix"
    acm = "acm"
    ieee = "ieee"


def command(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This figure alone; may be repeated.")
    ] = None,
    venue: Annotated[VenueName, typer.Option(help="Widths and type size.")] = VenueName.usenix,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where figures go; default: figures/ in the results folder.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Coarser scale, fewer seeds; captions say so. Not for publication.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Draw nothing: say which stated expectations the data does not bear out.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Name the figures, and how many of their runs are missing.")] = (
        False
    ),
    jobs: Jobs = None,
    executor: Executor = None,
    results: Results = None,
) -> None:
    """Draw every figure of the study, computing the runs that are missing.

    Each is written as PDF, PNG, CSV (its numbers), .tex (the same as a table)
    and .txt (its caption). Figures of your own: files in figures/ of the study.
    With --check the exit code is 1 if an expectation did not come out.

    \b
    Examples:
      klrubench figures --quick
      klrubench figures --venue acm --out paper/figures
      klrubench figures --only rate_map --only recovery
      klrubench figures --check
    """
    from klrubench.cli.output import emit, say
    from klrubench.figures.finding import figure_files, load_figure
    from klrubench.study.gather import Workers, open_store
    from klrubench.study.progress import progress_for

    figures = [load_figure(name, quick) for name in dict.fromkeys(only or figure_files())]
    store = open_store(results, say)
    if list_:
        for figure in figures:
            emit(_listed(figure, store))
        return
    if not check:
        from klrubench.figures.drawing import need_matplotlib

        need_matplotlib()
    folder = None if check else out or store.path / "figures"
    _make(figures, store, Workers(jobs, executor, progress_for()), folder, venue.value)


def _listed(figure: Figure, store: Store) -> str:
    from klrubench.study.ask import runs_of
    from klrubench.study.plugins import summary

    if figure.lacks:
        return f"{figure.name:<20} {'cannot be told yet':<26} {figure.lacks}"
    runs = runs_of(figure.questions())
    missing = sum(store.look(run.run_id) != "stored" for run in runs)
    state = f"{missing} of {len(runs)} runs missing" if missing else f"{len(runs)} runs stored"
    return f"{figure.name:<20} {state:<26} {summary(figure.path)}"


def _make(figures: list[Figure], store: Store, workers: Workers, folder: Path | None, venue: str) -> None:
    from klrubench.cli.output import say
    from klrubench.study.ask import records_of, runs_of
    from klrubench.study.executor import raise_failures
    from klrubench.study.gather import gather

    wanted = {figure.name: runs_of(figure.questions()) for figure in figures}
    runs = list({run.run_id: run for each in wanted.values() for run in each}.values())
    found = gather(runs, store, workers, say)
    computed = len(found.batch.records)
    failed = f", {len(found.failures)} failed" if found.failures else ""
    say(f"{len(runs)} runs: {len(found.cached)} cached, {computed} computed{failed}")
    answers: list[Answer] = []
    broken: list[str] = []
    for figure in figures:
        records = records_of(wanted[figure.name], store, found, series=bool(figure.series))
        made = _answered(figure, records, broken)
        if made is not None:
            answers.append(made)
            _tell(made, folder, venue)
    raise_failures(found.failures, computed + len(found.failures))
    if found.store_error is not None:
        raise found.store_error
    _verdict(answers, broken, checking=folder is None)


def _answered(figure: Figure, records: list[dict[str, Any]], broken: list[str]) -> Answer | None:
    """The figure's answer; one that cannot be made is said on stderr and does not keep the others from being drawn."""
    from klrubench.cli.output import say
    from klrubench.errors import KlrubenchError
    from klrubench.figures.drawing import answer

    try:
        return answer(figure, records)
    except KlrubenchError as error:
        say(f"warning: {error}")
        broken.append(figure.name)
        return None


def _tell(made: Answer, folder: Path | None, venue: str) -> None:
    """Write the figure, or with no folder say what did not come out."""
    from klrubench.cli.output import emit, say
    from klrubench.figures.drawing import write
    from klrubench.figures.style import venue as venue_of
    from klrubench.study.folder import shown

    missed = [each for each in made.verdicts if not each.good]
    if folder is not None:
        emit(shown(write(made, folder, venue_of(venue))[0]))
    tell = emit if folder is None else say
    for each in missed:
        tell(f"{made.figure.name}: did not come out: {each.statement}{f' Found: {each.found}.' if each.found else ''}")


def _verdict(answers: list[Answer], broken: list[str], checking: bool) -> None:
    from klrubench.cli.output import emit
    from klrubench.errors import KlrubenchError

    if broken:
        raise KlrubenchError(f"not made: {', '.join(broken)}")
    verdicts = [each for made in answers for each in made.verdicts]
    missed = sum(not each.good for each in verdicts)
    if checking and missed:
        raise KlrubenchError(f"{missed} of {len(verdicts)} expectations did not come out")
    if checking:
        emit(f"{len(verdicts)} of {len(verdicts)} expectations came out")

"""`klrubench cite`: where every row comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from klrubench.cli.options import Json, Results


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Policies, workloads, machines, costs; default: of the stored runs."),
    ] = None,
    bib: Annotated[bool, typer.Option("--bibtex", help="BibTeX entries.")] = False,
    as_json: Json = False,
    results: Results = None,
) -> None:
    """Print the sources of policies, workloads, machines and costs.

    \b
    Examples:
      klrubench cite klruscand cxl-asic pghot_record
      klrubench cite --bibtex
    """
    import dataclasses

    from klrubench import __version__
    from klrubench.cli.output import emit, emit_json, width
    from klrubench.report.cite import cite_text
    from klrubench.study.again import store_at
    from klrubench.study.folder import results_folder
    from klrubench.study.sources import bibtex, of_runs, sources

    wanted = names or of_runs(store_at(results or results_folder()[0]).scan())
    found = sources(wanted)
    if as_json:
        emit_json([{**dataclasses.asdict(source), "message_ids": source.message_ids} for source in found])
    else:
        emit(bibtex(found, __version__) if bib else cite_text(found, width()))

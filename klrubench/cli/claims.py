"""`klrubench claims`: the numbers that a study claims, beside what its stored results give."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klrubench.cli.options import Json


def command(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder of claims.toml; default: the study's results/reference."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="End with 1 where a claim does not hold, or FINDINGS.md does not agree.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Bring CLAIMS.md up to date.")] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="First keep the runs of this results folder that are meant.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute every claimed number again from stored results.

    \b
    Examples:
      klrubench claims
      klrubench claims --check
      klrubench claims --keep results --write
    """
    from klrubench.cli.output import emit, emit_json, say
    from klrubench.errors import KlrubenchError
    from klrubench.report.claims import claims_data, claims_markdown, claims_text
    from klrubench.study.claims import FILE, load_claims
    from klrubench.study.evidence import Results
    from klrubench.study.findings import disagreements
    from klrubench.study.folder import results_folder, shown

    place = folder or results_folder()[0] / "reference"
    claims = load_claims(place / FILE)
    if keep is not None:
        say(_kept(keep, place))
    results = Results(place)
    found = [results.found(claim) for claim in claims]
    wrong = disagreements(place, found)
    if write:
        (place / "CLAIMS.md").write_text(claims_markdown(found), encoding="utf-8")
        say(f"written: {shown(place / 'CLAIMS.md')}")
    if as_json:
        emit_json(claims_data(found, wrong))
    else:
        emit("\n".join([claims_text(found), *wrong]))
    missed = sum(not each.holds for each in found)
    if check and (missed or wrong):
        raise KlrubenchError(f"{missed} of {len(found)} claims do not hold; {len(wrong)} numbers of findings disagree")


def _kept(source: Path, place: Path) -> str:
    """Keep the runs that are meant; says how many, and how large the file is."""
    from klrubench.report.text import size
    from klrubench.study.again import store_at
    from klrubench.study.claims import FILE, runs_tables
    from klrubench.study.evidence import selected
    from klrubench.study.folder import shown
    from klrubench.study.kept import keep
    from klrubench.study.table import PARQUET

    store = store_at(source)
    count = keep(store, place, selected(store, runs_tables(place / FILE)))
    return f"kept {count} runs in {shown(place / PARQUET)}, {size((place / PARQUET).stat().st_size)}"

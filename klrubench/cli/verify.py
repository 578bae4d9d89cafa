"""`klrubench verify`: compute stored runs again and compare bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.", show_default=False)],
    sample: Annotated[int | None, typer.Option(min=1, metavar="N", help="So many runs, drawn; default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Draws the sample.")] = 1,
) -> None:
    """Compute stored runs again and compare their bytes.

    Ends with 1 when one differs or cannot be computed. Nothing is changed.

    \b
    Examples:
      klrubench verify results/reference --sample 5
      klrubench verify results
    """
    from klrubench.cli.output import emit
    from klrubench.study.again import store_at
    from klrubench.study.verify import sampled, verify

    store = store_at(folder)
    total, bad, done = len(sampled(store, sample, seed)), 0, 0
    for done, check in enumerate(verify(store, sample, seed), 1):
        bad += not check.good
        code = f" (code changed since: {', '.join(check.code)})" if check.code else ""
        detail = f": {check.detail}" if check.detail else ""
        emit(f"{done}/{total} {check.word:<8} {check.title}{detail}{code}")
    emit(f"{done - bad} of {done} are the same to the byte" + (f"; {bad} are not" if bad else ""))
    if bad:
        raise typer.Exit(1)

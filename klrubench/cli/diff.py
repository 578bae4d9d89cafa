"""`klrubench diff`: two sets of results, run by run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klrubench.cli.options import Json, Results

if TYPE_CHECKING:
    from klrubench.study.store import Store


def command(
    a: Annotated[str | None, typer.Argument(metavar="[A]", help="Results folder, or a code version.")] = None,
    b: Annotated[str | None, typer.Argument(metavar="[B]", help="The same; what is new.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 when any pair differs.")] = False,
    as_json: Json = False,
    results: Results = None,
) -> None:
    """Compare two sets of results, paired by policy, workload and seed.

    A and B are folders, or versions of the code within one folder. Without
    them the versions that are stored are listed.

    \b
    Examples:
      klrubench diff results/reference results
      klrubench diff
      klrubench diff 3f2a91c0de 77b0e4a1c2
    """
    from klrubench.cli.output import emit, emit_json, width
    from klrubench.report.difference import difference_text
    from klrubench.study.difference import difference
    from klrubench.study.gather import open_store

    store = open_store(results)
    if a is None or b is None:
        emit(_listed(store, a))
        return
    found = difference(_side(a, store), _side(b, store))
    if as_json:
        emit_json(found)
    else:
        emit(difference_text(found, (a, b), width()))
    if exit_code and any(row["word"] != "same" for row in found["rows"]):
        raise typer.Exit(1)


def _listed(store: Store, given: str | None) -> str:
    from klrubench.errors import UsageError
    from klrubench.report.listing import listing_text
    from klrubench.study.difference import versions

    if given is not None:
        raise UsageError(f"diff {given}: against what? klrubench diff A B")
    rows = [
        {
            "code": code,
            "runs": len(records),
            "first": min(str(record["manifest"].get("created", ""))[:16] for record in records),
            "last": max(str(record["manifest"].get("created", ""))[:16] for record in records),
        }
        for code, records in versions(store).items()
    ]
    return listing_text("versions of the code", rows, 100)


def _side(text: str, store: Store) -> list[dict[str, Any]]:
    from klrubench.errors import UsageError
    from klrubench.study.again import store_at
    from klrubench.study.difference import versions

    if Path(text).is_dir():
        return list(store_at(text).scan())
    known = versions(store)
    found = [code for code in known if code.startswith(text)]
    if len(found) != 1:
        raise UsageError(f"'{text}' is no folder and no single version; known: {', '.join(known) or 'none'}")
    return known[found[0]]

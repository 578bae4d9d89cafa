"""`klrubench trace`: record a program, import lackey text, show a trace's card."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from klrubench.trace.collect import Collector
    from klrubench.trace.format import Trace
    from klrubench.trace.record import Progress

app = typer.Typer(
    help="Record real programs and look at recordings (replay: klrubench compare -w trace:file=FILE).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[Path | None, typer.Option("--output", "-o", help="where the trace goes", show_default=False)]
LlcSize = Annotated[str, typer.Option("--llc", help="cache the touches go through, 16 ways; none: unfiltered")]
Epoch = Annotated[int, typer.Option("--epoch", help="instructions an epoch, 1000 to 100000000")]
Note = Annotated[str, typer.Option("--note", help="what the program did, for the card")]
Force = Annotated[bool, typer.Option("--force", help="overwrite the output")]


@app.command("record", context_settings={"allow_interspersed_args": False})
def record_command(
    command: Annotated[list[str], typer.Argument(help="program and its arguments", metavar="-- CMD ARG...")],
    output: Output = None,
    llc: LlcSize = "2MiB",
    epoch: Epoch = 1_000_000,
    max_accesses: Annotated[
        int | None, typer.Option("--max-accesses", min=1, help="stop the program after so many loads and stores")
    ] = None,
    note: Note = "",
    force: Force = False,
) -> None:
    """Run CMD under valgrind's lackey and store what it touches, by page and epoch.

    Takes thousands of times as long as CMD alone; nothing big is stored in between. Ctrl-C stops CMD and keeps what
    was recorded. The exit code is that of CMD (0 if it was stopped).

    \b
    Examples:
      klrubench trace record -- sqlite3 :memory: "select sum(value) from generate_series(1, 9999)"
      klrubench trace record -o sort.parquet --llc none --max-accesses 20000000 -- sort big.txt
    """
    from klrubench.trace import record as recording

    path = _target(output, Path(command[0]).name, force)
    collector, filtered = _collector(llc, epoch)
    progress = _progress(f"recording {Path(command[0]).name}")
    result = recording.record(
        command, collector, filtered=filtered, max_accesses=max_accesses, note=note, progress=progress
    )
    _keep(result.trace, path)
    if result.exit_code:
        typer.echo(f"{Path(command[0]).name} ended with {_ending(result.exit_code)}", err=True)
        raise typer.Exit(result.exit_code if result.exit_code > 0 else 128 - result.exit_code)


@app.command("import")
def import_command(
    text: Annotated[str, typer.Argument(help="lackey text, plain, .gz, .xz or .zst; -: stdin", metavar="FILE")],
    output: Output = None,
    llc: LlcSize = "2MiB",
    epoch: Epoch = 1_000_000,
    note: Note = "",
    force: Force = False,
) -> None:
    """Store lackey text (valgrind --tool=lackey --trace-mem=yes --log-file=FILE) as a trace.

    \b
    Examples:
      klrubench trace import pagerank.txt.gz --llc 2MiB
      zcat *.gz | klrubench trace import - -o all.parquet
    """
    from klrubench.trace import record as recording

    path = _target(output, "stdin" if text == "-" else Path(text).name.split(".")[0], force)
    collector, filtered = _collector(llc, epoch)
    trace = recording.import_text(text, collector, filtered=filtered, note=note, progress=_progress(f"reading {text}"))
    _keep(trace, path)


@app.command("info")
def info_command(
    trace: Annotated[Path, typer.Argument(help="a recorded trace (.parquet)", metavar="FILE")],
    json: Annotated[bool, typer.Option("--json", help="the card as JSON")] = False,
) -> None:
    """Print a trace's card: how it was recorded, its length and footprint, and what it lacks.

    \b
    Examples:
      klrubench trace info workloads/traces/sqlite3.parquet
      klrubench trace info --json mine.parquet
    """
    from klrubench.trace.card import card_json, card_text
    from klrubench.trace.format import load

    loaded = load(trace)
    typer.echo(card_json(loaded) if json else card_text(loaded, trace.name))


def _target(output: Path | None, stem: str, force: bool) -> Path:
    """Where the trace will go; an error now is better than one after ten minutes of recording."""
    import os

    from klrubench.errors import StoreError, UsageError

    path = output or Path(f"{stem}.trace.parquet")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file with --output")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; take another --output, or --force to overwrite it")
    if not os.access(path.parent, os.W_OK):
        raise StoreError(f"cannot write into {path.parent}/; take another --output")
    return path


def _collector(llc: str, epoch: int) -> tuple[Collector, bool]:
    from klrubench.trace.collect import Collector, check_epoch_length
    from klrubench.trace.llc import Llc, parse_size_bytes

    size_bytes = parse_size_bytes(llc)
    return Collector(Llc(size_bytes) if size_bytes else None, check_epoch_length(epoch)), bool(size_bytes)


def _progress(what: str) -> Progress | None:
    """A line on the terminal that is rewritten twice a second; none when stderr goes elsewhere."""
    if not sys.stderr.isatty():
        return None
    begun = shown = time.monotonic()

    def show(collector: Collector, read_bytes: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= 0.5:
            shown = now
            counts = f"{collector.accesses / 1e6:.1f} M accesses, {collector.pages:,} pages"
            sys.stderr.write(f"\r{what}: {counts}, {read_bytes / 2**20:,.0f} MiB read, {now - begun:.0f} s\x1b[K")
            sys.stderr.flush()

    return show


def _keep(trace: Trace, path: Path) -> None:
    from klrubench.trace.format import save

    save(trace, path)
    card = trace.card
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    counts = f"{card.accesses:,} accesses to {card.pages:,} pages in {card.epochs:,} epoch{'s' * (card.epochs != 1)}"
    typer.echo(f"{clear}{path}: {counts}{'' if card.complete else ' (not to its end)'}", err=True)


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"

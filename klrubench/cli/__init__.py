"""The command line: `klrubench COMMAND`. Data goes to stdout, progress and warnings to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from klrubench.errors import KlrubenchError

COMMANDS = (
    "compare", "run", "sweep", "figures", "report", "explain", "heatmap", "list", "describe", "diff", "verify",
    "claims", "methods", "cite", "pack", "validate", "doctor", "bench",
)  # fmt: skip

INTERRUPTED = 130
INTERNAL = 70

# The parser's own options of the whole program (help, completion) load pydantic before any command is looked at, which
# would double the time of `--help`. So help is an option of ours, and completion is there when it is asked for.
_COMPLETION = "_KLRUBENCH_COMPLETE" in os.environ or any("-completion" in word for word in sys.argv[1:2])

app = typer.Typer(
    name="klrubench",
    rich_markup_mode=None,
    add_completion=_COMPLETION,
    add_help_option=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from klrubench import __version__

        typer.echo(f"klrubench {__version__}")
        raise typer.Exit


def _help(context: typer.Context, asked: bool) -> None:
    if asked:
        typer.echo(context.get_help())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    help_: Annotated[
        bool, typer.Option("--help", "-h", callback=_help, is_eager=True, help="Show this message.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Simulate Linux memory tiering policies and compare them.

    \b
    Begin with:
      klrubench compare              the default suite, about a minute
      klrubench list                 policies, workloads, machines
      klrubench describe klruscand   what a policy does, its parameters

    klrubench COMMAND --help has examples; klrubench --install-completion
    completes words in this shell.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _mount() -> None:
    """Add every command; `trace` is a group of commands of its own."""
    for name in COMMANDS:
        module = import_module(f"klrubench.cli.{name}")
        app.command(name)(module.command)
    if find_spec("klrubench.cli.trace") is not None:
        app.add_typer(import_module("klrubench.cli.trace").app, name="trace")


_mount()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the program; ends the process with an exit code.

    Codes: 0 done; 1 failed; 2 what was typed makes no sense; 4 to 7 see klrubench.errors; 70 a bug; 130 Ctrl-C.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line; every error becomes one line on stderr and an exit code."""
    _tolerant(sys.stdout)
    _tolerant(sys.stderr)
    try:
        code = app(arguments, prog_name="klrubench", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KlrubenchError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what is done is kept", INTERRUPTED)
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except Exception as error:
        return _usage(error) if hasattr(error, "format_message") else _bug(error)


def _tolerant(stream: Any) -> None:
    """Characters that the terminal cannot show become `?` instead of an error."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"klrubench: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def _usage(error: Any) -> int:
    """What the option parser refuses, with the command whose help has the answer."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "klrubench"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help() if context is not None else error.format_message())
        return 0
    message = str(error.format_message()).replace("Value error, ", "").rstrip(".")
    return _fail(f"{message[0].lower()}{message[1:]} ({path} --help)", error.exit_code)


def _reader_gone() -> int:
    """The reader of a pipe has had enough: no message, and none from the interpreter at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _bug(error: Exception) -> int:
    if os.environ.get("KLRUBENCH_DEBUG"):
        traceback.print_exc()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    more = "" if os.environ.get("KLRUBENCH_DEBUG") else "; KLRUBENCH_DEBUG=1 shows where"
    return _fail(f"internal error: {type(error).__name__}: {error}{place}{more}", INTERNAL)

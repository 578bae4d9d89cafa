"""`klrubench doctor`: whether this installation can work, and what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from klrubench.cli.options import Executor, Json, Results

_LIBRARIES = ("numba", "llvmlite", "numpy", "scipy", "polars", "pydantic", "typer")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, `ok`, `note` or `broken`, and what was found."""

    name: str
    state: str
    found: str


def command(as_json: Json = False, results: Results = None, executor: Executor = None) -> None:
    """Check the installation; exit code 1 if it is broken.

    Versions, CPU, compiler, caches, plug-ins, the results folder, and the tools that recording needs. With --executor
    also whether its workers answer, have the same klrubench, and what a task costs there beside its work.

    \b
    Examples:
      klrubench doctor
      klrubench doctor --json
      klrubench doctor --executor dask:scheduler.json
    """
    from klrubench.cli.output import emit, emit_json, width

    checks = [_safely(name, look, results) for name, look in _CHECKS.items()]
    if executor:
        checks.append(_safely("executor", lambda _: _executor(executor), results))
    if as_json:
        emit_json([asdict(check) for check in checks])
    else:
        emit("\n".join(line for check in checks for line in _lines(check, width())))
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(1)


def _lines(check: Check, width: int) -> list[str]:
    from klrubench.report.text import wrapped

    start = f"{check.name:<10} {check.state:<7} "
    first, *rest = wrapped(check.found, width - len(start))
    return [start + first, *(" " * len(start) + line for line in rest)]


def _safely(name: str, look: Callable[[Path | None], tuple[str, str]], results: Path | None) -> Check:
    """A check that itself fails is what a doctor is for."""
    try:
        return Check(name, *look(results))
    except Exception as error:
        return Check(name, "broken", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _python(_: Path | None) -> tuple[str, str]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return ("ok" if sys.version_info >= (3, 11) else "broken"), f"{version} (3.11 or newer is needed)"


def _libraries(_: Path | None) -> tuple[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found, lost = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lost.append(name)
    missing = f"; not installed: {', '.join(lost)} (pip install klrubench brings them)" if lost else ""
    return ("broken" if lost else "ok"), ", ".join(found) + missing


def _cpu(_: Path | None) -> tuple[str, str]:
    from klrubench.study.manifest import cpu_model

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return "ok", f"{cpu_model()}, {usable} CPUs usable, {memory:.1f} GiB of memory"


def _compiler(_: Path | None) -> tuple[str, str]:
    from klrubench.engine.jit import njit

    add = njit(cache=False)(lambda a, b: a + b)
    return ("ok" if add(2, 3) == 5 else "broken"), "numba compiles"


def _kernels(_: Path | None) -> tuple[str, str]:
    import klrubench.engine.jit  # noqa: F401  (chooses the folder)

    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    if not _writable(folder):
        return "broken", f"{folder} cannot be written: set KLRUBENCH_CACHE to a folder that can"
    count = sum(1 for _ in folder.rglob("*.nbc")) if folder.is_dir() else 0
    state = f"{count} cached for these sources" if count else "none cached yet: the first run compiles for a while"
    return "ok", f"{state} ({folder})"


def _streams(_: Path | None) -> tuple[str, str]:
    from klrubench.engine.jit import cache_root

    folder = cache_root()
    free = shutil.disk_usage(_existing(folder)).free / (1 << 30)
    return ("ok" if _writable(folder) else "broken"), f"{folder}, {free:.1f} GiB free"


def _plugins(_: Path | None) -> tuple[str, str]:
    from klrubench.study import plugins

    broken = []
    count = 0
    for infos, find in (
        (plugins.list_policies(), plugins.find_policy),
        (plugins.list_workloads(), plugins.find_workload),
    ):
        for info in infos:
            count += 1
            try:
                find(info.name)
            except Exception as error:
                broken.append(f"{info.name}: {' '.join(str(error).split())}")
    return ("broken" if broken or not count else "ok"), "; ".join(broken) or f"{count} policies and workloads load"


def _results(results: Path | None) -> tuple[str, str]:
    from klrubench.study.folder import results_folder
    from klrubench.study.store import Store

    folder, note = (results, "") if results else results_folder()
    if not _writable(folder):
        return "broken", f"{folder} cannot be written: give another with --results"
    store = Store(folder)
    bad = len(store.damaged())
    damaged = f", {bad} damaged ones set aside" if bad else ""
    return "ok", f"{folder}: {len(store.ids())} runs{damaged}{f' ({note})' if note else ''}"


def _valgrind(_: Path | None) -> tuple[str, str]:
    found = shutil.which("valgrind")
    if found:
        return "ok", found
    return "note", "not found; only `klrubench trace record` needs it (apt install valgrind, dnf install valgrind)"


def _executor(text: str) -> tuple[str, str]:
    from klrubench.study.executors import open_executor
    from klrubench.study.executors.overhead import overhead

    with open_executor(text) as backend:
        found = overhead(backend)
    told = "; ".join(backend.told) or f"{text}: {backend.slots} slots"
    if found.strangers:
        return "broken", f"{told}; another version of klrubench on: {', '.join(found.strangers)}"
    return "ok", f"{told}; first answer after {found.first_s:.2g} s, then {found.task_ms:.2g} ms a task beside its work"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _writable(folder: Path) -> bool:
    """Whether the folder can be written, or could be made."""
    place = _existing(folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


_CHECKS: dict[str, Callable[[Path | None], tuple[str, str]]] = {
    "python": _python,
    "libraries": _libraries,
    "cpu": _cpu,
    "compiler": _compiler,
    "kernels": _kernels,
    "cache": _streams,
    "plug-ins": _plugins,
    "results": _results,
    "valgrind": _valgrind,
}

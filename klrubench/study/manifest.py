"""The manifest of a run: under which versions, commit and CPU, by which command, and how long it took."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from klrubench.study.folder import PACKAGE, find_study

_LIBRARIES = ("numba", "llvmlite", "numpy", "scipy", "polars")


def manifest(wall_s: float, host: dict[str, Any] | None = None) -> dict[str, Any]:
    """What surrounds a result without being part of it.

    Args:
        wall_s: seconds that the run took.
        host: `host_facts` of where it ran; default: of this process.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**_process_manifest(Path.cwd()), **(host or host_facts()), "created": now, "wall_s": round(wall_s, 4)}


@lru_cache(maxsize=1)
def host_facts() -> dict[str, Any]:
    """CPU, system and library versions of this process."""
    from klrubench import __version__

    versions = {"klrubench": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in _LIBRARIES}
    return {"versions": versions, "cpu": cpu_model(), "cpus": os.cpu_count(), "system": _system()}


@lru_cache(maxsize=8)
def _process_manifest(here: Path) -> dict[str, Any]:
    study = find_study(here)
    commits = {"commit": git_state(PACKAGE.parent, must_hold=PACKAGE)}
    if study is not None and study != PACKAGE.parent:
        commits["study_commit"] = git_state(study, must_hold=study)
    return {**commits, "command": command_line()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _system() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def command_line() -> str:
    """The command as typed, without the folder that the program lies in."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""


def cpu_model() -> str:
    """The CPU's name as the kernel tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(names, platform.processor() or platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


def git_state(folder: Path, must_hold: Path) -> dict[str, Any] | None:
    """Commit and whether the tree differs from it; `None` outside git or where git does not track the folder.

    Args:
        folder: where to ask.
        must_hold: a folder with tracked files (an installed copy below somebody else's checkout has none).
    """
    if not _git(folder, "ls-files", "--", str(must_hold)):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    return {"id": commit, "dirty": bool(_git(folder, "status", "--porcelain"))} if commit else None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

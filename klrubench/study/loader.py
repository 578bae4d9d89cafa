"""Load a plug-in from its source text, by path and under a name that holds the hash of its import closure.

Never under a top-level name: two studies may each have a `policies/mine.py`, and a worker must run the text that the
run's identity was taken from, even if the file has been edited since.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import linecache
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from klrubench.errors import UsageError
from klrubench.study.closure import imported_at_load
from klrubench.study.folder import shown

_PREFIX = "_klrubench_"


@dataclass(frozen=True)
class PluginSource:
    """A policy or workload as plain data: enough to load it in another process.

    Attributes:
        kind: "policy" or "workload".
        name: what a person types.
        root: the study's folder, or the one that comes along.
        files: (path below root, text) of the plug-in and of the files it imports, the plug-in first.
        framework: klrubench modules that these files import.
        entry: `module:attribute` of an installed package's entry point; loaded by import, not from `files`.
    """

    kind: str
    name: str
    root: str
    files: tuple[tuple[str, str], ...]
    framework: tuple[str, ...] = ()
    entry: str = ""

    @property
    def path(self) -> Path:
        """The plug-in's own file."""
        return Path(self.root) / self.files[0][0]

    @property
    def text(self) -> str:
        """The plug-in's own source."""
        return self.files[0][1]

    @cached_property
    def digest(self) -> str:
        """Hash of the closure's exact text and place: names the loaded modules and their compiled kernels."""
        told = hashlib.blake2b(digest_size=10)
        for part in (self.root, *(part for file in self.files for part in file)):
            told.update(part.encode("utf-8", "surrogateescape") + b"\0")
        return told.hexdigest()

    @property
    def module(self) -> str:
        """Name under which the plug-in's module is loaded."""
        return ".".join([_PREFIX + self.digest, *Path(self.files[0][0]).with_suffix("").parts])


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Serves the modules of known closures from their text; folders without `__init__.py` are empty packages."""

    def __init__(self) -> None:
        self.known: dict[str, PluginSource] = {}

    def _locate(self, fullname: str) -> tuple[PluginSource, str, str] | None:
        """The closure, the path below its root (a folder for a bare package) and the text of a module."""
        head, *parts = fullname.split(".")
        source = self.known.get(head.removeprefix(_PREFIX)) if head.startswith(_PREFIX) else None
        if source is None:
            return None
        texts, here = dict(source.files), "/".join(parts)
        for path in (f"{here}.py", f"{here}/__init__.py"):
            if path in texts:
                return source, path, texts[path]
        folder = here + "/" if here else ""
        return (source, folder, "") if any(path.startswith(folder) for path in texts) else None

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        located = self._locate(fullname)
        if located is None:
            return None
        source, below, _ = located
        inside: list[str] | None = [] if self._is_package(below) else None
        file = Path(source.root) / below
        return importlib.util.spec_from_file_location(fullname, file, loader=self, submodule_search_locations=inside)

    @staticmethod
    def _is_package(below: str) -> bool:
        return below.endswith("__init__.py") or not below.endswith(".py")

    def is_package(self, fullname: str) -> bool:
        located = self._locate(fullname)
        return located is not None and self._is_package(located[1])

    def get_source(self, fullname: str) -> str:
        located = self._locate(fullname)
        return located[2] if located else ""

    def get_code(self, fullname: str) -> CodeType | None:
        located = self._locate(fullname)
        if located is None:
            return None
        file = str(Path(located[0].root) / located[1])
        return self.source_to_code(located[2], file)


_finder = _Finder()
_lock = threading.RLock()  # `_kernel_cache` turns a switch of the whole process


def load_module(source: PluginSource) -> ModuleType:
    """The plug-in's module, loaded once a process and closure.

    Raises:
        UsageError: the file or one that it imports is broken; one line with file and line number.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.known[source.digest] = source
    try:
        with _lock, _broken_is_one_line(source):
            if source.entry:
                return importlib.import_module(source.entry.partition(":")[0])
            if source.module in sys.modules:
                return sys.modules[source.module]
            _import_framework_first(source)
            linecache.checkcache()
            with _kernel_cache(source.digest):
                return importlib.import_module(source.module)
    except UsageError:
        _forget(source)
        raise


def _forget(source: PluginSource) -> None:
    """Drop what a failed import left behind, so that the next try starts afresh."""
    head = _PREFIX + source.digest
    for name in [name for name in sys.modules if name == head or name.startswith(head + ".")]:
        del sys.modules[name]


def _import_framework_first(source: PluginSource) -> None:
    """Import the framework's modules before the switch of `_kernel_cache`: their kernels belong in the common cache."""
    names = {name for _, text in source.files for name in imported_at_load(text)}
    if any(name.split(".")[0] == "numba" for name in names):
        importlib.import_module("klrubench.engine.jit")
    for name in sorted(name for name in names if name.startswith("klrubench.")):
        # `from klrubench.params import param` also names `klrubench.params.param`, which is no module
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@contextlib.contextmanager
def _kernel_cache(digest: str) -> Iterator[None]:
    """Compiled kernels of this closure go to a folder of their own.

    numba files them by base name and text of the one file they stand in, so an edit in a file which that one imports
    would go unnoticed.
    """
    if "numba" not in sys.modules:
        yield
        return
    config: Any = importlib.import_module("numba.core.config")
    common = config.CACHE_DIR
    config.CACHE_DIR = str(Path(common) / f"plugin-{digest}") if common else common
    try:
        yield
    finally:
        config.CACHE_DIR = common


@contextlib.contextmanager
def _broken_is_one_line(source: PluginSource) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        file = Path(error.filename) if error.filename else source.path
        raise UsageError(f"{shown(file)}:{error.lineno or 1}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        place = place_of(error, source) or f"{shown(source.path)}:1"
        raise UsageError(f"{place}: {type(error).__name__}: {' '.join(str(error).split())}") from None


def place_of(error: BaseException, source: PluginSource) -> str:
    """`file:line` of the deepest frame of an error that is in the plug-in's own files; empty if none is."""
    own = {str(Path(source.root) / path) for path, _ in source.files}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    return f"{shown(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else ""

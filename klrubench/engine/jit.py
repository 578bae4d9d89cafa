"""The one jit wrapper: every kernel is compiled alike, and cached by the hash of all kernel sources.

numba does not notice an edit in another file, so a cached kernel would go on calling the old helper. `use_cache_dir`
therefore keys the cache directory by the sources of all the framework's kernels, before the first kernel is decorated
and whether or not numba was imported before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

_ROOMS = ("engine", "mm", "trace")


def kernel_hash() -> str:
    """Hash of every source file that may hold a kernel (24 hex digits)."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.blake2b(digest_size=12)
    for room in _ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def cache_root() -> Path:
    """Where compiled kernels and spilled streams are kept: $KLRUBENCH_CACHE, or the user's cache directory."""
    chosen = os.environ.get("KLRUBENCH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "klrubench"


def use_cache_dir() -> None:
    """Point numba at a directory of its own for these kernel sources, below the one the user has chosen, if any."""
    kernels = kernel_hash()
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen is None:
        os.environ["NUMBA_CACHE_DIR"] = str(cache_root() / "numba" / kernels)
    elif not chosen.endswith(kernels):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(chosen) / kernels)


use_cache_dir()

import numba  # noqa: E402  (the cache directory is read when numba is imported)
import numba.extending  # noqa: E402
from numba.core.registry import CPUDispatcher  # noqa: E402

_config: Any = numba.config
_config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # it was read earlier if others have imported numba before

# Each function's wrapper for callers in C takes a tenth of the time of compiling, and nobody calls it.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

njit: Any = partial(numba.njit, cache=True, **_OPTIONS)
# Inlined as source, never compiled for itself: for the one caller of a large function (each layer of calls above a
# large kernel compiles it again, 1.6 s for kswapd's).
njit_source: Any = partial(numba.njit, inline="always", **_OPTIONS)
cfunc: Any = partial(numba.cfunc, cache=True, error_model="numpy")
# Called without the typing context that its function takes, which numba's own types do not know.
intrinsic: Any = numba.extending.intrinsic


class Helper(CPUDispatcher):
    """A function for kernels alone, inlined where it is called, and compiled without a wrapper for Python.

    (Called out of line it would count references to the arrays it is handed, 0.3 us a call. The wrappers of all helpers
    would take a sixth of the time of compiling.) Called from Python, as by tests, it is compiled again in each process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        options = {**_OPTIONS, "nopython": True, "forceinline": True, "no_cpython_wrapper": True, "boundscheck": None}
        super().__init__(py_func=function, locals={}, targetoptions=options)
        self.enable_caching()

    def __call__(self, *args: Any) -> Any:
        return self.from_python(*args)

    @cached_property
    def from_python(self) -> Any:
        """The same function with a wrapper for Python, in no cache: it would be found there for the other."""
        return njit(self.py_func, cache=False)


def njit_inline(function: Callable[..., Any]) -> Any:
    """Decorator: a `Helper`."""
    return Helper(function)

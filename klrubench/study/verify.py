"""Stored runs computed again, and their bytes compared."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from klrubench.errors import KlrubenchError
from klrubench.study.again import spec_of
from klrubench.study.difference import title
from klrubench.study.execute import execute
from klrubench.study.identity import canonical
from klrubench.study.reasons import changed
from klrubench.study.store import Store


@dataclass(frozen=True)
class Check:
    """What came of one stored run.

    Attributes:
        run_id, title: which one.
        word: `same`, `differs`, `damaged` (its file does not read back) or `failed` (it cannot be computed here).
        detail: what differs, with both values; or why it failed.
        code: what has changed since it was stored (component names); empty: computed by the very same code.
    """

    run_id: str
    title: str
    word: str
    detail: str = ""
    code: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the stored result is what this code computes."""
        return self.word == "same"


def sampled(store: Store, sample: int | None, seed: int) -> list[str]:
    """Ids to check: all, or `sample` of them drawn by `seed` (the same ones for the same runs)."""
    ids = store.ids()
    if sample is None or sample >= len(ids):
        return ids
    return sorted(random.Random(seed).sample(ids, sample))


def verify(store: Store, sample: int | None = None, seed: int = 1) -> Iterator[Check]:
    """Compute stored runs again in this process, one by one; nothing in the folder is changed."""
    for run_id in sampled(store, sample, seed):
        look = store.look(run_id)
        if look != "stored":
            yield Check(run_id, run_id[:10], "damaged", look.removeprefix("damaged: "))
            continue
        record = store.get(run_id, series=True)
        if record is not None:
            yield check(record)


def check(record: Mapping[str, Any]) -> Check:
    """Compute one stored run again and compare every byte of its result, time line included."""
    name, run_id = title(record), str(record["id"])
    try:
        spec = spec_of(record)
        code = tuple(changed(spec.components, record["spec"]["components"]))
        result = execute(spec)
    except KlrubenchError as error:
        return Check(run_id, name, "failed", str(error))
    if canonical(result) == canonical(record["result"]):
        return Check(run_id, name, "same", code=code)
    paths = list(differing(record["result"], result))
    more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
    return Check(run_id, name, "differs", f"{paths[0]}{more}", code)


def differing(stored: Any, now: Any, path: str = "") -> Iterator[str]:
    """`metrics.time_s: 1.0, now 2.0` for each value that is not the same."""
    if isinstance(stored, dict) and isinstance(now, dict):
        for name in sorted({*stored, *now}):
            if name not in stored or name not in now:
                yield f"{path}{name}: only {'stored' if name in stored else 'now'}"
            else:
                yield from differing(stored[name], now[name], f"{path}{name}.")
    elif isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        for index, (one, other) in enumerate(zip(stored, now, strict=True)):
            yield from differing(one, other, f"{path}{index}.")
    elif canonical(stored) != canonical(now):
        yield f"{path.rstrip('.')}: stored {_short(stored)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

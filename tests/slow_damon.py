"""DAMON in plain Python: regions as objects, pages as lists, one statement a rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from klrubench.engine.bits import ACCESSED, GEN_MASK, IDLE, YOUNG
from klrubench.engine.random import words

GOAL = 10_000


@dataclass
class Region:
    start: int
    end: int
    nr: int = 0
    last: int = 0
    age: int = 0
    sampled: int = -1

    @property
    def size(self) -> int:
        return self.end - self.start


class Dice:
    """The same random numbers as the kernel's, drawn one by one."""

    def __init__(self, key: int) -> None:
        self.key, self.drawn = np.uint64(key), 0

    def below(self, limit: int) -> int:
        word = int(words(1, self.key, self.drawn)[0])
        self.drawn += 1
        return word * limit >> 64


def merge_pass(regions: list[Region], threshold: int, limit: int, aging: bool) -> list[Region]:
    kept: list[Region] = []
    for region in regions:
        if aging:
            region.age = region.age + 1 if abs(region.nr - region.last) <= threshold else 0
        left = kept[-1] if kept else None
        if left and abs(left.nr - region.nr) <= threshold and left.size + region.size <= limit:
            total = left.size + region.size
            left.nr = (left.nr * left.size + region.nr * region.size) // total
            left.age = (left.age * left.size + region.age * region.size) // total
            left.end = region.end
        else:
            kept.append(region)
    return kept


def merge(regions: list[Region], threshold: int, limit: int, most: int, max_nr: int) -> list[Region]:
    regions = merge_pass(regions, threshold, limit, True)
    threshold = max(1, 2 * threshold)
    while len(regions) > most and threshold // 2 < max_nr:
        regions = merge_pass(regions, threshold, limit, False)
        threshold = max(1, 2 * threshold)
    return regions


def split(regions: list[Region], pieces: int, dice: Dice) -> list[Region]:
    out = []
    for region in regions:
        parts = [region]
        for _ in range(pieces - 1):
            if parts[0].size <= 2:
                break
            cut = (1 + dice.below(9)) * parts[0].size // 10
            if 0 < cut < parts[0].size:
                middle = parts[0].start + cut
                parts[:1] = [replace(parts[0], end=middle), replace(parts[0], start=middle)]
        out += parts
    return out


class Monitor:
    """One context over the frames of a node: what kdamond does in a sampling interval and at an aggregation."""

    def __init__(self, regions: list[Region], most: int, samples: int, limit: int, key: int) -> None:
        self.regions, self.most, self.samples, self.limit, self.dice = regions, most, samples, limit, Dice(key)
        self.last_n = 0

    def check(self, pages: list[int], pte: list[int], folio: list[int]) -> int:
        """`pages`: the page in each frame, -1 where there is none."""
        for region in self.regions:
            page = pages[region.sampled] if region.sampled >= 0 else -1
            if page >= 0 and folio[page] & GEN_MASK and (pte[page] & ACCESSED or not folio[page] & IDLE):
                region.nr += 1
        return max(region.nr for region in self.regions)

    def prepare(self, pages: list[int], pte: list[int], folio: list[int]) -> None:
        for region in self.regions:
            region.sampled = region.start + self.dice.below(region.size)
            page = pages[region.sampled]
            if page >= 0 and folio[page] & GEN_MASK:
                folio[page] |= IDLE
                if pte[page] & ACCESSED:
                    pte[page] -= ACCESSED
                    folio[page] |= YOUNG

    def aggregate(self, highest: int) -> None:
        self.regions = merge(self.regions, highest // 10, self.limit, self.most, self.samples)
        for region in self.regions:
            region.last, region.nr = region.nr, 0
        n = len(self.regions)
        if n <= self.most // 2:
            pieces = 3 if n == self.last_n and n < self.most // 3 else 2
            self.last_n = n
            self.regions = split(self.regions, pieces, self.dice)


# --- DAMOS ------------------------------------------------------------------------------------------------------------
def moving_nr(region: Region, passed: int, max_nr: int) -> int:
    """nr_accesses_bp / 10000: the last interval's count runs out as this one's comes in."""
    last = region.last * 10_000
    return (last - passed * (last // max_nr) + region.nr * 10_000) // 10_000


def hot_score(nr: int, age: int, max_nr: int, aggregation_us: int, weight_nr: int, weight_age: int) -> int:
    frequency = nr * 100 // max_nr
    age_log = min((age * aggregation_us // 1_000_000).bit_length(), 32)
    age_score = ((age_log if frequency else -age_log) + 32) * 100 // 64
    weighted = weight_nr * frequency + weight_age * age_score
    return max(0, min(99, weighted // ((weight_nr + weight_age) or 1) * 99 // 100))


@dataclass
class Quota:
    """A scheme in a charge window."""

    hot: bool
    pages: int
    max_nr: int
    aggregation_us: int
    passed: int
    weight_nr: int = 100
    weight_age: int = 100
    charged: int = 0
    charged_to: int | None = None

    def score(self, region: Region) -> int | None:
        nr = moving_nr(region, self.passed, self.max_nr)
        if (nr >= 1) != self.hot:
            return None
        hot = hot_score(region.nr, region.age, self.max_nr, self.aggregation_us, self.weight_nr, self.weight_age)
        return hot if self.hot else 99 - hot

    def least(self, regions: list[Region]) -> int:
        """The highest score from which on regions fill the quota; 0 if all do not."""
        scores = [(self.score(region), region.size) for region in regions]
        known = [(score, size) for score, size in scores if score is not None]
        top = max((score for score, _ in known), default=0)
        full = [s for s in range(top + 1) if sum(size for score, size in known if score >= s) >= self.pages]
        return max(full, default=0)

    def apply(self, regions: list[Region], limit: int) -> tuple[list[Region], list[tuple[int, int]]]:
        """The regions afterwards, and the ranges acted on, in order."""
        least, todo, done, ranges = self.least(regions), list(regions), [], []
        while todo:
            region = todo.pop(0)
            if self.charged < self.pages:
                skip = self.skip(region, todo)
                score = self.score(region)
                if not skip and score is not None and score >= least:
                    room = self.pages - self.charged
                    if region.size > room:
                        cut(region, room, todo)
                    ranges.append((region.start, region.end))
                    self.charged += region.size
                    if self.charged >= self.pages:
                        self.charged_to = region.end
                    region.age = 0
            back = done[-1] if done else None
            alike = back and (back.age, back.last, back.nr) == (region.age, region.last, region.nr)
            if back and alike and back.size + region.size <= limit:
                back.end = region.end
            else:
                done.append(region)
        return done, ranges

    def skip(self, region: Region, todo: list[Region]) -> bool:
        if self.charged_to is None:
            return False
        if not todo:
            self.charged_to = None
            return True
        if region.end <= self.charged_to:
            return True
        if region.start < self.charged_to:
            cut(region, self.charged_to - region.start, todo)
            return True
        self.charged_to = None
        return False


def cut(region: Region, size: int, todo: list[Region]) -> None:
    """Cut a region after `size` pages; the rest comes next."""
    todo.insert(0, replace(region, start=region.start + size))
    region.end = region.start + size


def next_input(last: int, score: int) -> int:
    """The feedback loop in whole numbers, before its floor and ceiling are reached."""
    if score == GOAL:
        return last
    if score >= 2 * GOAL:
        return 10_000
    step = last * abs(GOAL - score) // GOAL
    return max(last - step, 10_000) if score > GOAL else min(last + step, 2**64 - 1)

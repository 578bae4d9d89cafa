"""The search: ask for a batch of trials, run their cells stage by stage, prune, tell in order; go on after a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from klrubench.errors import KlrubenchError, RunFailedError, UsageError
from klrubench.study.executor import Failure, raise_failures, run_all
from klrubench.study.executors import Backend
from klrubench.study.progress import Progress
from klrubench.study.spec import RunSpec, policy_part
from klrubench.study.statistics import percent
from klrubench.study.store import Store
from klrubench.study.sweep import samplers
from klrubench.study.sweep.measures import CONVERGENCE, MEASURES, Measure
from klrubench.study.sweep.plan import BASE, TOP, Plan
from klrubench.study.sweep.storage import Driver
from klrubench.study.worker import Task, work

if TYPE_CHECKING:
    import optuna

BATCH = 8
"""Trials asked for at once: enough runs of a stage to keep a few processes busy, few enough to learn from."""

BEAT_S = 60.0
FAILURES_IN_A_ROW = 12
_KEPT = ("time_s", "charged_time_s", "promoted_mib_s", "daemon_cpu_s", "op_p99_ns", CONVERGENCE)
Metrics = dict[str, Any]


class Results:
    """Metrics of runs: from memory, from the store, else computed by the study's one path."""

    def __init__(self, store: Store, backend: Backend, progress: Progress, task: Task = work) -> None:
        self.store, self.backend, self.progress, self.task = store, backend, progress, task
        self.known: dict[str, Metrics] = {}
        self.failures: list[Failure] = []
        self.computed = self.found = 0
        self.run_s = 0.0

    def of(self, specs: Sequence[RunSpec]) -> dict[str, Metrics]:
        """Metrics by run id; runs that failed have none and are in `failures`.

        Raises:
            InterruptedRunsError, StoreError, RunFailedError: as `run_all`.
        """
        wanted = {spec.run_id: spec for spec in specs}
        for run_id in wanted.keys() - self.known.keys():
            record = self.store.get(run_id)
            if record is not None:
                self.known[run_id] = kept(record["result"]["metrics"])
                self.found += 1
        missing = [spec for run_id, spec in wanted.items() if run_id not in self.known]
        if missing:
            began = time.perf_counter()
            batch = run_all(missing, executor=self.backend, store=self.store, progress=self.progress, task=self.task)
            self.run_s += time.perf_counter() - began
            self.computed += len(batch.records)
            self.failures += batch.failures
            self.known |= {run_id: kept(record["result"]["metrics"]) for run_id, record in batch.records.items()}
            if batch.store_error is not None:
                raise batch.store_error
        return {run_id: self.known[run_id] for run_id in wanted if run_id in self.known}


def kept(metrics: Metrics) -> Metrics:
    """The few numbers of a run that measures are made of."""
    return {name: metrics.get(name) for name in _KEPT}


@dataclass
class Attempt:
    """A trial under way: its runs, and what came of those that ended."""

    trial: optuna.Trial
    values: dict[str, Any]
    specs: list[RunSpec] = field(default_factory=list)
    runs: list[Metrics] = field(default_factory=list)
    why: str = ""
    pruned: bool = False
    noted: int = 0  # cells after which a killed driver had decided its fate

    @property
    def over(self) -> bool:
        return bool(self.why) or self.pruned


class Search:
    """One driver's work on a study."""

    def __init__(
        self, plan: Plan, study: optuna.Study, results: Results, *, shared: bool, told: Callable[[Search], None]
    ) -> None:
        self.plan, self.study, self.results, self.shared, self.told = plan, study, results, shared, told
        self.driver, self.beaten_s = Driver.here(), -math.inf
        self.overhead_s, self.failed_in_a_row, self.began_s = 0.0, 0, time.perf_counter()
        self.top: list[Metrics] = []
        self.base: list[Metrics] = []
        self.planned: list[dict[str, Any]] = []
        self.width = BATCH if plan.asked.deterministic else max(BATCH, 2 * results.backend.slots)

    def run(self) -> None:
        """Search until the budget is spent; what is done is in the storage at any moment."""
        self.began_s = time.perf_counter()
        self.references()
        asked = self.plan.asked
        bases = {cell.workload: cell.base for cell in self.plan.cells}
        self.planned = samplers.planned(asked.sampler, self.plan.space, list(bases.values()), asked.trials, asked.seed)
        again = self._lost()
        while again or self._left() > 0:
            batch = [*again, *self._ask(len(again))]
            again = []
            self._compute(batch)
            self._tell(batch)
            self.told(self)

    @property
    def wall_s(self) -> float:
        """Seconds since the search began."""
        return time.perf_counter() - self.began_s

    def references(self) -> None:
        """Runs of all_top and first_touch in every cell."""
        for name in (TOP, BASE):
            specs = self.plan.specs(policy_part(name))
            runs = self.results.of(specs)
            raise_failures(self.results.failures, len(specs))
            setattr(self, "top" if name == TOP else "base", [runs[spec.run_id] for spec in specs])

    # --- asking -------------------------------------------------------------------------------------------------------
    def counted(self) -> int:
        """Trials that count against the budget: all but those that were lost and are run again."""
        return sum("lost" not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def _budget(self) -> int:
        planned = samplers.PLANNED
        return (
            min(self.plan.asked.trials, len(self.planned))
            if self.plan.asked.sampler in planned
            else self.plan.asked.trials
        )

    def _left(self) -> int:
        with self._overhead():
            waiting = self.study.get_trials(deepcopy=False, states=_states("WAITING"))
            return self._budget() - self.counted() + len(waiting)

    def _ask(self, already: int) -> list[Attempt]:
        """As many new trials as fill the batch: its bounds are multiples of the width, wherever a sweep was cut off."""
        with self._overhead():
            counted = self.counted()
            waiting = len(self.study.get_trials(deepcopy=False, states=_states("WAITING")))
            begun = counted - waiting
            room = self.width - begun % self.width if begun % self.width or not already else 0
            return [self._new() for _ in range(min(room, self._left()))]

    def _new(self) -> Attempt:
        trials = self.study.get_trials(deepcopy=False)
        number = len(trials)
        waiting = any(trial.state == _states("WAITING")[0] for trial in trials)
        if waiting:
            number -= 1
        elif number < len(self.planned):
            self.study.enqueue_trial(self.planned[number])
        self.study.sampler = samplers.make(self.plan.asked.sampler, self.plan.asked.seed, number)
        trial = self.study.ask(fixed_distributions=self.plan.space.distributions())
        trial.set_user_attr("driver", self.driver.to_record())
        return self._attempt(trial)

    def _attempt(self, trial: optuna.Trial) -> Attempt:
        values = self.plan.space.values(trial.params)
        try:
            return Attempt(trial, values, self.plan.specs(self.plan.varied(values)))
        except UsageError as error:  # values that do not go together
            return Attempt(trial, values, why=str(error))

    def _lost(self) -> list[Attempt]:
        """Trials that a killed driver left: taken over under their own number; in a shared storage asked again."""
        with self._overhead():
            left = self.study.get_trials(deepcopy=False, states=_states("RUNNING"))
            if not self.shared:
                return [self._taken_over(trial) for trial in left]
            for trial in left:
                told = trial.user_attrs.get("driver")
                # what this very process left, it left in a sweep that has ended
                if told is not None and (told == self.driver.to_record() or Driver(*told).gone(self.study)):
                    self._again(trial)
            return []

    def _taken_over(self, frozen: Any) -> Attempt:
        import optuna

        space = self.plan.space.distributions()
        # a sampler is asked only for what the killed driver had not drawn yet: some count what they were asked
        whole = set(space) <= set(frozen.params)
        name = "random" if whole else self.plan.asked.sampler
        self.study.sampler = samplers.make(name, self.plan.asked.seed, frozen.number)
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        for axis in self.plan.space.axes:
            _suggest(trial, axis)
        trial.set_user_attr("driver", self.driver.to_record())
        attempt = self._attempt(trial)
        attempt.noted = len(frozen.user_attrs.get("cells", ()))
        return attempt

    def _again(self, frozen: Any) -> None:
        """End a lost trial and put its point in the queue; of several drivers that see it, only the first does."""
        import optuna

        try:
            self.study._storage.set_trial_user_attr(frozen._trial_id, "lost", True)
            self.study.tell(frozen.number, state=optuna.trial.TrialState.FAIL)
        except (ValueError, RuntimeError):
            return
        if frozen.params:
            self.study.enqueue_trial(frozen.params)

    # --- running ------------------------------------------------------------------------------------------------------
    def _compute(self, batch: list[Attempt]) -> None:
        for first, last in self.plan.stages():
            alive = [attempt for attempt in batch if not attempt.over]
            runs = self.results.of([spec for attempt in alive for spec in attempt.specs[first:last]])
            with self._overhead():
                self._beat()
                for attempt in alive:
                    self._take(attempt, runs, first, last)

    def _take(self, attempt: Attempt, runs: dict[str, Metrics], first: int, last: int) -> None:
        """Note what a stage brought, and decide whether to go on."""
        for spec in attempt.specs[first:last]:
            if spec.run_id not in runs:
                attempt.why = self._failure(spec)
                return
            attempt.runs.append(runs[spec.run_id])
        if len(self.plan.objectives) > 1:
            return
        reported = self.study._storage.get_trial(attempt.trial._trial_id).intermediate_values
        for step in range(first, last):
            if step not in reported:
                attempt.trial.report(self.paired(self.plan.objectives[0], attempt.runs, step), step)
        if attempt.noted:
            attempt.pruned = attempt.noted == last < len(self.plan.cells)
        # a later value that is there already says that the killed driver went on
        elif last < len(self.plan.cells) and not any(step >= last for step in reported):
            attempt.pruned = bool(attempt.trial.should_prune())

    def _failure(self, spec: RunSpec) -> str:
        return next((each.message for each in self.results.failures if each.spec.run_id == spec.run_id), "failed")

    def paired(self, measure: Measure, runs: Sequence[Metrics], cell: int) -> float:
        """Difference to first-touch in one cell: 100 x log ratio of a time, plain difference of anything else."""
        own = measure.log_or_plain(runs[cell], self.top[cell])
        base = measure.log_or_plain(self.base[cell], self.top[cell])
        return 100 * (own - base) if measure.relative else own - base

    def objective(self, measure: Measure, runs: Sequence[Metrics]) -> float:
        """What the sampler is told: the mean over cells; of a time, per cent above first-touch's."""
        mean = math.fsum(self.paired(measure, runs, cell) for cell in range(len(runs))) / len(runs)
        return percent(mean / 100) if measure.relative else mean

    def mean(self, measure: Measure, runs: Sequence[Metrics]) -> float:
        """The measure itself, over the cells that were run, in its unit."""
        found = [measure.log_or_plain(run, self.top[cell]) for cell, run in enumerate(runs)]
        return measure.shown(math.fsum(found) / len(found))

    # --- telling ------------------------------------------------------------------------------------------------------
    def _tell(self, batch: list[Attempt]) -> None:
        """First note every outcome, then tell: a driver killed between the two finds decisions, not half of them."""
        with self._overhead():
            for attempt in batch:
                self._note(attempt)
            for attempt in batch:
                self._tell_one(attempt)

    def _note(self, attempt: Attempt) -> None:
        trial = attempt.trial
        if attempt.why:
            trial.set_user_attr("why", attempt.why)
            return
        trial.set_user_attr("values", attempt.values)
        trial.set_user_attr("cells", [table(run, self.top[cell]) for cell, run in enumerate(attempt.runs)])
        for bound in self.plan.constraints:
            trial.set_constraint(bound.text, bound.violation(self.mean(bound.measure, attempt.runs)))

    def _tell_one(self, attempt: Attempt) -> None:
        from optuna.trial import TrialState

        if attempt.why:
            self.study.tell(attempt.trial, state=TrialState.FAIL)
            self._count_failure(attempt.why)
            return
        self.failed_in_a_row = 0
        if attempt.pruned:
            self.study.tell(attempt.trial, state=TrialState.PRUNED)
        else:
            self.study.tell(attempt.trial, [self.objective(each, attempt.runs) for each in self.plan.objectives])

    def _count_failure(self, why: str) -> None:
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= FAILURES_IN_A_ROW:
            raise RunFailedError(f"{self.failed_in_a_row} trials in a row failed, the last with: {why}")

    def _beat(self) -> None:
        if self.shared and time.monotonic() - self.beaten_s > BEAT_S:
            self.beaten_s = time.monotonic()
            self.study.set_user_attr(self.driver.key, time.time())

    @contextmanager
    def _overhead(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.overhead_s += time.perf_counter() - began


def table(run: Metrics, top: Metrics) -> dict[str, float | None]:
    """Every measure of a run as means are taken of them; `None` where it has none."""
    found: dict[str, float | None] = {}
    for name, measure in MEASURES.items():
        try:
            found[name] = round(measure.log_or_plain(run, top), 12)
        except KlrubenchError:
            found[name] = None
    return found


def _suggest(trial: optuna.Trial, axis: Any) -> None:
    if axis.choices:
        trial.suggest_categorical(axis.name, axis.choices)
    elif axis.whole:
        trial.suggest_int(axis.name, int(axis.low), int(axis.high), log=axis.log)
    else:
        trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)


def _states(name: str) -> tuple[Any, ...]:
    from optuna.trial import TrialState

    return (TrialState[name],)

"""The training loop: compiled chunks, and Python callbacks between them."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_cb.checks import check_int, check_kind
from jaxrl_cb.errors import (
    CheckpointWarning,
    ConfigTypeError,
    JaxrlError,
    NonFiniteError,
    NonFiniteWarning,
    kind,
    shown,
)
from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer import memory
from jaxrl_cb.trainer.callbacks import TrainerCallbacks
from jaxrl_cb.trainer.compaction import Compaction
from jaxrl_cb.trainer.context import Environments, TrainingContext
from jaxrl_cb.trainer.debug import Debugger, NoDebugger
from jaxrl_cb.trainer.evaluate import check_complete, check_packing
from jaxrl_cb.trainer.groups import Start
from jaxrl_cb.trainer.history import EpochRecord, training_means
from jaxrl_cb.trainer.hooks import Hooks
from jaxrl_cb.trainer.loggers import Logger, NullLogger, check_logger
from jaxrl_cb.trainer.members import Members
from jaxrl_cb.trainer.memory import MemoryEstimate
from jaxrl_cb.trainer.nonfinite import NonFinite, in_chunk, in_prefill
from jaxrl_cb.trainer.params import TrainerParams
from jaxrl_cb.trainer.policy import Policy, TrainingPolicy
from jaxrl_cb.trainer.population import Population
from jaxrl_cb.trainer.programs import Programs
from jaxrl_cb.trainer.progress import Progress
from jaxrl_cb.trainer.result import TrainResult, make_result
from jaxrl_cb.trainer.snapshot import Snapshot
from jaxrl_cb.trainer.warm_start import fitting_params
from jaxrl_cb.types import ChunkMetrics, Evaluation, PyTree


class Trainer:
    """Trains a learner, epoch by epoch, with callbacks.

    The order of an epoch: train callbacks, chunks, test callbacks, test, best and history, log,
    stop callbacks. One test comes before training (epoch 0); no stop callback is asked then.

    Attributes:
        context: what train and test callbacks are given.
        progress: what the host remembers.
        num_copies: copies of all states that saving them takes, for the estimate of memory.
    """

    def __init__(
        self,
        learner: Learner,
        params: TrainerParams | None = None,
        callbacks: TrainerCallbacks | None = None,
        logger: Logger | None = None,
        starts: Sequence[Start] | None = None,
        trials: Sequence[int] | None = None,
    ):
        """Checks everything; compiles and allocates nothing.

        Args:
            learner: what is trained.
            params: how long, and how many seeds.
            callbacks: what to call between epochs.
            logger: anything with ``write(step_type, step, data)``.
            starts: what each seed begins with, in place of `params.seed` and the learner's values.
            trials: the trial of each seed, for callbacks that compare them (`Population`).

        Raises:
            ConfigError: parameters do not fit each other or the learner.
            CallbackTypeError: a callback is not one.
        """
        _check_kinds(learner, params)
        self.learner = learner
        self.params = params or TrainerParams()
        self.params.check_with(learner)
        self.callbacks = TrainerCallbacks.of(callbacks)
        self.logger = NullLogger() if logger is None else logger
        check_logger(self.logger)
        self.progress = Progress(self.params.num_seeds)
        total = self.params.total_env_steps
        seeds = [self.params.seed + index for index in range(self.params.num_seeds)]
        self.starts = starts or [Start(seed, *learner.initial_values(total)) for seed in seeds]
        self.population = Population(trials or range(len(seeds)), lambda: self.progress)
        self._chunks = self.params.chunk_lengths(learner.iteration_steps)
        self.context, *self._views = self._contexts()
        self._hooks = Hooks(self.callbacks, self.context, self._views)
        self._debugger = Debugger(learner) if self.params.debug else NoDebugger()
        self._compaction = Compaction(self.params.compact_seeds)
        self._warned: set[int] = set()  # seeds, where on_nan="warn"
        self._begins_with: list[PyTree] = []
        self._untested: tuple[list[ChunkMetrics], float] | None = None
        self._unasked: list[int] = []  # seeds whose stop callbacks have not answered yet
        self.num_copies = 0
        self._memory: MemoryEstimate | None = None
        self._built: Members | None = None
        self._is_running = False

    def warm_start(self, policy: Policy) -> None:
        """Begins with the parameters of a policy, before `run`, `init` or `epochs`.

        Args:
            policy: of as many seeds as the run, or of one, which all seeds begin with.

        Raises:
            ConfigError: its parameters are not those of this learner's network.
            JaxrlError: the run has begun.
        """
        if self._built is not None:
            raise JaxrlError("warm_start comes before the run; this trainer has begun")
        self._begins_with = fitting_params(policy, self.learner, self.params.num_seeds)

    def memory_estimate(self) -> MemoryEstimate:
        """The memory that the state of all seeds needs, and what is there; compiles nothing."""
        return memory.estimate(self.learner, self.params, num_copies=self.num_copies)

    def check_memory(self, programs: Programs | None = None) -> None:
        """Checks that there is as much memory as the run needs, which takes none itself.

        Raises:
            MemoryEstimateError: there is not; the message has a setting with which there would be.
        """
        self._memory = memory.check(self.learner, self.params, programs, self.num_copies)

    def run(self) -> TrainResult:
        """Trains until all seeds have stopped or `max_epochs` are done."""
        self._check_not_running()
        if not self.progress.history:  # not through epochs(): a generator changes a StopIteration
            self.init()
        while not self.is_finished:
            self.execute_epoch()
        return self.result()

    def epochs(self) -> Iterator[EpochRecord]:
        """The same, one test record at a time, for those who like to hold the loop."""
        if not self.progress.history:
            yield self.init()
        while not self.is_finished:
            last = self.progress.history[-1]
            record = self.execute_epoch()
            if record is not last:
                yield record

    @property
    def is_finished(self) -> bool:
        """Whether all seeds have stopped or the epochs are used up."""
        is_done = self._untested is None and not self._unasked
        is_used_up = self.progress.epoch >= self.params.max_epochs and is_done
        return is_used_up or not self.progress.running

    @property
    def is_between_epochs(self) -> bool:
        """Whether all of the newest epoch has been done: false where something raised in it."""
        history = self.progress.history
        is_tested = bool(history) and history[-1].epoch == self.progress.epoch
        return is_tested and not self._unasked

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        self._check_not_running()
        self._is_running = True
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            needed = self._memory or self.memory_estimate()
            memory.explain(error, self.learner, self.params, needed)
            raise
        finally:
            self._is_running = False

    def _check_not_running(self) -> None:
        if self._is_running:
            raise JaxrlError("this trainer is running already; a callback cannot run it again")

    def init(self) -> EpochRecord:
        """Compiles, fills the replay and tests once; gives the record of epoch 0."""
        with self._running():
            self._build()
            self._begin()
            self._deal_with(in_prefill(self._members.num_nonfinite()))
            return self._test([], train_seconds=0.0)

    def execute_epoch(self) -> EpochRecord:
        """Runs one epoch of all seeds that have not stopped."""
        with self._running():
            return self._execute_epoch()

    def _execute_epoch(self) -> EpochRecord:
        """Goes on with what an epoch still wants where one of its callbacks raised."""
        if not self._unasked:
            if self._untested is None:
                self._untested = self._train_epoch()
            if self._untested is None:
                self.progress.show(self.context, self._views)
                return self.progress.history[-1]
            record = self._test(*self._untested)
            self._compaction.note(self._members.width, record.train_seconds + record.test_seconds)
            self._untested, self._unasked = None, list(self.progress.running)
        record = self.progress.history[-1]
        while self._unasked:
            self._ask_to_stop(self._unasked[0], record)
            del self._unasked[0]
        self.progress.show(self.context, self._views)
        return record

    def _train_epoch(self) -> tuple[list[ChunkMetrics], float] | None:
        """Trains for an epoch; gives its metrics and the seconds of its chunks.

        None where the train callbacks have dropped every seed: there is no such epoch.
        """
        progress = self.progress
        progress.begin_epoch()
        progress.show_position(self.context, self._views)
        self.context.drop_fn = self._drop
        try:
            self._hooks.on_train(progress.epoch, progress.env_step)
            self._compact()
        except BaseException:
            progress.epoch -= 1  # nothing has been trained in it yet
            raise
        finally:
            self.context.drop_fn = None
        if not progress.running:
            progress.epoch -= 1
            return None
        started = time.perf_counter()
        metrics = [self._run_chunk(length) for length in self._chunks if progress.running]
        return metrics, time.perf_counter() - started

    def _compact(self) -> None:
        epochs = self.params.max_epochs - self.progress.epoch + 1
        compiled = self.progress.seconds["compile"]
        pays = self._compaction.pays
        with self._timed_compile():
            self._members.compact(lambda width, narrow: pays(width, narrow, epochs, compiled))

    def _drop(self, seeds: Sequence[int]) -> None:
        for index in seeds:
            check_int("seed", index, 0, self.params.num_seeds - 1)
        for index in set(map(int, seeds)) & set(self.progress.running):
            self._members.park(index)
            self.progress.drop(index)
        self.progress.show_position(self.context, self._views)

    def _run_chunk(self, length: int) -> ChunkMetrics:
        progress, learner = self.progress, self.learner
        self._debugger.keep(self._members.groups)
        metrics = self._members.run_chunk(length)
        found = in_chunk(metrics, progress.running, length, progress.env_step, learner)
        progress.env_step += length * learner.iteration_steps
        self._deal_with(found)
        check_packing(learner.environment, metrics)
        return metrics

    def _deal_with(self, found: list[NonFinite]) -> None:
        """Does what `on_nan` says with seeds that hold NaN or infinity."""
        texts = {f.index: self._told(f) for f in found if f.index not in self._warned}
        if texts and self.params.on_nan == "raise":
            raise NonFiniteError("; ".join(texts.values()))
        if self.params.on_nan == "warn":
            self._warned |= set(texts)
        else:
            for index, text in texts.items():
                self._members.park(index)
                self.progress.diverge(index, text)
        for text in texts.values():
            warnings.warn(text, NonFiniteWarning, stacklevel=2)

    def _told(self, found: NonFinite) -> str:
        index = found.index
        rate = float(np.asarray(self._members.small_state((index,)).hyperparams.learning_rate)[0])
        explanation = self._debugger.explain(found)
        return found.message(self.starts[index].seed, self.progress.epoch, rate, explanation)

    def _test(self, metrics: list[ChunkMetrics], train_seconds: float) -> EpochRecord:
        progress = self.progress
        progress.show_position(self.context, self._views)
        self._hooks.on_test(progress.epoch, progress.env_step)
        started = time.perf_counter()
        wait = self._begin_test(progress.running, np.zeros_like(progress.num_evaluations))
        trained = self._trained(metrics)  # while the device tests
        evaluation = wait()
        record = EpochRecord(
            **trained,
            returns=evaluation.returns,
            lengths=evaluation.lengths,
            train_seconds=train_seconds,
            test_seconds=time.perf_counter() - started,
        )
        progress.remember(record, self._params_of)
        progress.show(self.context, self._views)
        self.logger.write("test/env_step", progress.env_step, record.row())
        return record

    def _ask_to_stop(self, index: int, record: EpochRecord) -> None:
        progress = self.progress
        stop, confirmations = self._hooks.ask(index, progress.epoch, float(record.mean[index]))
        if confirmations:
            score, confirmed = max(confirmations, key=lambda found: found.stops)
            params = partial(self._params_of, index)
            progress.best[index].confirm(score, progress.epoch, params, stopped=confirmed)
        if stop:
            self._members.park(index)
            progress.end(index)

    def result(self, *, copy: bool = True) -> TrainResult:
        """The result so far.

        Args:
            copy: whether states are copied, so that it stays valid when training goes on.
        """
        if not self.progress.history:
            raise JaxrlError("this trainer has not begun; call init(), run() or epochs() first")
        members = self._members.held(copy=copy and not self.is_finished)
        return make_result(self.progress, self.learner, members, self._hooks.stop_callbacks())

    def release(self) -> None:
        """Gives the memory of replay and environments back; the run cannot go on after it."""
        self._members.release()

    def result_of(self, snapshot: Snapshot) -> TrainResult:
        """The result that a snapshot is of, without the stop callbacks."""
        return make_result(snapshot.progress, self.learner, self._members, [], snapshot.state)

    def snapshot(self, into: Snapshot | None = None, *, copy: bool = True) -> Snapshot:
        """The run as it is between two epochs; `restore` goes on from it, bit for bit.

        A CheckpointWarning names, once, what it leaves out (see `check_saveable`).

        Args:
            into: an earlier snapshot that nobody needs any more, whose memory is used again.
            copy: False takes no memory for the state, which is then valid until the next epoch.

        Raises:
            JaxrlError: an epoch has begun and not ended, as something raised in it.
        """
        if not self.is_between_epochs:
            raise JaxrlError(
                "this trainer is not between two epochs: it has not begun, or something raised in "
                "an epoch; a snapshot of it would not go on as it does"
            )
        state, lockstep = self._members.snapshot(into and into.state, copy=copy)
        callbacks = self._hooks.state_dict()
        for text in self._hooks.unsaved(callbacks):
            warnings.warn(text, CheckpointWarning, stacklevel=2)
        return Snapshot(state, lockstep, self.progress.copy(), callbacks)

    def restore(self, snapshot: Snapshot) -> None:
        """Puts this trainer where another one with the same learner and parameters was.

        Raises:
            CheckpointMismatchError: that one had other callbacks; this one is as it was.
        """
        check_kind("snapshot", snapshot, Snapshot)
        self._hooks.check(snapshot.callbacks)
        if self._built is None:
            self._build()
        self._untested, self._unasked = None, []
        self._warned = set()
        self.progress = snapshot.progress.copy()
        self._members.widen()
        if not self.is_finished:
            self._compile()
        self._members.restore(snapshot.state, snapshot.lockstep, self.progress.running)
        self._hooks.load_state_dict(snapshot.callbacks)
        for view in self._views:
            view.history = []
        self.progress.show(self.context, self._views)

    def check_saveable(self) -> list[str]:
        """What snapshots leave out and was not told before: state of callbacks that is no JSON.

        Raises:
            CallbackTypeError: a callback's own `state_dict` has such a value.
        """
        return self._hooks.unsaved(self._hooks.state_dict())

    @property
    def _members(self) -> Members:
        if self._built is None:
            raise JaxrlError("this trainer has not begun; call init(), run() or epochs() first")
        return self._built

    def _build(self) -> None:
        params = self.params
        self.check_memory()
        self._built = Members(
            *(self.learner, params.num_seeds),
            vectorized=params.seeds_together > 1,
            chunk_lengths=tuple(dict.fromkeys(self._chunks)),
            num_test_episodes=params.num_test_episodes,
        )
        everyone = tuple(range(params.num_seeds))
        views = [(view, (index,)) for index, view in enumerate(self._views)]
        for context, indices in [(self.context, everyone), *views]:
            spec, algorithm = self.learner.environment.spec, self.learner.algorithm
            context.policy = TrainingPolicy(self._built, algorithm, spec, indices)
            context.population = self.population
            context.evaluate_fn = partial(self._test_again, indices)

    def _begin(self) -> None:
        """Fresh states, or those with the parameters of a warm start."""
        self._compile()
        with self._timed_compile():
            self._members.init(self.starts)
        for index, own in enumerate(self._begins_with):
            self._members.replace_params(index, own)
        self.progress.show(self.context, self._views)

    def _compile(self) -> None:
        """Compiles everything, and checks that what it will take is there."""
        with self._timed_compile():
            self._members.compile()
        self.check_memory(self._members.programs(self._members.groups[0]))

    @contextlib.contextmanager
    def _timed_compile(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.progress.seconds["compile"] += time.perf_counter() - started

    def _contexts(self) -> list[TrainingContext]:
        """The context of all seeds, and each seed's own."""
        learner, params = self.learner, self.params
        envs = Environments(learner.environment, learner.num_envs, params.num_test_episodes)
        contexts = [TrainingContext(None, envs, self.logger) for _ in range(params.num_seeds + 1)]
        for index, context in enumerate(contexts, start=-1):
            context.epoch_num_steps = params.epoch_num_steps
            context.seed = index if index >= 0 else None
        return contexts

    def _trained(self, metrics: list[ChunkMetrics]) -> dict[str, Any]:
        """The fields of a record that do not come from its test."""
        progress, policy = self.progress, self.context.policy
        iterations = progress.env_step // self.learner.iteration_steps
        num_updates = self.learner.num_updates(iterations)
        before = progress.history[-1].num_updates if progress.history else 0
        eps = [policy.eps_training, policy.eps_inference]
        eps = [np.array(e, np.float32, ndmin=1) for e in eps]
        for values in eps:
            values[list(progress.ended)] = np.nan
        return {
            "epoch": progress.epoch,
            "env_step": progress.env_step,
            "num_updates": num_updates,
            "eps_training": eps[0],
            "eps_inference": eps[1],
            **training_means(metrics, num_updates - before, progress.num_seeds, progress.ended),
        }

    def _params_of(self, index: int) -> PyTree:
        return self._members.params_of(index)

    def _test_again(self, indices: tuple[int, ...], episodes: int) -> np.ndarray:
        """Further tests of some seeds, each on keys of its own (see `TrainingContext.evaluate`)."""
        check_int("episodes", episodes, 1)
        chosen, rounds = list(indices), []
        for _ in range(-(-episodes // self.params.num_test_episodes)):
            self.progress.num_evaluations[chosen] += 1
            wait = self._begin_test(chosen, self.progress.num_evaluations)
            rounds.append(wait().returns[chosen])
        returns = np.concatenate(rounds, axis=1)[:, :episodes]
        return returns[0] if len(chosen) == 1 else returns

    def _begin_test(self, indices: list[int], numbers: np.ndarray) -> Callable[[], Evaluation]:
        """Begins to test some seeds; gives what waits for it (NaN for all others).

        Args:
            indices: the seeds.
            numbers: [S], of the evaluation within the epoch; the epoch's own test is 0.
        """
        phases = np.stack([np.full_like(numbers, self.progress.epoch), numbers], axis=1)
        wait = self._members.evaluate(phases, indices)

        def complete() -> Evaluation:
            evaluation = wait()
            check_complete(self.learner.environment, evaluation.is_complete)
            return evaluation

        return complete


def _check_kinds(learner: Any, params: Any) -> None:
    if isinstance(learner, type) or not hasattr(learner, "program_key"):
        raise ConfigTypeError(
            f"learner={shown(learner)} is {kind(learner)}; expected a ReplayLearner or an "
            "OnlineLearner, or call jaxrl_cb.train(env, ...)"
        )
    if params is not None:
        check_kind("params", params, TrainerParams)

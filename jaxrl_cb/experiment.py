"""One call that trains: from names and settings to a result, and to a run folder."""

import builtins
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxrl_cb.config import resolve
from jaxrl_cb.display import progress_line
from jaxrl_cb.envs import make
from jaxrl_cb.errors import ConfigTypeError
from jaxrl_cb.plotting import plot_run
from jaxrl_cb.run_folder import RunFolder, load_policy
from jaxrl_cb.schedule import describe
from jaxrl_cb.trainer import (
    EpochRecord,
    Logger,
    LoggerList,
    NullLogger,
    Policy,
    Trainer,
    TrainerCallbacks,
    TrainResult,
)
from jaxrl_cb.trainer.evaluate import play


def train(
    env: Any,
    algorithm: str = "dqn",
    *,
    seed: int = 0,
    num_seeds: int = 1,
    callbacks: TrainerCallbacks | None = None,
    logger: Logger | None = None,
    run_dir: Any = None,
    warm_start: Policy | str | os.PathLike[str] | None = None,
    verbose: bool = True,
    on_start: Callable[[Trainer], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    **config: Any,
) -> TrainResult:
    """Trains a policy.

    Args:
        env: a gymnax id, a gymnax environment, a pair (env, params), or an `Environment`.
        algorithm: "dqn".
        seed: 0 to 2^32 - 1.
        num_seeds: runs trained together, with seeds ``seed``, ``seed + 1``, ...
        callbacks: what to call between epochs; only callbacks stop a run early.
        logger: anything with ``write(step_type, step, data)``.
        run_dir: folder to write to, new or empty; None writes nothing.
        warm_start: a policy to begin with, or a run folder whose best policy is taken. Its seeds
            are those of the run, or it has one for all. Replay and optimiser begin anew.
        verbose: whether to print the schedule that follows from the settings, and a line per epoch
            (the latter only without `on_epoch`).
        on_start: called with the trainer before it compiles anything.
        on_epoch: called with each test record, epoch 0 included.
        **config: any setting by name, see `jaxrl_cb.config`: ``batch_size=64``, ``n_step=3``.

    Returns:
        The result; after Ctrl-C the run folder has what was done so far.

    Raises:
        ConfigError: a setting that does not exist or cannot work, before anything is compiled.
        MemoryEstimateError: the run needs more memory than there is, before it takes any.
        KeyboardInterrupt: after Ctrl-C, at the end of the epoch; a second Ctrl-C comes at once.
            In a notebook the first one returns the result so far instead.
    """
    env_id = env if isinstance(env, str) else None
    settings = resolve(env_id, algorithm, {"seed": seed, "num_seeds": num_seeds, **config})
    folder = RunFolder(run_dir) if run_dir is not None else None
    environment = make(env, settings.env.env_kwargs)
    learner = settings.build_learner(environment)
    loggers = [x for x in (folder, logger) if x is not None]
    logger = LoggerList(loggers) if len(loggers) > 1 else [*loggers, NullLogger()][0]
    trainer = Trainer(learner, settings.trainer, callbacks, logger)
    if isinstance(warm_start, TrainResult):
        raise ConfigTypeError("warm_start is a result; write result.best_policy or result.policy")
    if warm_start is not None:
        begins_with = warm_start if isinstance(warm_start, Policy) else load_policy(warm_start)
        trainer.warm_start(begins_with)
    trainer.check_memory()
    if folder:
        folder.start(env_id, algorithm, settings, str(trainer.callbacks))
    if verbose:
        print(describe(learner, settings.trainer), flush=True)  # noqa: T201
        on_epoch = on_epoch or (lambda record: print(progress_line(record), flush=True))  # noqa: T201
    if on_start:
        on_start(trainer)
    with _deferred_interrupt() as was_interrupted:
        try:
            _run(trainer, on_epoch, was_interrupted)
        except BaseException:
            with contextlib.suppress(Exception):  # the error that came first is the one to tell
                _keep(trainer, folder)
            raise
        result = _keep(trainer, folder)
        interrupted = was_interrupted()
    if interrupted and not hasattr(builtins, "get_ipython"):
        raise KeyboardInterrupt(f"what was done is in {folder.path}" if folder else "")
    return result


def evaluate(
    policy: Policy, env: Any, episodes: int = 100, seed: int = 0, epsilon: float = 0.0
) -> tuple[Any, Any]:
    """Mean and standard deviation of the undiscounted return of complete episodes.

    Args:
        policy: of a result, or loaded.
        env: what `train` takes.
        episodes: complete episodes, each in an environment of its own.
        seed: 0 to 2^32 - 1; the same seed gives the same episodes.
        epsilon: probability of a random action, in [0, 1].

    Returns:
        (mean, std): floats, or arrays [S] for a policy of several seeds.
    """
    returns = play(policy, make(env), episodes=episodes, seed=seed, epsilon=epsilon)
    mean, std = returns.mean(axis=1, dtype=np.float64), returns.std(axis=1, dtype=np.float64)
    return (mean.item(), std.item()) if policy.num_seeds == 1 else (mean, std)


def _run(
    trainer: Trainer,
    on_epoch: Callable[[EpochRecord], None] | None,
    was_interrupted: Callable[[], bool],
) -> None:
    for record in trainer.epochs():
        if on_epoch:
            on_epoch(record)
        if was_interrupted():
            break


def _keep(trainer: Trainer, folder: RunFolder | None) -> TrainResult:
    """The result so far, its policies and its picture written to the folder."""
    result = trainer.result()
    if folder:
        folder.finish(result)
        plot_run(folder.path)
    return result


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Lets a first Ctrl-C wait for the epoch's end; off the main thread it does nothing."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    previous = signal.getsignal(signal.SIGINT)

    def handler(signum, frame):
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    signal.signal(signal.SIGINT, handler)
    try:
        yield flag.is_set
    finally:
        signal.signal(signal.SIGINT, previous)

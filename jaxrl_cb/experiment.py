"""One call that trains: from names and settings to a result, and to a run folder."""

import builtins
import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_cb.checks import check_bool, check_callable, check_choice
from jaxrl_cb.config import resolve
from jaxrl_cb.display import progress_line
from jaxrl_cb.envs import make
from jaxrl_cb.errors import ConfigError, LongEpochWarning, NonFiniteError
from jaxrl_cb.files import checked_path
from jaxrl_cb.plotting import plot_run
from jaxrl_cb.run_folder import RunFolder, load_policy
from jaxrl_cb.schedule import describe
from jaxrl_cb.signals import SignalGuard
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
from jaxrl_cb.trainer.checkpointer import LONG_EPOCH, RESUME, Checkpointer
from jaxrl_cb.trainer.evaluate import play
from jaxrl_cb.trainer.policy import check_policy


def train(
    env: Any,
    algorithm: str = "dqn",
    *,
    seed: int = 0,
    num_seeds: int = 1,
    callbacks: TrainerCallbacks | None = None,
    logger: Logger | None = None,
    run_dir: Any = None,
    resume: str = "never",
    checkpoint_every: int | None = None,
    warm_start: Policy | str | os.PathLike[str] | None = None,
    verbose: bool = True,
    on_start: Callable[[Trainer], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    **config: Any,
) -> TrainResult:
    """Trains a policy.

    Args:
        env: a gymnax id, a gymnax environment, a pair (env, params), or an `Environment`.
        algorithm: its name, see `jaxrl_cb.algorithms.VARIANTS` and ``jaxrl-cb algorithms``.
        seed: 0 to 2^32 - 1.
        num_seeds: runs trained together, with seeds ``seed``, ``seed + 1``, ...
        callbacks: what to call between epochs; only callbacks stop a run early.
        logger: anything with ``write(step_type, step, data)``.
        run_dir: folder to write to; None writes nothing.
        resume: "never" wants a new or an empty `run_dir`; "auto" goes on from its newest good
            checkpoint, or starts anew where there is none; "must" refuses to. A resumed run is
            bit for bit the run that was not interrupted; it may have other `max_epochs`.
        checkpoint_every: epochs from one checkpoint to the next; None writes one at the end of an
            epoch when 10 s have passed since the last (or the epoch took over 5 s), less often
            where saving takes over 2 % of the time. The end of the run is always saved.
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
        RunFolderError: the folder is not empty, in use, or cannot be resumed or written to; see
            `jaxrl_cb.errors` for each kind.
        KeyboardInterrupt: after Ctrl-C, at the end of the epoch, when all is saved; a second Ctrl-C
            comes at once. In a notebook the first one returns the result so far instead.
        SystemExit: after SIGTERM, likewise, with code 143. Signals are handled in the main thread
            only. An epoch is not waited for if the one before took more than 5 s and is saved in
            `run_dir`.
    """
    env_id = env if isinstance(env, str) else None
    settings = resolve(env_id, algorithm, {"seed": seed, "num_seeds": num_seeds, **config})
    check_choice("resume", resume, RESUME)
    check_bool("verbose", verbose)
    check_callable("on_start", on_start, "trainer")
    check_callable("on_epoch", on_epoch, "record")
    if run_dir is None and (resume != "never" or checkpoint_every is not None):
        raise ConfigError("resume and checkpoint_every need a run_dir, where checkpoints are")
    folder = RunFolder(run_dir, resume) if run_dir is not None else None
    environment = make(env, settings.env.env_kwargs, settings.env.env_params)
    learner = settings.build_learner(environment)
    loggers = [x for x in (folder, logger) if x is not None]
    logger = LoggerList(loggers) if len(loggers) > 1 else [*loggers, NullLogger()][0]
    trainer = Trainer(learner, settings.trainer, callbacks, logger)
    if isinstance(warm_start, str | os.PathLike):
        warm_start = load_policy(checked_path("warm_start", warm_start))
    if warm_start is not None:
        trainer.warm_start(warm_start)
    saver = folder and _saver(folder, trainer, checkpoint_every)
    trainer.check_memory()
    if verbose:
        print(describe(learner, settings.trainer), flush=True)  # noqa: T201
        on_epoch = on_epoch or (lambda record: print(progress_line(record), flush=True))  # noqa: T201
    if folder is None or saver is None:
        return _train(trainer, None, None, on_start, on_epoch)
    folder.open(env_id, algorithm, settings, str(trainer.callbacks))
    try:
        is_resumed = resume != "never" and saver.restore(resume, folder.accept)
        folder.start(is_resumed=is_resumed)
        if verbose and resume != "never":
            print(_resumed_line(trainer) if is_resumed else NOT_RESUMED, flush=True)  # noqa: T201
        return _train(trainer, folder, saver, on_start, on_epoch)
    finally:
        folder.close()


NOT_RESUMED = "there is no good checkpoint: the run starts anew"


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
    check_policy("policy", policy)
    returns = play(policy, make(env), episodes=episodes, seed=seed, epsilon=epsilon)
    mean, std = returns.mean(axis=1, dtype=np.float64), returns.std(axis=1, dtype=np.float64)
    return (mean.item(), std.item()) if policy.num_seeds == 1 else (mean, std)


def _saver(folder: RunFolder, trainer: Trainer, checkpoint_every: int | None) -> Checkpointer:
    return Checkpointer(
        *(folder.checkpoints, trainer, checkpoint_every),
        facts=folder.facts,
        on_saved=lambda snapshot: folder.save_policies(trainer.result_of(snapshot)),
    )


def _train(
    trainer: Trainer,
    folder: RunFolder | None,
    saver: Checkpointer | None,
    on_start: Callable[[Trainer], None] | None,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> TrainResult:
    """Runs a trainer to its end, or to a signal, and keeps what it has come to."""
    in_notebook = hasattr(builtins, "get_ipython")

    def may_drop() -> bool:
        return saver is not None and saver.is_current and not in_notebook

    with SignalGuard(may_drop) as signals:
        try:
            if on_start:
                on_start(trainer)
            _run(trainer, saver, on_epoch, signals)
            if saver:
                saver.finish()
        except BaseException as error:
            if isinstance(error, NonFiniteError) and saver:
                error.args = (f"{error}; {saver.newest}",)
            is_dropped = getattr(error, "is_dropped", False)
            later = []
            if saver and not signals.is_at_once:
                later += tried(saver.wait)
            if not is_dropped:  # else the states are used up
                later += tried(lambda: _keep(trainer, folder))
            if is_dropped:
                words = "; ".join([*later, _where(folder, saver)])
                raise signals.error(words, is_dropped=True) from None
            for words in later:  # the error that came first is the one to tell
                error.add_note(words)
            raise
        result = _keep(trainer, folder)
    if signals.received and not (in_notebook and signals.received == signal.SIGINT):
        raise signals.error(_where(folder, saver))
    return result


def tried(step: Callable[[], Any]) -> list[str]:
    """Does something of use after an error; gives its own error, if any, in words."""
    try:
        step()
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def _where(folder: RunFolder | None, saver: Checkpointer | None) -> str:
    if folder is None or saver is None:
        return ""
    path, steps = folder.path, saver.store.steps()
    if not steps:
        return f"nothing was saved yet in {path}; resume='auto' (--resume auto) starts anew"
    return (
        f"saved in {path} up to epoch {steps[0]}; resume='auto' (jaxrl-cb resume {path}) goes on "
        "with it"
    )


def _run(
    trainer: Trainer,
    saver: Checkpointer | None,
    on_epoch: Callable[[EpochRecord], None] | None,
    signals: SignalGuard,
) -> None:
    epochs, has_warned = trainer.epochs(), False
    while not signals.received:
        started = time.monotonic()
        with signals.epoch():
            record = next(epochs, None)
        if record is None:
            break
        seconds = time.monotonic() - started
        if not record.epoch:
            seconds = 0.0  # compiling says nothing of how long epochs are
        else:
            signals.epoch_ended(seconds)
        if on_epoch:
            on_epoch(record)
        if saver:
            saver.after_epoch(seconds)
        if saver and seconds > LONG_EPOCH and not has_warned:
            has_warned = True
            warnings.warn(
                f"an epoch takes {seconds:.0f} s; Ctrl-C and SIGTERM drop the one that runs and "
                "keep what was saved before it, so that a smaller epoch_num_steps loses less",
                *(LongEpochWarning, 2),
            )


def _keep(trainer: Trainer, folder: RunFolder | None) -> TrainResult:
    """The result so far, its policies and its picture written to the folder."""
    result = trainer.result(copy=False)  # no epoch comes after it
    if folder:
        folder.save_policies(result)
        plot_run(folder.path)
    return result


def _resumed_line(trainer: Trainer) -> str:
    progress = trainer.progress
    return f"resumed after epoch {progress.epoch} ({progress.env_step:,} environment steps)"

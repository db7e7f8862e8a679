"""Many settings and seeds trained together.

Settings that are numbers in the state (learning rate, gamma, tau, epsilon) share one program;
others, such as the algorithm, the network or n-step returns, make groups, each with programs of
its own. All are trained in turn, epoch by epoch, so that callbacks can compare them.
"""

import builtins
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxrl_cb.checks import check_bool, check_callable, check_choice, check_int
from jaxrl_cb.config import Config, resolve
from jaxrl_cb.errors import ConfigError, MemoryEstimateError
from jaxrl_cb.experiment import tried
from jaxrl_cb.signals import SignalGuard
from jaxrl_cb.space import SHARED, draw_trials, in_json, together
from jaxrl_cb.sweep_folder import SweepFolder
from jaxrl_cb.sweep_groups import Run, grouped, waves_of
from jaxrl_cb.sweep_result import SweepResult, Trial
from jaxrl_cb.trainer import Population, Trainer, TrainerCallbacks
from jaxrl_cb.trainer.checkpointer import RESUME
from jaxrl_cb.trainer.memory import in_words


def sweep(
    env: Any,
    space: Mapping[str, Any],
    num_trials: int | None = None,
    *,
    num_seeds: int = 1,
    algorithm: str = "dqn",
    seed: int = 0,
    callbacks: TrainerCallbacks | None = None,
    run_dir: Any = None,
    resume: str = "never",
    checkpoint_every: int | None = None,
    seeds_at_once: int | None = None,
    verbose: bool = True,
    on_start: Callable[[Sequence[Trainer]], None] | None = None,
    **config: Any,
) -> SweepResult:
    """Trains settings of a space, each with several seeds, together.

    A seed of a trial is, on CPU bit for bit, ``train`` with these settings and that seed. All
    trials have the same seeds.

    Args:
        env: what `train` takes.
        space: by name of a setting, a list of values or a `Distribution` (`uniform`,
            `log_uniform`); ``env_params.gravity`` and ``env_kwargs.x`` name an entry of these, and
            "algorithm" is a name as well.
        num_trials: of them drawn at random; None takes every combination of lists (a grid).
        num_seeds: of each trial: ``seed``, ``seed + 1``, ...
        algorithm: its name, see `jaxrl_cb.algorithms.VARIANTS` and ``jaxrl-cb algorithms``.
        seed: the first one; random search is seeded with it as well.
        callbacks: what to call between epochs. Train and test callbacks are called once for each
            group of trials with the same programs, on a copy for each; stop callbacks are asked for
            each seed. `EpochTrainCallbackSuccessiveHalving` drops trials that do badly.
        run_dir: folder to write to: ``sweep.json``, ``trials.csv``, ``trials.png``, and a run
            folder for each group; None writes nothing.
        resume: see `train`; a sweep that was killed goes on as if it had not been. It may have
            other `max_epochs`, which schedules of groups that had not begun then follow.
        checkpoint_every: see `train`.
        seeds_at_once: that are trained together; the others come after them, in waves, each of
            which begins when the one before has ended and its replays are gone. A wave holds whole
            trials, which callbacks compare, unless so many seeds are less than a trial has. With it
            `space` may be empty: many seeds of one setting. None: all of them.
        verbose: whether to print what memory is needed, and a line for each epoch.
        on_start: called with the trainers of all groups before the first one begins or goes on.
        **config: settings that all trials have.

    Raises:
        ConfigError: a name that is no setting, or that all trials must have in common; a space
            that is empty or endless; settings that cannot work.
        MemoryEstimateError: all of it needs more memory than there is, with what would fit.
    """
    check_int("num_seeds", num_seeds, 1)
    for name, value in {"num_trials": num_trials, "seeds_at_once": seeds_at_once}.items():
        if value is not None:
            check_int(name, value, 1)
    check_choice("resume", resume, RESUME)
    check_bool("verbose", verbose)
    check_callable("on_start", on_start, "trainers")
    if run_dir is None and (resume != "never" or checkpoint_every is not None):
        raise ConfigError("resume and checkpoint_every need a run_dir, where checkpoints are")
    one_trial = isinstance(space, Mapping) and not space and seeds_at_once and num_trials is None
    drawn = [{}] if one_trial else draw_trials(space, num_trials, seed)
    env_id = env if isinstance(env, str) else None
    shared = {"algorithm": algorithm, "seed": seed, **config}
    configs = [_config(env_id, **together(shared, own)) for own in drawn]
    _check_shared(configs)
    waves = [
        [Run(group, callbacks) for group in grouped(env, configs, members)]
        for members in waves_of(len(drawn), num_seeds, seeds_at_once)
    ]
    memory = _memory(waves, f"{len(drawn)} trials of {num_seeds} seeds", num_seeds)
    runs = [run for wave in waves for run in wave]
    trials = [Trial(*pair) for pair in enumerate(drawn)]
    plan = {
        "env": env_id,
        "algorithm": algorithm,
        "num_trials": num_trials,
        "num_seeds": num_seeds,
        "seed": seed,
        "space": {name: in_json(values) for name, values in space.items()},
        "seeds_at_once": seeds_at_once,
        "shared": config,
        "trials": [trial.settings for trial in trials],
        "groups": [run.group.members for run in runs],
    }
    folder = None if run_dir is None else SweepFolder(run_dir, plan)

    def result() -> SweepResult:
        begun = [run for run in runs if run.epoch >= 0]  # the first ones
        found = [run.trainer.result(copy=False) for run in begun]
        return SweepResult(trials, found, [run.group.members for run in begun], num_seeds, seed)

    def start() -> None:
        """What is written and told once the folders of the first wave are this process's."""
        if folder:
            folder.start()
        if on_start:
            on_start([run.trainer for run in runs])
        if verbose:
            print(memory, flush=True)  # noqa: T201

    if folder:
        folder.open(resume)
    for number, wave in enumerate(waves):
        Population.join([run.trainer.population for run in wave])
        with contextlib.ExitStack() as stack:
            for run in wave:
                stack.callback(run.close)
                if folder:
                    path = folder.group(runs.index(run))
                    run.open(path, env_id, resume, checkpoint_every)
            if number == 0:
                start()
            if not _train(wave, verbose, folder, result):
                break
            for run in wave if len(waves) > 1 else []:
                run.trainer.release()
    return result()


def _train(
    runs: Sequence[Run],
    verbose: bool,
    folder: SweepFolder | None,
    result: Callable[[], SweepResult],
) -> bool:
    """Trains all groups, the one that is furthest behind first, and keeps what they came to.

    False where Ctrl-C ended it in a notebook.
    """
    in_notebook = hasattr(builtins, "get_ipython")

    def keep() -> None:
        for run in runs:
            run.keep()
        if folder and all(run.epoch >= 0 for run in runs):
            folder.keep(result())

    savers = [run.saver for run in runs if run.saver]
    where = (
        f"resume='auto' (jaxrl-cb resume {folder.path}) goes on with it in {folder.path}"
        if folder
        else ""
    )

    def may_drop() -> bool:
        return bool(savers) and all(saver.is_current for saver in savers) and not in_notebook

    with SignalGuard(may_drop) as signals:
        try:
            _run_all(runs, verbose, signals)
            for saver in savers:
                saver.finish()
        except BaseException as error:
            is_dropped = getattr(error, "is_dropped", False)
            steps = [] if signals.is_at_once else [saver.wait for saver in savers]
            steps += [] if is_dropped else [keep]  # the states of what was dropped are used up
            notes = [words for step in steps for words in tried(step)]
            if is_dropped:
                raise signals.error("; ".join([*notes, where]), is_dropped=True) from None
            for words in notes:
                error.add_note(words)
            raise
        keep()
    if signals.received and not in_notebook:
        raise signals.error(where)
    return not signals.received


def _run_all(runs: Sequence[Run], verbose: bool, signals: SignalGuard) -> None:
    told = -1
    while not signals.received and (left := [run for run in runs if not run.is_finished]):
        run = min(left, key=lambda own: own.epoch)
        started = time.monotonic()
        with signals.epoch():
            run.step()
        seconds = time.monotonic() - started if run.epoch else 0.0  # the first one compiled
        if run.epoch:
            signals.epoch_ended(seconds)
        if run.saver:
            run.saver.after_epoch(seconds)
        done = min(
            (own.epoch for own in runs if not own.is_finished),
            default=max(own.epoch for own in runs),
        )
        if verbose and done > told:
            print(_line(runs, done), flush=True)  # noqa: T201
            told = done


def _line(runs: Sequence[Run], epoch: int) -> str:
    running = sum(len(run.trainer.progress.running) for run in runs)
    total = sum(run.trainer.params.num_seeds for run in runs)
    scores = runs[0].trainer.population.scores(epoch)
    best = max(scores, key=lambda trial: (scores[trial], -trial))
    return f"epoch {epoch}: {running}/{total} seeds run, best trial {best}: {scores[best]:.1f}"


def _config(env: str | None, algorithm: str, **named: Any) -> Config:
    return resolve(env, algorithm, named)


def _check_shared(configs: Sequence[Config]) -> None:
    for name in SHARED[2:]:
        values = {getattr(config.trainer, name) for config in configs}
        if len(values) > 1:
            raise ConfigError(
                f"trials would have {name} of {sorted(values)}, as it follows from other settings; "
                f"say {name}, which all trials have in common"
            )


def _memory(waves: Sequence[Sequence[Run]], name: str, num_seeds: int) -> str:
    """What the largest wave needs and what there is, in words.

    Raises:
        MemoryEstimateError: that is more than there is.
    """
    estimates = [[run.trainer.memory_estimate() for run in runs] for runs in waves]
    totals = [sum(each.total for each in wave) for wave in estimates]
    largest = totals.index(max(totals))
    total, available = totals[largest], estimates[largest][0].available
    seeds = sum(len(run.group.members) for run in waves[largest])
    name = name if len(waves) == 1 else f"{seeds} seeds at once of {name}"
    words = f"{in_words(total)} of memory, {in_words(total // seeds)} a seed"
    if available is None:
        return f"{name} need {words}"
    fit = int(seeds * available / total)
    fit_words = f"{in_words(available)} are there, enough for {fit:,} seeds"
    if total > available:
        whole = fit - fit % num_seeds or fit
        way = f"train them in waves, seeds_at_once={whole}, or lower" if fit else "lower"
        raise MemoryEstimateError(f"{name} need {words}; {fit_words}; {way} buffer_size")
    return f"{name}: {words}; {fit_words}"

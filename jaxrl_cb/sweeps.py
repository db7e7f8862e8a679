"""Many settings and seeds trained together.

Settings that are numbers in the state (learning rate, gamma, tau, epsilon) share one program;
others, such as the network or n-step returns, make groups, each with programs of its own. All are
trained in turn, epoch by epoch, so that callbacks can compare them.
"""

import builtins
import contextlib
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl_cb.checks import check_bool, check_choice, check_int
from jaxrl_cb.config import Config, resolve
from jaxrl_cb.envs import make
from jaxrl_cb.errors import (
    CheckpointMismatchError,
    ConfigError,
    MemoryEstimateError,
    RunFolderError,
    shown,
)
from jaxrl_cb.experiment import tried
from jaxrl_cb.files import checked_path, parse_json, read_text, reading, writing
from jaxrl_cb.learners import ReplayLearner
from jaxrl_cb.run_files import replace
from jaxrl_cb.run_folder import RunFolder, finite
from jaxrl_cb.signals import SignalGuard
from jaxrl_cb.space import SHARED, draw_trials, in_json, together
from jaxrl_cb.sweep_result import SweepResult, Trial, as_csv
from jaxrl_cb.trainer import NullLogger, Population, Trainer, TrainerCallbacks
from jaxrl_cb.trainer.checkpointer import RESUME, Checkpointer
from jaxrl_cb.trainer.groups import Start
from jaxrl_cb.trainer.memory import in_words

FILE, TABLE = "sweep.json", "trials.csv"


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
    trials_at_once: int | None = None,
    verbose: bool = True,
    **config: Any,
) -> SweepResult:
    """Trains settings of a space, each with several seeds, together.

    A seed of a trial is, on CPU bit for bit, ``train`` with these settings and that seed. All
    trials have the same seeds.

    Args:
        env: what `train` takes.
        space: by name of a setting, a list of values or a `Distribution` (`uniform`,
            `log_uniform`); ``env_params.gravity`` and ``env_kwargs.x`` name an entry of these.
        num_trials: of them drawn at random; None takes every combination of lists (a grid).
        num_seeds: of each trial: ``seed``, ``seed + 1``, ...
        algorithm: "dqn".
        seed: the first one; random search is seeded with it as well.
        callbacks: what to call between epochs. Train and test callbacks are called once for each
            group of trials with the same programs, on a copy for each; stop callbacks are asked for
            each seed. `EpochTrainCallbackSuccessiveHalving` drops trials that do badly.
        run_dir: folder to write to: ``sweep.json``, ``trials.csv``, and a run folder for each
            group; None writes nothing.
        resume: see `train`; a sweep that was killed goes on as if it had not been.
        checkpoint_every: see `train`.
        trials_at_once: that are trained together; the others come after them, in waves, each of
            which begins when the one before has ended and its replays are gone. Callbacks compare
            the trials of a wave. None: all of them.
        verbose: whether to print a line for each epoch.
        **config: settings that all trials have.

    Raises:
        ConfigError: a name that is no setting, or that all trials must have in common; a space
            that is empty or endless; settings that cannot work.
        MemoryEstimateError: all of it needs more memory than there is, with what would fit.
    """
    check_int("num_seeds", num_seeds, 1)
    for name, value in {"num_trials": num_trials, "trials_at_once": trials_at_once}.items():
        if value is not None:
            check_int(name, value, 1)
    check_choice("resume", resume, RESUME)
    check_bool("verbose", verbose)
    if run_dir is None and (resume != "never" or checkpoint_every is not None):
        raise ConfigError("resume and checkpoint_every need a run_dir, where checkpoints are")
    drawn = draw_trials(space, num_trials, seed)
    env_id = env if isinstance(env, str) else None
    shared = {"seed": seed, **config}
    configs = [resolve(env_id, algorithm, together(shared, own)) for own in drawn]
    _check_shared(configs)
    size = trials_at_once or len(drawn)
    waves = [
        [
            _Run(group, num_seeds, callbacks)
            for group in _grouped(
                env, configs, range(first, min(first + size, len(drawn))), num_seeds
            )
        ]
        for first in range(0, len(drawn), size)
    ]
    for wave in waves:
        Population.join([run.trainer.population for run in wave])
    _check_memory(waves, num_seeds)
    runs = [run for wave in waves for run in wave]
    trials = [
        Trial(index, settings, next(g for g, run in enumerate(runs) if index in run.group.trials))
        for index, settings in enumerate(drawn)
    ]
    folder = None if run_dir is None else checked_path("run_dir", run_dir)
    plan = {
        "env": env_id,
        "algorithm": algorithm,
        "num_seeds": num_seeds,
        "space": {name: in_json(values) for name, values in space.items()},
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "shared": config,
        "trials_at_once": trials_at_once,
    }
    plan = json.loads(json.dumps(finite(plan)))

    def result() -> SweepResult:
        """Of the groups that have begun, which are the first ones."""
        begun = [run for run in runs if run.epoch >= 0]
        found = [run.trainer.result(copy=False) for run in begun]
        own = [trial for trial in trials if trial.group < len(begun)]
        return SweepResult(own, found, num_seeds, seed)

    _open(folder, plan, resume)
    for wave in waves:
        with contextlib.ExitStack() as stack:
            for run in wave:
                stack.callback(run.close)
                if folder:
                    path = folder / f"group_{runs.index(run)}"
                    run.open(path, env_id, algorithm, resume, checkpoint_every)
            if not _train(wave, verbose, folder, result):
                break
            for run in wave if len(waves) > 1 else []:
                run.trainer.release()
    return result()


@dataclasses.dataclass(frozen=True)
class _Group:
    """Trials whose programs are the same."""

    learner: ReplayLearner
    config: Config  # of its first trial
    trials: list[int]
    starts: list[Start]  # of all their seeds


def _grouped(
    env: Any, configs: Sequence[Config], trials: Sequence[int], num_seeds: int
) -> list[_Group]:
    groups: dict[ReplayLearner, _Group] = {}
    for index in trials:
        config = configs[index]
        learner = config.build_learner(make(env, config.env.env_kwargs, config.env.env_params))
        group = groups.setdefault(learner, _Group(learner, config, [], []))
        values = learner.initial_values(config.trainer.total_env_steps)
        first = config.trainer.seed
        group.trials.append(index)
        group.starts.extend(Start(first + own, *values) for own in range(num_seeds))
    return list(groups.values())


class _Run:
    """A group that is trained."""

    def __init__(self, group: _Group, num_seeds: int, callbacks: TrainerCallbacks | None):
        self.group = group
        members = [trial for trial in group.trials for _ in range(num_seeds)]
        self._settings = dataclasses.replace(
            group.config, trainer=dataclasses.replace(group.config.trainer, num_seeds=len(members))
        )
        self._logger = _Logger()
        self.trainer = Trainer(
            group.learner,
            self._settings.trainer,
            copy.deepcopy(TrainerCallbacks.of(callbacks)),
            self._logger,
            starts=group.starts,
            trials=members,
        )
        self._folder: RunFolder | None = None
        self.saver: Checkpointer | None = None

    def open(
        self, path: Path, env: str | None, algorithm: str, resume: str, every: int | None
    ) -> None:
        """Takes the group's folder, and goes on from its checkpoint where that is wanted."""
        self._folder = folder = RunFolder(path, "auto" if resume == "must" else resume)
        folder.open(env, algorithm, self._settings, str(self.trainer.callbacks))
        self._logger.target = folder
        self.saver = Checkpointer(
            *(folder.checkpoints, self.trainer, every),
            facts=folder.facts,
            on_saved=lambda snapshot: folder.save_policies(self.trainer.result_of(snapshot)),
        )
        is_resumed = resume != "never" and self.saver.restore("auto", folder.accept)
        folder.start(is_resumed=is_resumed)

    @property
    def epoch(self) -> int:
        """Epochs done; -1 before the first test."""
        progress = self.trainer.progress
        return progress.epoch if progress.history else -1

    @property
    def is_finished(self) -> bool:
        return self.epoch >= 0 and self.trainer.is_finished

    def step(self) -> None:
        """The first test, or an epoch."""
        if self.epoch < 0:
            self.trainer.init()
        else:
            self.trainer.execute_epoch()

    def keep(self) -> None:
        """Writes what it has come to."""
        if self._folder and self.epoch >= 0:
            self._folder.save_policies(self.trainer.result(copy=False))

    def close(self) -> None:
        if self._folder:
            self._folder.close()


class _Logger:
    """Writes to the group's folder, once there is one."""

    def __init__(self):
        self.target: Any = NullLogger()

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        self.target.write(step_type, step, data)


def _train(
    runs: Sequence[_Run],
    verbose: bool,
    folder: Path | None,
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
            _write_table(folder, result())

    savers = [run.saver for run in runs if run.saver]
    where = f"resume='auto' (--resume auto) goes on with it in {folder}" if folder else ""

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


def _run_all(runs: Sequence[_Run], verbose: bool, signals: SignalGuard) -> None:
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


def _line(runs: Sequence[_Run], epoch: int) -> str:
    running = sum(len(run.trainer.progress.running) for run in runs)
    total = sum(run.trainer.params.num_seeds for run in runs)
    scores = runs[0].trainer.population.scores(epoch)
    best = max(scores, key=lambda trial: (scores[trial], -trial))
    return f"epoch {epoch}: {running}/{total} seeds run, best trial {best}: {scores[best]:.1f}"


def _check_shared(configs: Sequence[Config]) -> None:
    for name in SHARED[2:]:
        values = {getattr(config.trainer, name) for config in configs}
        if len(values) > 1:
            raise ConfigError(
                f"trials would have {name} of {sorted(values)}, as it follows from other settings; "
                f"say {name}, which all trials have in common"
            )


def _check_memory(waves: Sequence[Sequence[_Run]], num_seeds: int) -> None:
    """Raises MemoryEstimateError unless all groups of each wave fit together."""
    for runs in waves:
        estimates = [run.trainer.memory_estimate() for run in runs]
        total, available = sum(each.total for each in estimates), estimates[0].available
        if available is None or total <= available:
            continue
        trials = sum(len(run.group.trials) for run in runs)
        fit = int(trials * available / total)
        way = (
            f"train them in waves, trials_at_once={fit}, or lower" if fit else "lower num_seeds or"
        )
        raise MemoryEstimateError(
            f"{trials} trials of {num_seeds} seeds need {in_words(total)} together, "
            f"{in_words(total // (trials * num_seeds))} a seed; {in_words(available)} are there, "
            f"enough for {fit} trials; {way} buffer_size"
        )


def _open(folder: Path | None, plan: dict[str, Any], resume: str) -> None:
    """Writes the plan of a sweep to its folder, or checks that it is the one that is there."""
    if folder is not None:
        file = folder / FILE
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"run_dir={shown(str(folder))} is not a folder")
        is_there = file.is_file()
        if resume == "never" and folder.is_dir() and any(folder.iterdir()):
            raise RunFolderError(
                f"run_dir={shown(str(folder))} is not an empty folder; choose another one, or go "
                "on with the sweep in it by resume='auto'"
            )
        if resume == "must" and not is_there:
            raise RunFolderError(f"run_dir={shown(str(folder))} has no sweep to resume")
        if is_there:
            with reading(file):
                then = parse_json(read_text(file))
            names = [name for name in plan if then.get(name) != plan[name]]
            if names:
                raise CheckpointMismatchError(
                    f"run_dir={shown(str(folder))} has a sweep that differs in {', '.join(names)}; "
                    "give the same one, or choose another folder"
                )
        with writing("run_dir", folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps(plan, indent=2) + "\n"
            replace(file, lambda path: path.write_text(text))


def _write_table(folder: Path, result: SweepResult) -> None:
    text = as_csv(result.rows())
    with writing("run_dir", folder):
        replace(folder / TABLE, lambda path: path.write_text(text))

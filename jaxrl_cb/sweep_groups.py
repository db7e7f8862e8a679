"""The groups of a sweep: trials whose programs are the same, trained by one trainer each."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl_cb.config import Config
from jaxrl_cb.envs import make
from jaxrl_cb.learners import Learner
from jaxrl_cb.run_folder import RunFolder
from jaxrl_cb.trainer import NullLogger, Trainer, TrainerCallbacks
from jaxrl_cb.trainer.checkpointer import Checkpointer
from jaxrl_cb.trainer.groups import Start


class Member(NamedTuple):
    """A seed of a trial.

    Attributes:
        trial: its index.
        own: number of the seed within it, from 0.
    """

    trial: int
    own: int


def waves_of(num_trials: int, num_seeds: int, seeds_at_once: int | None) -> list[list[Member]]:
    """The seeds of all trials in waves; a trial is split only where its seeds are too many."""
    trials = [[Member(trial, own) for own in range(num_seeds)] for trial in range(num_trials)]
    together = num_trials if seeds_at_once is None else seeds_at_once // num_seeds
    if together:
        parts = [trials[first : first + together] for first in range(0, num_trials, together)]
        return [[member for trial in part for member in trial] for part in parts]
    size = seeds_at_once or num_seeds
    return [own[first : first + size] for own in trials for first in range(0, num_seeds, size)]


@dataclasses.dataclass(frozen=True)
class Group:
    """Seeds of trials whose programs are the same.

    Attributes:
        learner: that all share, as far as programs go.
        config: of its first trial.
        members: its seeds.
        starts: what each of them begins with.
    """

    learner: Learner
    config: Config
    members: list[Member]
    starts: list[Start]


def grouped(env: Any, configs: Sequence[Config], members: Sequence[Member]) -> list[Group]:
    """The groups of some seeds, given the settings of all trials."""
    groups: dict[Learner, Group] = {}
    learners: dict[int, tuple[Learner, Any]] = {}
    for member in members:
        config = configs[member.trial]
        if member.trial not in learners:
            environment = make(env, config.env.env_kwargs, config.env.env_params)
            learner = config.build_learner(environment)
            values = learner.initial_values(config.trainer.total_env_steps)
            learners[member.trial] = learner, values
        learner, values = learners[member.trial]
        group = groups.setdefault(learner, Group(learner, config, [], []))
        group.members.append(member)
        group.starts.append(Start(config.trainer.seed + member.own, *values))
    return list(groups.values())


class Run:
    """A group that is trained.

    Attributes:
        group: what of.
        trainer: its trainer.
        saver: of its checkpoints, once it has a folder.
    """

    def __init__(self, group: Group, callbacks: TrainerCallbacks | None):
        self.group = group
        trials = [member.trial for member in group.members]
        self._settings = dataclasses.replace(
            group.config, trainer=dataclasses.replace(group.config.trainer, num_seeds=len(trials))
        )
        self._logger = _Logger()
        self.trainer = Trainer(
            group.learner,
            self._settings.trainer,
            copy.deepcopy(TrainerCallbacks.of(callbacks)),
            self._logger,
            starts=group.starts,
            trials=trials,
        )
        self._folder: RunFolder | None = None
        self.saver: Checkpointer | None = None

    def open(self, path: Path, env: str | None, resume: str, every: int | None) -> None:
        """Takes the group's folder, and goes on from its checkpoint where that is wanted."""
        self._folder = folder = RunFolder(path, "auto" if resume == "must" else resume)
        folder.open(env, self._settings.name, self._settings, str(self.trainer.callbacks))
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
        """Whether all its seeds have ended."""
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
        """Lets other processes have the folder."""
        if self._folder:
            self._folder.close()


class _Logger:
    """Writes to the group's folder, once there is one."""

    def __init__(self):
        self.target: Any = NullLogger()

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        self.target.write(step_type, step, data)

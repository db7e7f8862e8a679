"""What a run gives back."""

import dataclasses
import functools

import jax
import numpy as np

from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer.callbacks import EpochStopCallback
from jaxrl_cb.trainer.history import EpochRecord
from jaxrl_cb.trainer.leaves import to_numpy
from jaxrl_cb.trainer.members import Members
from jaxrl_cb.trainer.policy import Policy
from jaxrl_cb.trainer.progress import Progress, per_seed
from jaxrl_cb.types import TrainState


@dataclasses.dataclass(frozen=True, repr=False)
class TrainResult:
    """Result of a run. "Per seed" means a Python value for one seed, an array [S] for more.

    Attributes:
        history: one record per test phase, epoch 0 included.
        stopped: per seed, whether a stop callback ended it.
        diverged: per seed, whether NaN or infinity ended it (``on_nan="stop"``).
        dropped: per seed, whether a train callback ended it (`TrainingContext.drop`).
        epoch: per seed, its last epoch.
        env_step: per seed, its environment steps (Python int or int64).
        best_score: per seed, the mean return of its best test.
        best_epoch: per seed, the epoch of that test.
        policy: the last parameters of each seed.
        best_policy: the parameters of the best test of each seed.
        callbacks: the stop callbacks of each seed: its own copies where there are several seeds.
        seconds: wall seconds, by "compile", "train" and "test".
        members: the seeds, what `state` is made of.
    """

    history: list[EpochRecord]
    stopped: bool | np.ndarray
    diverged: bool | np.ndarray
    dropped: bool | np.ndarray
    epoch: int | np.ndarray
    env_step: int | np.ndarray
    best_score: float | np.ndarray
    best_epoch: int | np.ndarray
    policy: Policy
    best_policy: Policy
    callbacks: list[EpochStopCallback | list[EpochStopCallback] | None]
    seconds: dict[str, float]
    members: Members

    @functools.cached_property
    def state(self) -> TrainState:
        """The whole state with a leading [S]; several seeds are put together when it is asked for.

        For several seeds, replay and rollout are only those of seeds still running at the end.
        """
        return self.members.state(range(self.members.num_seeds))

    def __repr__(self) -> str:
        names = ("stopped", "diverged", "dropped", "epoch", "env_step", "best_score", "best_epoch")
        facts = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"TrainResult({self.policy.spec.id!r}, {facts})"


def make_result(
    progress: Progress,
    learner: Learner,
    members: Members,
    callbacks: list,
    state: TrainState | None = None,
) -> TrainResult:
    """The result of a run as far as it has come; at least its first test is done.

    Args:
        progress: what the host remembers.
        learner: what was trained.
        members: the seeds.
        callbacks: the stop callbacks of each seed.
        state: of all seeds; without it, that of `members`.
    """
    everyone = range(progress.num_seeds)
    now = (progress.epoch, progress.env_step)
    last = [progress.ended.get(index, now) for index in everyone]
    diverged = np.array([index in progress.diverged for index in everyone])
    dropped = np.array([index in progress.dropped for index in everyone])
    ended = np.array([index in progress.ended for index in everyone])
    best = [b.best for b in progress.best if b.best is not None]
    best_params = jax.tree.map(lambda *x: np.concatenate(x), *[b.params for b in best])
    spec, algorithm = learner.environment.spec, learner.algorithm
    state = state or members.small_state(everyone)
    epsilon = np.array(state.epsilon.inference)
    return TrainResult(
        history=list(progress.history),
        stopped=per_seed(ended & ~diverged & ~dropped),
        diverged=per_seed(diverged),
        dropped=per_seed(dropped),
        epoch=per_seed(np.array([epoch for epoch, _ in last])),
        env_step=per_seed(np.array([env_step for _, env_step in last], np.int64)),
        best_score=per_seed(np.array([b.score for b in best])),
        best_epoch=per_seed(np.array([b.epoch for b in best])),
        policy=Policy(algorithm, spec, to_numpy(state.params), epsilon),
        best_policy=Policy(algorithm, spec, best_params, epsilon),
        callbacks=callbacks,
        seconds=dict(progress.seconds),
        members=members,
    )

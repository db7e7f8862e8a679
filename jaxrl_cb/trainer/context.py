"""What callbacks are given: ``TrainingContext`` of Tianshou's ``highlevel.trainer`` (v1.2)."""

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxrl_cb.envs.environment import Environment
from jaxrl_cb.errors import JaxrlError
from jaxrl_cb.trainer.history import EpochRecord
from jaxrl_cb.types import TrainState


@dataclasses.dataclass(frozen=True)
class Environments:
    """The environments of a run.

    Attributes:
        env: the environment; ``env.spec.reward_threshold`` is what a stop callback reads.
        num_envs: training environments of one seed.
        num_test_envs: test environments of one seed, one episode each.
    """

    env: Environment
    num_envs: int
    num_test_envs: int


class TrainingContext:
    """Access to a run for callbacks.

    The three arguments are all that shipped callbacks need; any objects with the methods that they
    use will do. The trainer fills in the rest.

    Attributes:
        policy: handle with ``set_eps_training`` and the like.
        envs: has ``env.spec.reward_threshold``.
        logger: has ``write(step_type, step, data)``.
        epoch: epochs begun; 0 before the first.
        env_step: environment steps of one seed done so far.
        epoch_num_steps: environment steps of one seed in each epoch.
        seed: in a stop callback the index (0..S-1) of the seed that is asked about, else None.
        history: all test results so far, of the seed that is asked about or of all.
        best_score: highest mean test return so far, epoch 0 included: a float, or [S].
        running: indices of the seeds that have not ended.
        population: the trials that seeds belong to, and how they have done, see `Population`.
        confirmed_score: set by a stop callback that tested again: the mean return of that test,
            which then counts in place of the test's own.
    """

    def __init__(self, policy: Any, envs: Any, logger: Any):
        self.policy = policy
        self.envs = envs
        self.logger = logger
        self.epoch = 0
        self.env_step = 0
        self.epoch_num_steps = 0
        self.seed: int | None = None
        self.history: list[EpochRecord] = []
        self.best_score: float | np.ndarray = float("-inf")
        self.confirmed_score: float | None = None
        self.population: Any = None
        self.running: list[int] = []
        self.evaluate_fn: Callable[[int], np.ndarray] | None = None  # the trainer's
        self.drop_fn: Callable[[Sequence[int]], None] | None = None

    @property
    def algorithm(self) -> Any:
        """For code written for Tianshou 2: ``context.algorithm.policy`` is `policy`."""
        return SimpleNamespace(policy=self.policy)

    @property
    def state(self) -> TrainState:
        """The state with a leading [S]: read it, or assign another one.

        Valid until the callback returns, as the next chunk consumes it; `snapshot` keeps a copy.
        """
        return self.policy.state

    @state.setter
    def state(self, new: TrainState) -> None:
        self.policy.state = new

    def snapshot(self) -> TrainState:
        """A copy of the state that stays valid."""
        return self.policy.snapshot()

    def member(self, index: int) -> TrainState:
        """The state of one seed, with a leading [1], without stacking the others."""
        return self.policy.member(index)

    def drop(self, seeds: int | Sequence[int]) -> None:
        """Ends seeds for good, before the epoch that begins now; they cost nothing any more.

        Args:
            seeds: indices, 0 to S - 1; those that have ended stay as they are.

        Raises:
            JaxrlError: no train callback is running.
        """
        if self.drop_fn is None:
            raise JaxrlError("seeds can be dropped by train callbacks only")
        self.drop_fn(seeds if isinstance(seeds, Sequence | np.ndarray) else [seeds])

    def evaluate(self, episodes: int) -> np.ndarray:
        """Tests the policy again, on keys that no test has used; nothing is recorded.

        Args:
            episodes: complete episodes; they are played in rounds of ``num_test_episodes``.

        Returns:
            Undiscounted returns: [episodes] where one seed is asked about, else [S, episodes].
        """
        if self.evaluate_fn is None:
            raise JaxrlError("this context belongs to no trainer, so it has nothing to evaluate")
        return self.evaluate_fn(episodes)

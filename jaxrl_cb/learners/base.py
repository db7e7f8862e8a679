"""What all learners have in common."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_cb.algorithms.base import greedy_q, joined, split
from jaxrl_cb.checks import check_kind
from jaxrl_cb.envs.environment import Environment
from jaxrl_cb.errors import ConfigTypeError, kind, shown
from jaxrl_cb.learners import evaluation
from jaxrl_cb.learners.exploration import Exploration
from jaxrl_cb.learners.optimizer import OptimizerConfig
from jaxrl_cb.ops.epsilon import ladder
from jaxrl_cb.ops.finite import num_nonfinite
from jaxrl_cb.ops.promotion import default_promotion
from jaxrl_cb.ops.randomness import as_key, draw, words_per_key
from jaxrl_cb.ops.segments import value_at
from jaxrl_cb.types import (
    Array,
    ChunkMetrics,
    Epsilon,
    Evaluation,
    Hyperparams,
    PyTree,
    Rollout,
    TrainState,
)


class Size(NamedTuple):
    """A setting that memory depends on."""

    now: int
    lower: Sequence[int]  # values it may have instead, ascending


@dataclasses.dataclass(frozen=True, eq=False)
class Learner(abc.ABC):
    """An environment, an algorithm and a way to gather experience. Unbatched over seeds.

    Two learners are equal iff they compile to the same program: what only sets numbers in the
    state (learning rate, gamma, tau, epsilon) is not compared.

    Attributes:
        environment: see `jaxrl_cb.envs.make`.
        algorithm: for example ``DQN(MLP(environment.spec.num_actions))``.
        optimizer: Adam's settings.
        exploration: epsilon before any callback sets it.
        transformation: an optax transformation without learning rate, in place of Adam.
    """

    METHODS: ClassVar[tuple[str, ...]]  # that the algorithm must have
    EXAMPLE: ClassVar[str]  # of an algorithm that has them
    LAST_RESORT: ClassVar[str]  # where lowering `sizes` does not save enough memory

    environment: Environment
    algorithm: Any
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig, kw_only=True)
    exploration: Exploration = dataclasses.field(default_factory=Exploration, kw_only=True)
    transformation: optax.GradientTransformation | None = dataclasses.field(
        default=None, kw_only=True
    )

    def __post_init__(self):
        kinds = {
            **{"environment": Environment, "optimizer": OptimizerConfig},
            **{"exploration": Exploration},
        }
        for name, expected in kinds.items():
            check_kind(name, getattr(self, name), expected)
        for method in self.METHODS:
            if isinstance(self.algorithm, type) or not hasattr(self.algorithm, method):
                raise ConfigTypeError(
                    f"algorithm={shown(self.algorithm)} is {kind(self.algorithm)} that cannot "
                    f"{method}; expected for example {self.EXAMPLE}"
                )

    @abc.abstractmethod
    def program_key(self) -> tuple[Any, ...]:
        """What the compiled program depends on."""

    def _common_key(self) -> tuple[Any, ...]:
        optimizer = dataclasses.replace(self.optimizer, learning_rate=0.0)
        ladder = self.exploration.epsilon_ladder
        return (
            *(type(self), self.environment, self.algorithm),
            *(optimizer, self.transformation, ladder),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Learner) and self.program_key() == other.program_key()

    def __hash__(self) -> int:
        return hash(self.program_key())

    @property
    @abc.abstractmethod
    def num_envs(self) -> int:
        """E, training environments."""

    @property
    def rollout_length(self) -> int:
        """Vector steps of one iteration, which is what `step` does."""
        return 1

    @property
    def iteration_steps(self) -> int:
        """Environment steps of one iteration, over all environments."""
        return self.num_envs * self.rollout_length

    @property
    def prefill_steps(self) -> int:
        """Environment steps that `init` takes."""
        return 0

    @abc.abstractmethod
    def num_updates(self, num_iterations: int) -> int:
        """Gradient steps after so many iterations."""

    @abc.abstractmethod
    def sizes(self) -> dict[str, Size]:
        """What may be lowered to save memory, by the setting's name."""

    @abc.abstractmethod
    def resized(self, name: str, value: int) -> "Learner":
        """With another value of one of `sizes`.

        Raises:
            ConfigError: it does not fit the others.
        """

    @abc.abstractmethod
    def _numbers(self, total_env_steps: int) -> dict[str, Any]:
        """Those of `Hyperparams` that only this kind of learner has (NumPy)."""

    def initial_values(self, total_env_steps: int) -> tuple[Hyperparams, Epsilon]:
        """The settings that are numbers in the state, for one seed's steps in all (NumPy)."""
        updates = self.num_updates(total_env_steps // self.iteration_steps)
        hyperparams = Hyperparams(
            learning_rate=np.float32(self.optimizer.learning_rate),
            schedule_updates=np.int32(min(updates, 2**31 - 1)),
            env_params={n: np.float32(v) for n, v in self.environment.env_params.items()},
            **self._numbers(total_env_steps),
        )
        return hyperparams, self.exploration.initial(total_env_steps)

    @abc.abstractmethod
    def init(self, seed: Array, hyperparams: Hyperparams, epsilon: Epsilon) -> TrainState:
        """A fresh state of one seed.

        Args:
            seed: [] uint32.
            hyperparams: initial values.
            epsilon: initial values.
        """

    @abc.abstractmethod
    def state_axes(self) -> TrainState:
        """For every field of the state whether seeds have it each (0) or in common (None)."""

    @abc.abstractmethod
    def step(self, state: TrainState) -> tuple[TrainState, ChunkMetrics]:
        """One iteration: acts `rollout_length` times in every environment, and learns."""

    def evaluate(
        self,
        params: PyTree,
        epsilon: Array,
        test_key: Array,
        phase: Array,
        env_params: PyTree,
        *,
        num_episodes: int,
    ) -> Evaluation:
        """Tests the policy on keys of its own, which no training key depends on.

        Args:
            params: of the network.
            epsilon: [] probability of a random action.
            test_key: [] `TrainState.test_key`.
            phase: [2] uint32, the epoch and the number of the evaluation within it.
            env_params: `Hyperparams.env_params`.
            num_episodes: N, complete episodes, one per environment.
        """
        key = jax.random.fold_in(jax.random.fold_in(test_key, phase[0]), phase[1])
        q_values = greedy_q(self.algorithm, params)
        environment = self.environment.with_params(env_params)
        return evaluation.evaluate(environment, q_values, epsilon, key, num_episodes)

    def _first_state(self, seed: Array, hyperparams: Hyperparams, epsilon: Epsilon) -> TrainState:
        """`init` without target network and buffer, which are None."""
        key, test_key = jax.random.split(jax.random.key(seed))
        k = words_per_key(key)
        key, params_words, reset_words = draw(key, (k,), (self.num_envs, k))
        environment = self.environment.with_params(hyperparams.env_params)
        env_state, obs = environment.reset_all(as_key(reset_words, like=key))
        params = self.algorithm.init(as_key(params_words, like=key), obs[0])
        zeros = jnp.zeros((self.num_envs,), jnp.float32)
        return TrainState(
            params=params,
            target_params=None,
            opt_state=self._transformation().init(split(params)[0]),
            num_updates=jnp.int32(0),
            buffer=None,
            rollout=Rollout(env_state, obs, zeros, zeros.astype(jnp.int32), num_nonfinite(obs)),
            update_credit=jnp.int32(0),
            epsilon=epsilon,
            hyperparams=hyperparams,
            key=key,
            test_key=test_key,
        )

    def _epsilon(self, state: TrainState) -> Array:
        """[] or [E], of the next vector step."""
        epsilon, exponent = value_at(state.epsilon.training), self.exploration.epsilon_ladder
        return ladder(epsilon, self.num_envs, exponent) if exponent else epsilon

    def _transformation(self) -> optax.GradientTransformation:
        return self.transformation or self.optimizer.transformation()

    def _descended(
        self, state: TrainState, loss_fn: Callable[[PyTree], tuple[Array, Any]]
    ) -> tuple[TrainState, Array, Any]:
        """The state after a gradient step, the loss, and what comes beside it.

        Args:
            state: before it.
            loss_fn: maps parameters to the loss [] and whatever else.
        """
        learned, rest = split(state.params)

        def of_learned(learned: PyTree) -> tuple[Array, Any]:
            return loss_fn(joined(learned, rest))

        (loss, beside), gradient = jax.value_and_grad(of_learned, has_aux=True)(learned)
        with default_promotion():
            direction, opt_state = self._transformation().update(gradient, state.opt_state, learned)
        step_size = self.optimizer.step_size(state.hyperparams, state.num_updates)
        learned = jax.tree.map(lambda p, d: p - step_size * d, learned, direction)
        state = state.replace(
            params=joined(learned, rest), opt_state=opt_state, num_updates=state.num_updates + 1
        )
        return state, loss, beside

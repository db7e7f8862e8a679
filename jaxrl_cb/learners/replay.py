"""The replay learner: act, store, sample, learn, as pure functions over `TrainState`."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxrl_cb.algorithms.base import (
    SAMPLE_AXIS,
    Algorithm,
    batched_q,
    greedy_q,
    joined,
    observe,
    split,
)
from jaxrl_cb.buffers import ReplayRing
from jaxrl_cb.checks import check_kind
from jaxrl_cb.envs.environment import Environment
from jaxrl_cb.errors import ConfigTypeError, kind, shown
from jaxrl_cb.learners import evaluation
from jaxrl_cb.learners.acting import act, act_shape
from jaxrl_cb.learners.exploration import Exploration
from jaxrl_cb.learners.optimizer import OptimizerConfig
from jaxrl_cb.learners.replay_config import ReplayConfig, TargetConfig
from jaxrl_cb.ops.counters import NEVER, take_credit, updates_after
from jaxrl_cb.ops.epsilon import advance, epsilon_at, ladder
from jaxrl_cb.ops.finite import index_if_nonfinite, num_nonfinite
from jaxrl_cb.ops.promotion import default_promotion
from jaxrl_cb.ops.randomness import as_key, draw, words_per_key
from jaxrl_cb.types import (
    Array,
    Buffer,
    ChunkMetrics,
    Epsilon,
    Evaluation,
    Hyperparams,
    PyTree,
    Rollout,
    TrainState,
    Transition,
)


class Losses(NamedTuple):
    """Of some gradient steps."""

    sum: Array  # [] float32
    first_bad: Array  # [] int32, see `ChunkMetrics.first_bad_update`

    def plus(self, later: "Losses") -> "Losses":
        """Those of both."""
        return Losses(self.sum + later.sum, jnp.minimum(self.first_bad, later.first_bad))


@dataclasses.dataclass(frozen=True)
class ReplayLearner:
    """Learns off-policy from a replay ring. Everything here is unbatched over seeds.

    Two learners are equal iff they compile to the same program: what only sets numbers in the
    state (learning rate, gamma, tau, epsilon) is not compared.

    Attributes:
        environment: see `jaxrl_cb.envs.make`.
        algorithm: for example ``DQN(MLP(environment.spec.num_actions))``.
        replay: sizes.
        target: discount and target network.
        optimizer: Adam's settings.
        exploration: epsilon before any callback sets it.
        transformation: an optax transformation without learning rate, in place of Adam.
    """

    environment: Environment
    algorithm: Algorithm
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    target: TargetConfig = dataclasses.field(default_factory=TargetConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    exploration: Exploration = dataclasses.field(default_factory=Exploration)
    transformation: optax.GradientTransformation | None = None

    def __post_init__(self):
        kinds = {
            **{"environment": Environment, "replay": ReplayConfig, "target": TargetConfig},
            **{"optimizer": OptimizerConfig, "exploration": Exploration},
        }
        for name, expected in kinds.items():
            check_kind(name, getattr(self, name), expected)
        for method in ("init", "q_values", "target", "loss"):
            if isinstance(self.algorithm, type) or not hasattr(self.algorithm, method):
                raise ConfigTypeError(
                    f"algorithm={shown(self.algorithm)} is {kind(self.algorithm)} that cannot "
                    f"{method}; expected for example DQN(MLP(num_actions))"
                )

    def program_key(self) -> tuple[Any, ...]:
        """What the compiled program depends on."""
        target = dataclasses.replace(self.target, gamma=0.0, tau=1.0)
        optimizer = dataclasses.replace(self.optimizer, learning_rate=0.0)
        return (
            *(self.environment, self.algorithm, self.replay),
            *(target, optimizer, self.transformation, self.exploration.epsilon_ladder),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReplayLearner) and self.program_key() == other.program_key()

    def __hash__(self) -> int:
        return hash(self.program_key())

    @property
    def num_envs(self) -> int:
        """E, training environments."""
        return self.replay.num_envs

    def num_updates(self, num_vector_steps: int) -> int:
        """Gradient steps after so many vector steps."""
        return updates_after(num_vector_steps, self.replay.rate)

    def initial_values(self, total_env_steps: int) -> tuple[Hyperparams, Epsilon]:
        """The settings that are numbers in the state, for one seed's steps in all (NumPy)."""
        updates = self.num_updates(total_env_steps // self.num_envs)
        hyperparams = Hyperparams(
            learning_rate=np.float32(self.optimizer.learning_rate),
            gamma=np.float32(self.target.gamma),
            tau=np.float32(self.target.tau),
            schedule_updates=np.int32(min(updates, 2**31 - 1)),
            env_params={n: np.float32(v) for n, v in self.environment.env_params.items()},
        )
        return hyperparams, self.exploration.initial(total_env_steps)

    def init(self, seed: Array, hyperparams: Hyperparams, epsilon: Epsilon) -> TrainState:
        """A fresh state of one seed, its replay prefilled.

        Args:
            seed: [] uint32.
            hyperparams: initial values.
            epsilon: initial values.
        """
        key, test_key = jax.random.split(jax.random.key(seed))
        k = words_per_key(key)
        key, params_words, reset_words = draw(key, (k,), (self.num_envs, k))
        environment = self.environment.with_params(hyperparams.env_params)
        env_state, obs = environment.reset_all(as_key(reset_words, like=key))
        params = self.algorithm.init(as_key(params_words, like=key), obs[0])
        zeros = jnp.zeros((self.num_envs,), jnp.float32)
        state = TrainState(
            params=params,
            target_params=params,
            opt_state=self._optimizer().init(split(params)[0]),
            num_updates=jnp.int32(0),
            buffer=self._ring().init(obs[0], self.environment.spec.num_actions),
            rollout=Rollout(env_state, obs, zeros, zeros.astype(jnp.int32), num_nonfinite(obs)),
            update_credit=jnp.int32(0),
            epsilon=epsilon,
            hyperparams=hyperparams,
            key=key,
            test_key=test_key,
        )
        return self._prefill(state)

    def state_axes(self) -> TrainState:
        """For every field of the state whether seeds have it each (0) or in common (None)."""
        each: Any = 0
        seeds = TrainState(*[each] * len(dataclasses.fields(TrainState)))
        buffer = Buffer(*[each] * len(dataclasses.fields(Buffer))).replace(cursor=None)
        return seeds.replace(buffer=buffer, num_updates=None, update_credit=None)

    def step(self, state: TrainState) -> tuple[TrainState, ChunkMetrics]:
        """One vector step: act in every environment, store, and take the gradient steps due."""
        epsilon = self._epsilon(state)
        most = math.ceil(self.replay.rate)  # gradient steps
        key, act_words, sample_words, update_words = draw(
            state.key,
            act_shape(self.num_envs, state.key),
            (2, most, self.replay.batch_size),
            (most, 2, words_per_key(state.key)),
        )
        state = state.replace(
            key=key,
            epsilon=state.epsilon.replace(training=advance(state.epsilon.training, self.num_envs)),
        )
        q_values = batched_q(self.algorithm, state.params)
        state, metrics = self._collect(state, act_words, epsilon, q_values)
        state, losses = self._learn(state, sample_words, as_key(update_words, like=key))
        return state, metrics._replace(loss_sum=losses.sum, first_bad_update=losses.first_bad)

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

    def _optimizer(self) -> optax.GradientTransformation:
        return self.transformation or self.optimizer.transformation()

    def _epsilon(self, state: TrainState) -> Array:
        """[] or [E], of the next vector step."""
        epsilon, exponent = epsilon_at(state.epsilon.training), self.exploration.epsilon_ladder
        return ladder(epsilon, self.num_envs, exponent) if exponent else epsilon

    def _ring(self) -> ReplayRing:
        spec, replay = self.environment.spec, self.replay
        return ReplayRing(replay.num_rows, replay.num_envs, spec.time_limit, spec.packing)

    def _prefill(self, state: TrainState) -> TrainState:
        random = self.replay.start_timesteps_random
        epsilon = jnp.float32(1.0) if random else self._epsilon(state)
        num_actions = self.environment.spec.num_actions

        def no_values(obs: Array, key: Array) -> Array:  # nobody looks at them
            return jnp.zeros((len(obs), num_actions))

        def step(state, _):
            key, words = draw(state.key, act_shape(self.num_envs, state.key))
            q_values = no_values if random else batched_q(self.algorithm, state.params)
            return self._collect(state.replace(key=key), words, epsilon, q_values)[0], None

        num_steps = self.replay.start_timesteps // self.num_envs
        return lax.scan(step, state, length=num_steps)[0] if num_steps else state

    def _collect(
        self, state: TrainState, words: Array, epsilon: Array, q_values: Callable
    ) -> tuple[TrainState, ChunkMetrics]:
        """Acts once in every environment and stores what happened."""
        rollout, experience, return_sum, num_episodes = act(
            self.environment.with_params(state.hyperparams.env_params),
            q_values,
            state.rollout,
            epsilon=epsilon,
            words=words,
            like=state.key,
        )
        buffer = self._ring().add(state.buffer, experience)
        metrics = ChunkMetrics(
            loss_sum=jnp.float32(0.0),
            return_sum=return_sum,
            num_episodes=num_episodes,
            num_masked=buffer.num_masked,
            num_lossy=buffer.num_lossy,
            num_sound_steps=(rollout.num_nonfinite == 0).astype(jnp.int32),
            first_bad_update=jnp.int32(NEVER),
            is_params_finite=jnp.bool_(True),
        )
        params = observe(self.algorithm, state.params, experience.obs)
        return state.replace(params=params, buffer=buffer, rollout=rollout), metrics

    def _learn(self, state: TrainState, words: Array, keys: Array) -> tuple[TrainState, Losses]:
        """Takes ``floor(rate)`` gradient steps, and one more when the credit is full.

        Args:
            state: whose replay is drawn from.
            words: [2, count, B] uint32, for the draws; count is the rate rounded up.
            keys: [count, 2], two keys for each gradient step.
        """
        rate = self.replay.rate
        whole = math.floor(rate)
        # The ring stays outside branches and loops: one that passed it on would copy it.
        buffer, rollout = state.buffer, state.rollout
        learned, none = state.replace(buffer=None, rollout=None), _no_losses()
        losses = none
        if whole:
            learned, losses = self._updates(
                learned, buffer, rollout, words=words[:, :whole], keys=keys[:whole]
            )
        if rate.denominator > 1:
            credit, due = take_credit(state.update_credit, rate)
            learned, extra = lax.cond(
                due,
                lambda s: self._updates(
                    s, buffer, rollout, words=words[:, whole:], keys=keys[whole:]
                ),
                lambda s: (s, none),
                learned.replace(update_credit=credit),
            )
            losses = losses.plus(extra)
        return learned.replace(buffer=buffer, rollout=rollout), losses

    def _updates(
        self, learned: TrainState, buffer: Buffer, rollout: Rollout, *, words: Array, keys: Array
    ) -> tuple[TrainState, Losses]:
        """Gradient steps, their minibatches drawn and gathered at once."""
        ring, n, gamma = self._ring(), self.replay.n_step, learned.hyperparams.gamma

        transitions, weights = ring.sample_behind_branch(words, buffer, rollout, n=n, gamma=gamma)
        minibatches = (transitions, weights, keys)
        if len(keys) == 1:
            return self._update(learned, *jax.tree.map(lambda x: x[0], minibatches))
        learned, losses = lax.scan(lambda s, m: self._update(s, *m), learned, minibatches)
        return learned, Losses(jnp.sum(losses.sum), jnp.min(losses.first_bad))

    def _update(
        self, state: TrainState, transition: Transition, weight: Array, keys: Array
    ) -> tuple[TrainState, Losses]:
        key_target, key_loss = keys
        algorithm, hyperparams = self.algorithm, state.hyperparams
        target = jax.vmap(algorithm.target, (None, None, 0, None), axis_name=SAMPLE_AXIS)(
            state.params, state.target_params, transition, key_target
        )

        learned, rest = split(state.params)

        def loss_fn(learned):
            losses, _ = jax.vmap(algorithm.loss, (None, 0, 0, 0, None), axis_name=SAMPLE_AXIS)(
                joined(learned, rest), transition.obs, transition.action, target, key_loss
            )
            return jnp.mean(weight * losses)

        loss, gradient = jax.value_and_grad(loss_fn)(learned)
        with default_promotion():
            direction, opt_state = self._optimizer().update(gradient, state.opt_state, learned)
        step_size = self.optimizer.step_size(hyperparams, state.num_updates)
        learned = jax.tree.map(lambda p, d: p - step_size * d, learned, direction)
        params = joined(learned, rest)
        num_updates = state.num_updates + 1
        target_params = self._next_target(state.target_params, params, hyperparams, num_updates)
        state = state.replace(
            params=params, target_params=target_params, opt_state=opt_state, num_updates=num_updates
        )
        return state, Losses(loss, index_if_nonfinite(loss, num_updates))

    def _next_target(self, target_params, params, hyperparams, num_updates) -> PyTree:
        learned, rest = split(params)  # what is not learned is the same in both networks

        def move(target):
            return optax.incremental_update(learned, target, hyperparams.tau)

        period, target = self.target.target_update_period, split(target_params)[0]
        if period == 1:
            return joined(move(target), rest)
        is_due = num_updates % period == 0

        def branch(target):
            return lax.cond(is_due, move, lambda t: t, target)

        def select(target):
            new = move(target)
            return jax.tree.map(lambda new, old: jnp.where(is_due, new, old), new, target)

        # A branch saves the work on CPU; elsewhere it would wait for the host.
        target = lax.platform_dependent(target, cpu=branch, default=select)
        return joined(target, rest)


def _no_losses() -> Losses:
    return Losses(jnp.float32(0.0), jnp.int32(NEVER))

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

from jaxrl_cb.algorithms.base import batched_q, joined, observe, split
from jaxrl_cb.buffers import PrioritizedRing, ReplayRing, Surprises
from jaxrl_cb.checks import check_kind
from jaxrl_cb.learners.acting import act, act_shape
from jaxrl_cb.learners.base import Learner, Size
from jaxrl_cb.learners.replay_config import ReplayConfig, TargetConfig
from jaxrl_cb.ops.counters import NEVER, divisors, take_credit, updates_after
from jaxrl_cb.ops.finite import index_if_nonfinite
from jaxrl_cb.ops.mapped import SAMPLE_AXIS, TARGET_AXIS
from jaxrl_cb.ops.randomness import as_key, draw, words_per_key
from jaxrl_cb.ops.segments import advance, segment, value_at
from jaxrl_cb.types import (
    Array,
    Buffer,
    ChunkMetrics,
    Epsilon,
    Hyperparams,
    PyTree,
    Rollout,
    TrainState,
    Transition,
)


class Learned(NamedTuple):
    """What came of some gradient steps."""

    loss_sum: Array  # [] float32
    first_bad: Array  # [] int32, see `ChunkMetrics.first_bad_update`
    surprises: Surprises | None  # [count, B], where the replay asks for them


@dataclasses.dataclass(frozen=True, eq=False)
class ReplayLearner(Learner):
    """Learns off-policy from a replay ring.

    Attributes:
        replay: sizes.
        target: discount and target network.
    """

    METHODS = ("init", "q_values", "target", "loss")
    EXAMPLE = "DQN(MLP(num_actions))"
    LAST_RESORT = "lower start_timesteps and batch_size with them, or use a smaller network"

    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    target: TargetConfig = dataclasses.field(default_factory=TargetConfig)

    def __post_init__(self):
        super().__post_init__()
        check_kind("replay", self.replay, ReplayConfig)
        check_kind("target", self.target, TargetConfig)

    def program_key(self) -> tuple[Any, ...]:
        target = dataclasses.replace(self.target, gamma=0.0, tau=1.0)
        replay = dataclasses.replace(self.replay, priority_beta=0.0, priority_beta_final=0.0)
        return (*self._common_key(), replay, target)

    @property
    def num_envs(self) -> int:
        return self.replay.num_envs

    @property
    def prefill_steps(self) -> int:
        return self.replay.start_timesteps

    def num_updates(self, num_iterations: int) -> int:
        return updates_after(num_iterations, self.replay.rate)

    def sizes(self) -> dict[str, Size]:
        replay = self.replay
        least = max(replay.batch_size, replay.start_timesteps, replay.n_step * replay.num_envs)
        first = -(-least // replay.num_envs) * replay.num_envs
        num_envs = divisors(math.gcd(replay.buffer_size, replay.start_timesteps))
        return {
            "buffer_size": Size(
                replay.buffer_size, range(first, replay.buffer_size, replay.num_envs)
            ),
            "num_envs": Size(replay.num_envs, [n for n in num_envs if n < replay.num_envs]),
        }

    def resized(self, name: str, value: int) -> "ReplayLearner":
        replay = dataclasses.replace(self.replay, **{name: value})
        return dataclasses.replace(self, replay=replay)

    def _numbers(self, total_env_steps: int) -> dict[str, Any]:
        replay, numbers = self.replay, dataclasses.asdict(self.target)
        beta = segment(replay.priority_beta, replay.priority_beta_final, total_env_steps)
        return {
            **{name: np.float32(numbers[name]) for name in ("gamma", "tau")},
            "priority_beta": beta if replay.priority_alpha else None,
        }

    def init(self, seed: Array, hyperparams: Hyperparams, epsilon: Epsilon) -> TrainState:
        state = self._first_state(seed, hyperparams, epsilon)
        num_actions = self.environment.spec.num_actions
        state = state.replace(
            target_params=state.params,
            buffer=self._ring().init(state.rollout.obs[0], num_actions),
        )
        return self._prefill(state)

    def state_axes(self) -> TrainState:
        each: Any = 0
        seeds = TrainState(*[each] * len(dataclasses.fields(TrainState)))
        buffer = Buffer(*[each] * len(dataclasses.fields(Buffer))).replace(cursor=None)
        return seeds.replace(buffer=buffer, num_updates=None, update_credit=None)

    def step(self, state: TrainState) -> tuple[TrainState, ChunkMetrics]:
        """One vector step: acts in every environment, stores, and takes the gradient steps due."""
        epsilon = self._epsilon(state)
        most = math.ceil(self.replay.rate)  # gradient steps
        key, act_words, sample_words, update_words = draw(
            state.key,
            act_shape(self.num_envs, state.key),
            (self._ring().num_words, most, self.replay.batch_size),
            (most, 2, words_per_key(state.key)),
        )
        state = state.replace(
            key=key,
            epsilon=state.epsilon.replace(training=advance(state.epsilon.training, self.num_envs)),
        )
        q_values = batched_q(self.algorithm, state.params)
        state, metrics = self._collect(state, act_words, epsilon, q_values)
        beta = state.hyperparams.priority_beta
        if beta is not None:
            beta = advance(beta, self.num_envs)
            state = state.replace(hyperparams=state.hyperparams.replace(priority_beta=beta))
        keys = as_key(update_words, like=key)
        state, loss_sum, first_bad = self._learn(state, sample_words, keys)
        return state, metrics._replace(loss_sum=loss_sum, first_bad_update=first_bad)

    def _ring(self) -> ReplayRing:
        spec, replay = self.environment.spec, self.replay
        sizes = (replay.num_rows, replay.num_envs, spec.time_limit, spec.packing)
        if replay.priority_alpha:
            return PrioritizedRing(*sizes, replay.n_step, replay.priority_alpha)
        return ReplayRing(*sizes)

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
        acted = act(
            self.environment.with_params(state.hyperparams.env_params),
            q_values,
            state.rollout,
            epsilon=epsilon,
            words=words,
            like=state.key,
        )
        rollout, experience = acted.rollout, acted.experience
        buffer = self._ring().add(state.buffer, experience)
        metrics = ChunkMetrics(
            loss_sum=jnp.float32(0.0),
            return_sum=acted.return_sum,
            num_episodes=acted.num_episodes,
            num_masked=buffer.num_masked,
            num_lossy=buffer.num_lossy,
            num_sound_steps=(rollout.num_nonfinite == 0).astype(jnp.int32),
            first_bad_update=jnp.int32(NEVER),
            is_params_finite=jnp.bool_(True),
        )
        params = observe(self.algorithm, state.params, experience.obs)
        return state.replace(params=params, buffer=buffer, rollout=rollout), metrics

    def _learn(
        self, state: TrainState, words: Array, keys: Array
    ) -> tuple[TrainState, Array, Array]:
        """Takes ``floor(rate)`` gradient steps, and one more when the credit is full.

        Args:
            state: whose replay is drawn from.
            words: [words of a draw, count, B] uint32; count is the rate rounded up.
            keys: [count, 2], two keys for each gradient step.

        Returns:
            The state, the sum of the losses, and when one was not finite (see `ChunkMetrics`).
        """
        rate, ring = self.replay.rate, self._ring()
        whole = math.floor(rate)
        # The ring stays outside branches and loops: one that passed it on would copy it.
        buffer, rollout = state.buffer, state.rollout
        none = Learned(
            jnp.float32(0.0), jnp.int32(NEVER), ring.unsurprised((1, self.replay.batch_size))
        )
        learned, found = state.replace(buffer=None, rollout=None), []
        if whole:
            learned, own = self._updates(
                learned, buffer, rollout, words=words[:, :whole], keys=keys[:whole]
            )
            found.append(own)
        if rate.denominator > 1:
            credit, due = take_credit(state.update_credit, rate)
            learned, own = lax.cond(
                due,
                lambda s: self._updates(
                    s, buffer, rollout, words=words[:, whole:], keys=keys[whole:]
                ),
                lambda s: (s, none),
                learned.replace(update_credit=credit),
            )
            found.append(own)
        loss_sum, first_bad = none.loss_sum, none.first_bad
        for own in found:
            loss_sum, first_bad = loss_sum + own.loss_sum, jnp.minimum(first_bad, own.first_bad)
        if found:  # at once: the first to be written would be copied for the draws of the others
            each = [own.surprises for own in found]
            buffer = ring.learned(buffer, jax.tree.map(lambda *x: jnp.concatenate(x), *each))
        return learned.replace(buffer=buffer, rollout=rollout), loss_sum, first_bad

    def _updates(
        self, learned: TrainState, buffer: Buffer, rollout: Rollout, *, words: Array, keys: Array
    ) -> tuple[TrainState, Learned]:
        """Gradient steps, their minibatches drawn and gathered at once."""
        ring, hyperparams = self._ring(), learned.hyperparams
        draw = ring.sample_behind_branch(
            words, buffer, rollout, n=self.replay.n_step, gamma=hyperparams.gamma
        )
        beta = hyperparams.priority_beta
        draw = draw if beta is None else ring.weighted(draw, value_at(beta))
        minibatches = (draw.transition, draw.weight, keys)
        if len(keys) == 1:
            learned, own = self._update(learned, *jax.tree.map(lambda x: x[0], minibatches))
            losses, bad, errors = jax.tree.map(lambda x: x[None], own)
        else:
            learned, (losses, bad, errors) = lax.scan(
                lambda s, m: self._update(s, *m), learned, minibatches
            )
        surprises = ring.surprises(draw, errors)
        return learned, Learned(jnp.sum(losses), jnp.min(bad), surprises)

    def _update(
        self, state: TrainState, transition: Transition, weight: Array, keys: Array
    ) -> tuple[TrainState, tuple[Array, Array, Array]]:
        """A gradient step; gives also its loss, when that was not finite, and the errors [B]."""
        key_target, key_loss = keys
        algorithm = self.algorithm
        target = jax.vmap(algorithm.target, (None, None, 0, None), axis_name=TARGET_AXIS)(
            state.params, state.target_params, transition, key_target
        )

        def loss_fn(params: PyTree) -> tuple[Array, Array]:
            losses, errors = jax.vmap(algorithm.loss, (None, 0, 0, 0, None), axis_name=SAMPLE_AXIS)(
                params, transition.obs, transition.action, target, key_loss
            )
            return jnp.mean(weight * losses), errors

        state, loss, errors = self._descended(state, loss_fn)
        state = state.replace(target_params=self._next_target(state))
        return state, (loss, index_if_nonfinite(loss, state.num_updates), errors)

    def _next_target(self, state: TrainState) -> PyTree:
        learned, rest = split(state.params)  # what is not learned is the same in both networks

        def move(target):
            return optax.incremental_update(learned, target, state.hyperparams.tau)

        period, target = self.target.target_update_period, split(state.target_params)[0]
        if period == 1:
            return joined(move(target), rest)
        is_due = state.num_updates % period == 0

        def branch(target):
            return lax.cond(is_due, move, lambda t: t, target)

        def select(target):
            new = move(target)
            return jax.tree.map(lambda new, old: jnp.where(is_due, new, old), new, target)

        # A branch saves the work on CPU; elsewhere it would wait for the host.
        target = lax.platform_dependent(target, cpu=branch, default=select)
        return joined(target, rest)

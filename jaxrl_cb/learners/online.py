"""The online learner: gather a rollout, learn from it, forget it."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrl_cb.algorithms.base import batched_q, observe
from jaxrl_cb.checks import check_float, check_int, check_kind
from jaxrl_cb.errors import ConfigError, ConfigTypeError, kind, shown
from jaxrl_cb.learners.acting import act, act_shape
from jaxrl_cb.learners.base import Learner, Size
from jaxrl_cb.learners.online_config import OnlineConfig
from jaxrl_cb.ops.counters import NEVER, divisors
from jaxrl_cb.ops.finite import index_if_nonfinite
from jaxrl_cb.ops.mapped import SAMPLE_AXIS
from jaxrl_cb.ops.randomness import as_key, draw, words_per_key
from jaxrl_cb.ops.returns import lambda_returns
from jaxrl_cb.ops.segments import advance
from jaxrl_cb.types import (
    Array,
    ChunkMetrics,
    Epsilon,
    Experience,
    Hyperparams,
    OnlineBuffer,
    PyTree,
    TrainState,
)


class Rows(NamedTuple):
    """What is kept of a vector step; of a rollout with a leading [T]."""

    obs: Array  # [E, *obs]
    action: Array  # [E] int
    reward: Array  # [E] float32
    value: Array  # [E] greatest action value of `obs`, as it was acted upon
    terminated: Array  # [E] bool
    truncated: Array  # [E] bool
    masked: Array  # [E] bool, truncated, and the final observation found no slot


class FinalObs(NamedTuple):
    """Final observations of truncated episodes; F slots, as many as time limits in a rollout.

    A time limit of L steps truncates an environment at most once in any L vector steps, so that
    these share one slot for each environment.
    """

    obs: Array  # [F, E, *obs]
    used: Array  # [F, E] bool


class Samples(NamedTuple):
    """What is learned from, T * E rows."""

    obs: Array
    action: Array
    target: Array
    weight: Array


@dataclasses.dataclass(frozen=True, eq=False)
class OnlineLearner(Learner):
    """Learns from rollouts of many environments, each used a few times and forgotten.

    There is neither replay nor target network; targets are Q(lambda) returns of the values that
    were acted upon (Gallici et al. 2024, PQN). Where an episode was truncated its true
    final observation is bootstrapped from.

    Attributes:
        num_envs: E, training environments stepped together.
        online: sizes of rollouts and minibatches.
        gamma: discount per environment step, in [0, 1].
    """

    METHODS = ("init", "q_values", "loss")
    EXAMPLE = "PQN(MLP(num_actions))"
    LAST_RESORT = "lower rollout_length, or use a smaller network"

    num_envs: int = 128  # pyright: ignore[reportIncompatibleMethodOverride]
    online: OnlineConfig = dataclasses.field(default_factory=OnlineConfig)
    gamma: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        check_kind("online", self.online, OnlineConfig)
        check_int("num_envs", self.num_envs, 1)
        check_float("gamma", self.gamma, 0, 1)
        if hasattr(self.algorithm, "target"):
            raise ConfigTypeError(
                f"algorithm={shown(self.algorithm)} is {kind(self.algorithm)}, whose target wants "
                "a replay and a target network; take a ReplayLearner, or for example PQN(...)"
            )
        count, samples = self.online.num_minibatches, self.iteration_steps
        if samples % count:
            near = min(divisors(samples), key=lambda number: abs(number - count))
            raise ConfigError(
                f"num_minibatches={count} does not divide the {samples} samples of a rollout "
                f"(num_envs {self.num_envs} x rollout_length {self.rollout_length}); use {near}"
            )

    def program_key(self) -> tuple[Any, ...]:
        return (
            *(*self._common_key(), self.num_envs),
            dataclasses.replace(self.online, td_lambda=0.0),
        )

    @property
    def rollout_length(self) -> int:
        return self.online.rollout_length

    def num_updates(self, num_iterations: int) -> int:
        return num_iterations * self.online.update_epochs * self.online.num_minibatches

    def sizes(self) -> dict[str, Size]:
        lower = [number for number in divisors(self.num_envs) if number < self.num_envs]
        return {"num_envs": Size(self.num_envs, lower)}

    def resized(self, name: str, value: int) -> "OnlineLearner":
        changed: Any = {name: value}
        return dataclasses.replace(self, **changed)

    def _numbers(self, total_env_steps: int) -> dict[str, Any]:
        return {"gamma": np.float32(self.gamma), "td_lambda": np.float32(self.online.td_lambda)}

    def init(self, seed: Array, hyperparams: Hyperparams, epsilon: Epsilon) -> TrainState:
        state = self._first_state(seed, hyperparams, epsilon)
        return state.replace(buffer=OnlineBuffer(num_masked=jnp.int32(0)))

    def state_axes(self) -> TrainState:
        each: Any = 0
        seeds = TrainState(*[each] * len(dataclasses.fields(TrainState)))
        return seeds.replace(num_updates=None, update_credit=None)

    def step(self, state: TrainState) -> tuple[TrainState, ChunkMetrics]:
        """One rollout, and the gradient steps that learn from it."""
        state, metrics, rows, final = self._gathered(state)
        state, samples = self._samples(state, rows, final)
        state, losses = self._learn(state, samples)
        first_bad = jnp.min(jax.vmap(index_if_nonfinite)(*losses))
        return state, metrics._replace(loss_sum=jnp.sum(losses[0]), first_bad_update=first_bad)

    @property
    def _block(self) -> int:
        """Vector steps that share a slot of final observations."""
        return min(self.environment.spec.time_limit or 1, self.rollout_length)

    def _gathered(self, state: TrainState) -> tuple[TrainState, ChunkMetrics, Rows, FinalObs]:
        """Acts for a rollout."""
        environment = self.environment.with_params(state.hyperparams.env_params)
        q_values = batched_q(self.algorithm, state.params)
        num_slots = math.ceil(self.rollout_length / self._block)
        obs = state.rollout.obs
        final = FinalObs(
            jnp.zeros((num_slots, *obs.shape), obs.dtype), jnp.zeros((num_slots, len(obs)), bool)
        )

        def step(carry: Any, number: Array) -> tuple[Any, tuple[Rows, Any]]:
            state, final = carry
            key, words = draw(state.key, act_shape(self.num_envs, state.key))
            acted = act(
                *(environment, q_values, state.rollout),
                epsilon=self._epsilon(state),
                words=words,
                like=state.key,
            )
            final, masked = self._kept(final, acted.experience, lax.div(number, self._block))
            rows = _rows(acted.experience, jnp.max(acted.q_values, axis=-1), masked)
            training = advance(state.epsilon.training, self.num_envs)
            state = state.replace(
                key=key,
                params=observe(self.algorithm, state.params, rows.obs),
                rollout=acted.rollout,
                epsilon=state.epsilon.replace(training=training),
            )
            sound = (acted.rollout.num_nonfinite == 0).astype(jnp.int32)
            return (state, final), (rows, (acted.return_sum, acted.num_episodes, sound))

        numbers = jnp.arange(self.rollout_length, dtype=jnp.int32)
        (state, final), (rows, sums) = lax.scan(step, (state, final), numbers)
        return_sum, num_episodes, num_sound = (jnp.sum(x, axis=0) for x in sums)
        num_masked = state.buffer.num_masked + jnp.sum(rows.masked, dtype=jnp.int32)
        state = state.replace(buffer=OnlineBuffer(num_masked))
        metrics = ChunkMetrics(
            loss_sum=jnp.float32(0.0),
            return_sum=return_sum,
            num_episodes=num_episodes,
            num_masked=num_masked,
            num_lossy=jnp.int32(0),
            num_sound_steps=num_sound,
            first_bad_update=jnp.int32(NEVER),
            is_params_finite=jnp.bool_(True),
        )
        return state, metrics, rows, final

    def _kept(self, final: FinalObs, experience: Experience, slot: Array) -> tuple[FinalObs, Array]:
        """Keeps final observations where an episode was truncated, and says where it could not."""
        truncated = experience.truncated & ~experience.terminated
        used, old = final.used[slot], final.obs[slot]
        stored = truncated & ~used
        where = stored.reshape(stored.shape + (1,) * (old.ndim - 1))
        obs = jnp.where(where, experience.final_obs, old)
        final = FinalObs(
            lax.dynamic_update_index_in_dim(final.obs, obs, slot, axis=0),
            lax.dynamic_update_index_in_dim(final.used, used | stored, slot, axis=0),
        )
        return final, truncated & used

    def _samples(
        self, state: TrainState, rows: Rows, final: FinalObs
    ) -> tuple[TrainState, Samples]:
        """The rows of a rollout, each with its target."""
        num_slots, num_envs = final.used.shape
        key, words = draw(state.key, (words_per_key(state.key),))
        unseen = jnp.concatenate([final.obs.reshape(-1, *final.obs.shape[2:]), state.rollout.obs])
        q_values = batched_q(self.algorithm, state.params)(unseen, as_key(words, like=key))
        values = jnp.max(q_values, axis=-1).reshape(num_slots + 1, num_envs)
        following = jnp.concatenate([rows.value[1:], values[-1:]])
        slots = np.arange(self.rollout_length) // self._block
        next_values = jnp.where(rows.truncated, values[slots], following)
        # Of a masked row nobody knows what came after: it has no weight, and those before it are
        # cut there.
        before_masked = jnp.concatenate([rows.masked[1:], jnp.ones_like(rows.masked[:1])])
        targets = lambda_returns(
            *(rows.reward, next_values),
            terminated=rows.terminated,
            cut=rows.truncated | before_masked,
            gamma=state.hyperparams.gamma,
            td_lambda=state.hyperparams.td_lambda,
        )
        samples = Samples(rows.obs, rows.action, targets, 1.0 - rows.masked.astype(jnp.float32))
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)
        return state.replace(key=key), flat

    def _learn(self, state: TrainState, samples: Samples) -> tuple[TrainState, Any]:
        """All gradient steps of a rollout; gives [updates] losses and their numbers."""
        epochs, parts, num_samples = (
            self.online.update_epochs,
            self.online.num_minibatches,
            len(samples.action),
        )
        updates = epochs * parts
        key, order_words, update_words = draw(
            state.key, (epochs, num_samples), (updates, words_per_key(state.key))
        )
        order = jnp.argsort(order_words, axis=-1).reshape(updates, num_samples // parts)

        def update(state: TrainState, minibatch: Any) -> tuple[TrainState, Any]:
            chosen, key = minibatch
            own = jax.tree.map(lambda x: x[chosen], samples)

            def loss_fn(params: PyTree) -> tuple[Array, None]:
                losses, _ = jax.vmap(
                    self.algorithm.loss, (None, 0, 0, 0, None), axis_name=SAMPLE_AXIS
                )(params, own.obs, own.action, own.target, key)
                return jnp.mean(own.weight * losses), None

            state, loss, _ = self._descended(state, loss_fn)
            return state, (loss, state.num_updates)

        keys = as_key(update_words, like=key)
        return lax.scan(update, state.replace(key=key), (order, keys))


def _rows(experience: Experience, value: Array, masked: Array) -> Rows:
    return Rows(
        obs=experience.obs,
        action=experience.action,
        reward=experience.reward,
        value=value,
        terminated=experience.terminated,
        truncated=experience.truncated & ~experience.terminated,
        masked=masked,
    )

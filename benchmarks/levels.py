"""A training step taken apart: what it does up to some part, as compiled programs.

Each level does what the one before it does, and more. What it reads is summed into a result, so
that a compiler cannot leave it out: of a loop whose observations nobody reads, XLA keeps the
rewards alone, which for some environments are constant.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_cb.algorithms.base import batched_q
from jaxrl_cb.buffers import ReplayRing
from jaxrl_cb.learners import ReplayLearner
from jaxrl_cb.learners.acting import act, act_shape
from jaxrl_cb.ops.randomness import as_key, below, draw, words_per_key
from jaxrl_cb.ops.segments import value_at
from jaxrl_cb.trainer.programs import over_seeds
from jaxrl_cb.types import Array, TrainState


def used(*trees: Any) -> Array:
    """The sum of all numbers, [] float32."""
    return sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(trees))


def environment(learner: ReplayLearner, state: TrainState) -> tuple[TrainState, Array]:
    """Random actions in every environment."""
    env, rollout, num_envs = learner.environment, state.rollout, learner.num_envs
    shape = (2, num_envs, words_per_key(state.key))
    key, words, env_words = draw(state.key, (num_envs,), shape)
    action = below(words, jnp.int32(env.spec.num_actions))
    key_step, key_reset = as_key(env_words, like=key)
    step = env.step_all(key_step, key_reset, rollout.env_state, action)
    rollout = rollout.replace(env_state=step.state, obs=step.obs)
    read = used(step.obs, step.final_obs, step.reward, step.terminated, step.truncated)
    return state.replace(key=key, rollout=rollout), read


def network(learner: ReplayLearner, state: TrainState) -> tuple[TrainState, Array]:
    """Epsilon-greedy actions of the network."""
    key, words = draw(state.key, act_shape(learner.num_envs, state.key))
    state, experience = _acted(learner, state.replace(key=key), words)
    return state, used(experience)


def replay(learner: ReplayLearner, state: TrainState) -> tuple[TrainState, Array]:
    """The same, stored, and a minibatch drawn and gathered."""
    sizes, spec = learner.replay, learner.environment.spec
    shapes = act_shape(learner.num_envs, state.key), (2, 1, sizes.batch_size)
    key, words, sample_words = draw(state.key, *shapes)
    state, experience = _acted(learner, state.replace(key=key), words)
    ring = ReplayRing(sizes.num_rows, sizes.num_envs, spec.time_limit, spec.packing)
    buffer = ring.add(state.buffer, experience)
    gamma = state.hyperparams.gamma
    drawn = ring.sample_behind_branch(
        sample_words, buffer, state.rollout, n=sizes.n_step, gamma=gamma
    )
    return state.replace(buffer=buffer), used(drawn)


LEVELS: dict[str, Callable[..., Any]] = {
    "environment": environment,
    "network": network,
    "replay": replay,
}


def program(learner: ReplayLearner, level: str, length: int, width: int) -> Callable[..., Any]:
    """``run(state) -> (state, sums)``: so many steps of `width` seeds; to be jitted."""
    axes = learner.state_axes()

    def chunk(state):
        state, read = lax.scan(lambda s, _: LEVELS[level](learner, s), state, length=length)
        return state, jnp.sum(read)

    return over_seeds(chunk, width, (axes,), (axes, 0))


def _acted(learner: ReplayLearner, state: TrainState, words: Array) -> tuple[TrainState, Any]:
    q_values = batched_q(learner.algorithm, state.params)
    rollout, experience, _, _ = act(
        learner.environment,
        q_values,
        state.rollout,
        epsilon=value_at(state.epsilon.training),
        words=words,
        like=state.key,
    )
    return state.replace(rollout=rollout), experience

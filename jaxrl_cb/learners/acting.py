"""One vector step of the training environments."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxrl_cb.envs.environment import Environment
from jaxrl_cb.ops.epsilon import epsilon_greedy
from jaxrl_cb.ops.finite import num_nonfinite
from jaxrl_cb.ops.randomness import as_key, words_per_key
from jaxrl_cb.types import Array, Experience, Rollout


class Acted(NamedTuple):
    """What came of one vector step."""

    rollout: Rollout
    experience: Experience
    q_values: Array  # [E, A] that were acted upon
    return_sum: Array  # [] float32, of the episodes that ended
    num_episodes: Array  # [] int32, that ended


def act_shape(num_envs: int, key: Array) -> tuple[int]:
    """Shape of the words that `act` takes: a coin and an action, two keys each, one key for all."""
    k = words_per_key(key)
    return (num_envs * (2 + 2 * k) + k,)


def act(
    environment: Environment,
    q_values: Callable[[Array, Array], Array],
    rollout: Rollout,
    *,
    epsilon: Array,
    words: Array,
    like: Array,
) -> Acted:
    """Acts once in every environment, epsilon-greedily.

    Args:
        environment: of which there are E.
        q_values: ``q_values(obs [E, *obs], key) -> [E, A]``.
        rollout: where the environments stand.
        epsilon: [] or [E], probability of a random action.
        words: `act_shape` uint32, random.
        like: a key of the implementation that keys are to have.
    """
    num_envs, k = rollout.obs.shape[0], words_per_key(like)
    explore, env, network = jnp.split(words, [2 * num_envs, 2 * num_envs * (1 + k)])
    key_step, key_reset = as_key(env.reshape(2, num_envs, k), like=like)
    q = q_values(rollout.obs, as_key(network, like=like))
    action = epsilon_greedy(explore.reshape(2, num_envs), q, epsilon)
    result = environment.step_all(key_step, key_reset, rollout.env_state, action)
    experience = Experience(
        obs=rollout.obs,
        action=action,
        reward=result.reward,
        terminated=result.terminated,
        truncated=result.truncated,
        final_obs=result.final_obs,
    )
    done = result.terminated | result.truncated
    returns = rollout.episode_return + result.score
    num_bad = num_nonfinite(result.reward, result.final_obs, result.obs)
    rollout = Rollout(
        env_state=result.state,
        obs=result.obs,
        episode_return=jnp.where(done, 0.0, returns),
        episode_length=jnp.where(done, 0, rollout.episode_length + 1),
        num_nonfinite=rollout.num_nonfinite + num_bad,
    )
    return_sum = jnp.sum(jnp.where(done, returns, 0.0))
    return Acted(rollout, experience, q, return_sum, jnp.sum(done, dtype=jnp.int32))

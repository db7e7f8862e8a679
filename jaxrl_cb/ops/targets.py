"""Values that a Q-network is drawn towards. Unbatched; A actions."""

import chex
import jax.numpy as jnp

from jaxrl_cb.types import Array


def chosen(q_values: Array, action: Array) -> Array:
    """``q_values[action]``, whose gradient is no scatter, which is a loop of its own on CPU.

    Args:
        q_values: [A].
        action: [] int32 in [0, A).
    """
    is_chosen = jnp.arange(len(q_values), dtype=action.dtype) == action
    return jnp.sum(jnp.where(is_chosen, q_values, 0.0))


def max_target(reward: Array, discount: Array, q_next: Array) -> Array:
    """``reward + discount * max_a q_next[a]`` (Watkins & Dayan 1992; Mnih et al. 2015).

    Args:
        reward: [].
        discount: [], 0 after termination.
        q_next: [A] values of the next observation by the target network.
    """
    chex.assert_rank([reward, discount, q_next], [0, 0, 1])
    return reward + discount * jnp.max(q_next)


def double_target(reward: Array, discount: Array, q_next: Array, q_select: Array) -> Array:
    """``reward + discount * q_next[argmax_a q_select[a]]`` (van Hasselt et al. 2016, eq. 4).

    Args:
        reward: [].
        discount: [], 0 after termination.
        q_next: [A] values of the next observation by the target network.
        q_select: [A] values of the next observation by the online network.
    """
    chex.assert_rank([reward, discount, q_next, q_select], [0, 0, 1, 1])
    return reward + discount * q_next[jnp.argmax(q_select)]

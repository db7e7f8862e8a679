"""Epsilon-greedy action selection."""

import jax.numpy as jnp
import numpy as np

from jaxrl_cb.ops.randomness import below, uniform
from jaxrl_cb.types import Array


def ladder(epsilon: Array, num_envs: int, exponent: float) -> Array:
    """[E] an epsilon for each environment, ``epsilon ** (1 + exponent * i / (E - 1))``.

    (Horgan et al. 2018, Ape-X, who take epsilon 0.4 and exponent 7.)

    Args:
        epsilon: [], of environment 0.
        num_envs: E.
        exponent: at least 0; 0 gives all the same.
    """
    steps = np.arange(num_envs, dtype=np.float32) / max(num_envs - 1, 1)
    return epsilon ** jnp.asarray(1 + exponent * steps, jnp.float32)


def epsilon_greedy(words: Array, q_values: Array, epsilon: Array) -> Array:
    """Draws an action for each environment, with its own coin each.

    Args:
        words: [2, E] uint32, random.
        q_values: [E, A] action values; of equal ones the first is taken.
        epsilon: [] or [E], probability of a uniformly random action, in [0, 1].

    Returns:
        [E] int32 actions.
    """
    num_actions = q_values.shape[-1]
    greedy = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
    return jnp.where(uniform(words[0]) < epsilon, below(words[1], jnp.int32(num_actions)), greedy)

"""Epsilon-greedy action selection and the straight-line segments of epsilon."""

import jax.numpy as jnp
import numpy as np

from jaxrl_cb.ops.randomness import below, uniform
from jaxrl_cb.types import Array, EpsilonSegment


def linear_decay(start, final, decay_steps, env_step):
    """The linear decay, in float64 on the host.

    Args:
        start: epsilon at step 0; a number or an array of one per seed.
        final: epsilon at or after `decay_steps`, exactly.
        decay_steps: length of the decay in environment steps; 0 means final at once.
        env_step: environment steps done so far.

    Returns:
        A float64 scalar or array, the value at `env_step`.
    """
    start, final, decay_steps = (np.asarray(x, np.float64) for x in (start, final, decay_steps))
    fraction = env_step / np.maximum(decay_steps, 1.0)
    return np.where(env_step >= decay_steps, final, start - fraction * (start - final))


def segment(start, final, decay_steps, env_step=0) -> EpsilonSegment:
    """The rest of a linear decay as a segment that begins at `env_step` (NumPy leaves).

    Arguments are those of `linear_decay`; arrays give leaves of that shape.
    """
    value = linear_decay(start, final, decay_steps, env_step)
    steps_left = np.maximum(np.asarray(decay_steps, np.int64) - env_step, 0)
    slope = (np.asarray(final, np.float64) - value) / np.maximum(steps_left, 1)
    shape = np.broadcast_shapes(value.shape, slope.shape)
    return EpsilonSegment(
        start=np.full(shape, value, np.float32),
        slope=np.full(shape, slope, np.float32),
        steps_left=np.full(shape, np.minimum(steps_left, 2**31 - 1), np.int32),
        final=np.full(shape, final, np.float32),
        offset=np.zeros(shape, np.int32),
    )


def epsilon_at(segment: EpsilonSegment) -> Array:
    """The segment's value now, [] float32."""
    line = segment.start + segment.slope * segment.offset.astype(jnp.float32)
    return jnp.where(segment.offset >= segment.steps_left, segment.final, line)


def advance(segment: EpsilonSegment, num_steps: int) -> EpsilonSegment:
    """The segment after `num_steps` more environment steps. Its offset cannot overflow."""
    remaining = segment.steps_left - segment.offset
    return segment.replace(offset=segment.offset + jnp.minimum(remaining, num_steps))


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

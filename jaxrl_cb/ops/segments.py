"""Straight lines over environment steps, which epsilon and other numbers follow."""

import jax.numpy as jnp
import numpy as np

from jaxrl_cb.types import Array, LinearSegment


def linear_decay(start, final, decay_steps, env_step):
    """A linear decay, in float64 on the host.

    Args:
        start: value at step 0; a number or an array of one per seed.
        final: value at or after `decay_steps`, exactly.
        decay_steps: length of the decay in environment steps; 0 means final at once.
        env_step: environment steps done so far.

    Returns:
        A float64 scalar or array, the value at `env_step`.
    """
    start, final, decay_steps = (np.asarray(x, np.float64) for x in (start, final, decay_steps))
    fraction = env_step / np.maximum(decay_steps, 1.0)
    return np.where(env_step >= decay_steps, final, start - fraction * (start - final))


def segment(start, final, decay_steps, env_step=0) -> LinearSegment:
    """The rest of a linear decay as a segment that begins at `env_step` (NumPy leaves).

    Arguments are those of `linear_decay`; arrays give leaves of that shape.
    """
    value = linear_decay(start, final, decay_steps, env_step)
    steps_left = np.maximum(np.asarray(decay_steps, np.int64) - env_step, 0)
    slope = (np.asarray(final, np.float64) - value) / np.maximum(steps_left, 1)
    shape = np.broadcast_shapes(value.shape, slope.shape)
    return LinearSegment(
        start=np.full(shape, value, np.float32),
        slope=np.full(shape, slope, np.float32),
        steps_left=np.full(shape, np.minimum(steps_left, 2**31 - 1), np.int32),
        final=np.full(shape, final, np.float32),
        offset=np.zeros(shape, np.int32),
    )


def value_at(segment: LinearSegment) -> Array:
    """The segment's value now, [] float32."""
    line = segment.start + segment.slope * segment.offset.astype(jnp.float32)
    return jnp.where(segment.offset >= segment.steps_left, segment.final, line)


def advance(segment: LinearSegment, num_steps: int) -> LinearSegment:
    """The segment after `num_steps` more environment steps. Its offset cannot overflow."""
    remaining = segment.steps_left - segment.offset
    return segment.replace(offset=segment.offset + jnp.minimum(remaining, num_steps))

"""Running mean and variance."""

import jax.numpy as jnp
from flax import struct

from jaxrl_cb.types import Array


class Moments(struct.PyTreeNode):
    """Mean and variance of a sample; both may be arrays, elementwise."""

    count: Array  # [] float32
    mean: Array
    variance: Array


def no_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Before anything was seen: mean 0 and variance 1, with the weight of 1e-4 samples."""
    zeros = jnp.zeros(shape, jnp.float32)
    return Moments(count=jnp.float32(1e-4), mean=zeros, variance=jnp.ones_like(zeros))


def merged(one: Moments, other: Moments) -> Moments:
    """The moments of two samples put together (Chan et al. 1979)."""
    count = one.count + other.count
    difference = other.mean - one.mean
    squares = one.count * one.variance + other.count * other.variance
    squares = squares + difference**2 * one.count * other.count / count
    mean = one.mean + difference * other.count / count
    return Moments(count=count, mean=mean, variance=squares / count)

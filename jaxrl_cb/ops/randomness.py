"""One draw of random words per step, and numbers made of them.

On a CPU each call of ``jax.random`` (a split included) is a loop of its own that costs more than
the few words it yields. So a step draws all its words at once, its next key among them, as a split
would; keys, coins and indices are then made of words without another call.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_cb.ops import threefry
from jaxrl_cb.types import Array


def draw(key: Array, *shapes: tuple[int, ...]) -> tuple[Array, ...]:
    """Draws independent uint32 words of several shapes.

    Args:
        key: consumed.
        shapes: of the arrays to draw.

    Returns:
        The next key, then one uint32 array for each shape.
    """
    num_key_words = words_per_key(key)
    sizes = [math.prod(shape) for shape in shapes]
    words = _bits(key, num_key_words + sum(sizes))
    arrays, start = [], num_key_words
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(words[start : start + size].reshape(shape))
        start += size
    return as_key(words[:num_key_words], like=key), *arrays


def _bits(key: Array, count: int) -> Array:
    """[count] uint32, those of ``jax.random.bits``."""
    config: Any = jax.config  # its attributes are not declared
    if jax.random.key_impl(key) == "threefry2x32" and config.jax_threefry_partitionable:
        return threefry.bits(key, count)
    return jax.random.bits(key, (count,), jnp.uint32)


def words_per_key(key: Array) -> int:
    """Words that a key of this implementation consists of."""
    return jax.eval_shape(jax.random.key_data, key).shape[-1]


def as_key(words: Array, *, like: Array) -> Array:
    """Keys [...] made of words [..., words_per_key]."""
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(like))


def uniform(words: Array) -> Array:
    """float32 in [0, 1), multiples of 2^-24."""
    return (words >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def below(words: Array, bound: Array) -> Array:
    """int32 in [0, bound): the high word of words * bound (Lemire 2019, without rejection).

    Args:
        words: uint32.
        bound: int32 of 1 or more, of the same shape or []. No number is more likely than another by
            more than bound / 2^32.
    """
    bound = jnp.broadcast_to(bound, words.shape).astype(jnp.uint32)
    low, high = words & 0xFFFF, words >> 16
    bound_low, bound_high = bound & 0xFFFF, bound >> 16
    middle = high * bound_low + ((low * bound_low) >> 16)
    carry = (low * bound_high + (middle & 0xFFFF)) >> 16
    return (high * bound_high + (middle >> 16) + carry).astype(jnp.int32)

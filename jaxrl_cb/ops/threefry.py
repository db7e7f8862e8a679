"""Threefry-2x32 (Salmon et al. 2011), as JAX has it, without a loop.

On CPU JAX compiles the 20 rounds as a loop of small steps, each handed out on its own. Written out
they are one fused operation. The words are JAX's.
"""

import jax
import jax.numpy as jnp

from jaxrl_cb.types import Array

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def bits(key: Array, count: int) -> Array:
    """``jax.random.bits(key, (count,), jnp.uint32)`` of a threefry key, partitionable (JAX's way).

    Args:
        key: [] typed key.
        count: words, below 2^32.
    """
    first, second = jax.random.key_data(key)
    low = jnp.arange(count, dtype=jnp.uint32)
    high, low = threefry_2x32(first, second, jnp.zeros_like(low), low)
    return high ^ low


def threefry_2x32(key0: Array, key1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """20 rounds over blocks of two words; all uint32."""
    keys = (key0, key1, key0 ^ key1 ^ jnp.uint32(PARITY))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << rotation) | (x1 >> (32 - rotation)))
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1

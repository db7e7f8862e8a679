"""NaN and infinity: where there are any, and since when."""

import functools
import operator

import jax
import jax.numpy as jnp

from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.types import Array, PyTree


def num_nonfinite(*arrays: Array) -> Array:
    """In how many of E places any of these arrays holds NaN or infinity.

    Args:
        arrays: [E, ...] each; those that hold no floating-point numbers are always finite.

    Returns:
        [] int32.
    """
    floating = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    is_bad = [jnp.any(~jnp.isfinite(x), axis=tuple(range(1, x.ndim))) for x in floating]
    if not is_bad:
        return jnp.int32(0)
    return jnp.sum(functools.reduce(operator.or_, is_bad), dtype=jnp.int32)


def index_if_nonfinite(value: Array, index: Array) -> Array:
    """`index` ([] int32) where a value ([]) is NaN or infinite, else `NEVER`."""
    return jnp.where(jnp.isfinite(value), jnp.int32(NEVER), index)


def all_finite(tree: PyTree) -> Array:
    """Whether no leaf of a pytree of numbers holds NaN or infinity; [] bool."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
